"""What people and programs see of a running processor: metrics, lag, health."""

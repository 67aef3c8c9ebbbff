"""The latest value by key, and what is joined with it."""

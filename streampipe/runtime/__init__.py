"""What runs a topology: the pure task, and the worker that feeds it and commits what it gives."""

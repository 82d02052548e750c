"""What a worker writes down of its sandboxes and execs, for the worker that comes after a crash."""

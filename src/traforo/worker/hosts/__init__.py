"""What the worker's host can do, one kernel surface a module. Features are found by trying them, never by version."""

"""The worker: decides how. It owns the sandboxes of one host and is the authority on its capacity."""

"""HTTP, WebSockets and plain TCP forwarded to the ports of sandboxes by the worker. Everything behind it is hostile."""

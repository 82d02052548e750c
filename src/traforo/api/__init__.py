"""The HTTP API that control plane and worker share: its words, its errors, its credentials, its manners.

The only package that knows status codes. It decides nothing about sandboxes and holds none of their state: routes
belong to `control` and `worker`, which bring them here to be made into an application and served.
"""

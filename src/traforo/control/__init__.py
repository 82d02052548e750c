"""The control plane: decides where. It knows the workers, places new sandboxes and sends other requests to their owner.

It refuses to stand in the way of data: after a create nothing passes through it unless a client asks it where to go,
and a worker serves its sandboxes with the control plane down. It never imports the worker.
"""

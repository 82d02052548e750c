"""What a process says about itself: log lines, metrics, trace context, and the policy for labels.

It knows nothing of requests or sandboxes; whoever does tells it numbers and words. Nothing here sends anything
anywhere: logs go to stderr or a file, metrics are fetched, trace context travels in headers that others write.
"""

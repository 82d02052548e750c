"""One command a module, the function of the same name. Nothing here is imported before its command is asked for.

A command turns options into calls of the SDK or of a process's `serve`, and what comes back into output. It decides
nothing about sandboxes.
"""

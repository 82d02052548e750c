"""Code contexts: interpreters that stay, each a command of its own in its sandbox, and the runs of code in them."""

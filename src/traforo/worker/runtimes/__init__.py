"""Drivers that make sandboxes, one package each, unknown to each other; `contract` is what the worker sees of them."""

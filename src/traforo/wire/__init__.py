"""Codecs of what crosses a process boundary: the init protocol. Pure functions over bytes."""

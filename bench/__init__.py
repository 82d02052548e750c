"""Measures traforo beside the kernel's own floor and beside other engines, in one run on one machine.

It exists because an absolute time on a shared machine says little: every figure is taken in turns with the floor and
the peers, and stands as a ratio to them. It asserts nothing and belongs to no test. It imports nothing of traforo: the
server is a process of its own, measured as any client would, over HTTP.
"""

from bench.runs import Options, run

__all__ = ["Options", "run"]

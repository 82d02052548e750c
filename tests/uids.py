"""User ids for the sandboxes of tests. Each process that runs tests has its own: the kernel counts much for a user, and
tests use some of it up.
"""

import os

_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
WORKERS = 0x3000_0000 + _NUMBER * 0x1000_0000
"""First of those of whole workers."""
LABS = 0x7000_0000 + _NUMBER * 0x1000_0000
"""First of those of runtimes alone, which tests of isolation attack."""

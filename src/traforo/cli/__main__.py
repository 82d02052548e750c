"""`python -m traforo.cli`, the same as `traforo`."""

import sys

from traforo import cli

if __name__ == "__main__":
    sys.exit(cli.main())

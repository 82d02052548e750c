"""`traforo version`."""

from __future__ import annotations

import platform

import traforo
from traforo.cli import options, printers


def version(*, json: options.Json = False) -> None:
    """Print the version."""
    if json:
        printers.document({"version": traforo.__version__, "python": platform.python_version()})
    else:
        print(f"traforo {traforo.__version__}")

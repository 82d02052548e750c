"""`traforo bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import traforo
from traforo.cli import options, printers


def bench(*arguments: options.Words) -> int:
    """Measure, in a checkout of the repository.

    The same as `python -m bench`, whose own `--help` tells more: `traforo bench -- --help`.

    Args:
        arguments: Arguments for the benchmark, after `--`.
    """
    root = checkout()
    if root is None:
        printers.error(
            "the benchmark is not part of the installed package",
            "get a checkout of the repository and run `make bench` there",
        )
        return 1
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=root, check=False).returncode


def checkout() -> Path | None:
    """Return the checkout of the repository that this is run in or from, if there is one."""
    for root in (Path.cwd(), Path(traforo.__file__).parents[2]):
        if (root / "bench" / "__main__.py").is_file() and (root / "src" / "traforo").is_dir():
            return root
    return None

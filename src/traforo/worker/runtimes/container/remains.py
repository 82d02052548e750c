"""Control groups that outlived the spawner which would have removed them, and those of the worker itself.

Everything here blocks, and everything is by name: a process id may mean another process by the time it is used.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from traforo.worker.hosts import cgroups


def clear(layout: cgroups.Layout, sandbox_id: str) -> bool:
    """Kill what is left of a sandbox and remove its directories. Returns whether they are gone: else ask again."""
    gone = True
    for hierarchy in layout.hierarchies:
        directory = Path(hierarchy.path, sandbox_id)
        if hierarchy.version == 2:
            with contextlib.suppress(OSError):
                (directory / "cgroup.kill").write_text("1")
        cgroups.remove(directory)
        gone = gone and not directory.exists()
    return gone


def retire(layout: cgroups.Layout) -> None:
    """Remove the worker's own directories, once no sandbox is in them; one in use stays."""
    cgroups.sweep(layout, frozenset())
    for hierarchy in layout.hierarchies:
        with contextlib.suppress(OSError):
            Path(hierarchy.path).rmdir()

"""How a server process is entered: settings and log first, then one event loop until it is asked to stop."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from traforo.settings import groups, sources
from traforo.telemetry import logs

PARENT = "TRAFORO_PARENT_PID"
"""Variable with the id of a process that this one must not outlive; `traforo up` sets it."""
_PR_SET_PDEATHSIG = 1

Settings = TypeVar("Settings", bound=groups.ProcessSettings)


def serve(
    service: str,
    kind: type[Settings],
    flags: Mapping[str, object],
    file: Path | None,
    run: Callable[[Settings], Awaitable[None]],
) -> int:
    """Load the settings and run the process to its end.

    Raises `InvalidRequest` for settings that do not fit, OSError for a log file that cannot be written.
    """
    settings = sources.load(kind, flags, file, os.environ)
    logs.configure(settings.log, service)
    end_with_parent(os.environ.get(PARENT))

    import uvloop

    async def main() -> None:
        await run(settings)

    uvloop.run(main())
    return 0


def end_with_parent(parent: str | None) -> None:
    """Let the kernel send SIGTERM when the parent dies, if it is this one."""
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGTERM)

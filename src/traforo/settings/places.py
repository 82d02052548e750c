"""Default directories: where the system keeps such things for root, and where XDG says so for anyone else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def state_dir(process: str, environ: Mapping[str, str], uid: int) -> Path:
    """Return where a process (`worker`, `control`) keeps what must survive a reboot."""
    if uid == 0:
        return Path("/var/lib/traforo") / process
    if base := _absolute(environ, "XDG_STATE_HOME"):
        return base / "traforo" / process
    return _home(environ) / ".local/state/traforo" / process


def run_dir(process: str, environ: Mapping[str, str], uid: int) -> Path:
    """Return where a process keeps sockets and locks, which mean nothing after a reboot."""
    if uid == 0:
        return Path("/run/traforo") / process
    if base := _absolute(environ, "XDG_RUNTIME_DIR"):
        return base / "traforo" / process
    return state_dir(process, environ, uid) / "run"


def _absolute(environ: Mapping[str, str], name: str) -> Path | None:
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None  # the XDG specification says to ignore relative ones


def _home(environ: Mapping[str, str]) -> Path:
    return _absolute(environ, "HOME") or Path.home()

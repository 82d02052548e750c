"""One directory for everything a run leaves lying about, and the promise that it is gone afterwards.

Engines keep their state where the caller tells them to, but some also leave cgroups or a lock file at fixed places.
Those are noted before the run and removed after it, only if the run made them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_LEFT_CGROUPS = ("kern.slice", "libpod_parent")
_LEFT_FILES = (Path("/dev/shm/libpod_lock"),)
_DETACH = 2
"""MNT_DETACH."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a run may write."""

    disk: Path
    """On the disk of the temporary directory: root file systems, images."""
    memory: Path
    """On a tmpfs where that may be mounted, as /run is on an installed system: state of engines."""

    @property
    def environment(self) -> dict[str, str]:
        """An environment that keeps an engine's files inside this directory."""
        names = {"HOME": "home", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state"}
        places = {name: str(self._made(self.disk / place)) for name, place in names.items()}
        return {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self._made(self.memory / "runtime")), **places}

    @staticmethod
    def _made(path: Path) -> Path:
        path.mkdir(mode=0o700, exist_ok=True)
        return path


@contextlib.contextmanager
def opened() -> Iterator[Scratch]:
    """Make the directory, hand it out, and remove it with everything that was left elsewhere."""
    before = set(_leftovers())
    directory = Path(tempfile.mkdtemp(prefix="traforo-bench-"))
    # Sandboxes in user namespaces reach the root file system through here as somebody else.
    directory.chmod(0o755)
    memory = directory / "memory"
    memory.mkdir(mode=0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    # Without the right to mount, the directory stays on the disk.
    libc.mount(b"tmpfs", os.fsencode(memory), b"tmpfs", 0, b"size=512m,mode=755")
    try:
        yield Scratch(disk=directory, memory=memory)
    finally:
        _unmount_below(libc, directory)
        shutil.rmtree(directory, ignore_errors=True)
        for path in set(_leftovers()) - before:
            _remove(path)


def _unmount_below(libc: ctypes.CDLL, directory: Path) -> None:
    """Detach what an engine that was ended midway left mounted, innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{directory}/")]):
        libc.umount2(os.fsencode(mount), _DETACH)


def _leftovers() -> Iterator[Path]:
    for name in _LEFT_CGROUPS:
        yield from (path for path in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if path.is_dir())
    yield from (path for path in _LEFT_FILES if path.exists())


def _remove(path: Path) -> None:
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    for child, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):  # a cgroup still in use stays
            Path(child).rmdir()

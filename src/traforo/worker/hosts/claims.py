"""Which user ids the workers of this host give to sandboxes, told by files that those who use them hold locks on.

Two sandboxes with the same ids are still two sandboxes; but what the kernel counts by user they share, and a process
that got out of one would own the other. So whoever starts a second worker on the same ids is told.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path("/run/traforo/uids")
"""Where the files are: root's alone."""
_GATE = "gate"
_MAX_OWNER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Range:
    """User ids of one worker's sandboxes."""

    first: int
    end: int
    """The first behind them."""
    owner: str
    """The state directory of the worker."""

    def overlaps(self, other: Range) -> bool:
        """Tell whether another worker may use some of these."""
        return self.owner != other.owner and self.first < other.end and other.first < self.end


def claim(wanted: Range, directory: Path = DIRECTORY) -> tuple[int, Sequence[Range]]:
    """Claim ids as long as the returned descriptor, or a copy of it, is open; return with it who claims some of them.

    Raises OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _gate(directory):
        others = [found for found in _held(directory, forget=True) if found.overlaps(wanted)]
        path = directory / _name(wanted)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # shared: with the spawner of an earlier worker process
            os.pwrite(descriptor, os.fsencode(wanted.owner), 0)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor, others


def claimed(directory: Path = DIRECTORY) -> Sequence[Range]:
    """Return what is claimed now; nothing where this process may not know."""
    try:
        return list(_held(directory, forget=False))
    except OSError:
        return []


@contextlib.contextmanager
def _gate(directory: Path) -> Iterator[None]:
    """Let one process in at a time: what nobody holds a lock on may be somebody's who is about to."""
    with (directory / _GATE).open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def _held(directory: Path, *, forget: bool) -> Iterator[Range]:
    for path in sorted(directory.iterdir()):
        if path.name == _GATE:
            continue
        with contextlib.suppress(FileNotFoundError, ValueError), path.open("rb") as file:
            first, end, _ = (int(part, 16) for part in path.name.split("-"))
            if _is_locked(file.fileno()):
                yield Range(first, end, os.fsdecode(file.read(_MAX_OWNER_BYTES)))
            elif forget:
                path.unlink()


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _name(wanted: Range) -> str:
    owner = hashlib.sha256(os.fsencode(wanted.owner)).hexdigest()[:16]
    return f"{wanted.first:x}-{wanted.end:x}-{owner}"

"""Local files that uploads come from and downloads go to. Blocking code: whoever calls it decides in which thread."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

BLOCK_BYTES = 256 * 1024
"""Bytes that are read or written at once."""

Progress = Callable[[int, int | None], object] | None
"""Told the bytes that are done and the bytes there are, None where only the end tells."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local file to read from."""

    file: IO[bytes]
    size: int | None
    """Bytes; None where only the end tells, as for a pipe."""


@dataclass(frozen=True, slots=True)
class Target:
    """A local file to write to. It has its name only after `commit`."""

    file: IO[bytes]
    commit: Callable[[], None]
    discard: Callable[[], None]


def source(path: str | os.PathLike[str]) -> Source:
    """Open a local file for reading. Raises OSError."""
    file = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    facts = os.fstat(file.fileno())
    return Source(file, facts.st_size if stat.S_ISREG(facts.st_mode) else None)


def target(path: str | os.PathLike[str]) -> Target:
    """Open a local file for writing: a new one beside it, or itself where it is a device or a pipe. Raises OSError."""
    final = Path(path)
    if final.exists() and not final.is_file():
        file = final.open("wb")
        return Target(file, file.close, file.close)
    final = final.resolve()  # what a link points to is replaced, not the link
    part = final.with_name(f".{final.name[:64]}.{secrets.token_hex(8)}.part")
    file = part.open("xb")

    def commit() -> None:
        file.close()
        part.replace(final)

    def discard() -> None:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            part.unlink()

    return Target(file, commit, discard)


def watched(file: IO[bytes], size: int | None, progress: Progress) -> IO[bytes]:
    """Return a file whose reader is watched, or the file itself if nobody watches."""
    return cast("IO[bytes]", _Watched(file, size, progress)) if progress else file


class _Watched:
    def __init__(self, file: IO[bytes], size: int | None, progress: Callable[[int, int | None], object]) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._done = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if data:
            self._done += len(data)
            self._progress(self._done, self._size)
        return data

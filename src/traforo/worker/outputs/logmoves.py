"""One addition to a frame log, as a value: what is written where, and from which pipe the rest comes.

`framelogs` decides it and makes its result known; carrying it out may take as long as the disk takes,
so it touches nothing but descriptors and can be done in any thread. It refuses to leave anything behind when it fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from traforo.worker.outputs import frames

_FALLBACK_BYTES = 64 * 1024


class Place(Protocol):
    """Where the files of logs are made and dropped."""

    def make(self, path: str) -> int:
        """Return the descriptor of an empty new file. Raises OSError."""
        ...

    def discard(self, paths: Sequence[str]) -> None:
        """Remove files that may be large and may be gone already, now or soon."""
        ...


class Plain:
    """A place without anything made ahead, where removing is done at once."""

    def make(self, path: str) -> int:
        """Return the descriptor of an empty new file, making its directory where that is missing. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)

    def discard(self, paths: Sequence[str]) -> None:
        """Remove files."""
        for path in paths:
            unlink(path)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes and where they go."""

    offset: int
    data: bytes

    def write(self, fd: int) -> None:
        """Write all of it. Raises OSError."""
        done = 0
        while done < len(self.data):
            done += os.pwrite(fd, self.data[done:], self.offset + done)


@dataclass(slots=True)
class Move:
    """Decided by `FrameLog.begin`, carried out once by `run` or `write`, made known by `FrameLog.commit`."""

    fd: int
    """File of the current segment; -1 when there is none."""
    at: int
    """Offset of the payload, in the new segment if one begins."""
    room: int
    """Most bytes it may take."""
    header: frames.Header | None = None
    """Of the new frame; None when the last frame grows."""
    closing: Piece | None = None
    """Header of the last frame with its length, for the current segment."""
    opening: Piece | None = None
    """Header of the new frame."""
    path: str = ""
    """File of the new segment, when one begins."""
    doomed: list[str] = field(default_factory=list)
    """Files of the oldest segments, which `FrameLog.commit` drops when that segment is there."""
    made: int = -1
    """Descriptor of the new segment, once it is there."""
    place: Place = field(default_factory=Plain)
    """Where that file is made."""
    wasted: int = 0
    """Bytes that were taken from the pipe and then refused by the disk, where the file system cannot splice."""

    def run(self, source: int, limit: int) -> int:
        """Move what the non-blocking pipe `source` holds now, at most `limit` bytes, and return how many it was.

        Blocks for as long as the disk does. Raises OSError when the disk refuses: then nothing was taken, unless the
        file system cannot splice and refused what had been read already.
        """
        target = self._prepare()
        try:
            return self._splice(source, target, min(limit, self.room))
        except OSError:
            self._undo(target)
            raise

    def write(self, payload: bytes) -> None:
        """Write a payload that is in memory. Raises OSError; then nothing is left of it."""
        target = self._prepare()
        try:
            Piece(self.at, payload).write(target)
        except OSError:
            self._undo(target)
            raise

    def _splice(self, source: int, target: int, wanted: int) -> int:
        moved = 0
        while moved < wanted:
            try:
                at = self.at + moved
                count = os.splice(source, target, wanted - moved, offset_dst=at, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                break
            except OSError as error:
                if moved:
                    break  # what was moved counts; the next attempt meets the same error
                if error.errno != errno.EINVAL:
                    raise
                return self._copy(source, target, wanted)
            if count == 0:
                break
            moved += count
        return moved

    def _copy(self, source: int, target: int, wanted: int) -> int:
        """Do by reading and writing what `splice` refuses where a file system has no such operation."""
        try:
            data = os.read(source, min(wanted, _FALLBACK_BYTES))
        except BlockingIOError:
            return 0
        self.wasted = len(data)
        Piece(self.at, data).write(target)
        self.wasted = 0
        return len(data)

    def _prepare(self) -> int:
        if self.closing is not None:
            self.closing.write(self.fd)
        target = self.fd
        if self.path:
            target = self.made = self.place.make(self.path)
        if self.opening is not None:
            try:
                self.opening.write(target)
            except OSError:
                self._undo(target)
                raise
        return target

    def _undo(self, target: int) -> None:
        """Leave the file as long as it was: an open frame that follows must not find old bytes behind it."""
        if self.made >= 0:
            os.close(self.made)
            self.made = -1
            unlink(self.path)
            return
        with contextlib.suppress(OSError):
            os.ftruncate(target, self.at if self.header is None else self.at - frames.HEADER_BYTES)


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    Path(path).unlink(missing_ok=True)

"""Empty files made ahead, for logs that begin while somebody waits.

Making a file can cost a file system in heavy use a tenth of the time of a whole command: ext4 searches for an inode
that was not freed lately. So a few are made in a thread before they are wanted, and files of forgotten logs are used
again; taking one is a rename. What is left over from an earlier process is swept away at start.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

PREFIX = "blank-"
LOW = 16
"""Fewer than this, and more are made."""
FULL = 64
"""As many as are kept; each holds a descriptor."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Blanks:
    """Empty files in one directory. Safe to use from any thread."""

    def __init__(self, directory: Path, executor: futures.Executor) -> None:
        self._directory = directory
        self._executor = executor
        self._ready: deque[tuple[int, str]] = deque()
        self._numbers = itertools.count()
        self._filling = False
        self._closed = False

    def make(self, path: str) -> int:
        """Return the descriptor of an empty new file at `path`, in this directory. Raises OSError."""
        if len(self._ready) < LOW and not self._filling:
            self._filling = True
            with contextlib.suppress(RuntimeError):  # the threads are being stopped
                self._executor.submit(self.prepare)
        try:
            fd, name = self._ready.popleft()
        except IndexError:
            return self._create(path)
        try:
            os.rename(name, path)  # noqa: PTH104 - on the way of a command, and pathlib takes longer than the kernel
        except OSError:
            os.close(fd)
            return self._create(path)
        return fd

    def discard(self, paths: Sequence[str]) -> None:
        """Remove files soon, in a thread."""
        if paths:
            with contextlib.suppress(RuntimeError):  # the threads are being stopped, and whoever starts next cleans up
                self._executor.submit(_unlink, tuple(paths))

    def recycle(self, path: str) -> None:
        """Remove a file that nobody has open any more, or keep it, empty, for later. Blocks for a moment."""
        try:
            if len(self._ready) >= FULL or self._closed:
                Path(path).unlink(missing_ok=True)
                return
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            name = self._name()
            os.ftruncate(fd, 0)
            Path(path).rename(name)
        except OSError:
            os.close(fd)
            Path(path).unlink(missing_ok=True)
            return
        self._ready.append((fd, name))

    def close(self) -> None:
        """Remove what is left, and make no more."""
        self._closed = True
        while self._ready:
            fd, name = self._ready.popleft()
            os.close(fd)
            Path(name).unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make as many as are kept. Blocks."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            while len(self._ready) < FULL and not self._closed:
                name = self._name()
                self._ready.append((os.open(name, _FLAGS | os.O_EXCL, 0o600), name))
        except OSError:
            pass  # whoever wants a file makes it then, and meets the error
        finally:
            self._filling = False

    def _name(self) -> str:
        return f"{self._directory}/{PREFIX}{os.getpid()}-{next(self._numbers)}"

    def _create(self, path: str) -> int:
        try:
            return os.open(path, _FLAGS | os.O_TRUNC, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, _FLAGS | os.O_TRUNC, 0o600)


def _unlink(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)

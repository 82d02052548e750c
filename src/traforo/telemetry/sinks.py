"""Where log lines end up. A sink that fails loses lines; it never fails whoever logs."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import BinaryIO


class Sink:
    """Where lines go: stderr, or a file that is rotated by size (`name`, then `name.1`, the newest of the old)."""

    def __init__(self, path: Path | None = None, rotate_size: int = 0, max_rotations: int = 0) -> None:
        self._path = path
        self._rotate_size = rotate_size
        self._max_rotations = max_rotations
        self._size = 0
        self._file: BinaryIO | None = None
        if path is not None:
            self._open(path)

    def write(self, line: bytes) -> None:
        """Write one line with its newline, in one piece. Never raises."""
        try:
            if self._file is None or self._path is None:
                sys.stderr.write(line.decode())
                sys.stderr.flush()
                return
            if self._size + len(line) > self._rotate_size and self._size:
                self._rotate(self._path)
            self._file.write(line)
            self._size += len(line)
        except (OSError, ValueError, AttributeError):
            pass  # a full disk or a closed stderr must not stop the work that is being logged

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._size = os.fstat(descriptor).st_size

    def _rotate(self, path: Path) -> None:
        self.close()
        if self._max_rotations == 0:
            path.unlink(missing_ok=True)
        for number in range(self._max_rotations, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self._open(path)

"""Somebody at a terminal: runs a program on a pseudo terminal, types to it and reads what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SECONDS = 20.0


class Typist:
    """One program on a terminal of its own."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], rows: int = 30, columns: int = 100) -> None:
        self._master, self._slave = pty.openpty()  # the other end stays open here, to look at what it was left as
        self.resize(rows, columns, tell=False)
        self.before = termios.tcgetattr(self._slave)
        self.seen = b""
        """Everything that was shown."""
        self._read = 0
        self.process = subprocess.Popen(
            argv, stdin=self._slave, stdout=self._slave, stderr=self._slave, env=dict(env), start_new_session=True
        )

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        """Change the size of the terminal, as dragging its window does."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._master, keys)

    def until(self, text: bytes) -> bytes:
        """Wait until a text is shown behind what was waited for before, and return all up to it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen[self._read :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[self._read :]!r}"
            assert self._more(0.1) or self.process.poll() is None, f"ended with {self.seen[self._read :]!r}"
        end = self.seen.index(text, self._read) + len(text)
        found, self._read = self.seen[self._read : end], end
        return found

    def wait(self) -> int:
        """Wait for the end of the program and return its exit code."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self.seen!r}"
            self._more(0.05)
        while self._more(0):
            pass
        return self.process.returncode

    @property
    def now(self) -> list[Any]:
        """What the terminal is set to."""
        return termios.tcgetattr(self._slave)

    @property
    def raw(self) -> bool:
        """Whether every key is handed on as it is."""
        return not self.now[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def _more(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.seen += os.read(self._master, 65536)
        return True

    def close(self) -> None:
        """End it all."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)


@contextlib.contextmanager
def typist(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[Typist]:
    """Run a program on a terminal for a block."""
    found = Typist(argv, env)
    try:
        yield found
    finally:
        found.close()

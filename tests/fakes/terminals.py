"""A terminal of a fake sandbox: what the init's relay does for a real one, done by two threads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import threading
from collections.abc import Sequence

from traforo.worker.runtimes import contract

_END_OF_FILE = b"\x04"
_TAKE_OVER = 'exec 0<>"$0" 1>&0 2>&0; exec "$@"'
"""The leader of a session that opens a terminal gets it as its own."""


class Terminal:
    """A pair of terminal and pipes. `stdout` is for reading, `stdin` for writing; their receiver closes them."""

    def __init__(self, size: contract.TerminalSize) -> None:
        self._master, self._slave = pty.openpty()
        self.name = os.ttyname(self._slave)
        self.resize(size)
        self.stdout, self._out = os.pipe()
        self._in, self.stdin = os.pipe()
        self._wake, self._done = os.pipe()
        self._is_over = False
        self._input: threading.Thread | None = None

    def command(self, program: str, argv: Sequence[str]) -> list[str]:
        """Return what starts a program on it, and begin to relay."""
        self._input = threading.Thread(target=self._relay_input, name="fake terminal", daemon=True)
        self._input.start()
        threading.Thread(target=self._relay_output, args=(self._input,), name="fake terminal", daemon=True).start()
        return ["/bin/sh", "-c", _TAKE_OVER, self.name, program, *argv[1:]]

    def resize(self, size: contract.TerminalSize) -> None:
        """Set its size; who runs in front is told."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))

    def ended(self) -> None:
        """Let go of it: its command has ended."""
        if not self._is_over:
            self._is_over = True
            os.close(self._slave)
            os.close(self._done)

    def discard(self) -> None:
        """Undo all of it: its command never started."""
        self.ended()
        os.close(self.stdout)
        os.close(self.stdin)
        if self._input is None:
            for descriptor in (self._master, self._out, self._in, self._wake):
                os.close(descriptor)

    def _relay_output(self, other: threading.Thread) -> None:
        with contextlib.suppress(OSError):  # nobody has it open any more
            while piece := os.read(self._master, 4096):
                _write(self._out, piece)
        os.close(self._out)
        other.join()
        os.close(self._master)

    def _relay_input(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([self._in, self._wake], [], [])
                if self._wake in ready:
                    break
                piece = os.read(self._in, 4096)
                _write(self._master, piece or _END_OF_FILE)
                if not piece:
                    break
        os.close(self._in)
        os.close(self._wake)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]

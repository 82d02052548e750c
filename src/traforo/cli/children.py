"""Server processes that `traforo up` starts: each in a process group of its own, its words in files, stopped in order
within bounds.

They are told to end when this process dies, so that none is left behind.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from traforo.cli import interrupts, processes

SHOWN_LINES = 12
_IMPATIENCE_SECONDS = 1.0
_SHOWN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Child:
    """One server process."""

    name: str
    process: subprocess.Popen[bytes]
    words: Path
    """What it wrote to stdout and stderr: nothing, unless it failed."""
    log: Path
    """Its log."""

    def last_words(self) -> str:
        """Return the end of what it wrote and of its log."""
        return "\n".join(part for part in (_tail(self.words), _tail(self.log)) if part)

    def ended(self) -> str:
        """Return how it ended, in words."""
        code = self.process.returncode
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"the {self.name} process ended {how}"


def start(name: str, arguments: Sequence[str], logs: Path) -> Child:
    """Start `traforo <name>`. Raises OSError."""
    logs.mkdir(parents=True, exist_ok=True)
    words, log = logs / f"{name}.err", logs / f"{name}.log"
    environment = {**os.environ, processes.PARENT: str(os.getpid())}
    with words.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "traforo.cli", name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            process_group=0,  # Ctrl-C is for this process, which stops them in order
        )
    return Child(name, process, words, log)


def stop(children: Sequence[Child], seconds: float, stopping: StopSignals) -> bool:
    """Stop them one after the other, the last started first, and return whether all ended cleanly by themselves.

    What has not ended after `seconds`, or when a person gets impatient, is killed.
    """
    clean = True
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.terminate()
        deadline = time.monotonic() + seconds
        while child.process.poll() is None and time.monotonic() < deadline and not stopping.urgent:
            stopping.wait([child], deadline - time.monotonic())
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()
            clean = False
        clean = clean and child.process.returncode == 0
    return clean


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP as something to wait for together with the end of a child."""

    def __init__(self) -> None:
        self.count = 0
        """How often a stop was asked for."""
        self.urgent = False
        """Ctrl-C came again, a second or more after the first: some tools send a signal twice at once."""
        self._first: float | None = None
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = socket.socketpair()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals for a block."""
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector.register(self._reader, selectors.EVENT_READ)
        wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        former = {number: signal.signal(number, self._on_signal) for number in interrupts.SIGNALS}
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in former.items():
                signal.signal(number, handler)
            self._selector.close()
            self._reader.close()
            self._writer.close()

    def wait(self, children: Sequence[Child], seconds: float | None) -> None:
        """Return when a stop is asked for, a child has ended, or the time is over."""
        with contextlib.ExitStack() as stack:
            for child in children:
                try:
                    descriptor = os.pidfd_open(child.process.pid)
                except ProcessLookupError:
                    return
                stack.callback(os.close, descriptor)
                self._selector.register(descriptor, selectors.EVENT_READ)
                stack.callback(self._selector.unregister, descriptor)
            self._selector.select(None if seconds is None else max(0.0, seconds))
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(4096)

    def _on_signal(self, number: int, _: object) -> None:
        self.count += 1
        if number == signal.SIGINT:
            self._first = self._first or time.monotonic()
            self.urgent = time.monotonic() - self._first >= _IMPATIENCE_SECONDS


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _SHOWN_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-SHOWN_LINES:])

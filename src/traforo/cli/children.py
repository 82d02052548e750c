"""Server processes that `traforo up` starts: each in a process group of its own, its words in files, stopped in order
within bounds.

They are told to end when this process dies, so that none is left behind.
"""

from __future__ import annotations

import contextlib
import json
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
from typing import Any

from traforo.cli import interrupts, processes

_IMPATIENCE_SECONDS = 1.0
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Child:
    """One server process."""

    name: str
    process: subprocess.Popen[bytes]
    words: Path
    """What it wrote to stdout and stderr: nothing, unless it failed."""
    log: Path
    """Its log."""
    log_size: int = 0
    """Bytes that its log had when it was started: those of earlier processes."""

    def ended(self) -> str:
        """Return how it ended, in words."""
        code = self.process.returncode
        how = f"by signal {-code} ({_signal_name(-code)})" if code < 0 else f"with exit code {code}"
        return f"the {self.name} process ended {how}"

    def said(self) -> tuple[str, str]:
        """Return the error that it ended with, as it told it, and its hint; each empty where there is none."""
        lines = [line for line in _tail(self.words, 0) if line.strip() and not line.startswith("{")]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
        return (told or lines or [""])[-1].strip(), (hints or [""])[-1]

    def last_error(self) -> str:
        """Return the last error in its log, with its time and in words; nothing where there is none."""
        for line in reversed(_tail(self.log, self.log_size)):
            record = _record(line)
            if record.get("level") in {"error", "critical"}:
                cause = record.get("error") or (str(record.get("exception") or "").splitlines() or [""])[-1]
                text = str(record.get("event") or "error").replace("_", " ")
                return f"{record.get('ts')}: {text}" + (f": {cause}" if cause else "")
        return ""


def start(name: str, arguments: Sequence[str], logs: Path, log: Path | None = None) -> Child:
    """Start `traforo <name>`, whose words go to a file in `logs`; `log` is where it logs, if not there.

    Raises OSError.
    """
    logs.mkdir(parents=True, exist_ok=True)
    words, log = logs / f"{name}.err", log or logs / f"{name}.log"
    log_size = log.stat().st_size if log.is_file() else 0
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
    return Child(name, process, words, log, log_size)


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


def _tail(path: Path, begin: int) -> list[str]:
    """Return the last lines of a file, none from before `begin` unless it was begun anew since."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _READ_BYTES, begin if begin <= size else 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"

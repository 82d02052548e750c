"""How far a copy is: one line on stderr that is written over, and only where somebody sees it."""

from __future__ import annotations

import sys
import time
from typing import Self

from traforo.cli import printers

_WIDTH = 30
_LEAST_SECONDS = 0.1
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(count: float) -> str:
    """Return a number of bytes in a unit that is easy to read."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def line(name: str, done: int, size: int | None, seconds: float) -> str:
    """Return what to show."""
    rate = f"{amount(done / seconds)}/s" if seconds > 0 else ""
    if not size:
        return f"{name}  {amount(done)}  {rate}"
    share = min(1.0, done / size)
    bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH)
    return f"{name}  [{bar}] {share:4.0%}  {amount(done)} of {amount(size)}  {rate}"


class Meter:
    """Shows how far something is. Does nothing where stderr is no terminal."""

    def __init__(self, name: str, size: int | None = None) -> None:
        self._name = printers.shown(name)
        self._size = size
        self._shown = sys.stderr.isatty()
        self._started = self._last = time.monotonic()
        self._done = 0
        self._any = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._any:
            self._show(time.monotonic())
            print(file=sys.stderr)

    def add(self, count: int) -> None:
        """Count bytes that went through."""
        self.set(self._done + count, self._size)

    def set(self, done: int, size: int | None) -> None:
        """Say how many bytes went through, and of how many."""
        self._done, self._size = done, size
        now = time.monotonic()
        if self._shown and now - self._last >= _LEAST_SECONDS:
            self._show(now)

    def _show(self, now: float) -> None:
        self._last, self._any = now, True
        text = line(self._name, self._done, self._size, now - self._started)
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

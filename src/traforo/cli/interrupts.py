"""Ctrl-C and its relatives while something on the server has to be cleaned up.

SIGINT, SIGTERM and SIGHUP raise `Interrupted` where the program is, so that `finally` runs. Within `held` they wait:
what is being created is known before the program turns back to delete it. The second one does not wait.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal, as a shell reports it."""
        return 128 + self.number


class Interrupts:
    """The handlers; made by `handled`."""

    def __init__(self) -> None:
        self._holding = False
        self._waiting: int | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the first signal wait until the block is over."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting is not None:
            raise Interrupted(self._waiting)

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        if self._holding and self._waiting is None:
            self._waiting = number
            return
        raise Interrupted(number)


@contextlib.contextmanager
def handled() -> Iterator[Interrupts]:
    """Install the handlers for a block; the former ones come back after it."""
    interrupts = Interrupts()
    former = {number: signal.signal(number, interrupts.on_signal) for number in SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

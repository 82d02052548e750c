"""When somebody last did something with a sandbox: what its idle limit is measured against.

Durations are on the monotonic clock, so a step of the wall clock ends nothing early and keeps nothing alive. Touching
and holding are O(1) and set no timer: whoever enforces a limit looks when it is due, and again when the answer is
"later". Nothing here ends a sandbox.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from traforo.domain import clocks


class Hold:
    """Keeps a sandbox from being idle until it is released: a context manager, or `release` by hand."""

    __slots__ = ("_activity",)

    def __init__(self, activity: Activity) -> None:
        self._activity: Activity | None = activity

    def release(self) -> None:
        """Let go; the sandbox was active until now. Idempotent."""
        activity, self._activity = self._activity, None
        if activity is not None:
            activity.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Activity:
    """The activity of one sandbox. It counts as active at the moment when this is made."""

    __slots__ = ("_clock", "_last", "holds")

    def __init__(self, clock: clocks.Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self.holds = 0
        """How many hold it now; it is not idle while any does."""

    def touch(self) -> None:
        """Tell that it was used now."""
        self._last = self._clock.monotonic()

    def hold(self) -> Hold:
        """Return a hold: the sandbox is not idle until it is released."""
        self.holds += 1
        return Hold(self)

    def let_go(self) -> None:
        """Take one hold back. For `Hold` alone."""
        self.holds -= 1
        self.touch()

    def idle(self) -> float:
        """Return for how many seconds nobody has used it; 0 while it is held."""
        return 0.0 if self.holds else max(0.0, self._clock.monotonic() - self._last)

    def last(self) -> float:
        """Return when it was last used, in Unix seconds; that is now while it is held."""
        return self._clock.now() - self.idle()

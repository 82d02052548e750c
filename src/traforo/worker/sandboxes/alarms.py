"""One timer for everything that is due some time: at the next due moment, and at least once a second.

Due moments are wall time, timers run on the monotonic clock. Looking at least once a second is what makes a step of
the wall clock (NTP, a resumed laptop) harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from traforo.domain import clocks

LONGEST_SECONDS = 1.0
"""Longest wait between two looks at the clock."""


class Alarm:
    """Calls `action` once for each time it was armed; the earliest moment counts."""

    def __init__(self, clock: clocks.Clock, action: Callable[[], None]) -> None:
        self._clock = clock
        self._action = action
        self._timer: asyncio.TimerHandle | None = None
        self._at = float("inf")

    def arm(self, at: float | None = None) -> None:
        """Have the action called at `at` (Unix seconds; None is no particular time), or in a second at the latest."""
        now = self._clock.now()
        latest = now + LONGEST_SECONDS
        at = latest if at is None else min(max(at, now), latest)
        if self._timer is None or at < self._at:
            self.cancel()
            self._at = at
            self._timer = asyncio.get_running_loop().call_later(at - now, self._ring)

    def cancel(self) -> None:
        """Forget the moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._action()

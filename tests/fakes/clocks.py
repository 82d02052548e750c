"""A clock that stands still until it is moved."""

from __future__ import annotations


class FakeClock:
    """`domain.clocks.Clock` for tests; wall time and monotonic time move together."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock, as NTP does; no time passes."""
        self._now += seconds

"""The one timer: the earliest moment counts, and none is later than a second."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import clocks
from traforo.worker.sandboxes import alarms


class Loop:
    """Takes the place of the event loop's timers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[float, asyncio.TimerHandle]] = []
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def call_later(delay: float, *args: object) -> asyncio.TimerHandle:
            handle = real(3600, *args)  # type: ignore[arg-type]  # passes on whatever it got
            self.calls.append((round(delay, 6), handle))
            return handle

        monkeypatch.setattr(loop, "call_later", call_later)

    @property
    def waiting(self) -> list[float]:
        return [delay for delay, handle in self.calls if not handle.cancelled()]


async def test_the_earliest_moment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arming for later changes nothing, for sooner moves the timer; one timer at most."""
    clock, loop, rung = clocks.FakeClock(), Loop(monkeypatch), []
    alarm = alarms.Alarm(clock, lambda: rung.append(1))
    now = clock.now()
    alarm.arm(now + 0.5)
    alarm.arm(now + 0.8)
    assert loop.waiting == [0.5]
    alarm.arm(now + 0.2)
    assert loop.waiting == [0.2]
    alarm.arm(now - 10)
    assert loop.waiting == [0.0]
    alarm.cancel()
    assert loop.waiting == []
    alarm.arm()
    assert loop.waiting == [1.0]
    alarm.cancel()


async def test_no_moment_is_later_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a step of the wall clock is seen."""
    clock, loop = clocks.FakeClock(), Loop(monkeypatch)
    alarm = alarms.Alarm(clock, lambda: None)
    alarm.arm(clock.now() + 3600)
    assert loop.waiting == [1.0]
    alarm.cancel()


async def test_it_rings_once_for_each_arming() -> None:
    """And may be armed again from within."""
    clock = clocks.FakeClock()
    rung = asyncio.Event()
    count = []

    def ring() -> None:
        count.append(1)
        if len(count) < 3:
            alarm.arm(clock.now())
        else:
            rung.set()

    alarm = alarms.Alarm(clock, ring)
    alarm.arm(clock.now())
    await rung.wait()
    assert len(count) == 3

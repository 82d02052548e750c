"""Activity: what counts as being used, and since when it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import clocks
from traforo.worker.sandboxes import activities


def test_touching() -> None:
    """Idle time begins with the last touch; making it was one."""
    clock = clocks.FakeClock()
    activity = activities.Activity(clock)
    clock.move(7)
    assert (activity.idle(), activity.last()) == (7.0, clock.now() - 7)
    activity.touch()
    assert activity.idle() == 0.0
    clock.move(2)
    assert activity.idle() == 2.0


def test_a_hold_is_use_until_it_is_released() -> None:
    """However long it lasts, whether it is left or released by hand, once or twice."""
    clock = clocks.FakeClock()
    activity = activities.Activity(clock)
    with activity.hold():
        clock.move(100)
        assert (activity.idle(), activity.last(), activity.holds) == (0.0, clock.now(), 1)
    clock.move(3)
    assert activity.idle() == 3.0
    with pytest.raises(ZeroDivisionError), activity.hold():
        raise ZeroDivisionError
    hold = activity.hold()
    other = activity.hold()
    hold.release()
    hold.release()
    clock.move(5)
    assert (activity.idle(), activity.holds) == (0.0, 1)
    other.release()
    assert activity.holds == 0


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    """Only time that passes makes idle."""
    clock = clocks.FakeClock()
    activity = activities.Activity(clock)
    clock.move(4)
    clock.step(-3600)
    assert (activity.idle(), activity.last()) == (4.0, clock.now() - 4)
    clock.step(7200)
    assert activity.idle() == 4.0


steps = st.lists(st.sampled_from(["touch", "hold", "release", "wait"]), max_size=60)


@given(steps)
def test_any_order(found: list[str]) -> None:
    """Idle time is the time since the last touch or release, and nothing while anybody holds."""
    clock = clocks.FakeClock()
    activity = activities.Activity(clock)
    holds: list[activities.Hold] = []
    idle = 0.0
    for step in found:
        match step:
            case "touch":
                activity.touch()
                idle = 0.0
            case "hold":
                holds.append(activity.hold())
            case "release" if holds:
                holds.pop().release()
                idle = 0.0
            case "wait":
                clock.move(1.0)
                idle += 1.0
        assert activity.holds == len(holds)
        assert activity.idle() == (0.0 if holds else idle)

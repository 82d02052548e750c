"""Deadlines: what is due, in which order, in how much memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from traforo.domain import errors
from traforo.worker.sandboxes import leases


@pytest.mark.parametrize("asked, expected", [(None, 30.0), (1, 1.0), (60, 60.0)])
def test_a_lease_has_a_length(asked: float | None, expected: float) -> None:
    """What is asked for within the limits, else the default."""
    assert leases.ttl(asked, default=30, most=60) == expected


@pytest.mark.parametrize("asked", [0, -1, 0.99, 60.1, float("nan"), float("inf")])
def test_a_lease_that_cannot_be_kept_is_refused(asked: float) -> None:
    """Shorter than a second or longer than allowed."""
    with pytest.raises(errors.InvalidRequest) as caught:
        leases.ttl(asked, default=30, most=60)
    assert caught.value.fields == {"field": "ttl_seconds"}


def test_due_is_at_the_very_moment() -> None:
    """A lease that ends at a time is over at that time, not a moment before."""
    deadlines = leases.Deadlines()
    deadlines.set("a", 10.0)
    assert deadlines.pop(9.999) == []
    assert deadlines.pop(10.0) == ["a"]
    assert deadlines.pop(10.0) == []


def test_a_moved_deadline_counts_where_it_is_now() -> None:
    """Renewed later and renewed sooner: the last word holds."""
    deadlines = leases.Deadlines()
    deadlines.set("later", 10.0)
    deadlines.set("later", 20.0)
    deadlines.set("sooner", 30.0)
    deadlines.set("sooner", 5.0)
    assert deadlines.next() == 5.0
    assert deadlines.pop(10.0) == ["sooner"]
    assert deadlines.pop(20.0) == ["later"]


def test_ten_thousand_renewals_take_no_memory() -> None:
    """Renewing one lease over and over leaves nothing behind."""
    deadlines = leases.Deadlines()
    for number in range(10_000):
        deadlines.set("a", float(number))
    assert len(deadlines) == 1
    assert deadlines.slots <= 2 * 1 + 64


class DeadlineModel(RuleBasedStateMachine):
    """Deadlines do what a sorted dictionary would do."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = leases.Deadlines()
        self.model: dict[str, float] = {}

    @rule(key=st.sampled_from("abcdef"), at=st.integers(0, 100))
    def set(self, key: str, at: int) -> None:
        self.deadlines.set(key, float(at))
        self.model[key] = float(at)

    @rule(key=st.sampled_from("abcdef"))
    def drop(self, key: str) -> None:
        self.deadlines.drop(key)
        self.model.pop(key, None)

    @rule(now=st.integers(0, 100))
    def pop(self, now: int) -> None:
        due = sorted((at, key) for key, at in self.model.items() if at <= now)
        assert self.deadlines.pop(float(now)) == [key for _, key in due]
        for _, key in due:
            del self.model[key]

    @invariant()
    def same(self) -> None:
        assert len(self.deadlines) == len(self.model)
        assert self.deadlines.next() == min(self.model.values(), default=None)
        assert {key for key in "abcdef" if key in self.deadlines} == set(self.model)
        assert self.deadlines.slots <= 2 * len(self.model) + 64


TestDeadlineModel = DeadlineModel.TestCase


@pytest.mark.parametrize("asked, expected", [(None, None), (0.0, None), (5.0, 5.0), (100, 100.0)])
def test_an_idle_limit(asked: float | None, expected: float | None) -> None:
    """None and 0 are no limit."""
    assert leases.idle(asked, most=100.0) == expected


@pytest.mark.parametrize("asked", [-1.0, 0.1, 4.999, 100.1])
def test_an_idle_limit_that_cannot_be_kept(asked: float) -> None:
    """It is refused, and the field is named."""
    with pytest.raises(errors.InvalidRequest) as caught:
        leases.idle(asked, most=100.0)
    assert caught.value.fields == {"field": "idle_seconds"}


@given(limit=st.floats(5, 1e6), looks=st.lists(st.floats(0, 1), max_size=30))
def test_idle_is_never_seen_late(limit: float, looks: list[float]) -> None:
    """However it is used between two looks, the next look is due no later than its end, and at its end it is over."""
    now = used_at = 0.0
    for share in looks:
        due = now + leases.idle_left(limit, now - used_at)
        assert due <= used_at + limit + 0.001
        used_at = now + share * (due - now)  # used once more before that
        now = due
        assert leases.idle_left(limit, now - used_at) > 0 or now - used_at >= limit - 0.001
    assert leases.idle_left(limit, limit) == 0.0

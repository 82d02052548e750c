"""Demand that fades, and how many of each kind should be waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.capacity import demands


def noted(*uses: tuple[str, float]) -> demands.Demand[str]:
    found: demands.Demand[str] = demands.Demand()
    for kind, at in uses:
        found.note(kind, at)
    return found


def test_a_use_counts_half_after_a_half_life() -> None:
    """Weights add up and fade."""
    found = noted(("a", 0), ("a", 0))
    assert found.weight("a", 0) == 2
    assert found.weight("a", demands.HALF_LIFE_SECONDS) == 1
    assert found.weight("b", 0) == 0
    found.note("a", demands.HALF_LIFE_SECONDS)
    assert found.weight("a", demands.HALF_LIFE_SECONDS) == 2


def test_shares_are_in_proportion() -> None:
    """Whole shares first, then the largest remainders; who counts most comes first."""
    assert noted(("a", 0)).targets(4, 0) == {"a": 4}
    assert noted(*[("a", 0)] * 3, ("b", 0)).targets(4, 0) == {"a": 3, "b": 1}
    assert list(noted(("b", 0), *[("a", 0)] * 2).targets(3, 0).items()) == [("a", 2), ("b", 1)]
    assert noted(*[("a", 0)] * 9, ("b", 0)).targets(2, 0) == {"a": 2}
    assert noted(("a", 0)).targets(0, 0) == {}
    assert demands.Demand[str]().targets(4, 0) == {}


def test_the_hottest_gets_one() -> None:
    """Of more kinds than there are places the one that counts most is served."""
    found = noted(*[(name, 0.0) for name in "abcdefgh"], ("h", 1.0))
    assert found.targets(1, 1.0) == {"h": 1}


def test_what_is_not_used_is_forgotten() -> None:
    """An hour without a use is the end of it, and too many kinds push out the one that counts least."""
    found = noted(("a", 0), ("b", 100))
    assert set(found.targets(4, demands.FORGET_SECONDS - 1)) == {"a", "b"}
    assert found.targets(4, demands.FORGET_SECONDS) == {"b": 4}
    many = noted(("kept", 0), *[(str(number), 1.0) for number in range(demands.MAX_KINDS)])
    assert many.weight("kept", 1.0) == 0
    assert len(many.targets(1000, 1.0)) == demands.MAX_KINDS


@given(
    uses=st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 5000)), max_size=40),
    total=st.integers(0, 20),
    later=st.floats(0, 5000),
)
def test_never_more_than_there_is(uses: list[tuple[str, float]], total: int, later: float) -> None:
    """Targets add up to the total where anything was asked for, and each is one at least."""
    uses = sorted(uses, key=lambda use: use[1])
    now = (uses[-1][1] if uses else 0.0) + later
    found = noted(*uses).targets(total, now)
    recent = any(now - at < demands.FORGET_SECONDS for _, at in uses)
    assert sum(found.values()) == (total if recent else 0)
    assert all(count >= 1 for count in found.values())

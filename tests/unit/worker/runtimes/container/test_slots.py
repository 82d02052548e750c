"""Uid ranges: no two live sandboxes share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.runtimes.container import plans, slots

BASE = 0x30000000


@given(st.lists(st.integers(0, 9)))
def test_ranges_in_use_never_overlap(actions: list[int]) -> None:
    """Whatever is taken and given back, a range has one holder, and all of them can be used."""
    pool = slots.Slots(BASE, 4)
    held: list[int] = []
    for action in actions:
        if action < 5 and len(held) < 4:
            held.append(pool.take())
        elif held:
            pool.give_back(held.pop(action % len(held)))
        assert len(held) == len(set(held))
        assert all((uid - BASE) % plans.UIDS_PER_SANDBOX == 0 for uid in held)


def test_running_out_is_said() -> None:
    """The next one is refused as capacity, and a free one is used again."""
    pool = slots.Slots(BASE, 1)
    uid = pool.take()
    with pytest.raises(errors.NoCapacity):
        pool.take()
    pool.give_back(uid)
    assert uid == pool.take()


def test_adopted_ranges_are_not_given_out() -> None:
    """A sandbox from before a restart keeps its range."""
    pool = slots.Slots(BASE, 3)
    pool.adopt(BASE)
    pool.adopt(BASE + 2 * plans.UIDS_PER_SANDBOX)
    assert pool.take() == BASE + plans.UIDS_PER_SANDBOX
    with pytest.raises(errors.NoCapacity):
        pool.take()


def test_foreign_ranges_are_ignored() -> None:
    """A uid of another base neither frees nor blocks anything."""
    pool = slots.Slots(BASE, 1)
    pool.adopt(BASE + 1)
    pool.give_back(BASE - plans.UIDS_PER_SANDBOX)
    assert pool.take() == BASE

"""Every parser of what a sandbox sends withstands its seeds, what is near them, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import __main__ as runner
from tests.fuzz import targets

edits = st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 3), st.binary(max_size=8)), max_size=6)


def test_each_can_be_asked_for() -> None:
    """`python -m tests.fuzz` knows all of them by name."""
    assert set(runner.NAMES) == set(targets.TARGETS)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_seeds(name: str) -> None:
    """Input that it understands, and each beginning of it."""
    target = targets.TARGETS[name]
    for seed in target.seeds:
        for end in range(len(seed) + 1):
            target.run(seed[:end])


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
@given(st.data())
def test_anything(name: str, data: st.DataObject) -> None:
    """Seeds with pieces cut out and put in, and bytes of no kind."""
    target = targets.TARGETS[name]
    found = bytearray(data.draw(st.one_of(st.binary(max_size=600), st.sampled_from(target.seeds))))
    for at, cut, added in data.draw(edits):
        place = at % (len(found) + 1)
        found[place : place + cut] = added
    target.run(bytes(found))

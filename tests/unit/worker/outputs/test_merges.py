"""Keys and cursors of a sandbox's log."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, states
from traforo.worker.outputs import merges

A, B = "0" * 25 + "A", "0" * 25 + "B"
keys = st.builds(
    merges.Key,
    ms=st.integers(0, 10**15 - 1),
    rank=st.integers(0, 2),
    source=st.sampled_from([A, B, merges.NOBODY]),
    number=st.integers(0, 10**15 - 1),
)


@given(keys)
def test_a_cursor_says_its_key(key: merges.Key) -> None:
    """There and back."""
    assert merges.parse(str(key)) == key


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """A cursor may be anybody's."""
    try:
        key = merges.parse(text)
    except errors.InvalidRequest as error:
        assert error.fields == {"field": "cursor"}
    else:
        assert not text or str(key).split(".")[2] == text.split(".")[2]


def test_no_cursor_is_the_start() -> None:
    """Before every key there can be."""
    assert merges.parse(None) == merges.parse("") == merges.START
    assert merges.Key(0, 0, merges.NOBODY, 0) > merges.START


def test_beginnings_before_output_before_ends() -> None:
    """Of one millisecond."""
    begun = merges.of_event(states.Happening.EXEC_STARTED, 1.0, 9)
    ended = merges.of_event(states.Happening.EXEC_ENDED, 1.0, 3)
    assert begun < merges.of_frame(A, 1000, 0, merges.START) < ended


times = st.lists(st.integers(0, 30), max_size=40).map(sorted)


@given(times, st.integers(0, 10), keys)
def test_where_to_go_on(found: list[int], oldest: int, after: merges.Key) -> None:
    """The first frame behind a key is found, as by looking at each."""
    oldest = min(oldest, len(found))
    after = merges.Key(after.ms % 32, after.rank, after.source, after.number % 45)
    frames = [merges.Key(ms, merges.OUTPUT, A, number) for number, ms in enumerate(found)]
    asked: list[int] = []

    def ms_of(number: int) -> int:
        assert oldest <= number < len(found)
        asked.append(number)
        return found[number]

    number = merges.first_after(after, A, oldest, len(found), ms_of)
    assert len(asked) <= 7
    if after.source == A:
        assert number == max(oldest, after.number + 1)
    else:
        assert number == max(oldest, bisect.bisect_right(frames, after))


def test_frames_that_are_gone_are_passed_over() -> None:
    """What was dropped meanwhile counts as read."""
    assert merges.first_after(merges.Key(5, 1, B, 0), A, 0, 10, lambda number: 9 if number > 6 else None) == 7


@pytest.mark.parametrize("ms, expected", [(5, 10), (10, 10), (11, 11)])
def test_a_clock_that_was_set_back(ms: int, expected: int) -> None:
    """Frames of one log stay in the order of their numbers."""
    after = merges.Key(10, merges.OUTPUT, A, 4)
    found = merges.of_frame(A, ms, 5, after)
    assert found > after
    assert found.ms == expected
    assert merges.of_frame(B, ms, 5, after).ms == ms

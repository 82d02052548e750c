"""Ranges of bytes in requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors
from traforo.worker.files import ranges


@pytest.mark.parametrize(
    "header, expected",
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=2-4", (2, 4)),
        ("bytes=2-", (2, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-100", (0, 9)),
        ("bytes=9-99999999999999999999", (9, 9)),
        ("Bytes = 1 - 2 ", (1, 2)),
    ],
)
def test_one_range(header: str, expected: tuple[int, int]) -> None:
    """The first and the last byte are both included, and the end is cut to what there is."""
    found = ranges.parse(header, 10)
    assert found is not None
    assert (found.first, found.last) == expected
    assert found.header(10) == f"bytes {expected[0]}-{expected[1]}/10"


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=٣-", "bytes=--1"],
)
def test_what_is_ignored(header: str) -> None:
    """Several ranges, other units and nonsense mean the whole file."""
    assert ranges.parse(header, 10) is None


@pytest.mark.parametrize("header, size", [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10), ("bytes=-5", 0)])
def test_nothing_there(header: str, size: int) -> None:
    """A range that begins behind the end is refused with the size."""
    with pytest.raises(errors.RangeNotSatisfiable) as caught:
        ranges.parse(header, size)
    assert caught.value.fields == {"size": size}


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 60)), st.one_of(st.none(), st.integers(0, 60)))
def test_a_range_is_a_slice(size: int, first: int | None, last: int | None) -> None:
    """Whatever is asked for is what slicing gives, or it is refused for being empty."""
    data = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    try:
        found = ranges.parse(header, size)
    except errors.RangeNotSatisfiable:
        assert (data[first:] if first is not None else data[size - min(last or 0, size) :]) == b""
        return
    if found is None:
        assert (first is None and last is None) or (first is not None and last is not None and last < first)
        return
    wanted = data[first : None if last is None else last + 1] if first is not None else data[-(last or 0) :]
    assert data[found.first : found.first + found.length] == wanted != b""


@given(st.text(max_size=40))
def test_any_header(header: str) -> None:
    """No header is a defect."""
    try:
        ranges.parse(header, 5)
        ranges.parse("bytes=" + header, 5)
    except errors.RangeNotSatisfiable:
        pass

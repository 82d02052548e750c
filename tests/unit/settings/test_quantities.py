import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.settings import quantities


@pytest.mark.parametrize(
    "value, expected",
    [
        ("30m", 1800.0),
        ("120s", 120.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("7d", 604800.0),
        (" 90 ", 90.0),
        ("1.5", 1.5),
        (30, 30.0),
        (0.25, 0.25),
    ],
)
def test_duration_is_read_as_seconds(value: object, expected: float) -> None:
    """A duration is a number of seconds or what people write in configuration files."""
    assert quantities.seconds(value) == expected


@pytest.mark.parametrize(
    "value", ["", "m", "30 m", "-1s", "1e3", "1s2", "\u0661s", True, None, math.inf, math.nan, [30]]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Nothing is guessed: a unit that is not known, a sign or an infinity is an error that shows the right form."""
    with pytest.raises(ValueError, match="30m"):
        quantities.seconds(value)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    """`XhYmZs` is the sum of its parts."""
    assert quantities.seconds(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    "value, expected",
    [
        ("256MiB", 256 * 2**20),
        ("10MB", 10**7),
        ("64 kib", 65536),
        ("7", 7),
        ("1GiB", 2**30),
        ("2TB", 2 * 10**12),
        (9, 9),
    ],
)
def test_size_is_read_as_bytes(value: object, expected: int) -> None:
    """Binary and decimal units mean what they say, in any case."""
    assert quantities.size(value) == expected


@pytest.mark.parametrize("value", ["", "MiB", "-1", "1.5MiB", "1XB", True, None, 1.0])
def test_what_is_no_size_is_refused(value: object) -> None:
    """A size is a whole number of bytes with a unit that is known."""
    with pytest.raises(ValueError, match="256MiB"):
        quantities.size(value)

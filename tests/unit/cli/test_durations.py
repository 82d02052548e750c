import pytest

from traforo.cli import durations


@pytest.mark.parametrize(
    "text,expected",
    [
        ("0", 0),
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1d2h", 93600),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
    ],
)
def test_times_are_read(text: str, expected: float) -> None:
    """A number alone is seconds; units go from the largest to the smallest."""
    assert durations.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "h", "soon", "-1", "-1h", "30m1h", "1h1h", "1 h", "1H", "1e3", "inf", "nan", "\u0663s", "1h30"]
)
def test_what_is_no_time(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="as a time"):
        durations.seconds(text)

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.cli import printers

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.text())
def test_no_control_character_is_shown(text: str) -> None:
    """Whatever a name holds, a terminal prints it and does nothing else."""
    shown = printers.shown(text)
    assert shown.isprintable()
    assert text.isprintable() <= (shown == text)


def test_surrogates_can_be_shown() -> None:
    """Names of files need not be text."""
    assert printers.shown("a\udcff") == r"a\udcff"


def test_errors_and_hints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, whatever they say."""
    printers.error("two\nlines", "try\x1b[0m")
    printers.error("no hint")
    printers.note("by the way")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: two\\nlines\nhint: try\\x1b[0m\nerror: no hint\nby the way\n")


def test_a_table_is_as_wide_as_it_has_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However narrow the terminal is, nothing is cut; what is missing is a dash."""
    monkeypatch.setenv("COLUMNS", "20")
    printers.table(("id", "name"), [("x" * 300, None), ("y", "")])
    assert capsys.readouterr().out.splitlines() == [f"ID{' ' * 300}NAME", f"{'x' * 300}  -", f"y{' ' * 301}-"]


def test_pairs_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """A name and its value a line."""
    printers.pairs([("a", 1), ("long", None), ("b", False), ("c", True)])
    assert capsys.readouterr().out == "a     1\nlong  -\nb     no\nc     yes\n"


@pytest.mark.parametrize(
    "seconds,expected",
    [
        (0.0, "0 s"),
        (0.0154, "15 ms"),
        (2.04, "2 s"),
        (2.46, "2.5 s"),
        (42.4, "42 s"),
        (600.0, "10 min"),
        (7200.0, "2 h"),
        (86400.0 * 9, "9 d"),
    ],
)
def test_span(seconds: float, expected: str) -> None:
    """In one unit that reads well, more exact where it is short."""
    assert printers.span(seconds) == expected


@pytest.mark.parametrize(
    "seconds,expected",
    [(0, "in 0 s"), (1.6, "in 2 s"), (89, "in 89 s"), (-600, "10 min ago"), (7200, "in 2 h"), (-86400 * 9, "9 d ago")],
)
def test_distance(seconds: float, expected: str) -> None:
    """In one unit that reads well."""
    assert printers.distance(NOW + timedelta(seconds=seconds), NOW) == expected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.cli import printers, terminals

PQ = b"\x10\x11"


@given(st.lists(st.binary(max_size=6), max_size=6))
def test_whatever_is_typed_is_sent(typed: list[bytes]) -> None:
    """In order, however it comes in pieces, up to the keys that detach; only what may begin them waits."""
    found, sent, left = terminals.Keys(PQ), b"", False
    for piece in typed:
        more, left = found.take(piece)
        sent += more
        if left:
            break
    whole = b"".join(typed)
    assert left == (PQ in whole)
    if left:
        assert sent == whole[: whole.index(PQ)]
    else:
        assert sent + found._held == whole
        assert found._held in {b"", b"\x10"}


def test_without_keys_everything_is_sent() -> None:
    """Nothing waits then."""
    assert terminals.Keys(b"").take(PQ) == (PQ, False)


@pytest.mark.parametrize(
    "text,expected", [("ctrl-p,ctrl-q", PQ), ("", b""), ("ctrl-a", b"\x01"), ("a,ctrl-B", b"a\x02"), ("~,.", b"~.")]
)
def test_keys_are_read(text: str, expected: bytes) -> None:
    """As people write them."""
    assert terminals.keys(text) == expected


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pq", "ab", "ctrl-1", "ü", "\x01"])
def test_keys_that_are_none(text: str) -> None:
    """They are wrong usage."""
    with pytest.raises(printers.UsageError):
        terminals.keys(text)


@pytest.mark.parametrize(
    "output,undone",
    [
        (b"plain", b""),
        (b"\x1b[?1049h vim", b"\x1b[?1049l"),
        (b"\x1b[?1049h vim \x1b[?1049l", b""),
        (b"\x1b[?25l hidden", b"\x1b[?25h"),
        (b"\x1b[?25l\x1b[?25h", b""),
        (b"\x1b[?1000;1006h\x1b[?2004h", b"\x1b[?1000l\x1b[?1006l\x1b[?2004l"),
        (b"\x1b[?7l\x1b[?9999h", b""),
    ],
)
def test_what_a_program_left_behind_is_undone(output: bytes, undone: bytes) -> None:
    """However its output comes in pieces."""
    for size in range(1, len(output) + 1):
        modes = terminals.Modes()
        for start in range(0, len(output), size):
            modes.take(output[start : start + size])
        assert modes.undo() == undone + b"\x1b[0m"


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_no_output_breaks_it(pieces: list[bytes]) -> None:
    """Whatever a sandbox prints."""
    modes = terminals.Modes()
    for piece in pieces:
        modes.take(piece)
    assert modes.undo().endswith(b"\x1b[0m")


def test_the_size_of_no_terminal() -> None:
    """Is the one that all programs can cope with."""
    assert terminals.size() == (24, 80)

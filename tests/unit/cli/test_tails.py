import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.cli import tails
from traforo.sdk import results

PIECES = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text("a\n", max_size=6).map(str.encode)))


def last_lines(text: bytes, count: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-count:]) if count else b""


@given(PIECES, st.integers(0, 6))
def test_the_last_lines_are_kept(pieces: list[tuple[str, bytes]], count: int) -> None:
    """However the output came in pieces, as many lines as were asked for, and each piece of its own stream."""
    tail = tails.Tail(count)
    for stream, data in pieces:
        tail.add(stream, data)
    kept = tail.pieces()
    assert b"".join(data for _, data in kept) == last_lines(b"".join(data for _, data in pieces), count)
    for name in ("stdout", "stderr"):
        whole = b"".join(data for stream, data in pieces if stream == name)
        assert whole.endswith(b"".join(data for stream, data in kept if stream == name))


def test_no_more_is_kept_than_can_be_needed() -> None:
    """What is not among the last lines is forgotten at once."""
    tail = tails.Tail(3)
    for number in range(1000):
        tail.add("stdout", b"%d\n" % number)
    assert tail.pieces()[-1] == ("stdout", b"999\n")
    assert len(tail._pieces) == 4


def test_a_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whatever a command writes."""
    monkeypatch.setattr(tails, "MAX_BYTES", 10)
    tail = tails.Tail(1)
    for _ in range(100):
        tail.add("stdout", b"abc")
    assert b"".join(data for _, data in tail.pieces()) == b"abc" * 3


def test_what_a_command_has_written(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each stream to its own; the cursor is that of the end, which is left to be read."""
    frames = [
        results.Frame(4, "stdout", b"a\nb\n", None),
        results.Frame(5, "stderr", b"c\n", None),
        results.Frame(6, "result", b"{}", None),
        results.Frame(7, "exit", b"{}", None),
    ]
    execution = types.SimpleNamespace(written=lambda: iter(frames))
    assert tails.written(execution, 2) == 7  # type: ignore[arg-type]  # it stands for an exec
    assert capfdbinary.readouterr() == (b"b\n", b"c\n")
    assert tails.written(execution, 2, {"stdout"}) == 7  # type: ignore[arg-type]  # it stands for an exec
    assert capfdbinary.readouterr() == (b"a\nb\n", b"")

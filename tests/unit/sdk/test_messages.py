import base64
import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.sdk import errors, messages, results

CURSORS = st.integers(1, 2**63)


def down(kind: int, cursor: int, payload: bytes) -> bytes:
    return struct.pack(">BQ", kind, cursor) + payload


@given(st.sampled_from([(1, "stdout"), (2, "stderr"), (3, "exit"), (5, "result")]), CURSORS, st.binary(max_size=99))
def test_a_frame_is_read_exactly(kind: tuple[int, str], cursor: int, payload: bytes) -> None:
    """Any bytes, with the cursor of the frame itself and of the one after it."""
    piece = messages.piece(down(kind[0], cursor, payload))
    assert piece == messages.Piece(results.Frame(cursor - 1, kind[1], payload, None), cursor)


def test_a_gap_is_counted() -> None:
    """It moves the reader on and carries no output."""
    assert messages.piece(down(4, 9, b'{"dropped":77}')) == messages.Piece(None, 9, 77)
    assert messages.line(b'{"type":"gap","dropped":77}') == messages.Piece(None, None, 77)


def test_kinds_of_the_future_are_passed_over() -> None:
    """An older SDK speaks to a newer server."""
    assert messages.piece(down(200, 9, b"?")) == messages.Piece(None, None)
    assert messages.line(b'{"type":"new","cursor":1}') == messages.Piece(None, None)


@given(st.binary(max_size=40) | st.text(max_size=10))
def test_whatever_comes_is_read_or_refused(message: bytes | str) -> None:
    """Never anything but a piece or `BadAnswer`."""
    with contextlib.suppress(errors.BadAnswer):
        assert isinstance(messages.piece(message), messages.Piece)


@given(st.sampled_from(["stdout", "stderr"]), st.integers(0, 2**40), st.binary(max_size=99))
def test_a_line_is_read_exactly(kind: str, cursor: int, data: bytes) -> None:
    """As the same frame would be in any other form."""
    body = {"type": kind, "cursor": cursor, "data": base64.b64encode(data).decode(), "ts": None}
    piece = messages.line(json.dumps(body).encode())
    assert piece == messages.Piece(results.Frame(cursor, kind, data, None), cursor + 1)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"type":"stdout"}', b'{"type":"stdout","cursor":0,"data":"?"}', b"\xff"]
)
def test_a_line_that_is_none_is_a_bad_answer(text: bytes) -> None:
    """Output is never taken for what it is not."""
    with pytest.raises(errors.BadAnswer):
        messages.line(text)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=12))
def test_nothing_comes_twice(readings: list[tuple[int, int]]) -> None:
    """Wherever connections begin again at or before the place that was reached, every frame is given out once."""
    position = messages.Position()
    seen: list[int] = []
    for back, count in readings:
        start = max(0, position.next_cursor - back)
        for cursor in range(start, start + count):
            frame = position.take(messages.Piece(results.Frame(cursor, "stdout", b"", None), cursor + 1))
            seen += [] if frame is None else [frame.cursor]
    assert seen == list(range(position.next_cursor))


def test_what_goes_up() -> None:
    """One byte says what it is."""
    assert messages.stdin(b"ab") == b"\x10ab"
    assert messages.end_of_stdin() == b"\x11"
    assert messages.resize(24, 80) == b"\x12\x00\x18\x00\x50"
    assert messages.resize(0, 99999) == b"\x12\x00\x01\x10\x00"
    assert messages.signal(2, tree=True) == b"\x13\x02\x01"


@pytest.mark.parametrize("data", [b"", b"text", b"[]", b"7", b"\xff"])
def test_an_end_that_is_not_understood_is_none(data: bytes) -> None:
    """Then the exec itself is asked."""
    assert messages.end_of(results.Frame(0, "exit", data, None)) == {}

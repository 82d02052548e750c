"""Messages between an exec and its clients: both forms, and everything that is neither."""

import json
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from traforo.domain import errors, specs
from traforo.worker.execs import packets, streams
from traforo.worker.outputs import frames, logviews

VIEW = logviews.View((), 0, 0, frames.Amounts())


def batch(found: list[tuple[frames.Kind, bytes]], **facts: object) -> streams.Batch:
    made = [frames.Frame(frames.Header(kind, 0, 0, 0, 7 + at, 0), data) for at, (kind, data) in enumerate(found)]
    options: dict[str, object] = {"first": 7, "next": 7 + len(made)} | facts
    return streams.Batch(VIEW, made, **options)  # type: ignore[arg-type]  # fields of a batch


def test_what_a_client_is_told() -> None:
    """Each message says what it is and where the next begins; missing output stands where it is missing."""
    found = list(
        packets.messages(
            batch(
                [(frames.Kind.STDOUT, b"out"), (frames.Kind.STDERR, b"err"), (frames.Kind.RESULT, b"{}")],
                dropped=5,
                next=11,
                exit=b'{"end":"exited"}',
                lost=3,
            )
        )
    )
    assert [(message[0], struct.unpack(">Q", message[1:9])[0], message[9:]) for message in found] == [
        (4, 7, b'{"dropped":5}'),
        (1, 8, b"out"),
        (2, 9, b"err"),
        (5, 10, b"{}"),
        (4, 10, b'{"dropped":3}'),
        (3, 11, b'{"end":"exited"}'),
    ]


def test_what_is_not_told() -> None:
    """A frame without output only ends a character, and no gap is no message; a vague one says so."""
    assert list(packets.messages(batch([(frames.Kind.STDOUT, b"")]))) == []
    (gap,) = packets.messages(batch([], dropped=9, at_most=True))
    assert json.loads(gap[9:]) == {"dropped": 9, "at_most": True}


@given(st.binary(max_size=1000))
def test_stdin(data: bytes) -> None:
    """Input is everything behind the first byte."""
    assert packets.read(b"\x10" + data) == packets.Stdin(data)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 64), st.booleans())
def test_controls(rows: int, columns: int, number: int, tree: bool) -> None:
    """The end, sizes and signals have one form each."""
    assert packets.read(b"\x11") == packets.End()
    assert packets.read(struct.pack(">BHH", 18, rows, columns)) == packets.Resize(specs.Terminal(rows, columns))
    assert packets.read(struct.pack(">BBB", 19, number, tree)) == packets.Signal(number, tree)


@given(st.binary(max_size=12) | st.text(max_size=5))
def test_anything_else(message: bytes | str) -> None:
    """Whatever comes is understood in full or refused; what is understood has the one form it can have."""
    try:
        found = packets.read(message)
    except errors.InvalidRequest:
        return
    again = b"\x11"
    match found:
        case packets.Stdin(data):
            again = b"\x10" + data
        case packets.Resize(size):
            again = struct.pack(">BHH", 18, size.rows, size.columns)
        case packets.Signal(number, tree):
            again = struct.pack(">BBB", 19, number, tree)
    assert again == message


@pytest.mark.parametrize("rows, columns", [(0, 1), (1, 0), (4097, 1), (1, 4097), (65_535, 65_535)])
def test_sizes_that_cannot_be(rows: int, columns: int) -> None:
    """A terminal has at least one and at most 4096 rows and columns."""
    with pytest.raises(errors.InvalidRequest):
        packets.size(rows, columns)

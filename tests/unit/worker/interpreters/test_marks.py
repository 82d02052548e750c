"""Answers among output: found wherever the pipe was cut, bounded whatever comes, and output for what is none."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.interpreters import marks

NONCE = b"0123456789abcdef0123456789abcdef"
MARK = b"\0" + NONCE


def pieces(kind: str, payload: bytes, size: int = 4000) -> bytes:
    """Return a message as a kernel sends it."""
    parts = [payload[at : at + size] for at in range(0, max(len(payload), 1), size)]
    found = b""
    for number, part in enumerate(parts):
        place = (number == 0) + 2 * (number == len(parts) - 1)
        found += MARK + b"%b%d%04d" % (kind.encode(), place, len(part)) + part
    return found


def fed(data: bytes, cuts: Iterable[int] = ()) -> list[bytes | marks.Message]:
    """Feed data cut at some places, and put output together that is not divided by an answer."""
    parser = marks.Parser(NONCE)
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    found: list[bytes | marks.Message] = []
    for start, end in itertools.pairwise(places):
        for item in parser.feed(data[start:end], more=end < len(data)):
            if isinstance(item, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += item
            else:
                found.append(item)
    return found


OUTPUT = st.binary(max_size=60) | st.sampled_from([b"\0", MARK[:5], MARK[:-1], b"\0\0", MARK + b"x", MARK + b"D3"])
MESSAGE = st.builds(
    lambda kind, payload, size: (kind, payload, pieces(kind, payload, size)),
    st.sampled_from("HRD"),
    st.binary(max_size=200),
    st.integers(1, 300),
)


@given(st.lists(OUTPUT | MESSAGE, max_size=6), st.lists(st.integers(0, 5000), max_size=6))
def test_everything_is_found_wherever_the_pipe_was_cut(items: list[object], cuts: list[int]) -> None:
    """What comes out is what went in, in its order, however the reads divided it."""
    data = b"".join(item if isinstance(item, bytes) else item[2] for item in items)  # type: ignore[index]
    wanted: list[bytes | marks.Message] = []
    for item in items:
        if not isinstance(item, bytes):
            wanted.append(marks.Message(item[0], item[1]))  # type: ignore[index]
        elif item and wanted and isinstance(wanted[-1], bytes):
            wanted[-1] += item
        elif item:
            wanted.append(item)
    assert fed(data, cuts) == fed(data)
    if not any(isinstance(item, bytes) and MARK in item for item in items):
        assert wanted == fed(data)


@given(st.lists(st.binary(max_size=300) | st.just(MARK) | st.just(MARK + b"R14000") | st.just(b"\0"), max_size=20))
def test_nothing_that_comes_can_break_it(chunks: list[bytes]) -> None:
    """Any bytes are taken, none is lost unless it stood in a piece, and nothing is held when the pipe is empty."""
    parser = marks.Parser(NONCE)
    held = [item for chunk in chunks for item in parser.feed(chunk, more=True)]
    rest = parser.feed(b"", more=False)
    assert parser._held == b""
    output = sum(len(item) for item in [*held, *rest] if isinstance(item, bytes))
    assert output <= sum(map(len, chunks))


def test_an_answer_without_end_is_dropped() -> None:
    """Pieces that go on beyond the limit cost no memory and give no answer; the next answer is heard."""
    parser = marks.Parser(NONCE)
    piece = MARK + b"R04000" + bytes(4000)
    assert parser.feed(MARK + b"R14000" + bytes(4000), more=False) == []
    for _ in range(marks.MAX_MESSAGE_BYTES // 4000 + 2):
        assert parser.feed(piece, more=False) == []
    assert parser._whole == b""
    assert parser.feed(MARK + b"R20001x", more=False) == []
    assert parser.feed(pieces("D", b"end"), more=False) == [marks.Message("D", b"end")]


def test_an_answer_that_was_begun_by_a_dead_reader_is_dropped() -> None:
    """Pieces whose first nobody has are no answer, and no output either."""
    long = pieces("R", bytes(9000))
    parser = marks.Parser(NONCE)
    assert parser.feed(long[len(long) // 2 - 500 :], more=False)[0] != b""
    assert parser.feed(pieces("D", b"x"), more=False) == [marks.Message("D", b"x")]


def test_pieces_of_two_answers_do_not_mix() -> None:
    """A piece of another kind in the middle of an answer belongs to neither."""
    parser = marks.Parser(NONCE)
    data = MARK + b"R10001a" + MARK + b"E20001b" + MARK + b"R20001c"
    assert parser.feed(data, more=False) == [marks.Message("R", b"ac")]


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_fields_come_back(fields: list[bytes]) -> None:
    """What was joined is split again."""
    assert fields == marks.split(marks.join(fields))


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_are_refused(data: bytes) -> None:
    """A payload is either exactly some fields, or nothing."""
    found = marks.split(data)
    assert found is None or marks.join(found) == data


@given(st.lists(st.binary(max_size=6000), max_size=3))
def test_every_piece_of_a_request_is_written_in_one_go(fields: list[bytes]) -> None:
    """No piece is longer than a pipe takes as a whole; together they are the fields."""
    found = list(marks.request("R", fields))
    assert all(len(piece) <= marks.MAX_PIECE_BYTES for piece in found)
    assert marks.join(fields) == b"".join(piece[6:] for piece in found)
    assert [piece[1:2] for piece in found] == ([b"3"] if len(found) == 1 else [b"1", *[b"0"] * (len(found) - 2), b"2"])


def test_two_nonces_differ() -> None:
    """A mark is nobody else's."""
    assert len({marks.nonce() for _ in range(100)}) == 100
    assert {len(marks.nonce())} == {marks.NONCE_DIGITS}


def test_pieces_without_content_cost_nothing() -> None:
    """An answer that never ends holds no more than its bytes, in however many pieces they come."""
    parser = marks.Parser(NONCE)
    data = (MARK + b"R00000") * 5_000
    parser.feed(MARK + b"R10000", more=True)
    tracemalloc.start()
    try:
        for _ in range(20):
            assert parser.feed(data, more=True) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000

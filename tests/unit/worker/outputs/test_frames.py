"""Layout of frames and the text made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.outputs import frames
from traforo.worker.outputs.frames import Kind

kinds = st.sampled_from([Kind.STDOUT, Kind.STDERR])
headers = st.builds(
    frames.Header,
    kind=st.sampled_from(list(Kind)),
    flags=st.integers(0, 255),
    length=st.integers(0, 2**32 - 1),
    ms=st.integers(0, 2**64 - 1),
    number=st.integers(0, 2**32 - 1),
    back=st.just(0),
)
# Bytes in which cut and broken sequences are common.
rough = st.lists(
    st.one_of(st.binary(max_size=3), st.text(max_size=3).map(str.encode), st.sampled_from([b"\xf0\x9f\x98", b"\xe2"])),
    max_size=12,
).map(b"".join)


def make(number: int, kind: Kind, payload: bytes, flags: int = 0) -> frames.Frame:
    return frames.Frame(frames.Header(kind, flags, len(payload), 0, number, 0), payload)


@given(headers)
def test_header_round_trip(header: frames.Header) -> None:
    """A header that was packed reads the same."""
    assert frames.unpack(header.pack()) == header


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_segment_header_round_trip(first: int, stdout: int, stderr: int, results: int) -> None:
    """A segment header that was packed reads the same."""
    head = frames.SegmentHeader(first, frames.Amounts(stdout, stderr, results))
    assert frames.unpack_segment(head.pack()) == head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * frames.HEADER_BYTES,
        make(0, Kind.STDOUT, b"").header.pack()[:-1],
        frames.Header(Kind.STDOUT, 0, 0, 0, 1, 2).pack(),
    ],
)
def test_no_header(data: bytes) -> None:
    """Zeros, pieces, and a frame that points before the first are not headers."""
    assert frames.unpack(data) is None


def test_unknown_kind_is_no_header() -> None:
    """A kind that nobody defined is not read as one."""
    data = bytearray(make(0, Kind.STDOUT, b"").header.pack())
    data[2] = 9
    assert frames.unpack(bytes(data)) is None


@given(st.lists(st.tuples(kinds, st.binary(max_size=50)), max_size=10), st.binary(max_size=frames.HEADER_BYTES - 1))
def test_split_gives_back_what_was_joined(pieces: list[tuple[Kind, bytes]], rest: bytes) -> None:
    """A run of frames is cut where it was joined, whatever the payloads are and with a torn header behind."""
    made = [make(number, kind, payload) for number, (kind, payload) in enumerate(pieces)]
    joined = b"".join(frame.header.pack() + frame.payload for frame in made)
    assert frames.split(joined + rest) == made


def test_payload_that_looks_like_a_header_is_payload() -> None:
    """What a command prints is never taken for a frame."""
    forged = make(7, Kind.EXIT, b'{"exit_code":0}')
    frame = make(0, Kind.STDOUT, forged.header.pack() + forged.payload)
    assert frames.split(frame.header.pack() + frame.payload) == [frame]


def test_open_frame_takes_the_rest() -> None:
    """A frame whose length was never written has everything behind it as payload."""
    header = frames.Header(Kind.STDERR, frames.OPEN, 0, 0, 0, 0)
    assert frames.split(header.pack() + b"all of it") == [frames.Frame(header, b"all of it")]


def test_long_frame_takes_what_is_there() -> None:
    """A frame that was cut off by a crash has what arrived."""
    header = frames.Header(Kind.STDOUT, 0, 100, 0, 0, 0)
    assert frames.split(header.pack() + b"some") == [frames.Frame(header, b"some")]


@given(rough)
def test_tail_is_what_a_decoder_would_keep(data: bytes) -> None:
    """The last three bytes tell which bytes wait for the rest of their code point."""
    kept = frames.tail(data)
    decided = data[: len(data) - len(kept)]
    text, carried = frames.text(b"", data, final=False)
    assert (text, carried) == (decided.decode(errors="replace"), kept)


@given(st.lists(st.tuples(kinds, rough), max_size=12))
def test_texts_of_frames_are_the_text_of_the_stream(pieces: list[tuple[Kind, bytes]]) -> None:
    """However the output was cut, the texts of a stream's frames make the text of the whole stream."""
    texts = frames.Texts()
    got = {Kind.STDOUT: "", Kind.STDERR: ""}
    whole = {Kind.STDOUT: b"", Kind.STDERR: b""}
    for number, (kind, payload) in enumerate([*pieces, (Kind.STDOUT, b""), (Kind.STDERR, b"")]):
        flags = frames.FINAL if number >= len(pieces) else 0
        got[kind] += texts.decode(make(number, kind, payload, flags))
        whole[kind] += payload
    assert got == {kind: data.decode(errors="replace") for kind, data in whole.items()}


@given(st.lists(rough, min_size=1, max_size=8), st.data())
def test_text_is_the_same_from_any_cursor(payloads: list[bytes], data: st.DataObject) -> None:
    """A reader that starts in the middle gets for each frame what a reader from the start got."""
    start = data.draw(st.integers(0, len(payloads) - 1))
    made = [make(number, Kind.STDOUT, payload) for number, payload in enumerate(payloads)]
    from_start = frames.Texts()
    expected = [from_start.decode(frame) for frame in made][start:]
    texts = frames.Texts({Kind.STDOUT: frames.tail(b"".join(payloads[:start]))})
    assert [texts.decode(frame) for frame in made[start:]] == expected

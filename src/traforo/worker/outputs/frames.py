"""The form of an exec's output on disk and in answers: frame headers, and text out of bytes.

Pure code. It exists so that whatever writes logs and whatever reads them agree on one layout, and so that text is the
same from any cursor: a code point that was cut by the end of a frame belongs to the next frame of the same stream,
which can be told from the log alone. It refuses to open files, to know time, or to search for a lost header: a log is
walked by lengths only, so what a command prints can never be taken for a header.

A segment is a 32-byte segment header followed by frames; a frame is a 24-byte header followed by its payload.
"""

from __future__ import annotations

import codecs
import enum
import struct
from dataclasses import dataclass

_FRAME = struct.Struct("<HBBIQII")
_SEGMENT = struct.Struct("<8sIIQQ")
_FRAME_MAGIC = 0xF7A1
_SEGMENT_MAGIC = b"traforo\x01"

HEADER_BYTES = _FRAME.size
SEGMENT_HEADER_BYTES = _SEGMENT.size

OPEN = 1
"""Flag: the length is not known yet, so the payload goes up to the end of the file. Only the last frame can have it."""
FINAL = 2
"""Flag: the stream ends here; bytes of an unfinished code point that were carried so far become U+FFFD."""

_MAX_U32 = 2**32 - 1
_CARRY_BYTES = 3  # one less than the longest UTF-8 sequence


class Kind(enum.IntEnum):
    """What a frame carries."""

    STDOUT = 1
    STDERR = 2
    EXIT = 3
    """How the exec ended, as JSON text; the last frame of a log."""
    RESULT = 4
    """A value that code gave back, as JSON text; each is whole in one frame."""


STREAMS = (Kind.STDOUT, Kind.STDERR)
"""What is cut into frames anywhere; of other kinds each frame is complete."""
_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a payload."""

    kind: Kind
    flags: int
    length: int
    """Bytes of payload; without meaning when `OPEN` is set."""
    ms: int
    """Wall time of the first byte, milliseconds since the Unix epoch."""
    number: int
    """The frame's cursor."""
    back: int
    """How many frames before this one stands the previous frame of the same kind; 0 when there is none."""

    def pack(self) -> bytes:
        """Return the `HEADER_BYTES` bytes on disk."""
        return _FRAME.pack(_FRAME_MAGIC, self.kind, self.flags, self.length, self.ms, self.number, self.back)


@dataclass(frozen=True, slots=True)
class Frame:
    """One piece of output, exactly as the command wrote it."""

    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class Amounts:
    """Bytes of payload of each kind but the exit."""

    stdout: int = 0
    stderr: int = 0
    results: int = 0

    @property
    def total(self) -> int:
        """Bytes of everything together."""
        return self.stdout + self.stderr + self.results

    def of(self, kind: Kind) -> int:
        """Return the bytes of one kind."""
        match kind:
            case Kind.STDOUT:
                return self.stdout
            case Kind.STDERR:
                return self.stderr
        return self.results

    def plus(self, kind: Kind, count: int) -> Amounts:
        """Return the amounts with `count` bytes more of one kind."""
        match kind:
            case Kind.STDOUT:
                return Amounts(self.stdout + count, self.stderr, self.results)
            case Kind.STDERR:
                return Amounts(self.stdout, self.stderr + count, self.results)
        return Amounts(self.stdout, self.stderr, self.results + count)

    def plus_all(self, other: Amounts) -> Amounts:
        """Return both together."""
        return Amounts(self.stdout + other.stdout, self.stderr + other.stderr, self.results + other.results)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What stands at the start of a segment file."""

    first: int
    """Number of its first frame."""
    before: Amounts
    """What all earlier segments held, those already dropped included."""

    def pack(self) -> bytes:
        """Return the `SEGMENT_HEADER_BYTES` bytes on disk."""
        results = min(self.before.results, _MAX_U32)  # four bytes were left; what results may take is far below
        return _SEGMENT.pack(_SEGMENT_MAGIC, self.first, results, self.before.stdout, self.before.stderr)


def unpack(data: bytes | memoryview) -> Header | None:
    """Read a frame header from `HEADER_BYTES` bytes; None when that is not one."""
    if len(data) < HEADER_BYTES:
        return None
    magic, kind, flags, length, ms, number, back = _FRAME.unpack_from(data)
    if magic != _FRAME_MAGIC or kind not in _KINDS or back > number:
        return None
    return Header(_KINDS[kind], flags, length, ms, number, back)


def unpack_segment(data: bytes) -> SegmentHeader | None:
    """Read a segment header from `SEGMENT_HEADER_BYTES` bytes; None when that is not one."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, first, results, stdout, stderr = _SEGMENT.unpack_from(data)
    return SegmentHeader(first, Amounts(stdout, stderr, results)) if magic == _SEGMENT_MAGIC else None


def split(data: bytes) -> list[Frame]:
    """Cut a run of frames as it stands in a segment.

    An `OPEN` last frame, or one that is longer than `data`, takes the rest; a piece of a header at the end is left out.
    """
    view = memoryview(data)
    found: list[Frame] = []
    at = 0
    while header := unpack(view[at : at + HEADER_BYTES]):
        start = at + HEADER_BYTES
        at = len(data) if header.flags & OPEN else min(start + header.length, len(data))
        found.append(Frame(header, data[start:at]))
    return found


def tail(data: bytes) -> bytes:
    """Return the unfinished code point (0 to 3 bytes) at the end of a stream whose last bytes are `data`.

    The last three bytes suffice: a sequence starts with a byte that can stand nowhere else in a sequence.
    """
    end = data[-_CARRY_BYTES:]
    _, used = codecs.utf_8_decode(end, "replace", False)
    return end[used:]


def text(carry: bytes, payload: bytes, *, final: bool) -> tuple[str, bytes]:
    """Decode one frame after what its stream carried so far; return its text and what is carried on."""
    data = carry + payload if carry else payload
    decoded, used = codecs.utf_8_decode(data, "replace", final)
    return decoded, data[used:]


class Texts:
    """Decodes frames of one log in order. Told the carry of each stream where reading starts in the middle."""

    def __init__(self, carries: dict[Kind, bytes] | None = None) -> None:
        self._carries = dict(carries or {})

    def begin(self, kind: Kind, carry: bytes) -> None:
        """Tell what a stream carries into the next frame."""
        self._carries[kind] = carry

    def decode(self, frame: Frame) -> str:
        """Return the text of the next frame."""
        kind = frame.header.kind
        decoded, carried = text(
            self._carries.get(kind, b""),
            frame.payload,
            final=kind not in STREAMS or bool(frame.header.flags & FINAL),
        )
        self._carries[kind] = carried
        return decoded

    def flush(self, kind: Kind) -> str:
        """Return what an unfinished code point becomes when its stream ends: U+FFFD, or nothing."""
        return text(self._carries.pop(kind, b""), b"", final=True)[0]

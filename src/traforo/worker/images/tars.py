"""Reads tar streams that nobody vouches for: ustar, GNU and pax headers, one entry at a time, in bounded memory.

The standard library's reader is not used here: it keeps every entry, reads extension headers of any size into memory
and forgives what this one refuses. Nothing is written here and no name is judged; names are bytes, as the kernel has
them. Sparse files, and types that no container tool writes, are refused rather than guessed at.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker.images import readers

BLOCK = 512
_MAX_EXTENSION = 1024 * 1024
"""Most bytes of one extension header; a path has 4,096."""
_MAX_EXTENSIONS = 16
"""Most extension headers in front of one entry; writers use at most three."""
_SHOWN = 200
"""Most bytes of a name in a message."""
_BINARY, _BINARY_NEGATIVE = 0x80, 0xFF
"""First byte of a number that is not octal text."""
_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_PAX_TIME = re.compile(rb"(-?)(\d{1,18})(?:\.(\d+))?")


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    SPECIAL = "special"
    """A device or a FIFO."""


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.SPECIAL,
    b"4": Kind.SPECIAL,
    b"5": Kind.DIRECTORY,
    b"6": Kind.SPECIAL,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as its headers describe it."""

    name: bytes
    kind: Kind
    size: int
    """Bytes of content; 0 for what is not a file."""
    mode: int
    """Permission bits, set-id and sticky bits included."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since the Unix epoch."""
    link: bytes
    """Target of a symbolic or hard link."""
    offset: int
    """Where the content begins in the stream."""


def shown(name: bytes) -> str:
    """Return a name as it can stand in a message: one line, printable, not too long."""
    text = name[:_SHOWN].decode(errors="backslashreplace")
    printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return printable + ("…" if len(name) > _SHOWN else "")


def refused(name: bytes, why: str) -> errors.InvalidRequest:
    """Return the error for an entry that is not taken."""
    return errors.InvalidRequest(f'cannot unpack entry "{shown(name)}": {why}', field="image", entry=shown(name))


def _broken(why: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"cannot read the archive: {why}", field="image")


class TarReader:
    """Iterates over the entries of one stream. `read` gives the content of the entry that was returned last."""

    def __init__(self, source: readers.Reader, *, skip: Callable[[int], None] | None = None) -> None:
        """Read from `source`; `skip` passes over content faster than reading it, where the source can."""
        self._source = source
        self._skip = skip or self._read_over
        self._position = 0
        self._content = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield entries up to the end mark. Raises `InvalidRequest` for what is not a tar stream."""
        while True:
            self._leave()
            extensions: dict[bytes, bytes] = {}
            for _ in range(_MAX_EXTENSIONS):
                fields = self._header()
                if fields is None:
                    if extensions:
                        raise _broken("it ends after an extension header")
                    return
                kind = fields[7]
                if kind == b"x":
                    extensions |= _pax_records(self._extension(fields))
                elif kind in b"LK":
                    key = b"path" if kind == b"L" else b"linkpath"
                    extensions.setdefault(key, self._extension(fields).split(b"\0", 1)[0])
                elif kind == b"g":
                    # Global defaults: container tools ignore them, and so a stream must mean the same here.
                    self._extension(fields)
                else:
                    yield self._entry(fields, extensions)
                    break
            else:
                raise _broken(f"more than {_MAX_EXTENSIONS} extension headers in a row")

    def read(self, size: int) -> bytes:
        """Return the next bytes of the current entry's content, or none at its end."""
        if not self._content:
            return b""
        data = self._source.read(min(size, self._content))
        if not data:
            raise _broken("it ends within an entry")
        self._content -= len(data)
        self._position += len(data)
        return data

    def _leave(self) -> None:
        """Pass over what is left of the current entry."""
        rest = self._content + self._padding
        if rest:
            self._skip(rest)
        self._position += rest
        self._content = self._padding = 0

    def _read_over(self, count: int) -> None:
        while count:
            data = self._source.read(min(count, readers.CHUNK))
            if not data:
                raise _broken("it ends within an entry")
            count -= len(data)

    def _block(self) -> bytes:
        """Return the next block; empty at the end of the stream."""
        block = b""
        while len(block) < BLOCK:
            data = self._source.read(BLOCK - len(block))
            if not data:
                if block:
                    raise _broken("it ends within a header")
                return b""
            block += data
        self._position += BLOCK
        return block

    def _header(self) -> tuple[bytes, ...] | None:
        """Return the fields of the next header, its checksum verified; None at the end mark or the end."""
        block = self._block()
        if not block:
            return None
        if block == _ZERO:
            if self._block() not in {_ZERO, b""}:
                raise _broken("a single block of zeros stands between two entries")
            return None
        fields: tuple[bytes, ...] = _HEADER.unpack(block)
        if not _checksum_holds(block, _number(fields[6], "checksum")):
            raise _broken("a header has the wrong checksum")
        return fields

    def _extension(self, fields: tuple[bytes, ...]) -> bytes:
        """Return the content of an extension header."""
        size = _number(fields[4], "size")
        if size > _MAX_EXTENSION:
            raise _broken(f"an extension header is larger than {_MAX_EXTENSION} bytes")
        self._content, self._padding = size, -size % BLOCK
        parts = []
        while data := self.read(size):
            parts.append(data)
        self._leave()
        return b"".join(parts)

    def _entry(self, fields: tuple[bytes, ...], extensions: dict[bytes, bytes]) -> Entry:
        """Return the entry that a header and the extensions before it describe, and get ready to read it."""
        name = extensions.get(b"path", _name(fields))
        kind = _KINDS.get(fields[7])
        if any(key.startswith(b"GNU.sparse.") for key in extensions) or fields[7] == b"S":
            raise refused(name, "sparse files are not supported")
        if kind is None:
            raise refused(name, f"its type {fields[7]!r} is unknown")
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = Kind.DIRECTORY
        size = _decimal(extensions, b"size", fields[4]) if kind is Kind.FILE else 0
        self._content, self._padding = size, -size % BLOCK
        return Entry(
            name=name,
            kind=kind,
            size=size,
            mode=_number(fields[1], "mode") & 0o7777,
            uid=_decimal(extensions, b"uid", fields[2]),
            gid=_decimal(extensions, b"gid", fields[3]),
            mtime_ns=_time(extensions, fields[5]),
            link=extensions.get(b"linkpath", fields[8].split(b"\0", 1)[0]),
            offset=self._position,
        )


def _checksum_holds(block: bytes, checksum: int) -> bool:
    """Tell whether the bytes of a header add up; some old writers added them as signed numbers."""
    summed = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(summed)
    return checksum == unsigned or checksum == unsigned - 256 * sum(byte >> 7 for byte in summed)


def _name(fields: tuple[bytes, ...]) -> bytes:
    """Return the name a header holds by itself."""
    name = fields[0].split(b"\0", 1)[0]
    if fields[9][:6] != b"ustar\0":
        return name
    # The last bytes of the block tell headers of the old "star", whose prefix is shorter.
    room = 131 if fields[15].endswith(b"tar\0") else 155
    prefix = fields[14][:room].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _number(field: bytes, what: str) -> int:
    """Return a number that is not negative, in octal or, where the first bit is set, in binary."""
    if field[0] == _BINARY:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise _broken(f"a header has no valid {what}")
    return int(digits, 8)


def _decimal(extensions: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    """Return a number from the extensions, or from the header where they do not have it."""
    value = extensions.get(key)
    if value is None:
        return _number(field, key.decode())
    if not _DECIMAL.fullmatch(value):
        raise _broken(f"an extension header has no valid {key.decode()}")
    return int(value)


def _time(extensions: dict[bytes, bytes], field: bytes) -> int:
    """Return the time of the last change in nanoseconds; times no file system can hold become the nearest it can."""
    value = extensions.get(b"mtime")
    if value is None:
        before_epoch = field[0] == _BINARY_NEGATIVE
        nanoseconds = 0 if before_epoch else _number(field, "mtime") * 10**9
    else:
        match = _PAX_TIME.fullmatch(value)
        if match is None:
            raise _broken("an extension header has no valid mtime")
        fraction = int((match[3] or b"")[:9].ljust(9, b"0"))
        nanoseconds = 0 if match[1] else int(match[2]) * 10**9 + fraction
    return min(nanoseconds, (2**34 - 1) * 10**9)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax extension header: each is its own length, a key, `=`, a value and a line feed."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        record = data[match.end() : end] if match else b""
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not record.endswith(b"\n") or not equals or not key:
            raise _broken("a pax header is malformed")
        records[key] = value
        at = end
    return records

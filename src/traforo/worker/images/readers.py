"""Streams of bytes with a purpose each: a region of a file, a hash of what passed, gzip undone within limits.

They are stacked: region → (hash of the packed bytes) → gunzip → (hash of the unpacked bytes) → tar. None of them seeks
back, and none holds more than one chunk in memory.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Protocol

from traforo.domain import errors
from traforo.worker.images.budgets import Budget

CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"
_REFUSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
_LONGEST_MAGIC = max(map(len, _REFUSED))


class Reader(Protocol):
    """A stream of bytes from the beginning to the end."""

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end."""
        ...


class Region:
    """Bytes `offset` to `offset + size` of an open file that somebody else closes."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        """Read `size` bytes from `offset` on."""
        self.size = size
        self._descriptor = descriptor
        self._at = offset
        self._end = offset + size

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises `InvalidRequest` if the file ends before the region does."""
        wanted = min(size, self._end - self._at)
        if wanted <= 0:
            return b""
        data = os.pread(self._descriptor, wanted, self._at)
        if not data:
            raise errors.InvalidRequest("cannot read the image: a file ends too early", field="image")
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        """Go on `size` bytes further without reading them."""
        self._at += size
        if self._at > self._end:
            raise errors.InvalidRequest("cannot read the image: the archive ends too early", field="image")


class Hashed:
    """Passes bytes on and hashes them."""

    def __init__(self, source: Reader, algorithm: str = "sha256") -> None:
        """Hash what is read from `source` with an algorithm that hashlib knows."""
        self.size = 0
        self._source = source
        self._hash = hashlib.new(algorithm)

    def read(self, size: int) -> bytes:
        """Return the next bytes of the source."""
        data = self._source.read(size)
        self.size += len(data)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        """Return the digest of what has passed."""
        return self._hash.hexdigest()


class Spent:
    """Passes bytes on and counts them against the budget."""

    def __init__(self, source: Reader, budget: Budget) -> None:
        """Count what is read from `source`."""
        self._source = source
        self._budget = budget

    def read(self, size: int) -> bytes:
        """Return the next bytes of the source. Raises what `Budget.spend` raises."""
        data = self._source.read(size)
        self._budget.spend(len(data))
        return data


class Gunzip:
    """Undoes gzip, several members one after another included, as parallel compressors write them."""

    def __init__(self, source: Reader, budget: Budget) -> None:
        """Unpack what is read from `source`; the growth is held against the ratio of the budget."""
        self._source = source
        self._budget = budget
        self._stream = zlib.decompressobj(wbits=31)
        self._tail = b""
        self._packed = 0
        self._unpacked = 0

    def read(self, size: int) -> bytes:
        """Return the next unpacked bytes. Raises `InvalidRequest` for damaged data, `TooLarge` for a bomb."""
        while True:
            try:
                data = self._stream.decompress(self._tail, size)
            except zlib.error as error:
                raise errors.InvalidRequest(
                    "cannot unpack the image: a gzip stream is damaged", field="image"
                ) from error
            # At its end a stream leaves the same rest in both places.
            self._tail = b"" if self._stream.eof else self._stream.unconsumed_tail
            if data:
                self._unpacked += len(data)
                self._budget.check_ratio(packed=self._packed, unpacked=self._unpacked)
                return data
            if not (self._next_member() if self._stream.eof else self._feed()):
                return b""

    def _feed(self) -> bool:
        """Read more packed bytes. Raises `InvalidRequest` at the end, since a member has begun and not ended."""
        if not self._tail:
            self._tail = self._source.read(CHUNK)
            self._packed += len(self._tail)
        if not self._tail:
            raise errors.InvalidRequest("cannot unpack the image: a gzip stream ends too early", field="image")
        return True

    def _next_member(self) -> bool:
        """Begin the member that follows, if one does; zeros that fill up the last block are skipped."""
        rest = self._stream.unused_data.lstrip(b"\0")
        while not rest:
            chunk = self._source.read(CHUNK)
            if not chunk:
                return False
            self._packed += len(chunk)
            rest = chunk.lstrip(b"\0")
        self._stream = zlib.decompressobj(wbits=31)
        self._tail = rest
        return True


class Buffered:
    """Reads large pieces and gives out small ones, so that the stages below run once for many headers."""

    def __init__(self, source: Reader) -> None:
        """Read ahead from `source`."""
        self._source = source
        self._buffer = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if self._at == len(self._buffer):
            self._buffer = self._source.read(CHUNK)
            self._at = 0
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        return data


class _Peeked:
    """A source of which the first bytes were read already."""

    def __init__(self, head: bytes, source: Reader) -> None:
        self._head = head
        self._source = source

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)


def unpacked(source: Reader, budget: Budget) -> Reader:
    """Return the stream without its compression, which its first bytes tell, counted against the budget.

    Raises `InvalidRequest` for compressions that cannot be undone here.
    """
    head = b""
    while len(head) < _LONGEST_MAGIC and (data := source.read(_LONGEST_MAGIC - len(head))):
        head += data
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise errors.InvalidRequest(
                f"cannot unpack the image: {name} compression is not supported",
                field="image",
                hint="write the image with gzip or without compression",
            )
    peeked = _Peeked(head, source)
    return Spent(Gunzip(peeked, budget) if head.startswith(_GZIP) else peeked, budget)


def is_gzip(descriptor: int) -> bool:
    """Tell whether an open file begins as gzip does."""
    return os.pread(descriptor, 2, 0) == _GZIP


def drain(source: Reader) -> None:
    """Read to the end."""
    while source.read(CHUNK):
        pass


def whole(source: Reader, limit: int) -> bytes:
    """Read to the end and return everything. Raises `TooLarge` past `limit` bytes."""
    parts = []
    total = 0
    while data := source.read(CHUNK):
        parts.append(data)
        total += len(data)
        if total > limit:
            raise errors.TooLarge(f"cannot read the image: a document is larger than {limit} bytes", limit=limit)
    return b"".join(parts)

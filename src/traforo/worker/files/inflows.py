"""An archive as it comes in: pieces of any size made into blocks, decompressed where need be, in bounded memory.

Whether it is compressed shows in its first bytes. However much a piece expands, no more than one block of it is made at
once: what is done with the blocks decides whether more is wanted.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from traforo.domain import errors
from traforo.worker.files import tarballs

PIECE_BYTES = 256 * 1024
"""Most bytes that are decompressed at once."""
MAX_PADDING_BYTES = 16 * 1024 * 1024
"""Most bytes behind the end of an archive; writers fill up a record, which is smaller."""
_GZIP = b"\x1f\x8b"
_GZIP_BITS = 31


class Inflow:
    """Bytes of a body, read in order."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._waiting = b""
        """Compressed bytes that were not looked at yet."""
        self._data = b""
        self._at = 0
        self._inflater: zlib._Decompress | None = None
        self._begun = False

    async def some(self, limit: int) -> bytes:
        """Return some bytes, at most `limit`; none at the end alone. Raises `InvalidRequest`."""
        if self._at >= len(self._data):
            self._data, self._at = await self._more(), 0
        found = self._data[self._at : self._at + limit]
        self._at += len(found)
        return found

    async def exactly(self, count: int) -> bytes:
        """Return so many bytes; fewer at the end alone."""
        found = await self.some(count)
        if len(found) == count or not found:
            return found
        parts = [found]
        left = count - len(found)
        while left and (found := await self.some(left)):
            parts.append(found)
            left -= len(found)
        return b"".join(parts)

    async def drain(self) -> None:
        """Read to the end, and throw it away: the padding behind an archive. Raises `InvalidRequest` for too much."""
        left = MAX_PADDING_BYTES
        while found := await self.some(PIECE_BYTES):
            left -= len(found)
            if left < 0:
                raise tarballs.broken("too much stands behind its end")

    async def _more(self) -> bytes:
        if not self._begun:
            await self._begin()
        if self._inflater is None:
            found, self._waiting = self._waiting, b""
            return found or await anext(self._pieces, b"")
        return await self._inflated(self._inflater)

    async def _begin(self) -> None:
        self._begun = True
        while len(self._waiting) < len(_GZIP):
            piece = await anext(self._pieces, b"")
            if not piece:
                return
            self._waiting += piece
        if self._waiting.startswith(_GZIP):
            self._inflater = zlib.decompressobj(_GZIP_BITS)

    async def _inflated(self, inflater: zlib._Decompress) -> bytes:
        found = b""
        while not found:
            if inflater.eof:
                following = await self._following(inflater)
                if following is None:
                    return b""
                inflater = following
            if not self._waiting:
                self._waiting = await anext(self._pieces, b"")
            if not self._waiting:
                raise tarballs.broken("its compressed data is cut short")
            try:
                found = inflater.decompress(self._waiting, PIECE_BYTES)
            except zlib.error as error:
                raise tarballs.broken("its compressed data is damaged") from error
            await asyncio.sleep(0)  # a piece that expands a thousandfold is work for a while
            self._waiting = inflater.unconsumed_tail
        return found

    async def _following(self, inflater: zlib._Decompress) -> zlib._Decompress | None:
        """Go on to the next member of compressed data, as parallel tools write them; None where there is no other."""
        waiting = inflater.unused_data
        while len(waiting) < len(_GZIP) and (piece := await anext(self._pieces, b"")):
            waiting += piece
        if not waiting.startswith(_GZIP):
            return None  # whatever stands behind the end is no part of the archive
        self._waiting = waiting
        self._inflater = zlib.decompressobj(_GZIP_BITS)
        return self._inflater


class Reader:
    """Entries of an archive, one after the other. `read` gives the content of the one that was returned last."""

    def __init__(self, inflow: Inflow, *, limit: int) -> None:
        """Read at most `limit` headers."""
        self._inflow = inflow
        self._limit = limit
        self._headers = 0
        self._content = 0
        self._padding = 0

    async def next(self) -> tarballs.Member | None:
        """Return the next entry, None at the end. Raises `InvalidRequest`, `TooLarge`."""
        await self._leave()
        extensions: dict[str, str] = {}
        for _ in range(tarballs.MAX_EXTENSIONS):
            block = await self._block()
            if block is None:
                if extensions:
                    raise tarballs.broken("it ends behind an extension header")
                return None
            found = tarballs.parse(block, extensions)
            if isinstance(found, tarballs.Member):
                self._content, self._padding = found.size, -found.size % tarballs.BLOCK
                return found
            extensions |= await self._extension(found)
        raise tarballs.broken(f"more than {tarballs.MAX_EXTENSIONS} extension headers in a row")

    async def read(self, limit: int) -> bytes:
        """Return the next bytes of the content; none at its end."""
        if not self._content:
            return b""
        found = await self._inflow.some(min(limit, self._content))
        if not found:
            raise tarballs.broken("it ends within an entry")
        self._content -= len(found)
        return found

    async def _leave(self) -> None:
        while self._content:
            await self.read(PIECE_BYTES)
        if len(await self._inflow.exactly(self._padding)) < self._padding:
            raise tarballs.broken("it ends within an entry")
        self._padding = 0

    async def _block(self) -> bytes | None:
        block = await self._inflow.exactly(tarballs.BLOCK)
        if not block:
            return None
        if len(block) < tarballs.BLOCK:
            raise tarballs.broken("it ends within a header")
        if not block.strip(b"\0"):
            await self._inflow.drain()
            return None
        self._headers += 1
        if self._headers > self._limit:
            raise errors.TooLarge(f"cannot extract: more than {self._limit} entries", limit=self._limit)
        return block

    async def _extension(self, found: tarballs.Extension) -> dict[str, str]:
        if found.size > tarballs.MAX_EXTENSION_BYTES:
            raise tarballs.broken(f"an extension header of more than {tarballs.MAX_EXTENSION_BYTES} bytes")
        content = await self._inflow.exactly(found.size)
        self._padding = -found.size % tarballs.BLOCK
        await self._leave()
        if len(content) < found.size:
            raise tarballs.broken("it ends within an extension header")
        return tarballs.said(found.kind, content)

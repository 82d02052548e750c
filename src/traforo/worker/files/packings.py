"""Packs a tree of a sandbox into an archive as it is read: a block of it is in memory, and a list of what is to come.

A tree that changes meanwhile is packed as it is met. What has gone by then is left out; a file that grew is cut where
it ended when it was opened; one that shrank breaks the archive off, so that nobody takes it for whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncGenerator, Sequence

from traforo.domain import errors
from traforo.worker.files import descriptors, files, openings, replacements, tarballs, walks
from traforo.worker.runtimes import contract

PIECE_BYTES = 256 * 1024
"""About how much is given out at once."""
MAX_HARDLINKS = 100_000
"""Most files with several names that are remembered, so that their content is packed once."""
_GZIP_BITS = 31
_LEVEL = 3
"""Of compression: most of what there is to gain, for a third of the time of the usual 6."""


class Packing:
    """One archive that is made."""

    def __init__(self, inside: contract.Files, *, user: str, skip_unreadable: bool = False) -> None:
        """Pack with the rights of `user`; with `skip_unreadable` what they do not reach is left out."""
        self._files = inside
        self._user = user
        self._skip = skip_unreadable
        self._names: dict[tuple[int, int], str] = {}

    async def plan(self, path: str) -> tuple[str, list[contract.FileStat]]:
        """Return what is to be packed, and below which directory. Raises what the runtime raises, `TooLarge`."""
        facts = await self._files.stat(path, user=self._user)
        if facts.kind is contract.FileKind.DIRECTORY:
            return path, await walks.walk(self._files, path, user=self._user)
        if facts.kind is not contract.FileKind.FILE:
            raise errors.InvalidRequest(f"cannot pack {path[:200]!r}: neither a file nor a directory", field="path")
        return path.rpartition("/")[0] or "/", [facts]

    async def run(self, base: str, found: Sequence[contract.FileStat]) -> AsyncGenerator[bytes]:
        """Give out the archive in pieces of about `PIECE_BYTES`."""
        waiting: list[bytes] = []
        size = 0
        async with contextlib.aclosing(self._all(base, found)) as parts:
            async for data in parts:
                waiting.append(data)
                size += len(data)
                if size >= PIECE_BYTES:
                    yield b"".join(waiting)
                    waiting, size = [], 0
        waiting.append(tarballs.END)
        yield b"".join(waiting)

    async def _all(self, base: str, found: Sequence[contract.FileStat]) -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(openings.each(self._files, found, user=self._user)) as entries:
            async for facts, file in entries:
                name = walks.relative(base, facts.path)
                if isinstance(file, files.OpenFile):
                    async with contextlib.aclosing(self._file(name, facts, file)) as pieces:
                        async for data in pieces:
                            yield data
                elif isinstance(file, errors.TraforoError):
                    self._check(file)
                elif facts.kind is contract.FileKind.DIRECTORY:
                    yield tarballs.header(_member(name, facts, tarballs.Kind.DIRECTORY))
                elif facts.kind is contract.FileKind.SYMLINK and facts.target:
                    yield tarballs.header(_member(name, facts, tarballs.Kind.SYMLINK, link=facts.target))

    def _check(self, error: errors.TraforoError) -> None:
        """Raise why a file was not opened, unless it has gone, is no file any more, or may be left out."""
        gone = isinstance(error, errors.NotFound) and replacements.missing(error)
        skipped = isinstance(error, errors.Forbidden) and self._skip
        if not (gone or skipped or isinstance(error, errors.InvalidRequest)):
            raise error

    async def _file(self, name: str, facts: contract.FileStat, file: files.OpenFile) -> AsyncGenerator[bytes]:
        try:
            key = file.found.st_dev, file.found.st_ino
            several = file.found.st_nlink > 1 and len(self._names) < MAX_HARDLINKS
            if several and self._names.setdefault(key, name) != name:
                yield tarballs.header(_member(name, facts, tarballs.Kind.HARDLINK, link=self._names[key]))
                return
            yield tarballs.header(_member(name, facts, tarballs.Kind.FILE, size=file.size))
            left = file.size
            while left:
                data = await file.read(min(left, descriptors.BLOCK_BYTES))
                if not data:
                    raise errors.InvalidRequest(f"cannot go on packing: {facts.path[:200]!r} was made shorter")
                left -= len(data)
                yield data
            if padding := tarballs.padding(file.size):
                yield padding
        finally:
            file.close()


async def gzipped(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Compress pieces as they come."""
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    async with contextlib.aclosing(pieces) as source:
        async for piece in source:
            if data := await asyncio.to_thread(deflater.compress, piece):
                yield data
    yield deflater.flush()


def _member(
    name: str, facts: contract.FileStat, kind: tarballs.Kind, *, size: int = 0, link: str = ""
) -> tarballs.Member:
    return tarballs.Member(name, kind, size, facts.mode, facts.uid, facts.gid, facts.modified_at, link)

"""Files of sandboxes, of any size: opened inside the sandbox with its user's rights, read and written through here.

A few blocks are in memory at a time, whatever the size. Blocking work is done in threads, small work at once. It
speaks no HTTP, and it trusts nothing a descriptor claims to be.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from traforo.domain import errors
from traforo.worker import descriptors, entries, paths
from traforo.worker.runtimes import contract

MAX_CONTENT_BYTES = 10 * 1024 * 1024
"""Largest file that is read or written in one piece of memory, as JSON has it."""
MAX_ENTRIES = 100_000
"""Entries of the largest directory that can be listed."""
_SORT_INLINE = 2000


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did."""

    bytes_written: int
    size: int
    """Bytes of the file now."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a directory, sorted by the bytes of their paths."""

    entries: Sequence[contract.FileStat]
    next_cursor: str | None


class OpenFile:
    """A regular file that was opened for reading. Close it."""

    def __init__(self, fd: int, path: str, size: int) -> None:
        self._fd = fd
        self._path = path
        self.size = size
        """Bytes at the time of opening."""

    async def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes; fewer at the end alone. Raises `InvalidRequest`."""
        with descriptors.translated(self._path):
            if limit <= descriptors.INLINE_BYTES:
                return descriptors.read(self._fd, limit)
            return await asyncio.to_thread(descriptors.read, self._fd, limit)

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Files:
    """Files of every sandbox of this worker. `user` None is the image's default user."""

    async def write(
        self,
        entry: entries.Entry,
        path: str,
        content: AsyncIterator[bytes],
        *,
        user: str | None,
        append: bool = False,
        mode: int = 0o644,
        exclusive: bool = False,
    ) -> Written:
        """Write what `content` gives to a file, making its parents; `exclusive` refuses one that exists.

        When `content` raises, what came before is in the file. Raises what the runtime raises for a path, `DiskFull`.
        """
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC) | (os.O_EXCL if exclusive else 0)
        fd = await _sandbox(entry).files.open(path, flags, mode, user=_user(entry, user))
        try:
            descriptors.check(fd, path)
            written = await _copy(content, fd, path)
            return Written(written, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    async def open(self, entry: entries.Entry, path: str, *, user: str | None) -> OpenFile:
        """Open a file for reading. Raises what the runtime raises for a path."""
        fd = await _sandbox(entry).files.open(path, os.O_RDONLY, user=_user(entry, user))
        try:
            return OpenFile(fd, path, descriptors.check(fd, path))
        except BaseException:
            os.close(fd)
            raise

    async def content(self, entry: entries.Entry, path: str, *, user: str | None) -> bytes:
        """Return a whole file of at most `MAX_CONTENT_BYTES`. Raises `TooLarge`."""
        file = await self.open(entry, path, user=user)
        try:
            data = await file.read(min(file.size, MAX_CONTENT_BYTES) + 1)
        finally:
            file.close()
        if len(data) > MAX_CONTENT_BYTES:
            raise errors.TooLarge(
                f"cannot read {paths.shown(path)[:200]!r} as a whole: more than {MAX_CONTENT_BYTES} bytes",
                limit=MAX_CONTENT_BYTES,
                hint="leave out 'encoding' to get the bytes streamed",
            )
        return data

    async def stat(self, entry: entries.Entry, path: str, *, user: str | None) -> contract.FileStat | None:
        """Return facts about a path, a link itself and not what it points to; None where nothing exists."""
        try:
            return await _sandbox(entry).files.stat(path, user=_user(entry, user), follow=False)
        except errors.NotFound as error:
            if error.fields.get("kind") == "file":
                return None
            raise

    async def list(
        self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool, limit: int, cursor: str | None
    ) -> Page:
        """Return a page of what is below a directory. Raises `TooLarge` for more than `MAX_ENTRIES`."""
        start = _offset(cursor)
        listing = await _sandbox(entry).files.list(
            path, user=_user(entry, user), recursive=recursive, limit=MAX_ENTRIES + 1
        )
        if listing.truncated or len(listing.entries) > MAX_ENTRIES:
            raise errors.TooLarge(
                f"cannot list {paths.shown(path)[:200]!r}: more than {MAX_ENTRIES} entries", limit=MAX_ENTRIES
            )
        if len(listing.entries) <= _SORT_INLINE:
            found = _sorted(listing.entries)
        else:
            found = await asyncio.to_thread(_sorted, listing.entries)
        end = start + limit
        return Page(found[start:end], str(end) if end < len(found) else None)

    async def mkdir(self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool) -> bool:
        """Make a directory, with `recursive` its parents too; False if it was there."""
        return await _sandbox(entry).files.mkdir(path, user=_user(entry, user), parents=recursive)

    async def remove(self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool, force: bool) -> None:
        """Remove a file, a link or a directory; with `force` nothing to remove is fine. Never the root."""
        if paths.is_root(path):
            raise errors.InvalidRequest("cannot remove '/': delete the sandbox instead", field="path")
        try:
            await _sandbox(entry).files.remove(path, user=_user(entry, user), recursive=recursive)
        except errors.NotFound as error:
            if not force or error.fields.get("kind") != "file":
                raise


async def _copy(content: AsyncIterator[bytes], fd: int, path: str) -> int:
    """Write pieces as they come, put together to blocks; return how many bytes it was. Raises `DiskFull`."""
    waiting: list[bytes] = []
    size = total = 0
    async for piece in content:
        waiting.append(piece)
        size += len(piece)
        if size >= descriptors.BLOCK_BYTES:
            await _write(fd, b"".join(waiting), path)
            total += size
            waiting, size = [], 0
    await _write(fd, b"".join(waiting), path)
    return total + size


async def _write(fd: int, data: bytes, path: str) -> None:
    with descriptors.translated(path):
        if len(data) <= descriptors.INLINE_BYTES:
            descriptors.write(fd, data)
        else:
            await asyncio.to_thread(descriptors.write, fd, data)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Give out content that is in memory."""
    yield data


def _sandbox(entry: entries.Entry) -> contract.RunningSandbox:
    if entry.running is None:
        text = f"cannot use the files: the sandbox is {entry.state.value}"
        raise errors.Conflict(text, state=entry.state.value)
    return entry.running


def _user(entry: entries.Entry, user: str | None) -> str:
    return user or entry.rootfs.user


def _sorted(found: Sequence[contract.FileStat]) -> list[contract.FileStat]:
    return sorted(found, key=lambda stat: stat.path.encode(errors="surrogateescape"))


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or int(cursor) > MAX_ENTRIES:
        raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor")
    return int(cursor)

"""Files of sandboxes, of any size: opened inside the sandbox with its user's rights, read and written through here.

A few blocks are in memory at a time, whatever the size. Blocking work is done in threads, small work at once. It
speaks no HTTP, and it trusts nothing a descriptor claims to be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from traforo.api import threads
from traforo.domain import errors
from traforo.worker import insides
from traforo.worker.files import changes, conditions, descriptors, fillings, paces, paths, replacements, walks
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities, entries

MAX_CONTENT_BYTES = 10 * 1024 * 1024
"""Largest file that is read or written in one piece of memory, as JSON has it."""
MAX_ENTRIES = walks.MAX_ENTRIES
"""Entries of the largest directory that can be listed."""
_CURSOR_DIGITS = 9
"""Most digits of a cursor: Python makes no number of thousands of them."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did."""

    bytes_written: int
    size: int
    """Bytes of the file now."""
    etag: str
    """Names this version of it."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a directory, sorted by the bytes of their paths."""

    entries: Sequence[contract.FileStat]
    next_cursor: str | None


class OpenFile:
    """A regular file that was opened for reading. Close it."""

    def __init__(self, fd: int, path: str, hold: activities.Hold | None = None) -> None:
        """Take over a descriptor that was checked."""
        self._fd = fd
        self._path = path
        self._hold = hold
        self.found = os.fstat(fd)
        """Its facts at the time of opening."""
        self.size = self.found.st_size
        """Bytes at the time of opening."""

    def fileno(self) -> int:
        """Return its descriptor, which stays its own."""
        return self._fd

    def seek(self, offset: int) -> None:
        """Go on reading from there."""
        os.lseek(self._fd, offset, os.SEEK_SET)

    async def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes; fewer at the end alone. Raises `InvalidRequest`."""
        with descriptors.translated(self._path):
            if limit <= descriptors.INLINE_BYTES:
                return descriptors.read(self._fd, limit)
            return await threads.run(descriptors.read, self._fd, limit)

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._hold is not None:
                self._hold.release()


class Files:
    """Files of every sandbox of this worker. `user` None is the image's default user."""

    def __init__(self) -> None:
        self.turns = walks.Turns()
        """Who walks a tree."""
        self.paces = paces.Paces()
        """Who compares names."""
        self.watches = changes.Watches()
        """Who is told of changes."""

    async def close(self) -> None:
        """End what goes on by itself."""
        await self.watches.close()

    async def write(
        self,
        entry: entries.Entry,
        path: str,
        content: AsyncIterator[bytes],
        *,
        user: str | None,
        append: bool = False,
        mode: int | None = None,
        exclusive: bool = False,
        wanted: conditions.Conditions = conditions.NONE,
    ) -> Written:
        """Write what `content` gives to a file, making its parents.

        It takes the place of an old file as a whole, at the end; when `content` raises, the old one is still there. The
        exceptions are told in `replacements`, and two are asked for: with `append`, and with `exclusive` (which refuses
        a file that exists), the file itself is written as it comes. Raises what the runtime raises for a path,
        `PreconditionFailed`, `DiskFull`.
        """
        inside, name = insides.files(entry), insides.user(entry, user)
        with entry.activity.hold():
            if append or exclusive:
                flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0) | (os.O_EXCL if exclusive else 0)
                bits = replacements.DEFAULT_MODE if mode is None else mode
                return await self._straight(inside, path, content, name, flags, bits)
            writing = await replacements.begin(inside, path, user=name, mode=mode, wanted=wanted)
            try:
                written = await _copy(content, fillings.Filling(inside, writing.fd, path, name))
                found = await writing.commit()
            finally:
                await writing.abandon()
        return Written(written, found.st_size, conditions.etag(found))

    async def _straight(
        self, inside: contract.Files, path: str, content: AsyncIterator[bytes], user: str, flags: int, mode: int
    ) -> Written:
        """Write to the file itself, as it comes."""
        fd = await inside.open(path, flags, mode, user=user)
        try:
            descriptors.check(fd, path)
            written = await _copy(content, fillings.Filling(inside, fd, path, user))
            found = os.fstat(fd)
            return Written(written, found.st_size, conditions.etag(found))
        finally:
            os.close(fd)

    async def open(self, entry: entries.Entry, path: str, *, user: str | None) -> OpenFile:
        """Open a file for reading. Raises what the runtime raises for a path."""
        hold = entry.activity.hold()
        try:
            return await opened(insides.files(entry), path, insides.user(entry, user), hold)
        except BaseException:
            hold.release()
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
            return await insides.files(entry).stat(path, user=insides.user(entry, user), follow=False)
        except errors.InvalidRequest as error:
            if replacements.number(error) == errno.ENOTDIR:  # a path below a file
                return None
            raise
        except errors.NotFound as error:
            if error.fields.get("kind") == "file":
                return None
            raise

    async def list(
        self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool, limit: int, cursor: str | None
    ) -> Page:
        """Return a page of what is below a directory. Raises `TooLarge` for more than `MAX_ENTRIES`."""
        start = _offset(cursor)
        inside, name = insides.files(entry), insides.user(entry, user)
        found = await walks.walk(inside, path, user=name, recursive=recursive, limit=MAX_ENTRIES)
        end = start + limit
        return Page(found[start:end], str(end) if end < len(found) else None)

    async def mkdir(self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool) -> bool:
        """Make a directory, with `recursive` its parents too; False if it was there. Raises `InvalidRequest` if it is
        something else.
        """
        try:
            return await insides.files(entry).mkdir(path, user=insides.user(entry, user), parents=recursive)
        except errors.Conflict as error:
            raise errors.InvalidRequest(f"cannot make {path[:200]!r}: it is no directory", field="path") from error

    async def remove(self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool, force: bool) -> None:
        """Remove a file, a link or a directory; with `force` nothing to remove is fine. Never the root."""
        if paths.is_root(path):
            raise errors.InvalidRequest("cannot remove '/': delete the sandbox instead", field="path")
        try:
            await insides.files(entry).remove(path, user=insides.user(entry, user), recursive=recursive)
        except errors.NotFound as error:
            if not force or error.fields.get("kind") != "file":
                raise


async def _copy(content: AsyncIterator[bytes], filling: fillings.Filling) -> int:
    """Write pieces as they come, put together to blocks; return how many bytes it was. Raises `DiskFull`."""
    waiting: list[bytes] = []
    size = total = 0
    try:
        async for piece in content:
            waiting.append(piece)
            size += len(piece)
            if size >= descriptors.BLOCK_BYTES:
                await filling.write(b"".join(waiting))
                total += size
                waiting, size = [], 0
        await filling.write(b"".join(waiting))
        await filling.finish()
    finally:
        await filling.abandon()
    return total + size


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Give out content that is in memory."""
    yield data


async def opened(inside: contract.Files, path: str, user: str, hold: activities.Hold | None = None) -> OpenFile:
    """Open a file for reading; `hold` is released when it is closed. Raises what the runtime raises for a path."""
    fd = await inside.open(path, os.O_RDONLY, user=user)
    try:
        descriptors.check(fd, path)
        return OpenFile(fd, path, hold)
    except BaseException:
        os.close(fd)
        raise


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > _CURSOR_DIGITS or int(cursor) > MAX_ENTRIES:
        raise errors.InvalidRequest("cannot continue: malformed cursor", field="cursor")
    return int(cursor)

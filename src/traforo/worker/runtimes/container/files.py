"""Files of a sandbox through its init (`contract.Files`): paths are resolved inside, descriptors come back.

A descriptor from an init is checked before it is used; the records of a walk are parsed as hostile bytes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import struct
from typing import NoReturn

from traforo.domain import errors
from traforo.wire import init_messages as wire
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, watches

_RECORD = struct.Struct("<IIQqIIIIQ")
"""`struct file_record` of init/src/files.h: length, mode, size, modified_ns, uid, gid, two more lengths, inode."""
_RECORD_MAX = _RECORD.size + 2 * 4096
_WALK_SECONDS = 60.0
_REMOVE_SECONDS = 600.0
_FILL_SECONDS = 24 * 3600.0
_DIRECT_BYTES = 16 << 20
"""What the worker writes to the disk of a sandbox by itself: on a tmpfs it is the worker's memory."""
_CHUNK = 1 << 16
_WATCHES_MAX = 16
_WATCH_TRIES = 100
_WATCH_PAUSE_SECONDS = 0.02
_INLINE_BYTES = 64 * 1024
_LISTING_MAX = 64 << 20
"""Most bytes of one listing; a hundred thousand entries of ordinary names take a tenth of it."""

_SECONDS_MAX = 1 << 33
_NANOSECONDS_MAX = (1 << 63) - 1

_KINDS = {
    stat.S_IFREG: contract.FileKind.FILE,
    stat.S_IFDIR: contract.FileKind.DIRECTORY,
    stat.S_IFLNK: contract.FileKind.SYMLINK,
}


def text_of(data: bytes) -> str:
    """Decode a path of the sandbox; strays become surrogate escapes."""
    return data.decode(errors="surrogateescape")


def check_path(path: str) -> str:
    """Return the path if it can be one. Raises `InvalidRequest`."""
    if not path.startswith("/") or "\0" in path:
        raise errors.InvalidRequest("a path is absolute and has no NUL", field="path")
    if len(path.encode(errors="surrogateescape")) > contract.MAX_PATH_BYTES:
        raise errors.InvalidRequest(f"a path has at most {contract.MAX_PATH_BYTES} bytes", field="path")
    return path


def check_below(path: str) -> str:
    """Return the path if it can be one below a directory; where it leads is for the init to see. As `check_path`."""
    check_path("/" + path)
    return path


def check_id(number: int) -> int:
    """Return a user or group id if it can be one. Raises `InvalidRequest`."""
    if not 0 <= number < 0xFFFFFFFF:
        raise errors.InvalidRequest("an id is a number from 0 to 4294967294", field="owner")
    return number


def nanoseconds(seconds: float) -> int:
    """Turn Unix seconds into what a record holds. Raises `InvalidRequest` for what it cannot."""
    if not -_SECONDS_MAX < seconds < _SECONDS_MAX:
        raise errors.InvalidRequest("a time is a number of seconds since 1970", field="modified_at")
    return round(seconds * 1e9)


def raise_refused(error: channels.Refused, path: str, user: str) -> NoReturn:
    """Translate what an init refused into the words of the domain."""
    shown = path.encode(errors="surrogateescape").decode(errors="replace")[:200]
    if error.stage == "user":
        raise errors.NotFound(f"no user {user!r} in this sandbox", kind="user", id=user) from error
    match error.errno:
        case errno.ENOENT:
            raise errors.NotFound(f"no such file or directory: {shown!r}", kind="file", id=shown) from error
        case errno.EACCES | errno.EPERM | errno.EROFS:
            raise errors.Forbidden(f"{user!r} may not do this to {shown!r}") from error
        case errno.ENOSPC | errno.EDQUOT:
            raise errors.DiskFull("the sandbox's disk is full") from error
        case errno.ENOTEMPTY:
            raise errors.Conflict(f"directory is not empty: {shown!r}") from error
        case errno.EEXIST:
            raise errors.Conflict(f"exists already: {shown!r}") from error
        case errno.ESTALE:
            raise errors.Conflict(f"somebody has changed what is there meanwhile: {shown!r}") from error
        case errno.EBUSY:
            raise errors.Conflict(f"in use: {shown!r}") from error
        case errno.EAGAIN:
            raise errors.RateLimited(f"too much at once for this sandbox: {error.text}") from error
    reasons = {
        errno.EISDIR: "is a directory",
        errno.ENOTDIR: "a part of the path is not a directory",
        errno.ELOOP: "too many links, or a link that names no path",
        errno.ENAMETOOLONG: "a name is too long",
        errno.EXDEV: "these are on two file systems",
        errno.EOPNOTSUPP: "not possible here, or a link, which has no permission bits",
        errno.EINVAL: "not a regular file",
    }
    raise errors.InvalidRequest(
        f"{shown!r}: {reasons.get(error.errno, os.strerror(error.errno).lower())}", field="path"
    ) from error


def to_stat(path: str, fields: tuple[int, ...], target: bytes) -> contract.FileStat:
    """Build a `FileStat` from the numbers of a record."""
    _, mode, size, modified_ns, uid, gid, _, _, inode = fields
    kind = _KINDS.get(stat.S_IFMT(mode), contract.FileKind.OTHER)
    return contract.FileStat(
        path=path,
        kind=kind,
        size=size if kind is contract.FileKind.FILE else 0,
        mode=stat.S_IMODE(mode),
        uid=uid,
        gid=gid,
        modified_at=modified_ns / 1e9,
        target=text_of(target) if kind is contract.FileKind.SYMLINK else None,
        modified_ns=modified_ns if abs(modified_ns) < _NANOSECONDS_MAX else None,
        inode=inode or None if kind is contract.FileKind.FILE else None,
    )


async def _collect(descriptor: int) -> bytes:
    """Read a walk to its end; takes the descriptor over. Raises `Closed` for more than a listing may have.

    No thread waits for it: its process may be stopped by the sandbox, and threads are everybody's. The pipe is opened
    anew, because whether it blocks is told to all who share its opening.
    """
    loop = asyncio.get_running_loop()
    data = bytearray()
    ready = asyncio.Event()
    own = -1
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(own, ready.set)
        while True:
            ready.clear()
            try:
                piece = os.read(own, _CHUNK)
            except BlockingIOError:
                await ready.wait()
                continue
            if not piece:
                return bytes(data)
            data += piece
            if len(data) > _LISTING_MAX:
                raise channels.Closed("the listing is too large")
            await asyncio.sleep(0)
    except OSError as error:
        if error.errno in channels.SHORT:
            raise channels.Incomplete("cannot list: too many open files") from error
        raise channels.Closed("an init sent a pipe that cannot be read") from error
    finally:
        if own >= 0:
            loop.remove_reader(own)
            os.close(own)
        os.close(descriptor)


def _cut(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise channels.Closed("the listing was cut short: its process was killed")
    return data[at : at + length]


def read_records(data: bytes, limit: int, base: str = "/") -> contract.Listing:
    """Read the records of a walk of `base` until its last one. Raises `Closed` for bytes that are none."""
    prefix = base.rstrip("/") + "/"
    entries: list[contract.FileStat] = []
    at = 0
    while True:
        fields = _RECORD.unpack(_cut(data, at, _RECORD.size))
        length, mode, size, modified_ns, _, _, path_length, target_length, _ = fields
        if length > _RECORD_MAX or length != _RECORD.size + path_length + target_length:
            raise channels.Closed("an init sent a malformed listing")
        rest = _cut(data, at + _RECORD.size, path_length + target_length)
        at += length
        if not mode:
            if size:
                raise channels.Refused(min(size, 4095), "walk", "the walk failed")
            return contract.Listing(entries, truncated=bool(modified_ns))
        if len(entries) >= limit:
            raise channels.Closed("an init sent more than it was asked for")
        entries.append(to_stat(prefix + text_of(rest[:path_length]), fields, rest[path_length:]))


def _only_file(reply: channels.Reply) -> int:
    """Return the one regular file that came. Raises `Closed` for anything else."""
    if len(reply.descriptors) == 1 and stat.S_ISREG(os.fstat(reply.descriptors[0]).st_mode):
        return reply.descriptors[0]
    for descriptor in reply.descriptors:
        os.close(descriptor)
    raise channels.Closed("an init sent something else than a regular file")


class Files:
    """`contract.Files` over the control socket of an init."""

    def __init__(self, channel: channels.Channel) -> None:
        self._channel = channel
        self._watches: list[watches.Watch] = []
        self._direct = _DIRECT_BYTES

    async def _ask(
        self,
        kind: int,
        path: str,
        user: str,
        *more: bytes,
        gives: int | None = None,
        takes: bool = False,
        seconds: float | None = None,
    ) -> channels.Reply:
        fields = (wire.string(wire.Tag.PATH, check_path(path)), wire.string(wire.Tag.USER, user), *more)
        given = () if gives is None else (gives,)
        try:
            return await self._channel.request(kind, b"".join(fields), given, takes=takes, seconds=seconds)
        except channels.Refused as error:
            raise_refused(error, path, user)

    async def open(self, path: str, flags: int, mode: int = 0o644, *, user: str) -> int:
        """Open a regular file."""
        more = wire.number(wire.Tag.FLAGS, flags & ~os.O_CLOEXEC), wire.number(wire.Tag.MODE, mode)
        return _only_file(await self._ask(wire.Type.OPEN, path, user, *more, takes=True))

    async def draft(self, path: str, mode: int = 0o644, *, user: str) -> int:
        """Make a file without a name."""
        return _only_file(await self._ask(wire.Type.DRAFT, path, user, wire.number(wire.Tag.MODE, mode), takes=True))

    async def place(self, descriptor: int, path: str, *, user: str, exclusive: bool) -> None:
        """Give an open file a name."""
        await self._ask(wire.Type.PLACE, path, user, wire.number(wire.Tag.EXCLUSIVE, exclusive), gives=descriptor)

    async def stat(self, path: str, *, user: str, follow: bool = True) -> contract.FileStat:
        """Return facts about one path."""
        reply = await self._ask(wire.Type.STAT, path, user, wire.number(wire.Tag.FOLLOW, follow))
        record = reply.message.data(wire.Tag.STAT) or b""
        if len(record) != _RECORD.size:
            raise channels.Closed("an init sent a malformed stat")
        return to_stat(path, _RECORD.unpack(record), reply.message.data(wire.Tag.TARGET) or b"")

    async def list(self, path: str, *, user: str, recursive: bool, limit: int) -> contract.Listing:
        """Return entries below a directory."""
        more = wire.number(wire.Tag.RECURSIVE, recursive), wire.number(wire.Tag.LIMIT, limit)
        reply = await self._ask(wire.Type.WALK, path, user, *more, takes=True)
        if len(reply.descriptors) != 1 or not stat.S_ISFIFO(os.fstat(reply.descriptors[0]).st_mode):
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise channels.Closed("an init sent no pipe for a listing")
        try:
            data = await asyncio.wait_for(_collect(reply.descriptors[0]), _WALK_SECONDS)
            if len(data) < _INLINE_BYTES:
                return read_records(data, limit, path)
            return await asyncio.to_thread(read_records, data, limit, path)
        except TimeoutError as error:
            raise channels.Closed("the listing took too long") from error
        except channels.Refused as error:
            raise_refused(error, path, user)

    async def fill(self, descriptor: int, source: int, path: str, *, user: str) -> None:
        """Have the sandbox write what comes from a source."""
        fields = wire.string(wire.Tag.PATH, check_path(path)) + wire.string(wire.Tag.USER, user)
        try:
            await self._channel.request(wire.Type.FILL, fields, (descriptor, source), seconds=_FILL_SECONDS)
        except channels.Refused as error:
            raise_refused(error, path, user)

    def direct(self, count: int) -> bool:
        """Say whether the worker may write so many bytes itself."""
        self._direct -= count
        return self._direct >= 0

    async def mkdir(self, path: str, mode: int = 0o755, *, user: str, parents: bool) -> bool:
        """Make a directory."""
        more = wire.number(wire.Tag.MODE, mode), wire.number(wire.Tag.PARENTS, parents)
        reply = await self._ask(wire.Type.MKDIR, path, user, *more)
        try:
            return bool(reply.message.number(wire.Tag.CREATED))
        except wire.MalformedMessage as error:
            raise channels.Closed("an init sent a malformed answer") from error

    async def remove(self, path: str, *, user: str, recursive: bool) -> None:
        """Remove a file, a link or a directory."""
        seconds = _REMOVE_SECONDS if recursive else None  # it is answered when the last entry is gone
        await self._ask(wire.Type.REMOVE, path, user, wire.number(wire.Tag.RECURSIVE, recursive), seconds=seconds)

    async def rename(self, path: str, to: str, *, user: str, exclusive: bool = False) -> None:
        """Rename within one file system."""
        more = wire.string(wire.Tag.TO, check_path(to)), wire.number(wire.Tag.EXCLUSIVE, exclusive)
        await self._ask(wire.Type.RENAME, path, user, *more)

    async def change(
        self,
        path: str,
        *,
        user: str,
        follow: bool = True,
        below: str | None = None,
        descriptor: int | None = None,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_at: float | None = None,
    ) -> None:
        """Change permission bits, owner and group, modification time."""
        more = [wire.number(wire.Tag.FOLLOW, follow)]
        if below is not None:
            more.append(wire.string(wire.Tag.BELOW, check_below(below)))
        if mode is not None:
            more.append(wire.number(wire.Tag.MODE, mode))
        for tag, number in ((wire.Tag.UID, uid), (wire.Tag.GID, gid)):
            if number is not None:
                more.append(wire.number(tag, check_id(number)))
        if modified_at is not None:
            more.append(wire.number(wire.Tag.MODIFIED, nanoseconds(modified_at)))
        await self._ask(wire.Type.CHANGE, path, user, *more, gives=descriptor)

    async def symlink(self, target: str, path: str, *, user: str) -> None:
        """Make a symbolic link."""
        if not target or "\0" in target or len(target.encode(errors="surrogateescape")) > contract.MAX_PATH_BYTES:
            raise errors.InvalidRequest("a link says something that could be a path", field="target")
        await self._ask(wire.Type.SYMLINK, path, user, wire.string(wire.Tag.TARGET, target))

    async def link(self, existing: str, path: str, *, user: str) -> None:
        """Make another name for a file."""
        await self._ask(wire.Type.LINK, existing, user, wire.string(wire.Tag.TO, check_path(path)))

    async def watch(self, path: str, *, user: str, recursive: bool) -> watches.Watch:
        """Watch a directory, or everything below it."""
        self._watches = [found for found in self._watches if not found.closed]
        if len(self._watches) >= _WATCHES_MAX:
            raise errors.RateLimited(f"a sandbox can be watched {_WATCHES_MAX} times at once")
        reply = await self._begin_watch(path, user, wire.number(wire.Tag.RECURSIVE, recursive))
        if len(reply.descriptors) != 1 or not stat.S_ISFIFO(os.fstat(reply.descriptors[0]).st_mode):
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise channels.Closed("an init sent no pipe for a watch")
        found = watches.Watch(reply.descriptors[0], path)
        self._watches.append(found)
        try:
            await asyncio.wait_for(found.ready(), _WALK_SECONDS)
        except TimeoutError as error:
            raise channels.Closed("it took too long to begin to watch") from error
        except channels.Refused as error:
            raise_refused(error, path, user)
        finally:
            if not found.is_ready:
                await found.close()
        return found

    async def _begin_watch(self, path: str, user: str, recursive: bytes) -> channels.Reply:
        """Have a process begin to watch; those of watches that were closed need a moment to end."""
        for _ in range(_WATCH_TRIES):
            try:
                return await self._ask(wire.Type.WATCH, path, user, recursive, takes=True)
            except errors.RateLimited:
                await asyncio.sleep(_WATCH_PAUSE_SECONDS)
        return await self._ask(wire.Type.WATCH, path, user, recursive, takes=True)

    def close(self) -> None:
        """End the watches: the sandbox is dead."""
        for found in self._watches:
            found.end()

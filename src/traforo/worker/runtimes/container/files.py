"""Files of a sandbox through its init (`contract.Files`): paths are resolved inside, descriptors come back.

A descriptor from an init is checked before it is used; the records of a walk are parsed as hostile bytes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import struct
import time
from typing import NoReturn

from traforo.domain import errors
from traforo.wire import init_messages as wire
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels

_RECORD = struct.Struct("<IIQqIIII")
"""`struct file_record` of init/src/files.h: length, mode, size, modified_ns, uid, gid, path and target length."""
_RECORD_MAX = _RECORD.size + 2 * 4096
_WALK_SECONDS = 60.0
_CHUNK = 1 << 16
_LISTING_MAX = 64 << 20
"""Most bytes of one listing; a hundred thousand entries of ordinary names take a tenth of it."""

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
        case errno.EBUSY:
            raise errors.Conflict(f"in use: {shown!r}") from error
    reasons = {
        errno.EISDIR: "is a directory",
        errno.ENOTDIR: "a part of the path is not a directory",
        errno.ELOOP: "too many links, or a link that names no path",
        errno.ENAMETOOLONG: "a name is too long",
        errno.EXDEV: "cannot rename from one file system to another",
        errno.EINVAL: "not a regular file",
    }
    raise errors.InvalidRequest(
        f"{shown!r}: {reasons.get(error.errno, os.strerror(error.errno).lower())}", field="path"
    ) from error


def to_stat(path: str, fields: tuple[int, ...], target: bytes) -> contract.FileStat:
    """Build a `FileStat` from the numbers of a record."""
    _, mode, size, modified_ns, uid, gid, _, _ = fields
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
    )


class _Stream:
    """Reads a pipe to an exact length, but not for ever: a sandbox may stop the process that writes it."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._until = time.monotonic() + seconds
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._held = bytearray()
        self._room = _LISTING_MAX

    def read(self, length: int) -> bytes:
        """Return `length` bytes. Blocks. Raises `Closed` when they do not come."""
        while len(self._held) < length:
            left = self._until - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise channels.Closed("the listing took too long")
            data = os.read(self._descriptor, _CHUNK)
            if not data:
                raise channels.Closed("the listing was cut short: its process was killed")
            self._held += data
            self._room -= len(data)
            if self._room < 0:
                raise channels.Closed("the listing is too large")
        found = bytes(self._held[:length])
        del self._held[:length]
        return found


def read_records(descriptor: int, limit: int, base: str = "/", *, seconds: float = _WALK_SECONDS) -> contract.Listing:
    """Read the records of a walk of `base` until its last one, and close the descriptor. Blocks.

    Raises `Closed` for a stream that is none, or that does not end in time.
    """
    prefix = base.rstrip("/") + "/"
    entries: list[contract.FileStat] = []
    try:
        stream = _Stream(descriptor, seconds)
        while True:
            fields = _RECORD.unpack(stream.read(_RECORD.size))
            length, mode, size, modified_ns, _, _, path_length, target_length = fields
            if length > _RECORD_MAX or length != _RECORD.size + path_length + target_length:
                raise channels.Closed("an init sent a malformed listing")
            rest = stream.read(path_length + target_length)
            if not mode:
                if size:
                    raise channels.Refused(min(size, 4095), "walk", "the walk failed")
                return contract.Listing(entries, truncated=bool(modified_ns))
            if len(entries) >= limit:
                raise channels.Closed("an init sent more than it was asked for")
            entries.append(to_stat(prefix + text_of(rest[:path_length]), fields, rest[path_length:]))
    finally:
        os.close(descriptor)


class Files:
    """`contract.Files` over the control socket of an init."""

    def __init__(self, channel: channels.Channel) -> None:
        self._channel = channel

    async def _ask(self, kind: int, path: str, user: str, *more: bytes) -> channels.Reply:
        fields = (wire.string(wire.Tag.PATH, check_path(path)), wire.string(wire.Tag.USER, user), *more)
        try:
            return await self._channel.request(kind, b"".join(fields))
        except channels.Refused as error:
            raise_refused(error, path, user)

    async def open(self, path: str, flags: int, mode: int = 0o644, *, user: str) -> int:
        """Open a regular file."""
        more = wire.number(wire.Tag.FLAGS, flags & ~os.O_CLOEXEC), wire.number(wire.Tag.MODE, mode)
        reply = await self._ask(wire.Type.OPEN, path, user, *more)
        if len(reply.descriptors) == 1 and stat.S_ISREG(os.fstat(reply.descriptors[0]).st_mode):
            return reply.descriptors[0]
        for descriptor in reply.descriptors:
            os.close(descriptor)
        raise channels.Closed("an init sent something else than a regular file")

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
        reply = await self._ask(wire.Type.WALK, path, user, *more)
        if len(reply.descriptors) != 1 or not stat.S_ISFIFO(os.fstat(reply.descriptors[0]).st_mode):
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise channels.Closed("an init sent no pipe for a listing")
        try:
            return await asyncio.to_thread(read_records, reply.descriptors[0], limit, path)
        except channels.Refused as error:
            raise_refused(error, path, user)

    async def mkdir(self, path: str, mode: int = 0o755, *, user: str, parents: bool) -> bool:
        """Make a directory."""
        more = wire.number(wire.Tag.MODE, mode), wire.number(wire.Tag.PARENTS, parents)
        reply = await self._ask(wire.Type.MKDIR, path, user, *more)
        return bool(reply.message.number(wire.Tag.CREATED))

    async def remove(self, path: str, *, user: str, recursive: bool) -> None:
        """Remove a file, a link or a directory."""
        await self._ask(wire.Type.REMOVE, path, user, wire.number(wire.Tag.RECURSIVE, recursive))

    async def rename(self, path: str, to: str, *, user: str) -> None:
        """Rename within one file system."""
        await self._ask(wire.Type.RENAME, path, user, wire.string(wire.Tag.TO, check_path(to)))

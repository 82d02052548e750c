"""A running watch of a sandbox (`contract.Watch`): the records of its process, parsed as hostile bytes.

Nothing is read before somebody asks for changes: a reader who is slow fills the pipe, its process waits, the kernel's
queue in the sandbox runs over, and the reader is told of that.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Sequence

from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels

_RECORD = struct.Struct("<IBBHII")
"""`struct watch_record` of init/src/watches.h: length, kind, directory, error, path and from length."""
_PATH_MAX = 4095
_CHUNK = 1 << 16
_READY = 0
_KINDS = {
    1: contract.ChangeKind.CREATED,
    2: contract.ChangeKind.MODIFIED,
    3: contract.ChangeKind.ATTRIBUTES,
    4: contract.ChangeKind.DELETED,
    5: contract.ChangeKind.OVERFLOW,
}


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _is_below(path: bytes) -> bool:
    """Say whether a relative path can lead to what is below a directory, and nowhere else."""
    return b"\0" not in path and all(part not in {b"", b".", b".."} for part in path.split(b"/"))


class Records:
    """Takes the bytes of a watch in pieces of any size and gives its changes."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._prefix = base.rstrip("/") + "/"
        self._rest = b""
        self.ready = False

    def feed(self, data: bytes) -> list[contract.Change]:
        """Return what is complete. Raises `Closed` for bytes that are no records, `Refused` if it cannot be watched."""
        data = self._rest + data
        found: list[contract.Change] = []
        at = 0
        while len(data) - at >= _RECORD.size:
            length, kind, directory, error, path_length, from_length = _RECORD.unpack_from(data, at)
            if max(path_length, from_length) > _PATH_MAX or length != _RECORD.size + path_length + from_length:
                raise channels.Closed("an init sent a malformed change")
            if len(data) - at < length:
                break
            middle = at + _RECORD.size + path_length
            path, origin = data[at + _RECORD.size : middle], data[middle : at + length]
            at += length
            if self.ready:
                found.append(self._change(kind, bool(directory), path, origin))
            else:
                self._begin(kind, error)
        self._rest = data[at:]
        return found

    def _begin(self, kind: int, error: int) -> None:
        if kind != _READY:
            raise channels.Closed("an init sent a change before its watch began")
        if error:
            raise channels.Refused(min(error, 4095), "watch", "cannot watch")
        self.ready = True

    def _change(self, kind: int, directory: bool, path: bytes, origin: bytes) -> contract.Change:
        known = _KINDS.get(kind)
        if known is contract.ChangeKind.OVERFLOW:
            return contract.Change(known, self._base, True)
        if known is None or not _is_below(path) or (origin and not _is_below(origin)):
            raise channels.Closed("an init sent a malformed change")
        moved_from = self._prefix + _text(origin) if origin and known is contract.ChangeKind.CREATED else None
        return contract.Change(known, self._prefix + _text(path), directory, moved_from)


class Watch:
    """`contract.Watch` over the pipe of a process in the sandbox."""

    def __init__(self, descriptor: int, path: str) -> None:
        """Take a pipe over. It is opened anew: whether it blocks is told to all who share its opening."""
        try:
            self._descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in channels.SHORT:
                raise channels.Incomplete("cannot watch: too many open files") from error
            raise channels.Closed("an init sent a pipe that cannot be read") from error
        finally:
            os.close(descriptor)
        self._records = Records(path)
        self._found: list[contract.Change] = []
        self._wake = asyncio.Event()
        self.closed = False

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missed from here on."""
        return self._records.ready

    async def ready(self) -> None:
        """Return when it watches. Raises `Refused` if it cannot, `Closed`."""
        while not self._records.ready:
            piece = await self._read()
            if not piece:
                raise channels.Closed("the process of a watch was killed")
            self._found.extend(self._records.feed(piece))

    async def changes(self) -> Sequence[contract.Change]:
        """Return the next changes, empty once it is over."""
        while not self._found:
            piece = await self._read()
            if not piece:
                self.end()
                return []
            try:
                self._found.extend(self._records.feed(piece))
            except (channels.Closed, channels.Refused):
                self.end()
                raise
        found, self._found = self._found, []
        return found

    async def _read(self) -> bytes:
        """Return what has come, empty at the end."""
        loop = asyncio.get_running_loop()
        while not self.closed:
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                self._wake.clear()
                loop.add_reader(self._descriptor, self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    if not self.closed:
                        loop.remove_reader(self._descriptor)
        return b""

    async def close(self) -> None:
        """Stop watching: the process inside ends with its reader."""
        self.end()

    def end(self) -> None:
        """Let go of the pipe. Idempotent."""
        if self.closed:
            return
        self.closed = True
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._wake.set()

"""A Unix connection into a sandbox that brings bytes and nothing else, for kernels that cannot refuse descriptors.

Whoever reads from a Unix socket closes the descriptors that come along and are not wanted, and a last close may wait as
long as its sender liked: in the event loop that would stop the whole worker. So a thread of its own reads here, and the
worker gets the other end of a pair. Since Linux 6.16 a socket can refuse descriptors, and nothing of this is needed.
A thread lasts as long as its connection, and a sandbox decides how long that is: so there are only so many.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from array import array

from traforo.domain import errors

MAX_RELAYS = 1024
"""Most connections of one worker that are relayed at once, a thread each."""
_CHUNK = 1 << 16
_DESCRIPTORS_MAX = 253
_ANCILLARY = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array("i").itemsize)


class _Direction:
    """Bytes on their way from one socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source = source
        self._target = target
        self._data = b""
        self.over = False

    @property
    def wants(self) -> tuple[int, int]:
        """Which descriptor to wait for, and for what."""
        if self._data:
            return self._target.fileno(), select.POLLOUT
        return self._source.fileno(), select.POLLIN

    def move(self) -> None:
        """Move what can be moved. Raises `OSError` when an end is gone."""
        with contextlib.suppress(BlockingIOError):
            if not self._data:
                self._data = _receive(self._source)
                if not self._data:
                    self.over = True
                    self._target.shutdown(socket.SHUT_WR)
                    return
            self._data = self._data[self._target.send(self._data) :]


def _receive(source: socket.socket) -> bytes:
    data, ancillary, _, _ = source.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array("i")
            found.frombytes(value[: len(value) - len(value) % found.itemsize])
            for descriptor in found:
                os.close(descriptor)
    return data


class Relays:
    """The relays of one worker."""

    def __init__(self, limit: int = MAX_RELAYS) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._limit = limit

    def start(self, connection: socket.socket) -> socket.socket:
        """Take a connected socket over, and return a non-blocking one that speaks for it. Raises `RateLimited`."""
        if not self._free.acquire(blocking=False):
            connection.close()
            raise errors.RateLimited(
                f"cannot connect to a name: {self._limit} connections are relayed already",
                hint="close some, use a TCP port, or run the worker on Linux 6.16 or later",
            )
        try:
            ours, theirs = socket.socketpair()
            for end in (connection, ours, theirs):
                end.setblocking(False)
            threading.Thread(target=self._run, args=(connection, theirs), name="relay", daemon=True).start()
        except BaseException:
            connection.close()
            self._free.release()
            raise
        return ours

    def _run(self, one: socket.socket, other: socket.socket) -> None:
        try:
            _relay(one, other)
        finally:
            self._free.release()


def _relay(one: socket.socket, other: socket.socket) -> None:
    directions = [_Direction(one, other), _Direction(other, one)]
    with one, other, contextlib.suppress(OSError):
        while directions:
            waiting = select.poll()
            wanted: dict[int, int] = {}
            for direction in directions:
                descriptor, events = direction.wants
                wanted[descriptor] = wanted.get(descriptor, 0) | events
            for descriptor, events in wanted.items():
                waiting.register(descriptor, events)
            ready = dict(waiting.poll())
            for direction in directions:
                if direction.wants[0] in ready:
                    direction.move()
            directions = [direction for direction in directions if not direction.over]

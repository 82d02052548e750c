"""A socket of the init protocol in an event loop: requests with their replies, events, and descriptors.

Nothing here knows what the messages mean. A peer that breaks the protocol loses the channel: whoever waits is told.
"""

from __future__ import annotations

import array
import asyncio
import collections
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from traforo.domain import errors
from traforo.wire import init_messages as wire

FROM_INITS = frozenset({stat.S_IFREG, stat.S_IFIFO})
"""Kinds of descriptors that an init may send: files and pipes."""
SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What the kernel says when this process, or the host, has no room for one more descriptor."""
_TEXT_MAX = 300
_ANCILLARY = socket.CMSG_SPACE(wire.MSG_FDS_MAX * array.array("i").itemsize)
_PER_WAKE_UP = 16
"""Messages read before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the descriptors that came with it: the receiver closes them."""

    message: wire.Message
    descriptors: Sequence[int]


class Refused(Exception):
    """The peer answered M_ERROR. `errno`, `stage` and `text` are what it said."""

    def __init__(self, code: int, stage: str, text: str) -> None:
        super().__init__(f"{stage}: {text}: {os.strerror(code) if 0 < code < 4096 else code}")
        self.errno = code
        self.stage = stage
        self.text = text

    @property
    def errno_name(self) -> str:
        """The name of the errno, as `ENOENT`."""
        return errno.errorcode.get(self.errno, str(self.errno))


class Closed(errors.Lost):
    """The other end is gone, or did not keep to the protocol."""


class Incomplete(errors.RateLimited):
    """What the peer did is done, but its descriptors did not come: this process has as many open as it may."""


def refusal(message: wire.Message) -> Refused:
    """Read M_ERROR or M_FAILED."""
    code = message.number(wire.Tag.ERRNO) or errno.EIO
    stage, text = message.string(wire.Tag.STAGE) or "", message.string(wire.Tag.TEXT) or ""
    return Refused(min(code, 4095), _shown(stage), _shown(text))


def _shown(text: str) -> str:
    """Return what can be shown and encoded of a text from elsewhere."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_TEXT_MAX])


class Channel:
    """One end of a SOCK_SEQPACKET socket. Must be made in the event loop's thread."""

    def __init__(
        self,
        descriptor: int,
        on_event: Callable[[wire.Message], None],
        on_close: Callable[[], None],
        kinds: frozenset[int] = FROM_INITS,
    ) -> None:
        """Take over a socket. Where the peer is asked for descriptors it may send these `kinds` (`stat.S_IF*`)."""
        self._kinds = kinds
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_close = on_close
        self._waiting: dict[int, tuple[asyncio.Future[Reply], bool]] = {}
        self._outgoing: collections.deque[tuple[bytes, Sequence[int]]] = collections.deque()
        # Not from 0: the answer to a request of an earlier worker process may still come, and must match none of ours.
        self._last_id = int.from_bytes(os.urandom(4), "little")
        self.closed = False
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def request(
        self, kind: int, fields: bytes = b"", descriptors: Sequence[int] = (), *, takes: bool = False
    ) -> asyncio.Future[Reply]:
        """Send a request; the future is its reply. It raises `Refused`, or `Closed`.

        Descriptors come with the reply where the caller `takes` them, and are closed anywhere else. Raises `ValueError`
        for a message that is too large.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.closed:
            future.set_exception(Closed("the process behind the socket is gone"))
            return future
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        message = wire.message(kind, self._last_id, fields)
        self._waiting[self._last_id] = future, takes
        self._send(message, descriptors)
        return future

    def duplicate(self) -> int:
        """Return a new descriptor of this end."""
        return os.dup(self._socket.fileno())

    def close(self) -> None:
        """Let go of the socket; whoever waits gets `Closed`. Idempotent, and `on_close` is told once."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._outgoing:
            self._loop.remove_writer(self._socket.fileno())
            for _, descriptors in self._outgoing:
                _close_all(descriptors)
        self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(Closed("the process behind the socket is gone"))
        self._on_close()

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if not self._outgoing:
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
            else:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._outgoing.append((data, [os.dup(descriptor) for descriptor in descriptors]))

    def _writable(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._outgoing.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._socket.fileno())

    def drain(self) -> None:
        """Handle everything that has arrived by now."""
        while not self.closed and self._readable():
            pass

    def _readable(self) -> bool:
        """Handle what has arrived; True if there may be more."""
        for _ in range(_PER_WAKE_UP):
            if self.closed:
                return False
            try:
                length, ancillary, flags, _ = self._socket.recvmsg_into(
                    [_BUFFER], _ANCILLARY, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return False
            except OSError:
                self.close()
                return False
            descriptors = _descriptors(ancillary)
            if not self._may_send(descriptors):
                _close_elsewhere(descriptors)
                self.close()
                return False
            lacking = bool(flags & socket.MSG_CTRUNC)
            if not length or flags & socket.MSG_TRUNC or (lacking and len(descriptors) == wire.MSG_FDS_MAX):
                _close_all(descriptors)
                self.close()
                return False
            try:
                message = wire.decode(_BUFFER[:length])
                taken, descriptors = descriptors, []
                self._received(message, taken, lacking=lacking)
            except wire.MalformedMessage:
                _close_all(descriptors)  # before it was decoded; `_received` closes its own
                self.close()
                return False
        return True

    def _may_send(self, descriptors: Sequence[int]) -> bool:
        return all(stat.S_IFMT(os.fstat(descriptor).st_mode) in self._kinds for descriptor in descriptors)

    def _received(self, message: wire.Message, descriptors: Sequence[int], *, lacking: bool) -> None:
        if not message.request_id:
            _close_all(descriptors)
            self._on_event(message)
            return
        future, takes = self._waiting.pop(message.request_id, (None, False))
        if not takes:
            _close_all(descriptors)
            descriptors = []
        if future is None or future.done():  # asked by an earlier worker process, or nobody waits any more
            _close_all(descriptors)
        elif message.kind == wire.Type.OK and lacking:
            _close_all(descriptors)
            future.set_exception(Incomplete("this worker has no file descriptor left", hint="try again in a moment"))
        elif message.kind == wire.Type.OK:
            future.set_result(Reply(message, descriptors))
        else:
            _close_all(descriptors)
            try:
                refused: Exception = refusal(message)
            except wire.MalformedMessage:
                future.set_exception(Closed("the process behind the socket does not keep to the protocol"))
                raise
            future.set_exception(refused)


_BUFFER = memoryview(bytearray(wire.MSG_MAX))
# One for the process: a message is decoded, which copies its fields, before anything else can be received.


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close_elsewhere(descriptors: Sequence[int]) -> None:
    """Close what nobody should have sent: the last close of a connection may wait as long as its sender liked."""
    threading.Thread(target=_close_all, args=(descriptors,), name="closing", daemon=True).start()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

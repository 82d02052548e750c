"""A socket of the init protocol in an event loop: requests with their replies, events, and descriptors.

Nothing here knows what the messages mean. A peer that breaks the protocol loses the channel: whoever waits is told. One
that does not answer holds nobody up for ever, and has no more than so many requests waiting for it: it may be stopped,
starved by its own limits, or in other hands.
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
SOCKETS = frozenset({stat.S_IFSOCK})
"""Kinds that it may send where it is asked for a socket."""
SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What the kernel says when this process, or the host, has no room for one more descriptor."""
_NOTHING: frozenset[int] = frozenset()
PATIENCE_SECONDS = 30.0
"""How long a request waits for its answer."""
WAITING_MAX = 1024
"""Most requests that wait for an answer of one init at once."""
UNSENT_MAX = 8 << 20
"""Most bytes that wait for room in the socket of one init."""
_TEXT_MAX = 300
_STRAYS_MAX = 4
"""Answers with a socket that nobody waits for: closing each takes a thread."""
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


class Silent(errors.WorkerUnavailable):
    """No answer came in time. The request was not taken back: what it asks for may still be done."""


class Busy(errors.RateLimited):
    """Too much waits for the peer already; nothing was asked of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long, and how much, may wait for a peer."""

    seconds: float = PATIENCE_SECONDS
    """For an answer, where the request itself allows no more."""
    requests: int = WAITING_MAX
    unsent_bytes: int = UNSENT_MAX
    strict: bool = False
    """Whether a peer that leaves one request unanswered loses the channel, rather than that request alone."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """A request that was made."""

    future: asyncio.Future[Reply]
    kinds: frozenset[int]
    """Of descriptors that may come with the answer; none where the caller takes none."""
    until: float
    """Time of the event loop."""


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
        limits: Limits | None = None,
    ) -> None:
        """Take over a socket. Where the peer is asked for descriptors it may send these `kinds` (`stat.S_IF*`)."""
        self._kinds = kinds
        self._limits = limits or Limits()
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_close = on_close
        self._waiting: dict[int, _Wait] = {}
        self._outgoing: collections.deque[tuple[bytes, Sequence[int]]] = collections.deque()
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None
        # Not from 0: the answer to a request of an earlier worker process may still come, and must match none of ours.
        self._last_id = int.from_bytes(os.urandom(4), "little")
        self._strays = 0
        self.closed = False
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def request(
        self,
        kind: int,
        fields: bytes = b"",
        descriptors: Sequence[int] = (),
        *,
        takes: bool = False,
        kinds: frozenset[int] | None = None,
        seconds: float | None = None,
    ) -> asyncio.Future[Reply]:
        """Send a request; the future is its reply. It raises `Refused`, `Closed`, `Busy`, or `Silent` after so many
        seconds.

        Descriptors come with the reply where the caller `takes` them, and are closed anywhere else. They are of the
        channel's kinds, or of `kinds` alone. Raises `ValueError` for a message that is too large.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.closed:
            future.set_exception(Closed("the process behind the socket is gone"))
            return future
        limits = self._limits
        if len(self._waiting) >= limits.requests or self._unsent > limits.unsent_bytes:
            future.set_exception(Busy("too many requests wait for this sandbox", hint="try again in a moment"))
            return future
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        message = wire.message(kind, self._last_id, fields)
        until = self._loop.time() + (limits.seconds if seconds is None else seconds)
        wanted = (self._kinds if kinds is None else kinds) if takes else _NOTHING
        self._waiting[self._last_id] = _Wait(future, wanted, until)
        self._look_again(until)
        self._send(message, descriptors)
        return future

    def _look_again(self, when: float) -> None:
        """Have `_overdue` called then, or before. One timer for all that wait: most are answered long before."""
        if self._timer is None or when < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._overdue)

    def _overdue(self) -> None:
        """Give up what has waited for too long, and look again when the next may have."""
        self._timer = None
        self.drain()  # this process may be the one that stood still
        now = self._loop.time()
        late = [wait for wait in self._waiting.values() if wait.until <= now and not wait.future.done()]
        if late and self._limits.strict:
            self.close()
        for wait in late:  # it stays in the book: its answer may come yet, with what it was asked for
            if not wait.future.done():
                wait.future.set_exception(Silent("no answer came from the sandbox", hint="try again in a moment"))
        rest = [wait.until for wait in self._waiting.values() if not wait.future.done()]
        if rest:
            self._look_again(min(rest))

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
            self._outgoing.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for wait in waiting.values():
            if not wait.future.done():
                wait.future.set_exception(Closed("the process behind the socket is gone"))
        self._on_close()

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if not self._outgoing:
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
            except BlockingIOError:
                pass
            except OSError:
                self._loop.call_soon(self._hang_up)
                return
            else:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._outgoing.append((data, [os.dup(descriptor) for descriptor in descriptors]))
        self._unsent += len(data)

    def _hang_up(self) -> None:
        """Let go of a peer that takes nothing more, once everything that it had said is handled."""
        self.drain()
        self.close()

    def _writable(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                socket.send_fds(self._socket, [data], list(descriptors))
            except BlockingIOError:
                return
            except OSError:
                self._hang_up()
                return
            self._outgoing.popleft()
            self._unsent -= len(data)
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
            except ConnectionResetError:
                continue  # it left something unread; what it had said comes after this, and then the end
            except OSError:
                self.close()
                return False
            descriptors = _descriptors(ancillary)
            lacking = bool(flags & socket.MSG_CTRUNC)
            torn = not length or flags & socket.MSG_TRUNC or (lacking and len(descriptors) == wire.MSG_FDS_MAX)
            try:
                message = None if torn else wire.decode(_BUFFER[:length])
            except wire.MalformedMessage:
                message = None
            if message is None or not self._may_send(message, descriptors):
                self._dispose(descriptors)
                self.close()
                return False
            try:
                self._received(message, descriptors, lacking=lacking)
            except wire.MalformedMessage:
                self.close()
                return False
        return True

    def _may_send(self, message: wire.Message, descriptors: Sequence[int]) -> bool:
        """Say whether these may come: what nobody waits for is closed, but only if closing it is harmless."""
        if not descriptors or _are(descriptors, self._kinds):
            return True
        if message.request_id and message.request_id not in self._waiting:  # asked by an earlier worker process
            self._strays += 1
            return self._strays <= _STRAYS_MAX
        wait = self._waiting.get(message.request_id)
        return wait is not None and _are(descriptors, wait.kinds)

    def _dispose(self, descriptors: Sequence[int]) -> None:
        if _are(descriptors, self._kinds):
            _close_all(descriptors)
        else:
            close_elsewhere(descriptors)

    def _received(self, message: wire.Message, descriptors: Sequence[int], *, lacking: bool) -> None:
        if not message.request_id:
            _close_all(descriptors)
            self._on_event(message)
            return
        wait = self._waiting.pop(message.request_id, None)
        kinds = _NOTHING if wait is None else wait.kinds
        if kinds is not self._kinds and not _are(descriptors, kinds):
            self._dispose(descriptors)
            descriptors = []
        future = None if wait is None else wait.future
        if future is None or future.done():  # asked by an earlier worker process, or nobody waits any more
            self._dispose(descriptors)
        elif message.kind == wire.Type.OK and lacking:
            self._dispose(descriptors)
            future.set_exception(Incomplete("this worker has no file descriptor left", hint="try again in a moment"))
        elif message.kind == wire.Type.OK:
            future.set_result(Reply(message, descriptors))
        else:
            self._dispose(descriptors)
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


def _are(descriptors: Sequence[int], kinds: frozenset[int]) -> bool:
    return all(stat.S_IFMT(os.fstat(descriptor).st_mode) in kinds for descriptor in descriptors)


def close_elsewhere(descriptors: Sequence[int]) -> None:
    """Close what nobody should have sent: the last close of a connection may wait as long as its sender liked."""
    threading.Thread(target=_close_all, args=(descriptors,), name="closing", daemon=True).start()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""One connection to a server inside a sandbox: writes requests, reads answers that may be anything at all.

The answer is framed by the parser and held to limits here; whatever follows it unasked, or leaves doubt about where it
ended, closes the connection. It decides nothing about callers: that is the business of its `Reader`.

Servers repeat themselves. What the parser has found in the exact bytes of a head is remembered, so that an answer that
comes in one piece with the same head need not be parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools

from traforo.domain import errors
from traforo.telemetry import logs
from traforo.worker.ports import answers, heads

READ_BYTES = 64 * 1024
"""Most bytes that are read at once, so that no server keeps the event loop for long."""
MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of the head of an answer, of its trailers, and of what comes between two pieces of a body."""
MAX_HEADERS = 128
"""Most headers of an answer, trailers included."""
MAX_INTERIM = 32
"""Most interim answers (`1xx`) to one request."""
MAX_KNOWN_BYTES = 2 * 1024
"""Longest head that is remembered."""
MAX_KNOWN = 8
"""Most heads that are remembered."""


class Reader(Protocol):
    """Who an answer is for."""

    request: heads.Request
    sent: bool
    """Whether the whole request was written."""

    def interim(self, answer: answers.Answer) -> None:
        """Take an interim answer."""
        ...

    def head(self, answer: answers.Answer) -> None:
        """Take the head of the answer."""
        ...

    def body(self, data: bytes) -> None:
        """Take a piece of the body."""
        ...

    def flush_answer(self) -> None:
        """Pass on what was taken: nothing more comes now."""
        ...

    def complete(self, trailers: list[heads.Header]) -> None:
        """Note that the answer is complete. The connection is free, or closed."""
        ...

    def switched(self, answer: answers.Answer, rest: bytes) -> None:
        """Note that HTTP is over; `rest` are the first bytes of what comes after. `tunnel` has to be set."""
        ...

    def broken(self, error: errors.TraforoError, *, stale: bool) -> None:
        """Note that the answer never comes, or not whole. With `stale` not one byte of it came on a used connection."""
        ...

    def pause_feeding(self) -> None:
        """Write no more: the server does not keep up."""
        ...

    def resume_feeding(self) -> None:
        """Go on writing."""
        ...


class Tunnel(Protocol):
    """What takes the bytes of a connection that no longer speaks HTTP."""

    def received(self, data: bytes) -> None:
        """Take bytes of the server."""
        ...

    def ended(self) -> None:
        """Note that the server sends no more."""
        ...

    def lost(self) -> None:
        """Note that the connection is gone."""
        ...

    def pause_feeding(self) -> None:
        """Write no more: the server does not keep up."""
        ...

    def resume_feeding(self) -> None:
        """Go on writing."""
        ...


class Upstream(asyncio.BufferedProtocol):
    """A connection. All those of a loop may share `buffer`: it is read before anybody else writes to it."""

    def __init__(
        self,
        buffer: memoryview,
        on_free: Callable[[Upstream], None],
        on_lost: Callable[[Upstream], None],
        known: dict[bytes, answers.Answer],
        *,
        raw: bool = False,
    ) -> None:
        """Begin. With `raw` it is for a tunnel from the start: its server may speak first.

        `known` are answers by the bytes of their heads; connections into one sandbox may share it.
        """
        self._early: bytes | None = b"" if raw else None
        self.transport: asyncio.Transport
        self.deadline: float | None = None
        """Loop time at which an answer must have begun; None while nobody waits for one."""
        self.used = False
        """Whether it has served a request before."""
        self.idle_since = 0.0
        self._buffer = buffer
        self._on_free = on_free
        self._on_lost = on_lost
        self._known = known
        self._reader: Reader | None = None
        self._tunnel: Tunnel | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._closed = False
        self._ended = False
        self._paused = False
        self._begin()

    def _begin(self) -> None:
        self._answer: answers.Answer | None = None
        self._reason = b""
        self._headers: list[heads.Header] = []
        self._trailers: list[heads.Header] = []
        self._quiet = 0
        self._count = 0
        self._size = 0
        self._interims = 0
        self._moved = False
        self._heard = False
        self._done = False
        self._reset = False
        self._reusable = False
        self._excess = False
        self._error: errors.TraforoError | None = None

    # ---------------------------------------------------------------------------------------------- requests

    @property
    def usable(self) -> bool:
        """Whether a request can be written."""
        if self._early is not None:
            return not (self._closed or self.transport.is_closing())
        return not (self._closed or self._ended or self._reader is not None or self.transport.is_closing())

    def serve(self, reader: Reader) -> None:
        """Begin a request, which is written to `transport` from now on. The answer is the reader's."""
        self._reader = reader
        self._begin()

    def tunnel(self, tunnel: Tunnel) -> None:
        """Give all that comes from now on to a tunnel."""
        self._tunnel = tunnel
        self._reader = None
        self.deadline = None
        early, self._early = self._early, None
        if early:
            tunnel.received(early)
        if self._ended:
            tunnel.ended()
        self.resume_reading()

    def abandon(self) -> None:
        """Close at once; nobody is told."""
        self._reader = None
        self._tunnel = None
        self._close()

    def expire(self) -> None:
        """Give up waiting for an answer."""
        error = errors.UpstreamTimeout("cannot forward the request: the server in the sandbox does not answer")
        self._break(error)

    def pause_reading(self) -> None:
        """Read no more: the caller does not keep up."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # ---------------------------------------------------------------------------------------------- transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # that of a stream
        """Take the transport."""
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        data = self._buffer[:nbytes]
        if self._tunnel is not None:
            self._tunnel.received(bytes(data))
            return
        if self._early is not None:
            self._early += bytes(data)
            self.pause_reading()
            return
        reader = self._reader
        if reader is None or self._closed:
            self._close()  # unasked for
            return
        first = not self._heard
        self._heard = True
        if first and self._known and self._repeats(reader, data):
            return
        self._moved = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._switch(reader, bytes(data[stop.args[0] :]))
            return
        except httptools.HttpParserCallbackError as error:
            self._excess = True
            if self._error is None and isinstance(error.__context__, errors.TraforoError):
                self._error = error.__context__
            elif self._error is None:
                logs.get(__name__).error("answer failed", exc_info=error.__context__ or error)
        except httptools.HttpParserError as error:
            self._excess = True
            self._error = self._error or errors.UpstreamFailed(f"cannot pass on the answer: {str(error)[:80]}")
        if not self._moved:
            self._quiet += nbytes
            if self._quiet > 2 * MAX_HEAD_BYTES and self._error is None:  # an endless header, phrase or extension
                self._excess = True
                self._error = errors.UpstreamFailed(f"cannot pass on the answer: over {MAX_HEAD_BYTES} bytes of head")
        if first and self._done:
            self._remember(reader, data)
        self._settle(reader)

    def eof_received(self) -> bool:
        """Note that the server sends no more: the end of some answers, and too early for others."""
        self._ended = True
        if self._tunnel is not None:
            self._tunnel.ended()
            return True
        if self._early is not None:
            return True
        reader, answer = self._reader, self._answer
        if reader is not None and answer is not None and answer.framing is heads.Framing.EOF and not self._error:
            self._done = True
            self._settle(reader)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._closed = True
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.lost()
        elif self._reader is not None:
            why = "broke off" if self._heard else "closed the connection without an answer"
            self._break(errors.UpstreamFailed(f"cannot forward the request: the server in the sandbox {why}"))
        del exc
        self._parser = None  # type: ignore[assignment] # it holds on to us
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Make whoever writes wait."""
        if self._tunnel is not None:
            self._tunnel.pause_feeding()
        elif self._reader is not None:
            self._reader.pause_feeding()

    def resume_writing(self) -> None:
        """Let whoever writes go on."""
        if self._tunnel is not None:
            self._tunnel.resume_feeding()
        elif self._reader is not None:
            self._reader.resume_feeding()

    # ------------------------------------------------------------------------------------------------- parser

    def on_message_begin(self) -> None:
        """Begin with a head, interim or not; a second answer is one too many."""
        if self._done:
            self._excess = True
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        """Take a piece of the reason."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header or a trailer."""
        self._count += 1
        self._size += len(name) + len(value)
        if self._count > MAX_HEADERS or self._size > MAX_HEAD_BYTES:
            raise errors.UpstreamFailed(
                f"cannot pass on the answer: it has more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of them"
            )
        (self._headers if self._answer is None else self._trailers).append((name, value))

    def on_headers_complete(self) -> None:
        """Understand the head."""
        reader = self._reader
        if reader is None or self._done or self._answer is not None:
            self._excess = True
            return
        parser = self._parser
        answer = answers.read(
            parser.get_status_code(), self._reason, parser.get_http_version(), self._headers, reader.request
        )
        self._quiet = 0
        self._moved = True
        if answer.interim:
            self._interims += 1
            if self._interims > MAX_INTERIM:
                raise errors.UpstreamFailed("cannot pass on the answer: it has too many interim ones")
            reader.interim(answer)
            return
        if answer.status == 101 and not parser.should_upgrade():
            raise errors.UpstreamFailed("cannot pass on the answer: it switches to nothing")
        self._answer = answer
        self.deadline = None
        self._reusable = parser.should_keep_alive() and answer.framing is not heads.Framing.EOF
        if answer.upgrade is not None:
            return
        reader.head(answer)
        if answer.framing is heads.Framing.NONE:
            self._done = True
            self._reset = reader.request.method == b"HEAD"

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._quiet = 0
        if self._done or self._reader is None or self._answer is None:
            self._excess = True
            return
        self._moved = True
        self._reader.body(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer, or of an interim one."""
        if self._answer is not None and self._answer.upgrade is None:
            self._done = True

    # ------------------------------------------------------------------------------------------------ the rest

    def _repeats(self, reader: Reader, data: memoryview) -> bool:
        """Take an answer that is all of `data` and whose head is known, and tell whether it is one.

        The parser is between two answers.
        """
        head = _head(data)
        answer = self._known.get(head)
        if answer is None or len(data) != len(head) + _size(answer) or not _plain(reader.request):
            return False
        self._answer = answer
        self._reusable = self._done = True
        self.deadline = None
        reader.head(answer)
        if len(data) > len(head):
            reader.body(bytes(data[len(head) :]))
        self._settle(reader)
        return True

    def _remember(self, reader: Reader, data: memoryview) -> None:
        """Remember the head of an answer that was just parsed out of `data`, if that is the whole of it and no more."""
        answer = self._answer
        if answer is None or not self._reusable or self._excess or not _plain(reader.request):
            return
        head = _head(data)
        if answer.framing is not heads.Framing.CHUNKED and head and len(data) == len(head) + _size(answer):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[head] = answer

    def _switch(self, reader: Reader, rest: bytes) -> None:
        answer = self._answer
        if self._error is not None or answer is None or answer.upgrade is None:
            self._break(self._error or errors.UpstreamFailed("cannot pass on the answer: it switches to nothing"))
            return
        reader.switched(answer, rest)

    def _settle(self, reader: Reader) -> None:
        """After each piece that was read: pass on, complete, or give up."""
        if self._reader is not reader:
            return
        if not self._done:
            if self._excess:
                self._break(self._error or errors.UpstreamFailed("cannot pass on the answer"))
            else:
                reader.flush_answer()
            return
        trailers = self._trailers
        self._reader = None
        self.deadline = None
        self.used = True
        if self._reset:  # it waits for a body that does not come
            self._parser = httptools.HttpResponseParser(self)
        if self._reusable and reader.sent and not self._excess and not self._ended and not self._closed:
            self._on_free(self)
        else:
            self._close()
        reader.complete(trailers)

    def _break(self, error: errors.TraforoError) -> None:
        reader, self._reader = self._reader, None
        self.deadline = None
        self._close()
        if reader is not None:
            reader.broken(error, stale=self.used and not self._heard)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.transport.abort()


def _head(data: memoryview) -> bytes:
    """Return the head that `data` begins with, empty if it is too long to be remembered."""
    start = bytes(data[:MAX_KNOWN_BYTES])
    return start[: start.find(b"\r\n\r\n") + 4] if b"\r\n\r\n" in start else b""


def _size(answer: answers.Answer) -> int:
    """Return how many bytes follow the head of an answer whose body is not in chunks."""
    return answer.length or 0 if answer.framing is heads.Framing.LENGTH else 0


def _plain(request: heads.Request) -> bool:
    """Tell whether what an answer means depends on its own head alone."""
    return request.method != b"HEAD" and request.upgrade is None

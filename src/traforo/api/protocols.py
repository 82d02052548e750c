"""The HTTP/1.1 connection: uvicorn's, with limits on what a peer may send before anybody has looked at it.

The parser limits neither the head of a request nor the time it takes. Here a head that is too large is refused while
it comes in, and a peer that stops in the middle of a request is cut off.

A request need not be the application's: a `Takeover` may answer it with an `Exchange` of its own, piece by piece and
in its turn among the others of the connection. Who that is and what it does with a request is not known here.

Callers repeat themselves. What a takeover's request says is remembered by the exact bytes of its head, so that another
one with the same method and headers need not be parsed: it means what it meant. Nothing is decided by that.
"""

from __future__ import annotations

import asyncio
import http
import re
import resource
import typing
from collections import deque
from collections.abc import Sequence
from typing import Any

import httptools
from uvicorn.protocols.http import httptools_impl

from traforo.api import answers, problems, sendfiles
from traforo.domain import errors, ids
from traforo.telemetry import logs

MAX_URL_BYTES = 16 * 1024
"""Longest request target: the longest path of a file, each byte escaped, and room for the rest of the query."""
MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of names and values of all headers."""
MAX_HEADERS = 128
"""Most headers."""
STALL_SECONDS = 30.0
"""How long a peer may pause in the middle of a request."""
MAX_KNOWN_BYTES = 8 * 1024
"""Longest head that is remembered."""
MAX_KNOWN = 4
"""Most heads that a connection remembers."""
MAX_CONNECTIONS = 16_384
"""Most connections of a server, whatever descriptors it may have: each takes memory before any credential."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_LINE = re.compile(rb"([A-Z]{1,16}) (/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*) HTTP/1\.1\r\n")
"""The first line of a request that may be like another, but for its target."""


def max_connections() -> int:
    """Return how many connections a server keeps open: most of the descriptors stay for what they are opened for."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, descriptors // 4)


class _Refused(Exception):
    """The head of a request is over a limit."""


class Known(typing.Protocol):
    """What a head says. Only a takeover can read it."""

    length: int
    """Bytes of the body."""


class Exchange(typing.Protocol):
    """One request that the application does not see, and its answer. All but `start` may come before its turn."""

    response_complete: bool
    """The answer was written."""
    keep_alive: bool
    """Whether the connection may serve another request after this one."""
    waiting_for_100_continue: bool
    """Whether the peer waits for a word of ours before it goes on with its body."""
    endless: bool
    """Whether the answer goes on until somebody ends it."""

    @property
    def known(self) -> Known | None:
        """What the head of the request says beside its target, for `Takeover.again`.

        None if it cannot be repeated, as when it does not tell the length of the body.
        """
        ...

    def start(self) -> None:
        """Begin: everything before this request was answered."""
        ...

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        ...

    def trailer(self, name: bytes, value: bytes) -> None:
        """Take a trailer."""
        ...

    def end(self) -> None:
        """Note the end of the request."""
        ...

    def flush(self) -> None:
        """Pass on what was taken: nothing more comes now."""
        ...

    def fail(self) -> None:
        """Note that what the peer sent of this request, or after it, cannot be read. The connection must be closed."""
        ...

    def cancel(self) -> None:
        """Note that the peer is gone, or must go."""
        ...

    def pause_writing(self) -> None:
        """Write no more: the peer does not keep up."""
        ...

    def resume_writing(self) -> None:
        """Go on writing."""
        ...


class Tunnel(typing.Protocol):
    """What takes the bytes of a connection that no longer speaks HTTP."""

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer."""
        ...

    def end(self) -> None:
        """Note that the peer sends no more."""
        ...

    def cancel(self) -> None:
        """Note that the peer is gone, or must go."""
        ...

    def pause_writing(self) -> None:
        """Write no more: the peer does not keep up."""
        ...

    def resume_writing(self) -> None:
        """Go on writing."""
        ...


class Takeover(typing.Protocol):
    """Decides which requests the application does not see."""

    def concerns(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request is for this one. Every request passes here; names are in lower case."""
        ...

    def take(self, connection: Protocol) -> Exchange:
        """Return what answers the request whose head `connection` has just read."""
        ...

    def again(self, connection: Protocol, target: bytes, known: Any) -> Exchange | None:
        """Return what answers a request whose head is like that of an earlier one of the connection, but for its
        target; `known` is of that exchange. None has it read like any other.
        """
        ...


class Protocol(httptools_impl.HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, takeover: Takeover | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.names: list[bytes] = []
        """Names of the headers of the request that is being read, as they were written; `headers` has the rest."""
        self._takeover = takeover
        self._exchange: Exchange | None = None
        """What takes the message that is being read, where the application does not."""
        self._unfinished: deque[Exchange] = deque()
        """Exchanges in order of their requests."""
        self._tunnel: Tunnel | None = None
        self._early: bytearray | None = None
        """What the peer sent behind a request for an upgrade, until that is answered; None when there is none."""
        self._known: dict[bytes, Known] = {}
        """What heads have said, by method and all lines but the first."""
        self._defect = False
        self._replaying = False
        self._in_head = True
        self._heads = 0
        self._unread = 0
        self._moved = False
        """Whether what was read last had something complete in it: a header, a piece of a body, an end."""
        self._head_bytes = 0
        self._refusal = "it is not HTTP/1.1"
        self._in_message = True  # a fresh connection owes a request
        self._heard_at = 0.0
        self._idle_since = 0.0
        """When the last exchange was done."""
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the class above
        """Begin to watch for a peer that stalls."""
        super().connection_made(transport)
        if len(self.server_state.connections) > max_connections():
            limit = max_connections()
            self._answer_error(errors.RateLimited(f"cannot serve: {limit} connections are open", limit=limit))
            return
        self._heard_at = self.loop.time()
        self._watch = self.loop.call_later(STALL_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching, and tell everybody who is concerned."""
        self._unset_keepalive_if_required()
        if self._watch is not None:
            self._watch.cancel()
        exchanges, self._unfinished = self._unfinished, deque()
        tunnel, self._tunnel = self._tunnel, None
        if self._exchange is not None:
            self.cycle = None  # type: ignore[assignment] # as it is before the first request
        super().connection_lost(exc)
        for exchange in exchanges:
            exchange.cancel()
        if tunnel is not None:
            tunnel.cancel()

    def eof_received(self) -> bool | None:  # type: ignore[override] # a tunnel stays open in the other direction
        """Pass on the end of what the peer sends; a peer of HTTP that says its last word is gone."""
        if self._tunnel is None:
            return None
        self._tunnel.end()
        return True

    def data_received(self, data: bytes) -> None:
        """Take in what the peer sent."""
        self._heard_at = self.loop.time()
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if self.transport.is_closing():
            return
        if self._early is not None:
            self._early += data
            self.flow.pause_reading()
            return
        if self._known and self._repeats(data):
            return
        heads, parser = self._heads, self.parser
        between = not self._in_message or not heads
        self._moved = False
        self._parse(data)
        if self._exchange is not None:
            self._exchange.flush()
            if between and not self._in_message and self._heads == heads + 1 and self.parser is parser:
                self._remember(data, self._exchange)
        if self._in_head and self._in_message and heads == self._heads:
            self._unread += len(data)
            if self._unread > MAX_URL_BYTES + MAX_HEAD_BYTES + MAX_HEADERS * 4 and not self.transport.is_closing():
                self._refusal = f"its head has more than {MAX_HEAD_BYTES} bytes"
                self.send_400_response("")
        elif not self._in_head and self._in_message:  # the parser keeps a trailer until it is complete
            self._unread = 0 if self._moved else self._unread + len(data)
            if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refusal = f"a trailer, or what stands beside a chunk, has more than {MAX_HEAD_BYTES} bytes"
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        if self._replaying:
            return
        self._in_message = self._in_head = True
        self._head_bytes = self._unread = 0
        self._heads += 1
        self.names = []
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        if self._replaying:
            return
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(f"its target has more than {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        if self._replaying and self._in_head:
            return
        self._moved = True
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse(f"it has more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of them")
        if self._exchange is not None and not self._in_head:
            self._exchange.trailer(name, value)
        super().on_header(name, value)
        self.names.append(name)

    def on_headers_complete(self) -> None:
        """Give the request to whom it is for."""
        self._in_head = False
        self._moved = True
        if self._replaying:
            return
        if self._takeover is None or not self._takeover.concerns(self.url, self.headers):
            self._exchange = None
            super().on_headers_complete()
            return
        self._begin(self._takeover.take(self))

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._moved = True
        if self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """Note that the peer owes nothing more."""
        if self._replaying or (self._exchange is not None and self._skipped()):
            return
        self._in_message = False
        if self._exchange is None:
            super().on_message_complete()
        else:
            self._exchange.end()

    def pause_writing(self) -> None:
        """Make whoever writes wait."""
        super().pause_writing()
        if self._tunnel is not None:
            self._tunnel.pause_writing()
        elif self._unfinished:
            self._unfinished[0].pause_writing()

    def resume_writing(self) -> None:
        """Let whoever writes go on."""
        super().resume_writing()
        if self._tunnel is not None:
            self._tunnel.resume_writing()
        elif self._unfinished:
            self._unfinished[0].resume_writing()

    def shutdown(self) -> None:
        """Begin to close because the server stops. Called by uvicorn."""
        if self._tunnel is not None:
            self.transport.close()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close what was idle for long enough. Called by a timer, which may be that of an earlier request."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or (self._heads and self._in_message) or self._answering():
            return  # it is set again when the answer is complete
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    # ---------------------------------------------------------------------------------------------- exchanges

    @property
    def write_paused(self) -> bool:
        """Whether the peer does not keep up."""
        return self.flow.write_paused

    def pause_reading(self) -> None:
        """Take nothing more from the peer."""
        if not self.transport.is_closing():
            self.flow.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking, unless requests wait for their turn."""
        if (
            not self.pipeline and not self._early and not self.transport.is_closing()
        ):  # what is read already has to be dealt with first
            self.flow.resume_reading()

    def done(self, exchange: Exchange) -> None:
        """Note that an exchange has written its answer: the next one may begin, or the connection ends."""
        if self._unfinished and self._unfinished[0] is exchange:
            self._unfinished.popleft()
        if self.transport.is_closing():
            return
        if not exchange.keep_alive:
            self.transport.close()
        early, self._early = self._early, None
        self._idle_since = self.loop.time()
        if self.pipeline or self.timeout_keep_alive_task is None or self.transport.is_closing():
            self.on_response_complete()
        else:  # a timer that runs is not set anew for each request, which takes long: when it is due, it looks
            self.flow.resume_reading()
        if early and not self.transport.is_closing():
            self.data_received(bytes(early))

    def end_endless(self) -> None:
        """Close if the answer that is being written would not end by itself, because the server stops."""
        cycle: httptools_impl.RequestResponseCycle | Exchange | None = self.cycle
        if self._unfinished:
            endless = self._unfinished[0].endless
        else:
            endless = isinstance(cycle, httptools_impl.RequestResponseCycle) and answers.is_endless(cycle.scope)
        if endless:
            self.transport.close()

    def become(self, tunnel: Tunnel, exchange: Exchange) -> None:
        """Leave HTTP: whatever the peer has sent since its request, and all that it sends, is the tunnel's."""
        if self._unfinished and self._unfinished[0] is exchange:
            self._unfinished.popleft()
        self._unset_keepalive_if_required()
        self._in_message = False
        self._tunnel = tunnel
        early, self._early = self._early, None
        if self.flow.write_paused:
            tunnel.pause_writing()
        if early:
            tunnel.feed(bytes(early))
        self.flow.resume_reading()

    def _begin(self, exchange: Exchange) -> None:
        """Have an exchange answer the message that is being read, in its turn."""
        before: Any = self.cycle
        self._exchange = exchange
        self._unfinished.append(exchange)
        self.cycle = exchange  # type: ignore[assignment] # what is asked of it here, it has
        if before is None or before.response_complete:
            exchange.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _answering(self) -> bool:
        """Tell whether an answer is owed."""
        cycle: httptools_impl.RequestResponseCycle | Exchange | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _remember(self, data: bytes, exchange: Exchange) -> None:
        """Remember what the head says of the one request that was just parsed out of `data`, if it is all of that."""
        line, end, known = _LINE.match(data), _end(data), exchange.known
        if line is None or known is None or end + known.length != len(data) or self.transport.is_closing():
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[_key(line, data, end)] = known

    def _repeats(self, data: bytes) -> bool:
        """Take a whole request whose head is known, and tell whether it is one. The parser is between two requests."""
        line = None if self._in_message else _LINE.match(data)
        if line is None or self._takeover is None:
            return False
        end = _end(data)
        known = self._known.get(_key(line, data, end))
        if known is None or end + known.length != len(data):
            return False
        exchange = self._takeover.again(self, line[2], known)
        if exchange is None:
            return False
        self._begin(exchange)
        if known.length:
            exchange.feed(data[end:])
        exchange.end()
        return True

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin with a request that had to wait for its turn."""
        if isinstance(cycle, httptools_impl.RequestResponseCycle):
            sendfiles.offer(cycle)
            super()._start_asgi_task(cycle, app)
        else:
            cycle.start()
            cycle.flush()

    def _parse(self, data: bytes) -> None:
        """Read on. Behind a request for an upgrade nothing is read before its answer says what it is."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if self._exchange is not None:
                self._upgrading(data[stop.args[0] :])
            elif not self._should_upgrade():
                pass
            elif data[stop.args[0] :]:
                self._refusal = "something comes behind a handshake before it is answered"
                self.send_400_response("")
            else:
                self.handle_websocket_upgrade()
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                logs.get(__name__).error("request failed", exc_info=error.__context__ or error)
                self._defect = True
            self.send_400_response("")
        except httptools.HttpParserError:
            self.send_400_response("")

    def _upgrading(self, rest: bytes) -> None:
        """Go on behind a request that asks for an upgrade. If it has a body, that is still to be read."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if self.transport.is_closing():
            return
        if framing := self._framing():
            self._replaying = self._in_head = self._in_message = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
            self._replaying = False
        elif self._exchange is not None and not self._exchange.response_complete:
            self._early = bytearray(rest)
            return
        if rest:
            self._parse(rest)

    def _skipped(self) -> bool:
        """Tell whether the parser has skipped the body of the request, since that asks for an upgrade."""
        return self.parser.should_upgrade() and bool(self._framing())

    def _framing(self) -> bytes:
        """Return the headers of the request that tell of a body."""
        pairs = [one for one in self.headers if one[0] in _FRAMING and one[1].strip(b" \t0")]
        return b"".join(b"%b: %b\r\n" % one for one in pairs)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read as a request, in the form of every other error. `msg` is uvicorn's, and unused."""
        del msg
        if self._unfinished:  # an answer of ours would be taken for a part of theirs
            for exchange in tuple(self._unfinished):
                exchange.fail()
            return
        if self._defect:
            self._answer_error(errors.Internal("an unexpected error; the log has more under the request id"))
        else:
            self._answer_error(errors.InvalidRequest(f"cannot read the request: {self._refusal}"))

    def _answer_error(self, error: errors.TraforoError) -> None:
        """Answer what no application sees, and close."""
        request_id = ids.new_request_id()
        status = http.HTTPStatus(problems.status(error))
        body = problems.body(error, request_id)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _refuse(self, why: str) -> None:
        self._refusal = why
        raise _Refused(why)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over for good."""
        self._unset_keepalive_if_required()
        if self._watch is not None:
            self._watch.cancel()
        super().handle_websocket_upgrade()

    def _look(self) -> None:
        """Cut off a peer that has paused for too long in the middle of a request; look again later otherwise."""
        if self.transport.is_closing():
            return
        left = self._heard_at + STALL_SECONDS - self.loop.time()
        if left <= 0 and self._owing():
            self.transport.close()
            return
        self._watch = self.loop.call_later(left if left > 0 else STALL_SECONDS, self._look)

    def _owing(self) -> bool:
        """Tell whether the peer is the one who is waited for."""
        if not self._in_message or self.flow.read_paused:
            return False
        cycle: httptools_impl.RequestResponseCycle | Exchange | None = self.cycle
        return cycle is None or not cycle.waiting_for_100_continue


def _key(line: re.Match[bytes], data: bytes, end: int) -> bytes:
    """Return method and headers, parted so that no letter of one can be taken for the other's."""
    return line[1] + b" " + data[line.end() : end]


def _end(data: bytes) -> int:
    """Return where the head ends that `data` begins with; 0 if it is too long to be remembered, or not complete."""
    at = data.find(b"\r\n\r\n", 0, MAX_KNOWN_BYTES)
    return at + 4 if at > 0 else 0

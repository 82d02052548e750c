"""The WebSocket connection: what uvicorn's HTTP connection hands over when a request asks for an upgrade.

It exists beside uvicorn's own because that one cuts off a peer whose data it does not read, answers refusals in a form
of its own, and logs what strangers send. The protocol itself is the sans-I/O part of `websockets`; this moves bytes,
keeps both directions within limits, and speaks ASGI to the application. It refuses compression: what is worth sending
here is seldom worth compressing, and a bomb cannot be sent.
"""

from __future__ import annotations

import asyncio
import collections
import http
import logging
from typing import Any
from urllib import parse

import uvicorn
from starlette.types import Message, Scope
from uvicorn import server as uvicorn_server
from uvicorn.protocols import utils
from websockets import exceptions, frames, http11
from websockets import protocol as states
from websockets import server as sansio

from traforo.api import problems, sockets
from traforo.domain import errors, ids

MAX_MESSAGE_BYTES = 1024 * 1024
"""Longest message that is taken in."""
MAX_CONTROL_FRAMES = 1000
"""Most pings and pongs of a peer within `PING_SECONDS`."""
PING_SECONDS = 20.0
"""Silence after which a peer is asked whether it is there; after as much again without a word it is cut off."""
CLOSE_SECONDS = 5.0
"""How long a peer may take to confirm a close."""
BUFFER_BYTES = 256 * 1024
"""Bytes on their way to a peer above which its sender waits."""

_silent = logging.getLogger("traforo.websockets")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)
_GONE = 1006


class Connection(asyncio.Protocol):
    """One connection from its handshake on. Made by uvicorn, which feeds it the request it has read already."""

    def __init__(
        self, config: uvicorn.Config, server_state: uvicorn_server.ServerState, app_state: dict[str, Any]
    ) -> None:
        self._app = config.loaded_app
        self._state = app_state
        self._connections = server_state.connections
        self._tasks = server_state.tasks
        self._loop = asyncio.get_running_loop()
        self._conn = sansio.ServerProtocol(max_size=MAX_MESSAGE_BYTES, logger=_silent)
        self.transport: asyncio.Transport
        self._answer: http11.Response | None = None
        """What accepts the handshake, until it was sent."""
        self._denial: Message | None = None
        self._inbox: collections.deque[Message] = collections.deque()
        self._receiver: asyncio.Future[None] | None = None
        self._parts = bytearray()
        self._text = False
        self._paused = False
        self._open = False
        self._lost = False
        self._room: list[asyncio.Future[None]] = []
        self._full = False
        self._heard = True
        self._asked = False
        self._controls = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._farewell: Message | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # ------------------------------------------------------------------------------------------- transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # it is always one
        """Take over a connection."""
        self.transport = transport
        self._connections.add(self)  # type: ignore[arg-type] # uvicorn asks of them no more than `shutdown`
        transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that the peer is gone."""
        del exc
        self._lost = True
        self._open = False
        _resolve(self._gone)
        self._connections.discard(self)
        for timer in (self._alarm, self._closing):
            if timer is not None:
                timer.cancel()
        self._bid_farewell(_GONE)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take in what the peer sent."""
        self._heard = True
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, http11.Request):
                self._begin(event)
            elif isinstance(event, frames.Frame):
                self._take(event)
        if self._answer is None and not self._open and self._conn.handshake_exc is not None:
            self._deny_unread()
            return
        self._flush()
        if self._open and self._conn.state is not states.State.OPEN:
            told = self._conn.close_rcvd if self._conn.parser_exc is None else self._conn.close_sent
            self._ended(told.code if told is not None else 1005)

    def eof_received(self) -> None:
        """Let the transport close: a peer that has said its last word has no use for an answer."""

    def pause_writing(self) -> None:
        """Make senders wait, and the peer too: its pings are answered."""
        self._full = True
        self._steer()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._full = False
        waiting, self._room = self._room, []
        for future in waiting:
            _resolve(future)
        if not self._lost:
            self._steer()

    def shutdown(self) -> None:
        """Begin to close because the server stops. Called by uvicorn."""
        if self._open:
            self._close(1012, "this server is stopping")
        elif not self._lost:
            self.transport.close()

    # ----------------------------------------------------------------------------------------------- frames

    def _begin(self, request: http11.Request) -> None:
        """Start the application for a handshake; read no more until it is answered."""
        answer = self._conn.accept(request)
        if answer.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            return
        self._answer = answer
        self._steer()
        self._inbox.append({"type": "websocket.connect"})
        task = self._loop.create_task(self._run(self._scope(request)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, frame: frames.Frame) -> None:
        if frame.opcode in {frames.Opcode.TEXT, frames.Opcode.BINARY}:
            self._text = frame.opcode is frames.Opcode.TEXT
            self._parts = bytearray()
        elif frame.opcode is not frames.Opcode.CONT:
            self._controls += 1
            if self._controls > MAX_CONTROL_FRAMES and self._open:
                self._close(1008, f"more than {MAX_CONTROL_FRAMES} control frames in {PING_SECONDS:g} s")
            return
        if not self._open:
            return
        if frame.fin and not self._parts:
            self._message(bytes(frame.data))
            return
        self._parts += frame.data
        if frame.fin:
            self._message(bytes(self._parts))
            self._parts = bytearray()

    def _message(self, data: bytes) -> None:
        if not self._text:
            self._put({"type": "websocket.receive", "bytes": data})
            return
        try:
            self._put({"type": "websocket.receive", "text": data.decode()})
        except UnicodeDecodeError:
            self._close(1007, "a text message is not UTF-8")

    def _put(self, message: Message) -> None:
        self._inbox.append(message)
        if self._receiver is not None:
            _resolve(self._receiver)
        self._steer()

    def _steer(self) -> None:
        """Read from the peer while the application and the peer itself keep up."""
        handshaking = self._answer is not None
        pause = handshaking or (self._open and (self._full or bool(self._inbox)))
        if pause == self._paused or self._lost or self.transport.is_closing():
            return
        self._paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self._heard = True
            self.transport.resume_reading()

    def _flush(self) -> None:
        """Send what the protocol has to say; an empty piece is its end."""
        pieces = self._conn.data_to_send()
        if not pieces or self.transport.is_closing():
            return
        last = pieces[-1] is states.SEND_EOF
        if data := pieces[0] if len(pieces) == 1 else b"".join(pieces):
            self.transport.write(data)
        if last:  # what still comes is read and dropped: closing with unread data would take our last word with it
            self.transport.write_eof()

    def _look(self) -> None:
        """Ask a silent peer for a sign, and cut off one that gave none. What we do not read is no silence."""
        if self._lost or not self._open:
            return
        self._controls = 0
        quiet = not (self._heard or self._paused or self._full)
        if quiet and self._asked:
            self._ended(_GONE)
            self.transport.abort()
            return
        self._asked = quiet
        self._heard = False
        if not self._full:
            self._conn.send_ping(b"")
            self._flush()
        self._alarm = self._loop.call_later(PING_SECONDS, self._look)

    # ----------------------------------------------------------------------------------------------- ending

    def _close(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection when the peer has confirmed it or taken too long."""
        if self._conn.state is states.State.OPEN:
            self._conn.send_close(code, _reason(reason))
            self._flush()
        self._ended(code)

    def _ended(self, code: int) -> None:
        """Note that no more messages go in either direction."""
        if not self._open:
            return
        self._open = False
        self._bid_farewell(code)
        self._steer()
        if not self._lost:
            self._closing = self._loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _bid_farewell(self, code: int) -> None:
        if self._farewell is None:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": ""}
        if self._receiver is not None:
            _resolve(self._receiver)

    # -------------------------------------------------------------------------------------------- application

    def _scope(self, request: http11.Request) -> Scope:
        path, _, query = request.path.partition("?")
        offered = [
            name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")
        ]
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if utils.is_ssl(self.transport) else "ws",
            "server": utils.get_local_addr(self.transport),
            "client": utils.get_remote_addr(self.transport),
            "root_path": "",
            "path": parse.unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()
            ],
            "subprotocols": [name for name in offered if name],
            "state": self._state.copy(),
            "extensions": {"websocket.http.response": {}, sockets.GONE: self._gone},
        }

    async def _run(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        finally:
            if not self._lost:
                if self._open:
                    self._close(1011, "")
                elif self._answer is not None:
                    self.transport.abort()

    async def _receive(self) -> Message:
        while not self._inbox:
            if self._farewell is not None:
                return self._farewell
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        message = self._inbox.popleft()
        self._steer()
        return message

    async def _send(self, message: Message) -> None:
        """Carry out what the application says. Raises ConnectionResetError when the peer is gone."""
        while self._full and not self._lost:
            future = self._loop.create_future()
            self._room.append(future)
            await future
        kind = message["type"]
        if kind == "websocket.send" and self._open:
            data = message.get("bytes")
            if data is not None:
                self._conn.send_binary(data)
            else:
                self._conn.send_text(message["text"].encode())
            self._flush()
        elif kind == "websocket.close" and self._open:
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif self._answer is not None and not self._lost:
            self._answered(message)
        else:
            raise ConnectionResetError("the peer of a WebSocket is gone")

    def _answered(self, message: Message) -> None:
        """Answer the handshake."""
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.http.response.start":
                self._denial = message
            case "websocket.http.response.body" if self._denial is not None and not message.get("more_body", False):
                self._deny(self._denial["status"], self._denial["headers"], message.get("body", b""))
            case found:
                raise errors.Internal(f"cannot answer a handshake with {found!r}")

    def _accept(self, message: Message) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            raise errors.Internal("cannot accept a handshake twice")
        for name, value in message.get("headers") or ():
            answer.headers[name.decode("latin-1")] = value.decode("latin-1")
        if message.get("subprotocol"):
            answer.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        self._conn.send_response(answer)
        self._open = True
        self._flush()
        self._steer()
        self._alarm = self._loop.call_later(PING_SECONDS, self._look)

    def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Refuse the handshake with a plain answer, and close."""
        self._answer = None
        lines = [f"HTTP/1.1 {status} {_phrase(status)}".encode()]
        lines += [name + b": " + value for name, value in headers if name not in {b"content-length", b"connection"}]
        lines += [b"content-length: %d" % len(body), b"connection: close", b"", body]
        if not self.transport.is_closing():
            self.transport.write(b"\r\n".join(lines))
            self.transport.close()
        self._bid_farewell(_GONE)

    def _deny_unread(self) -> None:
        """Refuse what is no handshake, before anybody was asked."""
        request_id = ids.new_request_id()
        reason = self._conn.handshake_exc
        why = str(reason)[:200] if isinstance(reason, exceptions.InvalidHandshake) else "it cannot be read"
        error = errors.InvalidRequest(f"cannot open a WebSocket: {why}")
        headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
        if isinstance(reason, exceptions.InvalidHeaderValue) and reason.name == "Sec-WebSocket-Version":
            headers.append((b"sec-websocket-version", b"13"))
        self._conn.data_to_send()  # an answer of its own, in another form
        self._deny(problems.status(error), headers, problems.body(error, request_id))


def _reason(text: str) -> str:
    """Cut a reason to the 123 bytes that a close frame has room for."""
    return text.encode(errors="replace")[:123].decode(errors="ignore")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

"""Routes that go on for as long as an exec does: its output as NDJSON or SSE, and WebSockets to it.

What is sent when is decided by `worker.execs.streams` and `worker.routes.attachments`; here it gets the form that a
caller asked for. A reader that is slow holds up itself and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from traforo.api import answers, bodies, operations, problems, requests, schemas, sockets
from traforo.domain import errors
from traforo.worker.execs import results, streams
from traforo.worker.routes import attachments, contexts
from traforo.worker.routes import execs as routes_execs
from traforo.worker.sandboxes import activities

HEARTBEAT_SECONDS = 15.0
"""Silence after which a stream says that it is still there."""
FIRST_MESSAGE_SECONDS = 30.0
"""How long a WebSocket may take to say what it wants to start."""
_NDJSON = "application/x-ndjson"
_SSE = "text/event-stream"

_encode = msgspec.json.Encoder().encode


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["execs"])

    @router.get(
        "/sandboxes/{sandbox_id}/exec/{exec_id}/stream",
        **operations.describe(
            summary="Follow the output of an exec",
            query=schemas.StreamQuery,
            answers={200: (_NDJSON, _SSE), 204: None},
            failures=[errors.Forbidden, errors.NotFound],
        ),
    )
    async def stream_exec(request: Request, sandbox_id: str, exec_id: str) -> _Answer | Response:
        """A frame a line, or an event each with `Accept: text/event-stream`, up to the one of type `exit`. Where output
        is missing there is `{"type": "gap", "dropped": <bytes>}`; after 15 s of silence `{"type": "heartbeat"}`. To an
        `EventSource` that comes back after the end the answer is 204, so that it stops.
        """
        entry = context.entry(request, sandbox_id, live=False)
        query = bodies.query(request, schemas.StreamQuery)
        form = _Events() if _SSE in request.headers.get("accept", "") else _Lines()
        cursor = max(query.cursor, _last_event(request))
        run = contexts.logged(context.execs.get(entry, exec_id))
        stream = await context.execs.stream(run, cursor)
        if form.ends_silently and run.outcome is not None and cursor > stream.count:
            return answers.nothing()
        return _Answer(stream, form, results.Shower(query.encoding), entry.activity.hold, follow=query.follow)

    @router.websocket("/sandboxes/{sandbox_id}/exec/{exec_id}/ws")
    async def attach_exec(socket: sockets.Socket, sandbox_id: str, exec_id: str) -> None:
        entry = context.entry(socket.connection, sandbox_id, live=False)
        query = bodies.query(socket.connection, schemas.SocketQuery)
        run = contexts.logged(context.execs.get(entry, exec_id))
        stream = await context.execs.stream(run, query.cursor)
        await socket.accept()
        with entry.activity.hold():
            await attachments.attach(socket, run, stream)

    @router.websocket("/sandboxes/{sandbox_id}/exec/ws")
    async def start_and_attach(socket: sockets.Socket, sandbox_id: str) -> None:
        entry = context.entry(socket.connection, sandbox_id)
        await socket.accept()
        with entry.activity.hold():
            try:
                wanted = await _first(socket)
                run = contexts.logged(await context.execs.start(entry, routes_execs.spec(wanted)))
            except errors.TraforoError as error:  # more of it than fits into the reason of a close
                await socket.send(problems.body(error, requests.request_id(socket.connection)).decode())
                raise
            stream = await context.execs.stream(run, 0)
            await socket.send(_encode(routes_execs.begun(run)).decode())
            await attachments.attach(socket, run, stream)

    return router


async def _first(socket: sockets.Socket) -> schemas.ExecCreate:
    """Return what to start. Raises `InvalidRequest`, and `Disconnected` when nobody says it."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            message = await socket.receive()
    except TimeoutError as error:
        raise errors.InvalidRequest("cannot start anything: no first message came") from error
    if message is None:
        raise bodies.Disconnected
    if isinstance(message, bytes):
        raise errors.InvalidRequest("cannot start anything: the first message is not text")
    wanted = bodies.parse(message.encode(), schemas.ExecCreate)
    if wanted.wait:
        raise errors.InvalidRequest("cannot wait here: what happens is told as it happens", field="wait")
    return wanted


def _last_event(request: Request) -> int:
    """Return the cursor at which an `EventSource` broke off. Raises `InvalidRequest`."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise errors.InvalidRequest("cannot resume: 'Last-Event-ID' is no cursor", field="last-event-id")
    return int(text)


class _Lines:
    """A line of JSON each."""

    media_type = _NDJSON
    ends_silently = False
    heartbeat = b'{"type":"heartbeat"}\n'

    def gap(self, cursor: int, told: dict[str, object]) -> bytes:
        del cursor
        return _encode({"type": "gap"} | told) + b"\n"

    def frame(self, shown: results.ShownFrame) -> bytes:
        return _encode(shown) + b"\n"


class _Events(_Lines):
    """Server-sent events; the id of each is the cursor from which to go on."""

    media_type = _SSE
    ends_silently = True
    heartbeat = b'event: heartbeat\ndata: {"type":"heartbeat"}\n\n'

    def gap(self, cursor: int, told: dict[str, object]) -> bytes:
        return b"id: %d\nevent: gap\ndata: %s\n\n" % (cursor, super().gap(cursor, told).strip())

    def frame(self, shown: results.ShownFrame) -> bytes:
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (shown.cursor + 1, shown.type.encode(), _encode(shown))


class _Answer:
    """An answer that goes on while there is something to tell and somebody listens."""

    def __init__(
        self,
        stream: streams.Stream,
        form: _Lines,
        shower: results.Shower,
        hold: Callable[[], activities.Hold],
        *,
        follow: bool,
    ) -> None:
        self._stream = stream
        self._form = form
        self._shower = shower
        self._hold = hold
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers.endless(scope)
        headers = [(b"content-type", self._form.media_type.encode()), (b"cache-control", b"no-store")]
        headers.append((b"x-accel-buffering", b"no"))
        listening = asyncio.create_task(_gone(receive))
        listening.add_done_callback(lambda _: self._stream.stop())
        try:
            with self._hold():
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._tell(send)
                await send({"type": "http.response.body", "body": b""})
        finally:
            listening.cancel()

    async def _tell(self, send: Send) -> None:
        stream = self._stream
        while self._follow or not stream.caught_up:
            batch = await stream.next(HEARTBEAT_SECONDS)
            if batch is not None:
                piece = b"".join(self._pieces(batch))
            elif stream.ended or stream.stopped:
                return
            else:
                piece = self._form.heartbeat
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

    def _pieces(self, batch: streams.Batch) -> Iterator[bytes]:
        if batch.dropped:
            yield self._form.gap(batch.first, streams.gap(batch.dropped, at_most=batch.at_most))
        for shown in self._shower.show(batch.view, batch.found, anew=batch.dropped > 0):
            yield self._form.frame(shown)
        if batch.exit is not None:
            cursor = batch.next - 1
            if batch.lost:
                yield self._form.gap(cursor, streams.gap(batch.lost, at_most=False))
            yield self._form.frame(self._shower.exit(cursor, batch.exit, batch.exit_ms))


async def _gone(receive: Receive) -> None:
    """Return when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass

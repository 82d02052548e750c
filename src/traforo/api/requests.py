"""What happens around every request and WebSocket: its id, its trace, the limit of its body, its error, its line in the
log.

One plain ASGI layer and the only supervisor of requests: an exception that gets here becomes an answer. Bodies pass
through untouched unless they are large or of unknown length; then they are counted as they are read, and never
collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from traforo.api import bodies, limits, problems, sockets, uploads
from traforo.domain import errors, ids
from traforo.telemetry import logs, metrics, traces

App = ASGIApp
"""An ASGI application."""

CLIENT_CLOSED = 499
"""Status in log and metrics of a request whose sender went away."""
MAX_LOGGED_PATH = 512
"""Characters of a path in the log."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_LOCAL_HOST = re.compile(
    rb"(\[[0-9a-f:.%]*\]|[0-9]{1,3}(\.[0-9]{1,3}){3}|[^.:\[\]]*|([^:]*\.)?localhost)\.?(:[0-9]*)?", re.IGNORECASE
)
"""Hosts that nobody can have a web page on who has only registered a domain: addresses, and names without a dot."""
_SERVED = frozenset({"http", "websocket"})
_QUIET = frozenset({"/healthz", "/metrics"})


def request_id(connection: HTTPConnection) -> str:
    """Return the id of the request that is being handled."""
    found: str = connection.scope["state"]["request_id"]
    return found


class Supervisor:
    """The outermost layer of an application."""

    def __init__(
        self,
        app: App,
        *,
        measured: metrics.ProcessMetrics,
        body_limits: limits.Limits,
        local_only: bool,
        names: frozenset[str] = frozenset(),
    ) -> None:
        """Wrap `app`. With `local_only`, web pages of other origins are kept out (see `_check_origin`); `names` are the
        hosts by which this server is known, in lower case.
        """
        self._app = app
        self._metrics = measured
        self._limits = body_limits
        self._local_only = local_only
        self._names = names
        self._log = logs.get(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        started = time.perf_counter()
        if scope["type"] not in _SERVED:
            await self._app(scope, receive, send)
            return
        head = _Head(scope["headers"])
        trace = traces.child(head.trace) if head.trace else traces.new()
        scope.setdefault("state", {})["request_id"] = head.request_id
        bound = logs.bind(request_id=head.request_id, trace_id=trace.trace_id, span_id=trace.span_id)
        entered = traces.enter(trace)
        try:
            if scope["type"] == "http":
                answering = _Answering(send, head.request_id)
                try:
                    await self._answered(scope, head, receive, answering)
                finally:
                    self._done(scope, answering.status or CLIENT_CLOSED, time.perf_counter() - started)
            else:
                await self._talked(scope, head, receive, send, started)
        finally:
            traces.leave(entered)
            logs.unbind(bound)

    async def _answered(self, scope: Scope, head: _Head, receive: Receive, answering: _Answering) -> None:
        send: Send = answering
        try:
            _check_host(head)
            if self._local_only:
                _check_origin(head, self._names)
            if head.length is None or head.length > self._limits.default or head.expect:
                limit = self._limits.of(scope["method"], scope["path"])
                body = uploads.Upload(head.length, receive, answering, limit=limit, expect=head.expect)
                receive, send = body.receive, body.send
                body.check()
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not answering.started:
                await self._refuse(scope, errors.WorkerUnavailable("cannot finish the request: the server stops"), send)
            raise
        except bodies.Disconnected:
            answering.status = answering.status or CLIENT_CLOSED
        except Exception as error:  # whatever it was, the caller gets an answer
            if answering.started:
                self._log.error("answer broken off", exc_info=error)
                raise  # the server closes the connection, so that half an answer is not taken for a whole one
            await self._refuse(scope, error, send)

    async def _talked(self, scope: Scope, head: _Head, receive: Receive, send: Send, started: float) -> None:
        """Let a WebSocket be served: an error is an HTTP answer to its handshake, or the code of its end."""
        talking = _Talking(send, head.request_id)
        try:
            if self._local_only:
                _check_origin(head, self._names)
            await self._app(scope, receive, talking)
            if not talking.code:
                await talking.close(sockets.NORMAL, "")
        except asyncio.CancelledError:
            await talking.close(sockets.STOPPING, "this server is stopping")
            raise
        except (bodies.Disconnected, OSError):
            pass  # the peer is gone
        except Exception as error:  # noqa: BLE001  # as for requests: whatever it was, the caller is told
            with contextlib.suppress(OSError):
                if talking.accepted:
                    problem = self._noted(error)
                    await talking.close(sockets.close_code(problem), problem.message)
                else:
                    await self._refuse(scope, error, talking)
        finally:
            seconds = time.perf_counter() - started
            status = talking.status or CLIENT_CLOSED
            self._metrics.request_done(
                status, seconds if talking.accepted_at is None else talking.accepted_at - started
            )
            self._log.info(
                "websocket",
                path=scope["path"][:MAX_LOGGED_PATH],
                status=status,
                code=talking.code or None,
                ms=round(seconds * 1000, 3),
            )

    async def _refuse(self, scope: Scope, error: Exception, send: Send) -> None:
        problem = self._noted(error)
        answer = problems.answer(problem, scope["state"]["request_id"])
        prefix = "" if scope["type"] == "http" else "websocket."
        headers = answer.raw_headers
        await send({"type": prefix + "http.response.start", "status": answer.status_code, "headers": headers})
        body = b"" if scope.get("method") == "HEAD" else answer.body
        await send({"type": prefix + "http.response.body", "body": body})

    def _noted(self, error: Exception) -> errors.TraforoError:
        """Return the error that the caller is told, after log and metrics had their part."""
        problem = problems.translated(error)
        if isinstance(problem, errors.Internal):
            self._log.error("request failed", exc_info=error)
        elif isinstance(problem, errors.Unauthenticated):
            self._metrics.auth_failed(str(problem.fields.get("reason", "malformed")))
        elif isinstance(problem, errors.Forbidden) and problem.fields.get("kind") == "sandbox":
            self._metrics.auth_failed("forbidden")
        return problem

    def _done(self, scope: Scope, status: int, seconds: float) -> None:
        self._metrics.request_done(status, seconds)
        path: str = scope["path"]
        write = self._log.debug if path in _QUIET and status < 400 else self._log.info
        # The query is left out: it may hold a placement, and paths of files are nobody's business.
        write(
            "request", method=scope["method"], path=path[:MAX_LOGGED_PATH], status=status, ms=round(seconds * 1000, 3)
        )


class _Head:
    """What the headers of a request say about how to handle it, from one pass over them."""

    __slots__ = ("expect", "host", "hosts", "length", "origin", "request_id", "trace")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.request_id = ""
        self.trace: traces.Trace | None = None
        self.length: int | None = 0
        self.expect = False
        self.origin = b""
        self.host = b""
        self.hosts = 0
        parent = state = b""
        for name, value in headers:
            match name:
                case b"content-length":
                    self.length = bodies.length(value)
                case b"transfer-encoding":
                    self.length = None
                case b"x-request-id" if _REQUEST_ID.fullmatch(value):
                    self.request_id = value.decode()
                case b"traceparent":
                    parent = value
                case b"tracestate":
                    state = value
                case b"expect":
                    self.expect = True
                case b"origin":
                    self.origin = value
                case b"host":
                    self.host = value
                    self.hosts += 1
        self.request_id = self.request_id or ids.new_request_id()
        if parent:
            self.trace = traces.parse(parent.decode("latin-1"), state.decode("latin-1"))


class _Answering:
    """The way out: adds the request id to an answer and remembers its status."""

    __slots__ = ("_id", "_send", "status")

    def __init__(self, send: Send, found: str) -> None:
        self._send = send
        self._id = (b"x-request-id", found.encode())
        self.status = 0

    @property
    def started(self) -> bool:
        return self.status != 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._id, (b"x-content-type-options", b"nosniff")]
        await self._send(message)


class _Talking:
    """The way out of a WebSocket: adds the request id to its handshake, and remembers how that and the talk ended."""

    __slots__ = ("_id", "_send", "accepted_at", "code", "status")

    def __init__(self, send: Send, found: str) -> None:
        self._send = send
        self._id = (b"x-request-id", found.encode())
        self.status = 0
        self.code = 0
        """With which we closed it; 0 when we did not."""
        self.accepted_at: float | None = None

    @property
    def accepted(self) -> bool:
        return self.accepted_at is not None

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self.status = 101
            self.accepted_at = time.perf_counter()
            message["headers"] = [*(message.get("headers") or ()), self._id]
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), self._id, (b"x-content-type-options", b"nosniff")]
        elif kind == "websocket.close":
            self.code = self.code or message.get("code", 1000)
        await self._send(message)

    async def close(self, code: int, reason: str) -> None:
        """End what was accepted, unless it has ended."""
        if self.accepted and not self.code:
            with contextlib.suppress(OSError):
                await self({"type": "websocket.close", "code": code, "reason": reason})


def _check_host(head: _Head) -> None:
    """Raise `InvalidRequest` where it is not clear for whom a request is: what stands before us may choose another."""
    if head.hosts > 1:
        raise errors.InvalidRequest("cannot serve the request: it has more than one 'Host'", field="host")


def _check_origin(head: _Head, names: frozenset[str]) -> None:
    """Raise `Forbidden` when a browser sent this for a page of another origin.

    In `dev` mode whoever reaches the port may do anything, and every page that a developer looks at can make the
    browser send requests to this machine. Browsers say so in `Origin`; nothing else sends that header. A page whose own
    name is made to lead here by its DNS has the right `Origin`, but its name is none of ours.
    """
    if not _LOCAL_HOST.fullmatch(head.host) and _name(head.host) not in names:
        hint = "dev mode serves its own names alone; set 'base_url' to the one you use, or TRAFORO_JWT_SECRET"
        raise errors.Forbidden("cannot serve a host of this name", hint=hint)
    if head.origin and head.origin.partition(b"://")[2] != head.host:
        hint = "dev mode asks for no credential, so web pages are kept out; set TRAFORO_JWT_SECRET"
        raise errors.Forbidden("cannot serve a web page of another origin", hint=hint)


def _name(host: bytes) -> str:
    return host.partition(b":")[0].rstrip(b".").lower().decode("latin-1")

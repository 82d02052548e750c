"""What happens around every request: its id, its trace, the limit of its body, its error, its line in the log.

One plain ASGI layer and the only supervisor of requests: an exception that gets here becomes an answer. Bodies pass
through untouched unless they are large or of unknown length; then they are counted as they are read, and never
collected.
"""

from __future__ import annotations

import asyncio
import re
import time

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from traforo.api import bodies, limits, problems, uploads
from traforo.domain import errors, ids
from traforo.telemetry import logs, metrics, traces

App = ASGIApp
"""An ASGI application."""

CLIENT_CLOSED = 499
"""Status in log and metrics of a request whose sender went away."""
MAX_LOGGED_PATH = 512
"""Characters of a path in the log."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_QUIET = frozenset({"/healthz", "/metrics"})


def request_id(connection: HTTPConnection) -> str:
    """Return the id of the request that is being handled."""
    found: str = connection.scope["state"]["request_id"]
    return found


class Supervisor:
    """The outermost layer of an application."""

    def __init__(
        self, app: App, *, measured: metrics.ProcessMetrics, body_limits: limits.Limits, local_only: bool
    ) -> None:
        """Wrap `app`. With `local_only`, web pages of other origins are kept out (see `_check_origin`)."""
        self._app = app
        self._metrics = measured
        self._limits = body_limits
        self._local_only = local_only
        self._log = logs.get(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        head = _Head(scope["headers"])
        trace = traces.child(head.trace) if head.trace else traces.new()
        scope.setdefault("state", {})["request_id"] = head.request_id
        bound = logs.bind(request_id=head.request_id, trace_id=trace.trace_id, span_id=trace.span_id)
        entered = traces.enter(trace)
        answering = _Answering(send, head.request_id)
        try:
            await self._answered(scope, head, receive, answering)
        finally:
            self._done(scope, answering.status or CLIENT_CLOSED, time.perf_counter() - started)
            traces.leave(entered)
            logs.unbind(bound)

    async def _answered(self, scope: Scope, head: _Head, receive: Receive, answering: _Answering) -> None:
        send: Send = answering
        try:
            if self._local_only and head.origin:
                _check_origin(head)
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

    async def _refuse(self, scope: Scope, error: Exception, send: Send) -> None:
        problem = problems.translated(error)
        if isinstance(problem, errors.Internal):
            self._log.error("request failed", exc_info=error)
        elif isinstance(problem, errors.Unauthenticated):
            self._metrics.auth_failed(str(problem.fields.get("reason", "malformed")))
        elif isinstance(problem, errors.Forbidden) and problem.fields.get("kind") == "sandbox":
            self._metrics.auth_failed("forbidden")
        answer = problems.answer(problem, scope["state"]["request_id"])
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

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

    __slots__ = ("expect", "host", "length", "origin", "request_id", "trace")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.request_id = ""
        self.trace: traces.Trace | None = None
        self.length: int | None = 0
        self.expect = False
        self.origin = b""
        self.host = b""
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


def _check_origin(head: _Head) -> None:
    """Raise `Forbidden` when a browser sent this for a page of another origin.

    In `dev` mode whoever reaches the port may do anything, and every page that a developer looks at can make the
    browser send requests to this machine. Browsers say so in `Origin`; nothing else sends that header.
    """
    if head.origin.partition(b"://")[2] != head.host:
        hint = "dev mode asks for no credential, so web pages are kept out; set TRAFORO_JWT_SECRET"
        raise errors.Forbidden("cannot serve a web page of another origin", hint=hint)

"""One request for a port and its answer, between a caller's connection and one into the sandbox.

Bodies pass in pieces as they come and are framed anew; neither side is read while the other does not keep up. A request
is sent a second time only when that cannot be noticed: none of it was sent, or it has no body, may be repeated by the
rules of HTTP, and met a connection that its server had given up. An answer that breaks off is broken off.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from starlette.responses import Response

from traforo.api import protocols
from traforo.domain import errors, ids
from traforo.worker.ports import answers, gates, heads, pools, targets, tunnels, upstreams
from traforo.worker.sandboxes import activities

BUFFER_BYTES = 64 * 1024
"""Bytes of a body that wait for a connection into the sandbox before the caller has to wait."""
DISCARD_BYTES = 16 * 1024 * 1024
"""Most bytes of a body that are read for nothing, because the answer came before it was complete."""
CLIENT_CLOSED = 499
"""Status in log and metrics of a request whose sender went away."""

_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PROPFIND", b"REPORT", b"SEARCH"})
_RESET = struct.pack("ii", 1, 0)
_TUNNELLED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n\r\n"


class Proxy(Protocol):
    """What the exchanges of a worker share; `proxies.Proxy` is it."""

    router: targets.Router
    response_seconds: float
    """How long a server may take to begin its answer."""
    isolated: bool
    """Whether pages of the path form get an origin of their own."""

    @property
    def scheme(self) -> str:
        """How callers reach this worker, `http` or `https`."""
        ...

    def admit(self, request: heads.Request, target: targets.Target) -> tuple[pools.Pool, gates.Pass]:
        """Let a request pass to a running sandbox. Raises what stands against it."""
        ...

    def problem(self, error: errors.TraforoError, request_id: str) -> Response:
        """Return the answer that tells of an error."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work beside the connection."""
        ...

    def tunnelled(self, pool: pools.Pool, hold: activities.Hold | None) -> Callable[[int, int], None]:
        """Count a tunnel; what is returned is called with the bytes in and out when it ends."""
        ...

    def note(
        self, target: targets.Target | None, *, method: bytes, status: int, result: str, request_id: str, seconds: float
    ) -> None:
        """Count and log one request."""
        ...


def read(
    router: targets.Router, client: protocols.Protocol
) -> tuple[heads.Request, targets.Target | None, errors.TraforoError | None]:
    """Read the head that `client` has just received: what it says, where it goes, and what stands against it."""
    method = client.parser.get_method()
    request = heads.Request(method, keep_alive=False)  # what cannot be understood may be followed by anything
    try:
        request = heads.read(method, client.parser.get_http_version(), client.headers, client.names)
        return request, router.find(client.url, request.host), None
    except errors.TraforoError as error:
        return request, None, error


class Exchange:
    """One request, as `protocols.Exchange` for the caller's side and `upstreams.Reader` for the server's."""

    __slots__ = (
        *("_body", "_chunked", "_client", "_connecting", "_down", "_discarded", "_ended", "_error", "_failed"),
        *("_hold", "_line", "_out", "_paused", "_pool", "_proxy", "_request_id", "_retried", "_started", "_started_at"),
        *("_status", "_target", "_trailers", "_upstream", "_waiting", "keep_alive", "request", "response_complete"),
        *("sent", "waiting_for_100_continue", "_pass", "endless"),
    )

    def __init__(
        self,
        proxy: Proxy,
        client: protocols.Protocol,
        request: heads.Request,
        target: targets.Target | None,
        error: errors.TraforoError | None = None,
    ) -> None:
        """Begin with what was read. Nothing is decided yet: an error waits for its turn."""
        self._proxy = proxy
        self._client = client
        self._started_at = time.perf_counter()
        self.request = request
        self._target = target
        self._error = error
        self._pass: gates.Pass | None = None
        self._pool: pools.Pool | None = None
        self._upstream: upstreams.Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._hold: activities.Hold | None = None
        self._body: list[bytes] = []
        self._waiting = 0
        self._trailers: list[heads.Header] = []
        self._out: list[bytes] = []
        self._down: list[bytes] = []
        self._line = b""
        self._chunked = False
        self._started = self._ended = self._failed = self._retried = self._paused = False
        self._discarded = 0
        self._status = 0
        self.sent = False
        self.response_complete = False
        self.endless = False
        self.keep_alive = request.keep_alive
        self.waiting_for_100_continue = request.expects
        self._request_id = request.request_id or ids.new_request_id()

    @property
    def known(self) -> heads.Request | None:
        """What the head of the request says beside its target; None if it cannot be repeated."""
        request = self.request
        told = request.framing is not heads.Framing.CHUNKED and not request.expects and request.upgrade is None
        return request if told and self._error is None else None

    # --------------------------------------------------------------------------------------- from the caller

    def start(self) -> None:
        """Begin: everything before this request was answered."""
        self._started = True
        target = self._target
        if self._failed:
            return
        if target is None or self._error is not None:
            self._refuse(self._error or errors.Internal("a request without a target"))
            return
        try:
            self._pool, self._pass = self._proxy.admit(self.request, target)
        except errors.TraforoError as error:
            self._refuse(error)
            return
        self._hold = self._pool.entry.activity.hold()
        self._find(fresh=self.request.upgrade is not None)

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.response_complete:
            self._discarded += len(data)
            if self._discarded > DISCARD_BYTES:
                self._client.transport.close()
            return
        self._body.append(data)

    def trailer(self, name: bytes, value: bytes) -> None:
        """Take a trailer."""
        self._trailers.append((name, value))

    def end(self) -> None:
        """Note the end of the request."""
        self._ended = True
        self.flush()

    def flush(self) -> None:
        """Pass on what was taken: nothing more comes now."""
        upstream = self._upstream
        if upstream is None:
            self._waiting = sum(map(len, self._body))
            if self._waiting > BUFFER_BYTES and not self._ended:
                self._paused = True
                self._client.pause_reading()
            return
        if self.sent or not (self._line or self._body or self._ended):
            return
        pieces, self._body = self._body, []
        if self.request.framing is heads.Framing.CHUNKED:
            if pieces:
                pieces = [b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"]
            if self._ended:
                pieces.append(b"0\r\n%b\r\n" % heads.trailers(self._trailers))
        self.sent = self._ended
        if self._line or pieces:
            line, self._line = self._line, b""
            upstream.transport.write(b"".join([line, *pieces]))
        if self._status == 0:
            upstream.deadline = self._client.loop.time() + self._proxy.response_seconds

    def fail(self) -> None:
        """Note that what the caller sent of this request, or after it, cannot be read."""
        if self.response_complete or self._failed:
            return
        self.keep_alive = False
        if self._started and not self._ended and self._status == 0:
            self._drop()
            self._refuse(errors.InvalidRequest("cannot read the request: its body is malformed"))
            return
        self._failed = True
        self.cancel()
        self._client.transport.close()

    def cancel(self) -> None:
        """Note that the caller is gone, or must go."""
        if not self.response_complete:
            self._drop()
            self.response_complete = True
            self._log(CLIENT_CLOSED)

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        """The caller keeps up again."""
        if self._upstream is not None:
            self._upstream.resume_reading()

    # --------------------------------------------------------------------------------------- from the server

    def interim(self, answer: answers.Answer) -> None:
        """Pass on an interim answer to whoever understands it."""
        if answer.status == 100:
            self.waiting_for_100_continue = False
        if self.request.modern:
            self._out.append(self._head(answer))

    def head(self, answer: answers.Answer) -> None:
        """Begin the answer."""
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            self.keep_alive = False  # the caller may still send the body, or not: nobody could tell it from a request
        self._status = answer.status
        self.endless = answer.endless
        self._chunked = answers.chunked(answer, self.request)
        self._out.append(self._head(answer))

    def body(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._down.append(data)

    def flush_answer(self) -> None:
        """Pass on what was taken."""
        out = self._out
        if self._down:
            if self._chunked:
                out.append(b"%x\r\n" % sum(map(len, self._down)))
                out += self._down
                out.append(b"\r\n")
            else:
                out += self._down
            self._down = []
        if out:
            self._out = []
            self._client.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def complete(self, trailers: list[heads.Header]) -> None:
        """End the answer. The connection into the sandbox is no longer ours."""
        self._upstream = None
        if self._chunked:
            self.flush_answer_with(b"0\r\n%b\r\n" % (heads.trailers(trailers) if trailers else b""))
        else:
            self.flush_answer()
        self._finish("answered")

    def flush_answer_with(self, end: bytes) -> None:
        """Pass on what was taken, and `end` after it."""
        if self._down:
            self._out += (b"%x\r\n" % sum(map(len, self._down)), *self._down, b"\r\n")
            self._down = []
        self._out.append(end)
        self.flush_answer()

    def switched(self, answer: answers.Answer, rest: bytes) -> None:
        """Join both connections, now that HTTP is over."""
        upstream = self._upstream
        if upstream is None:
            return
        self._out.append(self._head(answer))
        self._status = answer.status
        self.flush_answer()
        self._tunnel(upstream)
        if rest:
            self._client.transport.write(rest)

    def broken(self, error: errors.TraforoError, *, stale: bool) -> None:
        """Answer with an error, send it again, or break off the answer that has begun."""
        upstream, self._upstream = self._upstream, None
        if self.response_complete:
            return
        if self._status:
            self._break_off()
        elif stale and not self._retried and upstream is not None and self._repeatable():
            self._retried = True
            self.sent = False
            self._find(fresh=True)
        else:
            self._out = []
            self._refuse(error, result="failed")

    def pause_feeding(self) -> None:
        """The server does not keep up."""
        self._client.pause_reading()

    def resume_feeding(self) -> None:
        """The server keeps up again."""
        self._client.resume_reading()

    # ------------------------------------------------------------------------------------------- connections

    def _find(self, *, fresh: bool) -> None:
        """Send the request on an idle connection, or on a new one when there is one."""
        pool, target = self._pool, self._target
        if pool is None or target is None:
            return
        upstream = None if fresh else pool.take(target.port, sure=not self._repeatable())
        if upstream is not None:
            self._attach(upstream)
        else:
            self._connecting = self._proxy.spawn(self._connect(pool, target))

    async def _connect(self, pool: pools.Pool, target: targets.Target) -> None:
        try:
            upstream = await pool.connect(target.port, raw=self.request.raw)
        except errors.TraforoError as error:
            self._connecting = None
            self._refuse(error, result="failed")
            return
        self._connecting = None
        if self.response_complete:
            upstream.abandon()
        elif not upstream.usable:
            upstream.abandon()
            self._refuse(errors.UpstreamFailed("cannot forward the request: its server broke off"), result="failed")
        elif self.request.raw:
            head = _TUNNELLED % (heads.TCP_UPGRADE, self._request_id.encode())
            self._client.transport.write(head)
            self._status = 101
            self._upstream = upstream
            self._tunnel(upstream)
        else:
            self._attach(upstream)
            self.flush()

    def _attach(self, upstream: upstreams.Upstream) -> None:
        target, passed = self._target, self._pass
        if target is None or passed is None:
            return
        self._upstream = upstream
        origin = heads.Origin(
            client=self._client.client[0] if self._client.client else "unknown",
            scheme=self._proxy.scheme,
            request_id=self._request_id,
            authorization=passed.authorization,
        )
        upstream.deadline = self._client.loop.time() + self._proxy.response_seconds
        self._line = heads.write(self.request, target, origin)
        upstream.serve(self)
        if self._client.write_paused:
            self.pause_writing()
        if self._paused:
            self._paused = False
            self._client.resume_reading()

    def _tunnel(self, upstream: upstreams.Upstream) -> None:
        pool = self._pool
        if pool is None:
            return
        self._upstream = None
        tunnel = tunnels.Tunnel(self._client, upstream, self._proxy.tunnelled(pool, self._hold))
        self._hold = None
        self.response_complete = True
        self._log(101, "answered")
        upstream.tunnel(tunnel)
        self._client.become(tunnel, self)

    def _repeatable(self) -> bool:
        """Tell whether nobody can notice that the request is sent twice."""
        return self.request.method in _REPEATABLE and self.request.framing is heads.Framing.NONE

    # ------------------------------------------------------------------------------------------------ the end

    def _head(self, answer: answers.Answer) -> bytes:
        target = self._target
        if target is None:
            return b""
        extra = []
        if self._pass is not None and self._pass.cookie is not None and not answer.interim:
            extra.append(gates.cookie(self._pass.cookie, target, self._proxy.scheme))
        return answers.write(
            answer,
            self.request,
            target,
            request_id=self._request_id,
            keep_alive=self.keep_alive,
            extra=extra,
            isolated=self._proxy.isolated,
        )

    def _refuse(self, error: errors.TraforoError, result: str = "refused") -> None:
        """Answer with an error of ours."""
        if self.response_complete or self._client.transport.is_closing():
            self.cancel()
            return
        if self.waiting_for_100_continue:
            self.keep_alive = False
        answer = self._proxy.problem(error, self._request_id)
        self._status = answer.status_code
        lines = [b"HTTP/1.1 %d %b" % (answer.status_code, answers.phrase(answer.status_code))]
        lines += [b"%b: %b" % header for header in answer.raw_headers]
        lines.append(b"x-request-id: %b\r\nx-traforo-error: %b" % (self._request_id.encode(), error.code.encode()))
        if not self.keep_alive:
            lines.append(b"connection: close")
        lines += [b"", bytes(answer.body) if self.request.method != b"HEAD" else b""]
        self._client.transport.write(b"\r\n".join(lines))
        self._finish(result)

    def _finish(self, result: str) -> None:
        self.response_complete = True
        self.waiting_for_100_continue = False
        self._body = []
        self._log(self._status, result)
        if self._hold is not None:
            self._hold.release()
            self._hold = None
        self._client.done(self)

    def _break_off(self) -> None:
        """End the connection so that the caller can tell half an answer from a whole one."""
        self.flush_answer()
        self.response_complete = True
        self._log(self._status, "failed")
        self._drop()
        self.keep_alive = False
        transport = self._client.transport
        if self.request.modern:
            transport.close()
        else:
            handle = transport.get_extra_info("socket")  # the end of the connection would be the end of the answer
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        self._client.done(self)

    def _drop(self) -> None:
        """Let go of everything behind us."""
        self._body = []
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _log(self, status: int, result: str = "abandoned") -> None:
        self._proxy.note(
            self._target,
            method=self.request.method,
            status=status,
            result=result,
            request_id=self._request_id,
            seconds=time.perf_counter() - self._started_at,
        )

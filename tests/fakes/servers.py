"""A small server that speaks docs/reference/http.md, for tests of clients: no isolation, no limits, no persistence.

It runs commands as plain processes of this machine in a directory of its own, which is the root of the "sandbox" for
the files routes. It keeps what it was asked, so that a test can look at the requests, and it can be told to misbehave.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from tests.fakes import commands, routes, sockets, trees

SANDBOX_ID = "sbx_0123456789abcdef0123456789abcdef_01HZZZZZZZZZZZZZZZZZZZZZ{:02d}"


class FakeServer:
    """One plane: a worker, or with `worker` given a control plane that redirects to it."""

    def __init__(self, worker: FakeServer | None = None, *, token: str | None = None) -> None:
        self.worker = worker
        self.token = token
        """Credential of new sandboxes; None is `dev` mode."""
        self._numbers = itertools.count()
        self.sandboxes: dict[str, commands.FakeSandbox] = {}
        self.repeats: dict[str, commands.FakeSandbox] = {}
        self.requests: list[commands.Asked] = []
        self.fault: Callable[[commands.Asked], str | None] = lambda _: None
        """Asked for each request: `drop` hangs up at once, `drop-after` acts first, `cut` starts what is to be waited for
        and hangs up, `truncate` sends half of the answer, `stall` sends none,
        `slow` waits until `slow` is set, `unavailable` is what a worker says that is not ready."""
        self.stalled, self.slow = threading.Event(), threading.Event()
        self.on_connection: Callable[[object], object] = lambda _: None
        """Told the address of each connection that a request comes over."""
        self.renewed_token: str | None = None
        self.websockets = self.streams = True
        """Whether it knows WebSockets, and streamed answers: an older server does not."""
        self.open_sockets: list[socket.socket] = []
        self.messages: list[bytes] = []
        """What came over WebSockets."""
        self._root = Path(tempfile.mkdtemp(prefix="fake-"))
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), cast("Any", type("Bound", (_Handler,), {"plane": self})))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stalled.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for sandbox in self.sandboxes.values():
            commands.kill_all(sandbox)
        shutil.rmtree(self._root, ignore_errors=True)

    def hang_up_sockets(self) -> None:
        """Break every WebSocket that is open."""
        while self.open_sockets:
            with contextlib.suppress(OSError):
                self.open_sockets.pop().shutdown(socket.SHUT_RDWR)

    def paths(self) -> list[str]:
        """Return `METHOD /path` of each request so far."""
        return [f"{asked.method} {asked.path}" for asked in self.requests]

    def create(self, asked: dict[str, Any]) -> commands.FakeSandbox:
        number = next(self._numbers)  # requests come in threads
        root = self._root / str(number)
        root.mkdir()
        sandbox = commands.FakeSandbox(SANDBOX_ID.format(number), root, asked)
        self.sandboxes[sandbox.sandbox_id] = sandbox
        sandbox.happened("created")
        return sandbox

    def created(self, sandbox: commands.FakeSandbox) -> dict[str, Any]:
        more = {"connect_url": self.url, "token": self.token, "start_type": "cold"}
        timings = {"accepted_to_admitted": 0.1, "admitted_to_ready": 1.2, "total": 1.5}
        return {**sandbox.info(), **more, "timings_ms": timings}

    def sandbox(self, sandbox_id: str) -> commands.FakeSandbox:
        if sandbox_id not in self.sandboxes:
            raise commands.Refusal(404, "not_found", f"no sandbox {sandbox_id!r}", kind="sandbox", id=sandbox_id)
        return self.sandboxes[sandbox_id]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    plane: FakeServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            body = self._body()
        except ConnectionError:
            self.close_connection = True
            return
        asked = commands.Asked(self.command, parts.path, query, {k.lower(): v for k, v in self.headers.items()}, body)
        self.plane.requests.append(asked)
        self.plane.on_connection(self.client_address)
        fault = self.plane.fault(asked)
        if fault == "slow":
            self.plane.slow.wait(10)
        if fault == "stall":
            self.plane.stalled.wait(10)
            fault = "drop"
        if fault == "drop":
            self._hang_up()
            return
        if fault == "unavailable":
            self._answer(503, commands.Refusal(503, "worker_unavailable", "this worker is starting").body)
            return
        if fault == "cut":
            asked.body = json.dumps({**asked.json, "wait": False}).encode()
            fault = "drop-after"
        try:
            self._route(asked, fault)
        except commands.Refusal as refusal:
            self._answer(refusal.status, refusal.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of the base class

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionAbortedError
        return line

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, status: int, body: Any = None, headers: dict[str, str] | None = None, fault: str | None = None
    ) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if fault == "drop-after":
            self._hang_up()
            return
        self.send_response(status)
        self.send_header("X-Request-Id", "01HREQUEST")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "truncate":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._hang_up()
            return
        self.wfile.write(data)

    def _route(self, asked: commands.Asked, fault: str | None) -> None:
        if sockets.is_upgrade(asked.headers):
            self._socket(asked)
            return
        if asked.headers.get("upgrade") == "traforo-tcp":
            self._tunnel(asked)
            return
        if asked.path.endswith("/stream") and self.plane.streams:
            self._stream(asked)
            return
        if asked.path.endswith("/logs") and asked.query.get("follow") == "true":
            self._lines(self._log_entries(self.plane.sandbox(asked.path.split("/")[2]), asked.query))
            return
        if asked.path == "/healthz":
            self._answer(200, {"status": "ok"})
            return
        if self.plane.worker is not None and (asked.method, asked.path) != ("GET", "/sandboxes"):
            more = "?placement=signed" if asked.path == "/sandboxes" else ""
            self._answer(307, None, {"Location": self.plane.worker.url + self.path + more})
            return
        status, body = self._worker(asked)
        if isinstance(body, trees.Content):
            status, headers, content = body.answer(asked.headers)
            self._answer(status, content, headers, fault=fault)
        else:
            self._answer(status, body, fault=fault)

    def _execution(self, asked: commands.Asked) -> commands.FakeExec:
        parts = asked.path.split("/")
        if self.plane.token and asked.headers.get("authorization") != f"Bearer {self.plane.token}":
            raise commands.Refusal(401, "unauthenticated", "no credential")
        found = self.plane.sandbox(parts[2]).execs.get(parts[4])
        if found is None:
            raise commands.Refusal(404, "not_found", f"no exec {parts[4]!r}", kind="exec")
        return found

    def _socket(self, asked: commands.Asked) -> None:
        if not self.plane.websockets:
            raise commands.Refusal(404, "not_found", "no such route")
        execution = self._execution(asked)
        self.connection.sendall(sockets.accepted(asked.headers))
        self.close_connection = True
        self.plane.open_sockets.append(self.connection)
        peer = sockets.Peer(cast("IO[bytes]", self.rfile), cast("IO[bytes]", self.wfile))
        over = threading.Event()
        reader = threading.Thread(target=self._commands, args=(peer, execution, over), daemon=True)
        reader.start()
        for frame in commands.frames_of(execution, int(asked.query.get("cursor", 0)), over):
            kind = {"stdout": 1, "stderr": 2, "exit": 3, "result": 5}[frame["type"]]
            peer.send(struct.pack(">BQ", kind, frame["cursor"] + 1) + frame["data"])
        if not over.is_set():
            peer.close(1000)
        reader.join(5)

    def _commands(self, peer: sockets.Peer, execution: commands.FakeExec, over: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (message := peer.receive()) is not None:
                self.plane.messages.append(message)
                kind, rest = message[0], message[1:]
                if kind == 16:
                    commands.feed(execution, rest, end=False)
                elif kind == 17:
                    commands.end_input(execution)
                elif kind == 18 and execution.master is not None:
                    rows, columns = struct.unpack(">HH", rest)
                    commands.resize(execution.master, {"rows": rows, "columns": columns})
                elif kind == 19:
                    os.killpg(execution.process.pid, rest[0])
        over.set()
        with execution.changed:
            execution.changed.notify_all()

    def _stream(self, asked: commands.Asked) -> None:
        execution = self._execution(asked)

        def frame(item: dict[str, Any]) -> dict[str, Any]:
            return {**item, "data": base64.b64encode(item["data"]).decode()}

        found = commands.frames_of(execution, int(asked.query.get("cursor", 0)), threading.Event())
        self._lines(itertools.chain([{"type": "heartbeat"}], map(frame, found)))

    def _lines(self, found: Iterable[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for item in found:
            line = json.dumps(item).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _log_entries(self, sandbox: commands.FakeSandbox, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        seen = int(query.get("cursor", 0))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            entries = routes.log(sandbox, query)
            for entry in entries[seen:]:
                seen = entry["cursor"]
                yield entry
            if sandbox.state != "running":
                return
            time.sleep(0.01)

    def _tunnel(self, asked: commands.Asked) -> None:
        port = int(asked.path.split("/proxy/")[1].split("/")[0])
        try:
            upstream = socket.create_connection(("127.0.0.1", port))
        except OSError as error:
            raise commands.Refusal(502, "port_unreachable", f"nothing listens on port {port}") from error
        self.close_connection = True
        self.connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: traforo-tcp\r\nConnection: Upgrade\r\n\r\n"
        )

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := upstream.recv(65536):
                    self.connection.sendall(data)
                self.connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        with contextlib.suppress(OSError):
            while data := self.connection.recv(65536):
                upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)
        thread.join(5)
        upstream.close()

    def _worker(self, asked: commands.Asked) -> tuple[int, Any]:
        plane, parts = self.plane, asked.path.split("/")[2:]
        if not parts:
            return self._sandboxes(asked)
        if plane.token and asked.headers.get("authorization") not in {f"Bearer {plane.token}", "Bearer client"}:
            raise commands.Refusal(401, "unauthenticated", "no credential")
        sandbox = plane.sandbox(parts[0])
        if len(parts) == 1:
            if asked.method == "DELETE":
                sandbox.state = "stopped"
                commands.kill_all(sandbox)
                return 204, None
            return 200, sandbox.info()
        if parts[1] in routes.EXTRAS:
            return routes.EXTRAS[parts[1]](asked, sandbox, parts[2:])
        if parts[1] == "lease":
            return 200, {
                "sandbox_id": sandbox.sandbox_id,
                "expires_at": "2026-01-02T04:00:00.000Z",
                "token": plane.renewed_token,
            }
        if parts[1] == "exec":
            return self._exec(asked, sandbox, parts[2:])
        return trees.answer(asked, sandbox, parts[2:])

    def _sandboxes(self, asked: commands.Asked) -> tuple[int, Any]:
        plane = self.plane.worker or self.plane
        if asked.method == "POST":
            body = asked.json
            key = asked.headers.get("idempotency-key", "")
            if key in plane.repeats:
                return 201, plane.created(plane.repeats[key])
            if body.get("image") == "none":
                raise commands.Refusal(
                    404, "not_found", "no image 'none'", kind="image", hint="look at the list of images"
                )
            sandbox = plane.create(body)
            plane.repeats[key] = sandbox
            return 201, plane.created(sandbox)
        start_at = int(asked.query.get("cursor", 0))
        wanted = [s for s in reversed(plane.sandboxes.values()) if s.state == asked.query.get("state", s.state)]
        page = wanted[start_at : start_at + min(2, int(asked.query.get("limit", 2)))]
        end = start_at + len(page)
        return 200, {"sandboxes": [s.info() for s in page], "next_cursor": str(end) if end < len(wanted) else None}

    def _exec(self, asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
        if asked.method == "POST" and parts in ([], ["code"]):
            return self._start(sandbox, asked.json, code=bool(parts))
        if not parts:
            listed = [commands.result(sandbox, item) for item in sandbox.execs.values()]
            wanted = {name: asked.query[name] for name in ("tag", "status") if name in asked.query}
            listed = [item for item in listed if all(item[name] == value for name, value in wanted.items())]
            return 200, {"execs": listed, "next_cursor": None}
        if parts[0] not in sandbox.execs:
            raise commands.Refusal(404, "not_found", f"no exec {parts[0]!r}", kind="exec", id=parts[0])
        execution = sandbox.execs[parts[0]]
        if parts[1:] == ["frames"]:
            return 200, commands.frames_page(execution, asked.query)
        if parts[1:] == ["signal"]:
            if execution.code is not None:
                raise commands.Refusal(409, "conflict", "the exec has ended")
            name = asked.json["signal"]
            number = name if isinstance(name, int) else signal.Signals[f"SIG{name}"]
            os.killpg(execution.process.pid, number)
            return 204, None
        if parts[1:] == ["stdin"]:
            if execution.stdin is None or execution.code is not None:
                raise commands.Refusal(409, "conflict", "the input is not open")
            try:
                execution.stdin.write(asked.body)
                execution.stdin.flush()
            except BrokenPipeError as error:
                raise commands.Refusal(409, "conflict", "nobody reads the input any more") from error
            if asked.query.get("close") == "true":
                commands.end_input(execution)
            return 204, None
        if parts[1:] == ["resize"]:
            if execution.master is None:
                raise commands.Refusal(409, "conflict", "it has no terminal")
            commands.resize(execution.master, asked.json)
            return 204, None
        if parts[1:]:
            raise commands.Refusal(404, "not_found", "no such route")
        if asked.method == "DELETE":
            with contextlib.suppress(ProcessLookupError):
                if execution.code is None:
                    os.killpg(execution.process.pid, signal.SIGKILL)
            return 204, None
        return 200, commands.result(sandbox, execution)

    def _start(self, sandbox: commands.FakeSandbox, asked: dict[str, Any], *, code: bool) -> tuple[int, Any]:
        if unknown := asked.keys() - KNOWN:
            raise commands.Refusal(400, "invalid_request", f"unknown field {min(unknown)!r}", field=min(unknown))
        if code:
            argv = ["python3", "-c", asked["code"]]
            try:
                compile(asked["code"], "-", "exec")
            except SyntaxError as error:
                more = {"stdout": "", "stderr": str(error), "exit_code": 1}
                raise commands.Refusal(422, "syntax_error", "the code does not compile", **more) from error
        else:
            command = asked.get("command", "true")
            argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        execution = commands.start(sandbox, argv, asked, asked.get("command", argv))
        if asked.get("wait"):
            with execution.changed:
                execution.changed.wait_for(lambda: execution.ended)
            return 200, commands.result(sandbox, execution)
        return 202, {"exec_id": execution.exec_id, "sandbox_id": sandbox.sandbox_id, "status": "running"}


KNOWN = {"command", "env", "cwd", "user", "timeout_ms", "wait", "code", "runtime"}
KNOWN |= {"stdin", "stdin_b64", "stdin_open", "tty", "background", "tag"}

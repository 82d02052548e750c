"""A small server that speaks docs/reference/http.md, for tests of clients: no isolation, no limits, no persistence.

It runs commands as plain processes of this machine in a directory of its own, which is the root of the "sandbox" for
the files routes. It keeps what it was asked, so that a test can look at the requests, and it can be told to misbehave.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from tests.fakes import sockets

SANDBOX_ID = "sbx_0123456789abcdef0123456789abcdef_01HZZZZZZZZZZZZZZZZZZZZZ{:02d}"
EXEC_ID = "exec_01HZZZZZZZZZZZZZZZZZZZZZ{:02d}"


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **fields}}


@dataclass
class Asked:
    """One request, as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class FakeExec:
    """A command that runs, or ran."""

    exec_id: str
    command: Any
    process: subprocess.Popen[bytes]
    frames: list[dict[str, Any]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    code: int | None = None
    started_at: str = field(default_factory=now)
    completed_at: str | None = None
    timed_out: bool = False
    tag: str | None = None
    stdin: IO[bytes] | None = None
    master: int | None = None
    """Of its terminal."""
    context_id: str | None = None

    @property
    def ended(self) -> bool:
        return bool(self.frames) and self.frames[-1]["type"] == "exit"

    def close(self) -> None:
        """Close its input and its terminal, once it is dead."""
        stdin, self.stdin = self.stdin, None
        if stdin is not None:
            with contextlib.suppress(OSError):
                stdin.close()
        with self.changed:
            self.changed.wait_for(lambda: self.ended, 10)
            master, self.master = self.master, None
        if master is not None:
            os.close(master)

    def add(self, kind: str, data: bytes) -> None:
        with self.changed:
            self.frames.append({"cursor": len(self.frames), "type": kind, "data": data, "ts": now()})
            self.changed.notify_all()

    def joined(self, *kinds: str) -> str:
        return b"".join(frame["data"] for frame in self.frames if frame["type"] in kinds).decode(errors="replace")


@dataclass
class FakeSandbox:
    """A directory, and what ran in it."""

    sandbox_id: str
    root: Path
    asked: dict[str, Any]
    state: str = "running"
    execs: dict[str, FakeExec] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    etags: bool = True
    """Whether versions of files are named."""
    public: set[int] = field(default_factory=set)
    watches: dict[str, Watch] = field(default_factory=dict)
    contexts: dict[str, FakeContext] = field(default_factory=dict)

    def happened(self, kind: str, **more: Any) -> None:
        self.events.append({"cursor": len(self.events), "ts": now(), "type": kind, "facts": more})

    def info(self) -> dict[str, Any]:
        return {
            "sandbox_id": self.sandbox_id,
            "dns_id": "a" * 52,
            "name": self.asked.get("name"),
            "image": self.asked.get("image", "host"),
            "virtualization": "container",
            "state": self.state,
            "reason": None if self.state == "running" else "deleted",
            "cpu": self.asked.get("cpu", 1),
            "memory_mib": self.asked.get("memory_mib", 512),
            "disk_mib": self.asked.get("disk_mib", 512),
            "disk_kind": self.asked.get("disk_kind", "tmpfs"),
            "pids": self.asked.get("pids", 512),
            "metadata": self.asked.get("metadata", {}),
            "created_at": "2026-01-02T03:04:05.678Z",
            "expires_at": "2026-01-02T03:34:05.678Z",
            "ended_at": None if self.state == "running" else "2026-01-02T03:05:05.678Z",
            "idle_seconds": self.asked.get("idle_seconds"),
            "idle_at": None,
            "last_activity_at": "2026-01-02T03:04:05.678Z",
            "a_field_of_the_future": 1,
        }


class FakeServer:
    """One plane: a worker, or with `worker` given a control plane that redirects to it."""

    def __init__(self, worker: FakeServer | None = None, *, token: str | None = None) -> None:
        self.worker = worker
        self.token = token
        """Credential of new sandboxes; None is `dev` mode."""
        self._numbers = itertools.count()
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.repeats: dict[str, FakeSandbox] = {}
        self.requests: list[Asked] = []
        self.fault: Callable[[Asked], str | None] = lambda _: None
        """Asked for each request: `drop` hangs up at once, `drop-after` acts first,
        `truncate` sends half of the answer, `stall` sends none,
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
            kill_all(sandbox)
        shutil.rmtree(self._root, ignore_errors=True)

    def hang_up_sockets(self) -> None:
        """Break every WebSocket that is open."""
        while self.open_sockets:
            with contextlib.suppress(OSError):
                self.open_sockets.pop().shutdown(socket.SHUT_RDWR)

    def paths(self) -> list[str]:
        """Return `METHOD /path` of each request so far."""
        return [f"{asked.method} {asked.path}" for asked in self.requests]

    def create(self, asked: dict[str, Any]) -> FakeSandbox:
        number = next(self._numbers)  # requests come in threads
        root = self._root / str(number)
        root.mkdir()
        sandbox = FakeSandbox(SANDBOX_ID.format(number), root, asked)
        self.sandboxes[sandbox.sandbox_id] = sandbox
        sandbox.happened("created")
        return sandbox

    def created(self, sandbox: FakeSandbox) -> dict[str, Any]:
        more = {"connect_url": self.url, "token": self.token, "start_type": "cold"}
        timings = {"accepted_to_admitted": 0.1, "admitted_to_ready": 1.2, "total": 1.5}
        return {**sandbox.info(), **more, "timings_ms": timings}

    def sandbox(self, sandbox_id: str) -> FakeSandbox:
        if sandbox_id not in self.sandboxes:
            raise Refusal(404, "not_found", f"no sandbox {sandbox_id!r}", kind="sandbox", id=sandbox_id)
        return self.sandboxes[sandbox_id]


def kill_all(sandbox: FakeSandbox) -> None:
    for execution in sandbox.execs.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(execution.process.pid, signal.SIGKILL)
        execution.process.wait()
        execution.close()


def start(sandbox: FakeSandbox, argv: list[str], asked: dict[str, Any], command: Any) -> FakeExec:
    exec_id = EXEC_ID.format(len(sandbox.execs))
    env = {"PATH": os.environ["PATH"], **sandbox.asked.get("env", {}), **asked.get("env", {})}
    cwd = sandbox.root / asked["cwd"].lstrip("/") if "cwd" in asked else sandbox.root
    tty = asked.get("tty")
    wants_input = "stdin" in asked or "stdin_b64" in asked or asked.get("stdin_open")
    master, stdin, out, err = None, subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE
    if tty:
        master, stdin = os.openpty()
        out = err = stdin
        env = {"TERM": "xterm-256color", **env}
        _resize(master, tty)
    elif wants_input:
        stdin = subprocess.PIPE
    try:
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=env,
            start_new_session=True,
            preexec_fn=_own_terminal if tty else None,  # noqa: PLW1509 - one system call
        )
    except OSError as error:
        stage, name = ("cwd", "ENOENT") if not cwd.is_dir() else ("exec", error.strerror and _errno_name(error))
        message = f"cannot start {argv[0]!r}: {error.strerror}"
        raise Refusal(422, "start_failed", message, stage=stage, errno_name=name, exec_id=exec_id) from error
    execution = FakeExec(exec_id, command, process, tag=asked.get("tag"), master=master)
    if master is not None:
        os.close(stdin)
        execution.stdin = os.fdopen(os.dup(master), "wb", buffering=0)
    elif wants_input:
        execution.stdin = process.stdin
        text = asked["stdin"].encode() if "stdin" in asked else base64.b64decode(asked.get("stdin_b64", ""))
        threading.Thread(target=_feed, args=(execution, text, not asked.get("stdin_open")), daemon=True).start()
    sandbox.execs[exec_id] = execution
    sandbox.happened("exec_started", exec_id=exec_id)
    kinds = ("stdout",) if tty else ("stdout", "stderr")
    readers = [threading.Thread(target=_pump, args=(execution, kind), daemon=True) for kind in kinds]
    for reader in readers:
        reader.start()
    threading.Thread(target=_reap, args=(execution, readers, asked.get("timeout_ms")), daemon=True).start()
    return execution


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _errno_name(error: OSError) -> str:
    import errno

    return errno.errorcode[error.errno or 0]


def _resize(master: int, size: dict[str, int]) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["columns"], 0, 0))


def _feed(execution: FakeExec, data: bytes, end: bool) -> None:
    with contextlib.suppress(OSError, ValueError):
        if execution.stdin is not None:
            execution.stdin.write(data)
            execution.stdin.flush()
            if end:
                _end_input(execution)


def _end_input(execution: FakeExec) -> None:
    if execution.stdin is None:
        return
    if execution.master is not None:
        execution.stdin.write(b"\x04")
        return
    stdin, execution.stdin = execution.stdin, None
    with contextlib.suppress(BrokenPipeError):
        stdin.close()


def _pump(execution: FakeExec, kind: str) -> None:
    if execution.master is not None:
        with contextlib.suppress(OSError):  # how a terminal says that nobody has it open any more
            while data := os.read(execution.master, 65536):
                execution.add(kind, data)
        return
    with cast("Any", getattr(execution.process, kind)) as pipe:
        while data := os.read(pipe.fileno(), 65536):
            execution.add(kind, data)


def _reap(execution: FakeExec, readers: list[threading.Thread], timeout_ms: int | None) -> None:
    try:
        execution.process.wait(None if timeout_ms is None else timeout_ms / 1000)
    except subprocess.TimeoutExpired:
        execution.timed_out = True
        os.killpg(execution.process.pid, signal.SIGKILL)
        execution.process.wait()
    for reader in readers:
        reader.join()
    code = execution.process.returncode
    execution.completed_at = now()
    execution.code = 124 if execution.timed_out else code if code >= 0 else 128 - code
    end = "timed_out" if execution.timed_out else "signalled" if code < 0 else "exited"
    execution.add("exit", json.dumps({"end": end, "exit_code": execution.code}).encode())


def result(sandbox: FakeSandbox, execution: FakeExec) -> dict[str, Any]:
    code = execution.process.returncode if execution.code is not None else None
    return {
        "exec_id": execution.exec_id,
        "sandbox_id": sandbox.sandbox_id,
        "command": execution.command,
        "status": "running" if execution.code is None else "exited",
        "end": None if code is None else "timed_out" if execution.timed_out else "signalled" if code < 0 else "exited",
        "exit_code": execution.code,
        "signal": -code if code is not None and code < 0 else None,
        "stdout": execution.joined("stdout"),
        "stderr": execution.joined("stderr"),
        "output": execution.joined("stdout", "stderr"),
        "stdout_truncated": False,
        "stderr_truncated": False,
        "duration_ms": None if code is None else 1.5,
        "tag": execution.tag,
        "pid": execution.process.pid,
        "tty": execution.master is not None,
        "background": False,
        "stdin_open": execution.stdin is not None,
        "context_id": execution.context_id,
        "started_at": execution.started_at,
        "completed_at": execution.completed_at,
    }


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
        asked = Asked(self.command, parts.path, query, {k.lower(): v for k, v in self.headers.items()}, body)
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
            self._answer(503, Refusal(503, "worker_unavailable", "this worker is starting").body)
            return
        try:
            self._route(asked, fault)
        except Refusal as refusal:
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

    def _route(self, asked: Asked, fault: str | None) -> None:
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
        if isinstance(body, Content):
            status, headers, content = body.answer(asked.headers)
            self._answer(status, content, headers, fault=fault)
        else:
            self._answer(status, body, fault=fault)

    def _execution(self, asked: Asked) -> FakeExec:
        parts = asked.path.split("/")
        if self.plane.token and asked.headers.get("authorization") != f"Bearer {self.plane.token}":
            raise Refusal(401, "unauthenticated", "no credential")
        found = self.plane.sandbox(parts[2]).execs.get(parts[4])
        if found is None:
            raise Refusal(404, "not_found", f"no exec {parts[4]!r}", kind="exec")
        return found

    def _socket(self, asked: Asked) -> None:
        if not self.plane.websockets:
            raise Refusal(404, "not_found", "no such route")
        execution = self._execution(asked)
        self.connection.sendall(sockets.accepted(asked.headers))
        self.close_connection = True
        self.plane.open_sockets.append(self.connection)
        peer = sockets.Peer(cast("IO[bytes]", self.rfile), cast("IO[bytes]", self.wfile))
        over = threading.Event()
        reader = threading.Thread(target=self._commands, args=(peer, execution, over), daemon=True)
        reader.start()
        for frame in frames_of(execution, int(asked.query.get("cursor", 0)), over):
            kind = {"stdout": 1, "stderr": 2, "exit": 3, "result": 5}[frame["type"]]
            peer.send(struct.pack(">BQ", kind, frame["cursor"] + 1) + frame["data"])
        if not over.is_set():
            peer.close(1000)
        reader.join(5)

    def _commands(self, peer: sockets.Peer, execution: FakeExec, over: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (message := peer.receive()) is not None:
                self.plane.messages.append(message)
                kind, rest = message[0], message[1:]
                if kind == 16:
                    _feed(execution, rest, end=False)
                elif kind == 17:
                    _end_input(execution)
                elif kind == 18 and execution.master is not None:
                    rows, columns = struct.unpack(">HH", rest)
                    _resize(execution.master, {"rows": rows, "columns": columns})
                elif kind == 19:
                    os.killpg(execution.process.pid, rest[0])
        over.set()
        with execution.changed:
            execution.changed.notify_all()

    def _stream(self, asked: Asked) -> None:
        execution = self._execution(asked)

        def frame(item: dict[str, Any]) -> dict[str, Any]:
            return {**item, "data": base64.b64encode(item["data"]).decode()}

        found = frames_of(execution, int(asked.query.get("cursor", 0)), threading.Event())
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

    def _log_entries(self, sandbox: FakeSandbox, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        seen = int(query.get("cursor", 0))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            entries = _log(sandbox, query)
            for entry in entries[seen:]:
                seen = entry["cursor"]
                yield entry
            if sandbox.state != "running":
                return
            time.sleep(0.01)

    def _tunnel(self, asked: Asked) -> None:
        port = int(asked.path.split("/proxy/")[1].split("/")[0])
        try:
            upstream = socket.create_connection(("127.0.0.1", port))
        except OSError as error:
            raise Refusal(502, "port_unreachable", f"nothing listens on port {port}") from error
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

    def _worker(self, asked: Asked) -> tuple[int, Any]:
        plane, parts = self.plane, asked.path.split("/")[2:]
        if not parts:
            return self._sandboxes(asked)
        if plane.token and asked.headers.get("authorization") not in {f"Bearer {plane.token}", "Bearer client"}:
            raise Refusal(401, "unauthenticated", "no credential")
        sandbox = plane.sandbox(parts[0])
        if len(parts) == 1:
            if asked.method == "DELETE":
                sandbox.state = "stopped"
                kill_all(sandbox)
                return 204, None
            return 200, sandbox.info()
        if parts[1] in EXTRAS:
            return EXTRAS[parts[1]](asked, sandbox, parts[2:])
        if parts[1] == "lease":
            return 200, {
                "sandbox_id": sandbox.sandbox_id,
                "expires_at": "2026-01-02T04:00:00.000Z",
                "token": plane.renewed_token,
            }
        if parts[1] == "exec":
            return self._exec(asked, sandbox, parts[2:])
        return _files(asked, sandbox, parts[2:])

    def _sandboxes(self, asked: Asked) -> tuple[int, Any]:
        plane = self.plane.worker or self.plane
        if asked.method == "POST":
            body = asked.json
            key = asked.headers.get("idempotency-key", "")
            if key in plane.repeats:
                return 201, plane.created(plane.repeats[key])
            if body.get("image") == "none":
                raise Refusal(404, "not_found", "no image 'none'", kind="image", hint="look at the list of images")
            sandbox = plane.create(body)
            plane.repeats[key] = sandbox
            return 201, plane.created(sandbox)
        start_at = int(asked.query.get("cursor", 0))
        wanted = [s for s in reversed(plane.sandboxes.values()) if s.state == asked.query.get("state", s.state)]
        page = wanted[start_at : start_at + min(2, int(asked.query.get("limit", 2)))]
        end = start_at + len(page)
        return 200, {"sandboxes": [s.info() for s in page], "next_cursor": str(end) if end < len(wanted) else None}

    def _exec(self, asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
        if asked.method == "POST" and parts in ([], ["code"]):
            return self._start(sandbox, asked.json, code=bool(parts))
        if not parts:
            listed = [result(sandbox, item) for item in sandbox.execs.values()]
            wanted = {name: asked.query[name] for name in ("tag", "status") if name in asked.query}
            listed = [item for item in listed if all(item[name] == value for name, value in wanted.items())]
            return 200, {"execs": listed, "next_cursor": None}
        if parts[0] not in sandbox.execs:
            raise Refusal(404, "not_found", f"no exec {parts[0]!r}", kind="exec", id=parts[0])
        execution = sandbox.execs[parts[0]]
        if parts[1:] == ["frames"]:
            return 200, _frames(execution, asked.query)
        if parts[1:] == ["signal"]:
            if execution.code is not None:
                raise Refusal(409, "conflict", "the exec has ended")
            name = asked.json["signal"]
            number = name if isinstance(name, int) else signal.Signals[f"SIG{name}"]
            os.killpg(execution.process.pid, number)
            return 204, None
        if parts[1:] == ["stdin"]:
            if execution.stdin is None or execution.code is not None:
                raise Refusal(409, "conflict", "the input is not open")
            try:
                execution.stdin.write(asked.body)
                execution.stdin.flush()
            except BrokenPipeError as error:
                raise Refusal(409, "conflict", "nobody reads the input any more") from error
            if asked.query.get("close") == "true":
                _end_input(execution)
            return 204, None
        if parts[1:] == ["resize"]:
            if execution.master is None:
                raise Refusal(409, "conflict", "it has no terminal")
            _resize(execution.master, asked.json)
            return 204, None
        if parts[1:]:
            raise Refusal(404, "not_found", "no such route")
        if asked.method == "DELETE":
            with contextlib.suppress(ProcessLookupError):
                if execution.code is None:
                    os.killpg(execution.process.pid, signal.SIGKILL)
            return 204, None
        return 200, result(sandbox, execution)

    def _start(self, sandbox: FakeSandbox, asked: dict[str, Any], *, code: bool) -> tuple[int, Any]:
        if unknown := asked.keys() - KNOWN:
            raise Refusal(400, "invalid_request", f"unknown field {min(unknown)!r}", field=min(unknown))
        if code:
            argv = ["python3", "-c", asked["code"]]
            try:
                compile(asked["code"], "-", "exec")
            except SyntaxError as error:
                more = {"stdout": "", "stderr": str(error), "exit_code": 1}
                raise Refusal(422, "syntax_error", "the code does not compile", **more) from error
        else:
            command = asked.get("command", "true")
            argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        execution = start(sandbox, argv, asked, asked.get("command", argv))
        if asked.get("wait"):
            with execution.changed:
                execution.changed.wait_for(lambda: execution.ended)
            return 200, result(sandbox, execution)
        return 202, {"exec_id": execution.exec_id, "sandbox_id": sandbox.sandbox_id, "status": "running"}


def frames_of(execution: FakeExec, cursor: int, over: threading.Event) -> Iterator[dict[str, Any]]:
    """Give out frames as they come, up to the last one, or until somebody is no longer interested."""
    for number in itertools.count(cursor):
        with execution.changed:
            while len(execution.frames) <= number and not over.is_set() and not execution.ended:
                execution.changed.wait()
        if over.is_set() or number >= len(execution.frames):
            return
        yield execution.frames[number]


def _frames(execution: FakeExec, query: dict[str, str]) -> dict[str, Any]:
    cursor, encoding = int(query.get("cursor", 0)), query.get("encoding", "utf8")
    with execution.changed:
        execution.changed.wait_for(lambda: len(execution.frames) > cursor, float(query.get("wait", 0)))
        page = execution.frames[cursor : cursor + min(2, int(query.get("limit", 1000)))]

    def data(raw: bytes) -> str:
        return base64.b64encode(raw).decode() if encoding == "base64" else raw.decode(errors="replace")

    found = [{**frame, "data": data(frame["data"])} for frame in page]
    return {"frames": found, "next_cursor": cursor + len(page), "has_more": False, "wait_applied": 0, "dropped": 0}


def _files(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if parts[:1] == ["watches"] and len(parts) == 2:
        return _watch(asked, sandbox, parts[1])
    if parts in (["move"], ["copy"]):
        return _between(asked.json, sandbox, parts[0])
    in_body = asked.method == "PATCH" or parts in (["mkdir"], ["watches"], ["signed-url"])
    given: Any = asked.json if in_body else asked.query
    shown = base64.b64decode(given["path_b64"]) if "path_b64" in given else given["path"].encode()
    if not shown.startswith(b"/"):
        raise Refusal(400, "invalid_request", "the path is not absolute", field="path")
    path = Path(os.fsdecode(os.fsencode(sandbox.root) + shown))
    facts = {"sandbox_id": sandbox.sandbox_id, **_name("path", shown)}
    if parts == ["find"]:
        found = [item for item in sorted(path.rglob("*")) if item.match(asked.query["pattern"].replace("**/", ""))]
        return 200, {"entries": [_entry(sandbox, item) for item in found], "next_cursor": None}
    if parts == ["search"]:
        return 200, {"matches": _matches(sandbox, path, asked.query["text"]), "truncated": False}
    if parts == ["signed-url"]:
        url = f"http://signed.example/{given['method']}{given['path']}?signature=abc"
        return 200, {"url": url, "expires_at": "2026-01-02T04:00:00.000Z"}
    if parts == ["watches"]:
        watch_id = f"watch_{len(sandbox.watches)}"
        sandbox.watches[watch_id] = Watch(path, _snapshot(path))
        return 201, {"watch_id": watch_id}
    if parts == ["tar"] and asked.method == "GET":
        return 200, _tar(path)
    if parts == ["tar"]:
        path.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(asked.body), mode="r:*") as archive:
            archive.extractall(path, filter="tar")
        return 200, facts
    if parts == ["mkdir"]:
        created = not path.exists()
        path.mkdir(parents=given["recursive"], exist_ok=True)
        return 200, {**facts, "created": created}
    if parts == ["stat"]:
        return 200, {**facts, **_stat(path)}
    if asked.method == "PATCH":
        path.chmod(int(given["mode"], 8))
        return 200, facts
    if asked.method == "PUT":
        if asked.headers.get("if-none-match") == "*" and path.exists():
            raise Refusal(412, "precondition_failed", "it is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asked.body)
        return 200, {**facts, "bytes_written": len(asked.body), "bytes": len(asked.body)}
    if asked.method == "DELETE":
        return _remove(path, asked.query)
    if not path.exists():
        raise Refusal(404, "not_found", f"no file {given.get('path')!r}", kind="file")
    if parts == ["list"]:
        return 200, {**facts, **_list(sandbox, path, asked.query)}
    if path.is_dir():
        raise Refusal(400, "invalid_request", "a directory")
    return 200, Content(path.read_bytes(), f'"{path.stat().st_mtime_ns:x}"' if sandbox.etags else None)


def _between(given: dict[str, Any], sandbox: FakeSandbox, what: str) -> tuple[int, Any]:
    source, target = (sandbox.root / given[name].lstrip("/") for name in ("from", "to"))
    if not source.exists():
        raise Refusal(404, "not_found", "no such file", kind="file")
    if target.exists() and not given.get("overwrite"):
        raise Refusal(409, "conflict", "it is there already")
    if what == "move":
        source.rename(target)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    return 200, {"sandbox_id": sandbox.sandbox_id}


def _tar(path: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(path, arcname=path.name if path.is_file() else ".")
    return content.getvalue()


def _matches(sandbox: FakeSandbox, path: Path, text: str) -> list[dict[str, Any]]:
    found = []
    for item in sorted(path.rglob("*")):
        for number, line in enumerate(item.read_text().splitlines() if item.is_file() else (), 1):
            if text in line:
                name = f"/{item.relative_to(sandbox.root)}"
                found.append({"path": name, "line": number, "column": line.index(text) + 1, "text": line})
    return found


def _snapshot(path: Path) -> dict[str, int]:
    return {str(item): item.stat().st_mtime_ns for item in sorted(path.rglob("*"))}


def _watch(asked: Asked, sandbox: FakeSandbox, watch_id: str) -> tuple[int, Any]:
    if watch_id not in sandbox.watches:
        raise Refusal(404, "not_found", "no such watch", kind="watch")
    if asked.method == "DELETE":
        del sandbox.watches[watch_id]
        return 204, None
    watch, cursor = sandbox.watches[watch_id], int(asked.query["cursor"])
    deadline = time.monotonic() + float(asked.query["wait"])
    while len(watch.changes) <= cursor and time.monotonic() < deadline and sandbox.state == "running":
        time.sleep(0.005)
        new = _snapshot(watch.path)
        for name in [name for name in new if new[name] != watch.known.get(name)]:
            kind = "modified" if name in watch.known else "created"
            path = f"/{Path(name).relative_to(sandbox.root)}"
            number = len(watch.changes) + 1
            watch.changes.append({"cursor": number, "kind": kind, "path": path, "type": "file", "moved_from": None})
        watch.known = new
    changes = watch.changes[cursor:]
    return 200, {"changes": changes, "next_cursor": cursor + len(changes), "overflow": False}


def _remove(path: Path, query: dict[str, str]) -> tuple[int, Any]:
    if not path.exists():
        if query.get("force") != "true":
            raise Refusal(404, "not_found", "no such file", kind="file")
    elif not path.is_dir():
        path.unlink()
    elif query.get("recursive") == "true":
        shutil.rmtree(path)
    elif any(path.iterdir()):
        raise Refusal(409, "conflict", "directory is not empty")
    else:
        path.rmdir()
    return 204, None


def _name(key: str, raw: bytes) -> dict[str, str]:
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        shown = "".join(c if c.isprintable() else f"%{ord(c) & 0xFF:02X}" for c in raw.decode(errors="surrogateescape"))
        return {key: shown, f"{key}_b64": base64.b64encode(raw).decode()}


def _stat(path: Path) -> dict[str, Any]:
    if not path.exists() and not path.is_symlink():
        return {"exists": False}
    facts = path.lstat()
    kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
    modified = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    size = facts.st_size if kind == "file" else 0
    ids = {"uid": facts.st_uid, "gid": facts.st_gid, "mode": facts.st_mode & 0o7777}
    return {"exists": True, "type": kind, "size": size, **ids, "modified_at": modified, "target": None}


def _list(sandbox: FakeSandbox, path: Path, query: dict[str, str]) -> dict[str, Any]:
    found = sorted(path.rglob("*") if query.get("recursive") == "true" else path.iterdir())
    start_at = int(query.get("cursor", 0))
    page = found[start_at : start_at + 3]
    entries = [_entry(sandbox, item) for item in page]
    end = start_at + len(page)
    return {"entries": entries, "next_cursor": str(end) if end < len(found) else None}


def _entry(sandbox: FakeSandbox, item: Path) -> dict[str, Any]:
    raw = b"/" + os.fsencode(item.relative_to(sandbox.root))
    return {**_stat(item), **_name("name", os.fsencode(item.name)), **_name("path", raw)}


def _log(sandbox: FakeSandbox, query: dict[str, str]) -> list[dict[str, Any]]:
    wanted = {"events": set(), "stdout": {"stdout"}, "stderr": {"stderr"}}.get(query.get("stream", ""))
    entries = [
        {**frame, "exec_id": execution.exec_id, "data": frame["data"].decode(errors="replace")}
        for execution in sandbox.execs.values()
        for frame in list(execution.frames)
        if wanted is None or frame["type"] in wanted
    ]
    return [{**entry, "cursor": number} for number, entry in enumerate(entries, 1)]


def _logs(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    start_at = int(asked.query.get("cursor", 0))
    found = _log(sandbox, asked.query)
    page = found[start_at : start_at + 2]
    end = start_at + len(page)
    return 200, {"entries": page, "next_cursor": end if end < len(found) else None}


def _events(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    start_at = int(asked.query.get("cursor", 0))
    deadline = time.monotonic() + min(5.0, float(asked.query.get("wait", 0)))
    while len(sandbox.events) <= start_at and time.monotonic() < deadline and sandbox.state == "running":
        time.sleep(0.005)
    page = sandbox.events[start_at : start_at + 2]
    return 200, {"events": page, "next_cursor": start_at + len(page)}


def _metrics(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    usage = {
        "ts": now(),
        "cpu_seconds": 1.5,
        "cpu_percent": 12.5,
        "memory_bytes": 64 << 20,
        "memory_limit_bytes": 512 << 20,
        "memory_peak_bytes": 128 << 20,
        "disk_bytes": 1 << 20,
        "disk_limit_bytes": 512 << 20,
        "pids": 3,
        "pids_limit": 512,
        "network_received_bytes": None,
        "network_sent_bytes": None,
    }
    return 200, {"now": usage, "series": [usage, usage] if asked.query.get("series") == "true" else []}


def _ports(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if not parts:
        ports = [{"port": port, "address": "127.0.0.1", "public": True} for port in sorted(sandbox.public)]
        return 200, {"ports": [{"port": 80, "address": "0.0.0.0", "public": False}, *ports]}
    port = int(parts[0])
    if asked.method == "POST":
        (sandbox.public.add if asked.json["public"] else sandbox.public.discard)(port)
    return 200, {
        "sandbox_id": sandbox.sandbox_id,
        "port": port,
        "protocol": asked.query.get("protocol", "http"),
        "url": f"http://worker.example/sandboxes/{sandbox.sandbox_id}/proxy/{port}/",
        "host_url": f"http://{port}-{'a' * 52}.localhost/",
        "token": "traffic",
        "public": port in sandbox.public,
    }


def _signal(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    given = asked.json
    names = {"tag": "tag", "exec_id": "exec_id"}
    wanted = {attribute: given[name] for name, attribute in names.items() if name in given}
    found = [
        item
        for item in sandbox.execs.values()
        if item.code is None and all(getattr(item, name) == value for name, value in wanted.items())
    ]
    found = [item for item in found if given.get("pid", item.process.pid) == item.process.pid]
    number = given["signal"] if isinstance(given["signal"], int) else signal.Signals[f"SIG{given['signal']}"]
    for item in found:
        os.killpg(item.process.pid, number)
    return 200, {"signalled": len(found)}


def _terminals(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if asked.method == "GET":
        found = [result(sandbox, item) for item in sandbox.execs.values() if item.master is not None]
        return 200, {"terminals": found, "next_cursor": None}
    if asked.method == "DELETE":
        if parts[0] not in sandbox.execs:
            raise Refusal(404, "not_found", "no such terminal", kind="exec")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sandbox.execs[parts[0]].process.pid, signal.SIGKILL)
        return 204, None
    given = asked.json
    command = given.get("command", ["/bin/sh"])
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    execution = start(sandbox, argv, {**given, "tty": {k: given[k] for k in ("rows", "columns")}}, command)
    return 201, {**result(sandbox, execution), "ws_url": f"ws://worker/exec/{execution.exec_id}/ws"}


def _contexts(asked: Asked, sandbox: FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if not parts:
        if asked.method == "GET":
            return 200, {"contexts": [item.info() for item in sandbox.contexts.values()]}
        made = FakeContext(f"ctx_01HZZZ{len(sandbox.contexts):02d}", sandbox, asked.json)
        sandbox.contexts[made.context_id] = made
        return 201, made.info()
    if parts[0] not in sandbox.contexts:
        raise Refusal(404, "not_found", "no such context", kind="context")
    context = sandbox.contexts[parts[0]]
    if asked.method == "DELETE":
        del sandbox.contexts[parts[0]]
        return 204, None
    if parts[1:] == ["run"]:
        return context.run(asked.json)
    if parts[1:] == ["restart"]:
        context.names.clear()
        context.count = 0
    return 200, context.info()


@dataclass
class Content:
    """The content of a file, which may be asked for in parts."""

    data: bytes
    etag: str | None

    def answer(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        named = {"ETag": self.etag} if self.etag else {}
        wanted = headers.get("range", "").removeprefix("bytes=")
        if not wanted or headers.get("if-range", self.etag) != self.etag:
            return 200, named, self.data
        first, _, last = wanted.partition("-")
        part = self.data[int(first) : int(last) + 1 if last else None]
        if not part:
            raise Refusal(416, "range_not_satisfiable", "it ends before that", size=len(self.data))
        return 206, named, part


@dataclass
class Watch:
    """A directory that is watched, by looking again and again."""

    path: Path
    known: dict[str, int]
    changes: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class FakeContext:
    """An interpreter: this one, with names of its own."""

    context_id: str
    sandbox: FakeSandbox
    asked: dict[str, Any]
    names: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def info(self) -> dict[str, Any]:
        return {
            "context_id": self.context_id,
            "sandbox_id": self.sandbox.sandbox_id,
            "runtime": self.asked.get("runtime", "python"),
            "status": "idle",
            "cwd": "/root",
            "user": "root",
            "name": self.asked.get("name"),
            "created_at": now(),
            "execution_count": self.count,
        }

    def run(self, given: dict[str, Any]) -> tuple[int, Any]:
        self.count += 1
        execution = start(self.sandbox, ["cat"], {"stdin_open": True}, given["code"])
        execution.context_id = self.context_id
        shown, error, out = [], None, io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                try:
                    value = eval(given["code"], self.names)
                except SyntaxError:
                    exec(given["code"], self.names)
                    value = None
            if value is not None:
                shown.append({"text/plain": repr(value), "is_main": True})
        except Exception as problem:  # noqa: BLE001 - whatever the code raises
            error = {"name": type(problem).__name__, "value": str(problem), "traceback": [f"line 1: {problem}"]}
        for item in shown:
            execution.add("result", json.dumps(item).encode())
        if error:
            execution.add("result", json.dumps({"error": error}).encode())
        if execution.stdin is not None:
            execution.stdin.write(out.getvalue().encode())
        _end_input(execution)
        if not given["wait"]:
            return 202, {"exec_id": execution.exec_id, "sandbox_id": self.sandbox.sandbox_id, "status": "running"}
        with execution.changed:
            execution.changed.wait_for(lambda: execution.ended)
        more = {"context_id": self.context_id, "execution_count": self.count}
        return 200, {**result(self.sandbox, execution), "results": shown, "error": error, **more}


KNOWN = {"command", "env", "cwd", "user", "timeout_ms", "wait", "code", "runtime"}
KNOWN |= {"stdin", "stdin_b64", "stdin_open", "tty", "background", "tag"}
EXTRAS: dict[str, Callable[[Asked, FakeSandbox, list[str]], tuple[int, Any]]] = {
    "logs": _logs,
    "events": _events,
    "metrics": _metrics,
    "ports": _ports,
    "signal": _signal,
    "terminals": _terminals,
    "contexts": _contexts,
}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds, and fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)

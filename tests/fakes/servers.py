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
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

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

    @property
    def ended(self) -> bool:
        return bool(self.frames) and self.frames[-1]["type"] == "exit"

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
            "ended_at": None,
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
        `slow` waits until `slow` is set."""
        self.stalled, self.slow = threading.Event(), threading.Event()
        self.on_connection: Callable[[object], object] = lambda _: None
        """Told the address of each connection that a request comes over."""
        self.renewed_token: str | None = None
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

    def paths(self) -> list[str]:
        """Return `METHOD /path` of each request so far."""
        return [f"{asked.method} {asked.path}" for asked in self.requests]

    def create(self, asked: dict[str, Any]) -> FakeSandbox:
        number = next(self._numbers)  # requests come in threads
        root = self._root / str(number)
        root.mkdir()
        sandbox = FakeSandbox(SANDBOX_ID.format(number), root, asked)
        self.sandboxes[sandbox.sandbox_id] = sandbox
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


def start(sandbox: FakeSandbox, argv: list[str], asked: dict[str, Any], command: Any) -> FakeExec:
    exec_id = EXEC_ID.format(len(sandbox.execs))
    env = {"PATH": os.environ["PATH"], **sandbox.asked.get("env", {}), **asked.get("env", {})}
    cwd = sandbox.root / asked["cwd"].lstrip("/") if "cwd" in asked else sandbox.root
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=cwd, env=env, start_new_session=True
        )
    except OSError as error:
        stage, name = ("cwd", "ENOENT") if not cwd.is_dir() else ("exec", error.strerror and _errno_name(error))
        message = f"cannot start {argv[0]!r}: {error.strerror}"
        raise Refusal(422, "start_failed", message, stage=stage, errno_name=name, exec_id=exec_id) from error
    execution = FakeExec(exec_id, command, process)
    sandbox.execs[exec_id] = execution
    readers = [threading.Thread(target=_pump, args=(execution, kind), daemon=True) for kind in ("stdout", "stderr")]
    for reader in readers:
        reader.start()
    threading.Thread(target=_reap, args=(execution, readers, asked.get("timeout_ms")), daemon=True).start()
    return execution


def _errno_name(error: OSError) -> str:
    import errno

    return errno.errorcode[error.errno or 0]


def _pump(execution: FakeExec, kind: str) -> None:
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
        asked = Asked(self.command, parts.path, query, {k.lower(): v for k, v in self.headers.items()}, self._body())
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
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

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
        if asked.path == "/healthz":
            self._answer(200, {"status": "ok"})
            return
        if self.plane.worker is not None and (asked.method, asked.path) != ("GET", "/sandboxes"):
            more = "?placement=signed" if asked.path == "/sandboxes" else ""
            self._answer(307, None, {"Location": self.plane.worker.url + self.path + more})
            return
        status, body = self._worker(asked)
        self._answer(status, body, fault=fault)

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
            return 200, {"execs": [result(sandbox, item) for item in sandbox.execs.values()], "next_cursor": None}
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
        return 200, result(sandbox, execution)

    def _start(self, sandbox: FakeSandbox, asked: dict[str, Any], *, code: bool) -> tuple[int, Any]:
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
    given: Any = asked.json if parts == ["mkdir"] else asked.query
    shown = base64.b64decode(given["path_b64"]) if "path_b64" in given else given["path"].encode()
    if not shown.startswith(b"/"):
        raise Refusal(400, "invalid_request", "the path is not absolute", field="path")
    path = Path(os.fsdecode(os.fsencode(sandbox.root) + shown))
    facts = {"sandbox_id": sandbox.sandbox_id, **_name("path", shown)}
    if parts == ["mkdir"]:
        created = not path.exists()
        path.mkdir(parents=given["recursive"], exist_ok=True)
        return 200, {**facts, "created": created}
    if parts == ["stat"]:
        return 200, {**facts, **_stat(path)}
    if asked.method == "PUT":
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
    return 200, path.read_bytes()


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
    entries = []
    for item in page:
        raw = b"/" + os.fsencode(item.relative_to(sandbox.root))
        name = _name("name", os.fsencode(item.name))
        entries.append({**_stat(item), **name, **_name("path", raw)})
    end = start_at + len(page)
    return {"entries": entries, "next_cursor": str(end) if end < len(found) else None}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds, and fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)

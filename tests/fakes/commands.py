"""What a fake server runs: commands as plain processes of this machine, and what it remembers of them.

Each "sandbox" is a directory; nothing is isolated or limited.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tests.fakes import routes, trees


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
    watches: dict[str, trees.Watch] = field(default_factory=dict)
    contexts: dict[str, routes.FakeContext] = field(default_factory=dict)

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
        resize(master, tty)
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
        threading.Thread(target=feed, args=(execution, text, not asked.get("stdin_open")), daemon=True).start()
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


def resize(master: int, size: dict[str, int]) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["columns"], 0, 0))


def feed(execution: FakeExec, data: bytes, end: bool) -> None:
    with contextlib.suppress(OSError, ValueError):
        if execution.stdin is not None:
            execution.stdin.write(data)
            execution.stdin.flush()
            if end:
                end_input(execution)


def end_input(execution: FakeExec) -> None:
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


def frames_of(execution: FakeExec, cursor: int, over: threading.Event) -> Iterator[dict[str, Any]]:
    """Give out frames as they come, up to the last one, or until somebody is no longer interested."""
    for number in itertools.count(cursor):
        with execution.changed:
            while len(execution.frames) <= number and not over.is_set() and not execution.ended:
                execution.changed.wait()
        if over.is_set() or number >= len(execution.frames):
            return
        yield execution.frames[number]


def frames_page(execution: FakeExec, query: dict[str, str]) -> dict[str, Any]:
    cursor, encoding = int(query.get("cursor", 0)), query.get("encoding", "utf8")
    with execution.changed:
        execution.changed.wait_for(lambda: len(execution.frames) > cursor, float(query.get("wait", 0)))
        page = execution.frames[cursor : cursor + min(2, int(query.get("limit", 1000)))]

    def data(raw: bytes) -> str:
        return base64.b64encode(raw).decode() if encoding == "base64" else raw.decode(errors="replace")

    found = [{**frame, "data": data(frame["data"])} for frame in page]
    return {"frames": found, "next_cursor": cursor + len(page), "has_more": False, "wait_applied": 0, "dropped": 0}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds, and fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)

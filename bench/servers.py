"""Starts the server under test: control plane and worker on free loopback ports, with a state directory of their own.

`started` is the only function that knows how `traforo up` is called. Everything a server started ends with it, also
what outlives a worker on purpose: processes are found by a mark in their environment and ended by their ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.clients import Client
from bench.contenders import MeasurementError, UnavailableError

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_MARK = "TRAFORO_BENCH_MARK"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    control_url: str
    worker_url: str
    pid: int
    mark: str

    def processes(self) -> list[int]:
        """Return the ids of all its processes, sandboxes included."""
        return _marked(self.mark) + [pid for pid in _descendants(self.pid) if not _has_mark(pid, self.mark)]


def executable() -> list[str]:
    """Return the `traforo` of this Python environment, else the one on PATH."""
    beside = Path(sys.executable).parent / "traforo"
    found = str(beside) if beside.exists() else shutil.which("traforo")
    if found is None:
        raise UnavailableError("traforo is not installed here", hint="make setup build")
    return [found]


@contextlib.contextmanager
def started(command: Sequence[str], directory: Path, *, most_live: int) -> Iterator[Server]:
    """Run `traforo up` with its files in `directory`, wait until both planes answer, and end it all afterwards."""
    program = shutil.which(command[0])
    if program is None:
        raise UnavailableError(f"cannot start '{command[0]}': no such program")
    argv = [str(Path(program).absolute()), *command[1:], "up"]
    control, worker = (f"127.0.0.1:{port}" for port in _free_ports(2))
    mark = secrets.token_hex(8)
    directory.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAFORO_")}
    environment |= _settings(control, worker, directory, most_live) | {_MARK: mark}
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=directory
        )
    server = Server(f"http://{control}", f"http://{worker}", process.pid, mark)
    try:
        _wait_until_ready(server, process, directory / "server.log")
        yield server
    finally:
        _stop(process, server)


def _settings(control: str, worker: str, directory: Path, most_live: int) -> dict[str, str]:
    """Return the environment of a server that differs from the defaults in place and in caps, not in behaviour."""
    overcommit = "10000"  # ceilings are not what is measured; the machine's real memory still is
    return {
        "TRAFORO_CONTROL_LISTEN": control,
        "TRAFORO_CONTROL_BASE_URL": f"http://{control}",
        "TRAFORO_CONTROL_STATE_DIR": str(directory / "control"),
        "TRAFORO_WORKER_LISTEN": worker,
        "TRAFORO_WORKER_BASE_URL": f"http://{worker}",
        "TRAFORO_WORKER_CONTROL_URL": f"http://{control}",
        "TRAFORO_WORKER_STATE_DIR": str(directory / "worker"),
        "TRAFORO_WORKER_RUN_DIR": str(directory / "run"),
        "TRAFORO_WORKER_MAX_LIVE_SANDBOXES": str(most_live),
        "TRAFORO_WORKER_CPU_OVERCOMMIT": overcommit,
        "TRAFORO_WORKER_MEMORY_OVERCOMMIT": overcommit,
        "TRAFORO_WORKER_DISK_OVERCOMMIT": overcommit,
    }


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(server.control_url) and _answers(server.worker_url):
            return
        time.sleep(0.1)
    end = " ".join(log.read_text(errors="replace").split())[-400:]
    raise UnavailableError(f"`traforo up` does not answer: {end}", hint="make build")


def _answers(url: str) -> bool:
    client = Client()
    try:
        return client.request("GET", f"{url}/healthz").status == 200
    except MeasurementError:
        return False
    finally:
        client.close()


def _stop(process: subprocess.Popen[bytes], server: Server) -> None:
    # Descriptors, not numbers: a number may belong to somebody else by the time it is signalled.
    held = list(_pidfds(server.processes()))
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pidfd in [*held, *_pidfds(_marked(server.mark))]:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _pidfds(pids: Sequence[int]) -> Iterator[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago: all bound at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _has_mark(pid: int, mark: str) -> bool:
    try:
        return f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _marked(mark: str) -> list[int]:
    return [pid for pid in _pids() if _has_mark(pid, mark)]


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so fields count from its end.
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _parent(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found: list[int] = []
    pending = [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found

"""`python -m bench.streams`: output followed over HTTP and WebSockets: a lot of it, and many readers at once.

The first part moves one large output through each kind of stream and compares digests: what arrives is what the command
wrote, or the measurement fails. The second keeps many streams that wait and some that are busy, and watches the memory
of the worker: it must not grow with time. Client and server share the machine, so rates are those of both together.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio import client as websockets

from bench import clients, servers
from bench.contenders import MeasurementError

_TICKS = os.sysconf("SC_CLK_TCK")
_HEAD = struct.Struct(">BQ")
_STDOUT, _EXIT, _GAP = 1, 3, 4
_CLOSE, _PING = 8, 9
_SANDBOX = {"memory_mib": 1024, "disk_mib": 64, "pids": 1024, "ttl_seconds": 3600}
_EXECS_PER_SANDBOX = 100


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.streams", description=main.__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large output")
    parser.add_argument("--idle", type=int, default=500, help="streams that wait")
    parser.add_argument("--busy", type=int, default=50, help="streams with output all the time")
    parser.add_argument("--seconds", type=int, default=60, help="how long those are watched")
    arguments = parser.parse_args()
    size = arguments.mib << 20
    with tempfile.TemporaryDirectory(prefix="traforo-bench-") as place:
        # The log has to hold what a reader on a busy machine has not read yet.
        command = ["env", f"TRAFORO_WORKER_EXEC_LOG_MAX_BYTES={max(size, 1 << 28) * 2}", *servers.executable()]
        with servers.started(command, Path(place) / "traforo", most_live=64) as server:
            _large(server, size)
            asyncio.run(_many(server, arguments.idle, arguments.busy, arguments.seconds))
    return 0


# ------------------------------------------------------------------------------------------------- large output


@dataclass(slots=True)
class _Read:
    """What a reader got."""

    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    gaps: int = 0
    ended: bool = False

    def take(self, payload: bytes | memoryview) -> None:
        self.digest.update(payload)
        self.size += len(payload)


def _large(server: servers.Server, size: int) -> None:
    count = size // 8  # numbers of up to nine digits and a newline: more than enough of them
    wanted = hashlib.sha256()
    with subprocess.Popen(["seq", str(count)], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        left = size
        while left and (piece := source.stdout.read(min(left, 1 << 20))):
            wanted.update(piece)
            left -= len(piece)
        source.kill()
    ways: dict[str, Callable[[str], _Read]] = {"websocket": _over_websocket, "ndjson": _over_ndjson}
    print(f"{'':12}{'MiB':>8}{'MiB/s':>10}{'worker cpu s':>14}  digest")
    for name, way in ways.items():
        with _sandbox(server) as (client, sandbox):
            cpu, started = _cpu(server), time.perf_counter()
            exec_id = _start(client, sandbox, f"seq {count} | head -c {size}")
            read = way(f"{sandbox}/exec/{exec_id}")
            seconds, used = time.perf_counter() - started, _cpu(server) - cpu
        same = read.digest.digest() == wanted.digest() and read.ended and not read.gaps
        words = "same" if same else f"other: {read.size} bytes, {read.gaps} gaps"
        print(f"{name:12}{read.size >> 20:8}{(read.size >> 20) / seconds:10.0f}{used:14.2f}  {words}", flush=True)
        if not same:
            raise MeasurementError(f"{name}: what arrived is not what was written")


def _over_websocket(url: str) -> _Read:
    parts = urlsplit(url)
    read = _Read()
    with socket.create_connection((parts.hostname or "", parts.port or 0), 60) as connection:
        lines = [f"GET {parts.path}/ws HTTP/1.1", f"Host: {parts.netloc}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        stream = connection.makefile("rb", 1 << 20)
        if b" 101 " not in stream.readline():
            raise MeasurementError("no upgrade")
        while stream.readline() != b"\r\n":
            pass
        while (message := _message(stream)) is not None:
            kind, _ = _HEAD.unpack_from(message)
            if kind == _STDOUT:
                read.take(memoryview(message)[_HEAD.size :])
            read.gaps += kind == _GAP
            read.ended |= kind == _EXIT
    return read


def _message(stream: Any) -> bytes | None:
    while True:
        first, second = stream.read(2)
        if second == 126:
            second = struct.unpack(">H", stream.read(2))[0]
        elif second == 127:
            second = struct.unpack(">Q", stream.read(8))[0]
        payload: bytes = stream.read(second)
        if first & 15 == _CLOSE:
            return None
        if first & 15 != _PING:
            return payload


def _over_ndjson(url: str) -> _Read:
    parts = urlsplit(url)
    read = _Read()
    with socket.create_connection((parts.hostname or "", parts.port or 0), 60) as connection:
        head = f"GET {parts.path}/stream?encoding=base64 HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        connection.sendall(head.encode())
        stream = connection.makefile("rb", 1 << 20)
        while stream.readline() != b"\r\n":
            pass
        rest = b""
        while length := int(stream.readline(), 16):
            *lines, rest = (rest + stream.read(length)).split(b"\n")
            stream.readline()
            for line in lines:
                frame = json.loads(line)
                if frame["type"] == "stdout":
                    read.take(base64.b64decode(frame["data"]))
                read.gaps += frame["type"] == "gap"
                read.ended |= frame["type"] == "exit"
    return read


# ------------------------------------------------------------------------------------------------- many streams


async def _many(server: servers.Server, idle: int, busy: int, seconds: int) -> None:
    with contextlib.ExitStack() as stack:
        urls = []
        for first in range(0, idle + busy, _EXECS_PER_SANDBOX):
            client, sandbox = stack.enter_context(_sandbox(server))
            for number in range(first, min(idle + busy, first + _EXECS_PER_SANDBOX)):
                command = "while :; do head -c 65536 /dev/zero; sleep 0.05; done" if number < busy else "sleep 3600"
                urls.append(f"{sandbox}/exec/{_start(client, sandbox, command)}/ws".replace("http", "ws", 1))
        worker = _worker(server)
        before = _resident(worker)
        taken = [0] * len(urls)
        tasks = [asyncio.create_task(_follow(url, taken, index)) for index, url in enumerate(urls)]
        print(f"\n{idle} idle and {busy} busy streams\n{'s':>6}{'worker MiB':>12}{'MiB/s':>8}{'cpu':>8}")
        total, cpu, at = 0, _cpu_of(worker), time.perf_counter()
        print(f"{0:6}{before / 2**20:12.1f}")
        for second in range(0, seconds, 5):
            await asyncio.sleep(5)
            now, used, moved = time.perf_counter(), _cpu_of(worker), sum(taken)
            rate, share = (moved - total) / (now - at) / 2**20, (used - cpu) / (now - at)
            print(f"{second + 5:6}{_resident(worker) / 2**20:12.1f}{rate:8.1f}{share:8.0%}", flush=True)
            total, cpu, at = moved, used, now
        starved = sum(not count for count in taken[:busy])
        print(f"busy streams without output: {starved}; ended early: {sum(task.done() for task in tasks)}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if starved:
            raise MeasurementError(f"{starved} busy streams got nothing")


async def _follow(url: str, taken: list[int], index: int) -> None:
    async with websockets.connect(url, max_size=None, compression=None, open_timeout=60) as connection:
        async for message in connection:
            if message[0] == _GAP:
                raise MeasurementError("a reader that kept up was told of a gap")
            taken[index] += len(message)


# --------------------------------------------------------------------------------------------------------- parts


@contextlib.contextmanager
def _sandbox(server: servers.Server) -> Iterator[tuple[clients.Client, str]]:
    client = clients.Client()
    answer = client.request("POST", f"{server.worker_url}/sandboxes", _SANDBOX)
    if answer.status != 201:
        raise MeasurementError(f"create answered {answer.status}: {answer.body[:300]!r}")
    sandbox = f"{server.worker_url}/sandboxes/{answer.json()['sandbox_id']}"
    try:
        yield client, sandbox
    finally:
        client.request("DELETE", sandbox)
        client.close()


def _start(client: clients.Client, sandbox: str, command: str) -> str:
    answer = client.request("POST", f"{sandbox}/exec", {"command": command})
    if answer.status != 202:
        raise MeasurementError(f"exec answered {answer.status}: {answer.body[:300]!r}")
    return str(answer.json()["exec_id"])


def _worker(server: servers.Server) -> int:
    """Return the id of the worker's process: of all those of the server the one that says so."""
    for pid in server.processes():
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"worker" in argv:
                return pid
    raise MeasurementError("no worker among the processes of the server")


def _resident(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def _cpu(server: servers.Server) -> float:
    return _cpu_of(_worker(server))


def _cpu_of(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return sum(map(int, stat[stat.rindex(")") + 2 :].split()[11:13])) / _TICKS


if __name__ == "__main__":
    sys.exit(main())

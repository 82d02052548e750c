"""`python -m bench.files`: large files up and down, beside a plain uvicorn endpoint that does the same.

Both read and write a file on a tmpfs: traforo one in a sandbox, through its init and with everything that it promises
of a file; the endpoint one on the host, in its event loop, as short as it can be written. They take turns, so that
whatever disturbs the machine hits both. Beside the time on the clock stands the processor time of the server, which a
busy machine changes least. The client is a socket and a buffer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench import clients, servers
from bench.contenders import MeasurementError

_BLOCK = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_PLAIN = """
import os, sys, uvicorn
path = sys.argv[1]

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["method"] == "PUT":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        while True:
            message = await receive()
            os.write(fd, message.get("body", b""))
            if not message.get("more_body"):
                break
        os.close(fd)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    head = [(b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    while data := os.read(fd, 65536):
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body"})
    os.close(fd)

uvicorn.run(app, fd=int(sys.argv[2]), log_level="error", access_log=False, lifespan="off")
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that takes and gives a file."""

    name: str
    url: str
    pids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Reading:
    """One transfer."""

    seconds: float
    cpu_seconds: float
    """Of the server."""


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.files", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="transfers of each contender and direction")
    parser.add_argument("--mib", type=int, default=100, help="size of the file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="traforo-bench-") as place, contextlib.ExitStack() as stack:
        contenders = [
            stack.enter_context(_plain(Path(place))),
            stack.enter_context(_traforo(Path(place) / "traforo", arguments.mib)),
        ]
        readings = _measure(contenders, arguments.rounds, arguments.mib << 20)
    _print(contenders, readings, arguments.mib)
    return 0


@contextlib.contextmanager
def _plain(place: Path) -> Iterator[Contender]:
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else place
    path = memory / f"traforo-bench-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", _PLAIN, str(path), str(listener.fileno())], pass_fds=[listener.fileno()]
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    try:
        yield Contender("plain uvicorn", url, [process.pid])
    finally:
        process.terminate()
        process.wait()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _traforo(place: Path, mib: int) -> Iterator[Contender]:
    with servers.started(servers.executable(), place, most_live=4) as server:
        client = clients.Client()
        body = {"memory_mib": 4 * mib + 256, "disk_mib": 3 * mib + 64, "ttl_seconds": 3600}
        answer = client.request("POST", f"{server.worker_url}/sandboxes", body)
        if answer.status != 201:
            raise MeasurementError(f"create answered {answer.status}: {answer.body[:300]!r}")
        sandbox = f"{server.worker_url}/sandboxes/{answer.json()['sandbox_id']}"
        yield Contender("traforo", f"{sandbox}/files?path=/tmp/large", server.processes())
        client.request("DELETE", sandbox)
        client.close()


def _measure(contenders: Sequence[Contender], rounds: int, size: int) -> dict[tuple[str, str], list[Reading]]:
    data = memoryview(os.urandom(_BLOCK))
    readings: dict[tuple[str, str], list[Reading]] = {}
    for number in range(rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            for direction in ("PUT", "GET"):
                cpu, started = _cpu(contender), time.perf_counter()
                _transfer(contender.url, direction, data, size)
                seconds = time.perf_counter() - started
                if number:  # the first is a warm-up
                    reading = Reading(seconds, _cpu(contender) - cpu)
                    readings.setdefault((contender.name, direction), []).append(reading)
    return readings


def _transfer(url: str, direction: str, data: memoryview, size: int) -> None:
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    length = size if direction == "PUT" else 0
    head = f"{direction} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {length}\r\n"
    head += "Connection: close\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), 60) as connection:
        connection.sendall(head.encode())
        for at in range(0, length, len(data)):
            connection.sendall(data[: length - at])
        buffer = bytearray(_BLOCK)
        got = connection.recv_into(buffer)
        status = bytes(buffer[9:12])
        received = got - bytes(buffer[:got]).find(b"\r\n\r\n") - 4
        while got := connection.recv_into(buffer):
            received += got
    if status != b"200" or (direction == "GET" and received != size):
        raise MeasurementError(f"{direction} {url} answered {status!r} with {received} bytes")


def _cpu(contender: Contender) -> float:
    total = 0
    for pid in contender.pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            total += sum(map(int, stat[stat.rindex(")") + 2 :].split()[11:13]))
    return total / _TICKS


def _print(contenders: Sequence[Contender], readings: dict[tuple[str, str], list[Reading]], mib: int) -> None:
    print(f"{'':16}{'':6}{'MiB/s':>10}{'best':>10}{'cpu s':>10}{'rate':>10}{'cpu':>8}")
    for direction in ("PUT", "GET"):
        base = readings[contenders[0].name, direction]
        for contender in contenders:
            found = readings[contender.name, direction]
            seconds = statistics.median(one.seconds for one in found)
            cpu = statistics.median(one.cpu_seconds for one in found)
            # Neighbours in time are compared: what disturbs one disturbs the other.
            rate = statistics.median(b.seconds / a.seconds for a, b in zip(found, base, strict=True))
            share = cpu / statistics.median(one.cpu_seconds for one in base)
            print(
                f"{contender.name:16}{direction:6}{mib / seconds:10.0f}{mib / min(o.seconds for o in found):10.0f}"
                f"{cpu:10.3f}{rate:9.0%} {share:7.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())

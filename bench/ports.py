"""`python -m bench.ports`: requests through the worker into a sandbox's port, beside a bare relay and beside no relay.

One small HTTP server runs twice: on the host, reached directly and through a relay that copies bytes and does nothing
else, and in a sandbox, reached through the worker. All take turns in every round; what counts is the ratio to the
relay. Latency is that of one caller who waits for each answer, throughput that of several. The relay, the worker and
the client run on uvloop, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench import clients, servers

SERVER = r"""
import asyncio, sys
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))
async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
"""Answers every head at once. For any Python 3."""
RELAY = r"""
import asyncio, sys, uvloop
class Side(asyncio.Protocol):
    def __init__(self, other=None):
        self.other, self.early = other, []
    def connection_made(self, transport):
        self.transport = transport
        if self.other is None:
            asyncio.ensure_future(self.join())
    async def join(self):
        _, self.other = await asyncio.get_running_loop().create_connection(
            lambda: Side(self), "127.0.0.1", int(sys.argv[1]))
        self.other.transport.writelines(self.early)
    def data_received(self, data):
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)
    def connection_lost(self, error):
        if self.other is not None:
            self.other.transport.close()
async def main():
    server = await asyncio.get_running_loop().create_server(Side, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""
"""A bare relay of TCP."""
HEADERS = "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: bench\r\n"
PORT = 8000


@dataclass(slots=True)
class Way:
    """One way to the server, and its readings."""

    name: str
    port: int
    path: str
    latencies: list[float] = field(default_factory=list)
    """Seconds."""
    rates: list[float] = field(default_factory=list)
    """Requests a second."""

    @property
    def request(self) -> bytes:
        """What is sent."""
        return f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{HEADERS}\r\n".encode()


class Caller(asyncio.Protocol):
    """Sends a request when the answer to the one before is complete, until told to stop."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.readings: list[float] = []
        self.left = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent_at = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # that of a stream
        """Take the transport."""
        self.transport = transport

    def run(self, count: int) -> asyncio.Future[None]:
        """Send `count` requests."""
        self.left = count
        self.done = asyncio.get_running_loop().create_future()
        self._send()
        return self.done

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer, which ends with a word that nothing else in it holds."""
        self._tail = self._tail[-4:] + data
        if not self._tail.endswith(b"hello"):
            return
        self._tail = b""
        self.readings.append(time.perf_counter() - self._sent_at)
        self.left -= 1
        if self.left:
            self._send()
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the connection ended"))

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self.transport.write(self.request)


def main() -> int:
    """Measure, print a table to stdout, and write the readings if asked to; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench.ports", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=2000, help="in each round, of each kind (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=16, help="at once, for throughput (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file for the readings, as JSON")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        ways = _ways(stack)
        uvloop.run(_measure(ways, arguments.rounds, arguments.requests, arguments.callers))
    _print(ways)
    if arguments.output:
        rows = [{"way": way.name, "latencies_s": way.latencies, "requests_per_s": way.rates} for way in ways]
        arguments.output.write_text(json.dumps(rows))
    return 0


def _ways(stack: contextlib.ExitStack) -> list[Way]:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    direct = stack.enter_context(_process(SERVER, "0"))
    relay = stack.enter_context(_process(RELAY, str(direct)))
    server = stack.enter_context(servers.started(servers.executable(), directory / "server", most_live=4))
    client = stack.enter_context(contextlib.closing(clients.Client()))
    made = client.request("POST", f"{server.worker_url}/sandboxes", {"ttl_seconds": 3600}).json()
    sandbox = f"/sandboxes/{made['sandbox_id']}"
    url = server.worker_url + sandbox
    command = f"exec python3 -c {shlex.quote(SERVER)} {PORT}"
    started = client.request("POST", f"{url}/exec", {"command": command}).json()
    page = client.request("GET", f"{url}/exec/{started['exec_id']}/frames?wait=20&limit=1").json()
    if not page["frames"] or page["frames"][0]["data"].strip() != str(PORT):
        raise SystemExit(f"cannot measure: the server in the sandbox did not start: {page}")
    worker = int(server.worker_url.rpartition(":")[2])
    return [
        Way("direct", direct, "/"),
        Way("relay", relay, "/"),
        Way("traforo", worker, f"{sandbox}/proxy/{PORT}/"),
    ]


async def _measure(ways: list[Way], rounds: int, requests: int, callers: int) -> None:
    for number in range(rounds + 1):  # the first one warms up
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            one = await _call(way, 1, requests)
            many = await _call(way, callers, requests)
            if number:
                way.latencies += one[1]
                way.rates.append(many[0])


async def _call(way: Way, callers: int, requests: int) -> tuple[float, list[float]]:
    """Return requests a second, and the seconds of each."""
    loop = asyncio.get_running_loop()
    found = [
        (await loop.create_connection(lambda: Caller(way.request), "127.0.0.1", way.port))[1] for _ in range(callers)
    ]
    started = time.perf_counter()
    await asyncio.gather(*[caller.run(max(1, requests // callers)) for caller in found])
    seconds = time.perf_counter() - started
    for caller in found:
        caller.transport.close()
    readings = [reading for caller in found for reading in caller.readings]
    return len(readings) / seconds, readings


def _print(ways: list[Way]) -> None:
    relay = ways[1]
    base = statistics.median(ways[0].latencies)
    added = statistics.median(relay.latencies) - base
    print(f"{'':10}{'p50 us':>10}{'p99 us':>10}{'added us':>10}{'x relay':>10}{'req/s':>10}{'relay x':>10}")
    for way in ways:
        median = statistics.median(way.latencies)
        high = statistics.quantiles(way.latencies, n=100)[98]
        rate = statistics.median(way.rates)
        print(
            f"{way.name:10}{median * 1e6:10.0f}{high * 1e6:10.0f}{(median - base) * 1e6:10.0f}"
            f"{(median - base) / added:10.2f}{rate:10.0f}{statistics.median(relay.rates) / rate:10.2f}"
        )


@contextlib.contextmanager
def _process(program: str, argument: str) -> Iterator[int]:
    """Run a program that prints its port; end it afterwards."""
    with subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None:
                raise SystemExit("cannot measure: no output")
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())

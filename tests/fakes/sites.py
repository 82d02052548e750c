"""A worker with one sandbox over a fake runtime, and both ends of its proxied connections in the hands of a test.

`Site.serve` puts a server behind a port of the sandbox; `Site.call` opens a connection to the worker. Both speak bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client

from tests.fakes import runtimes, workers
from traforo.domain import ids
from traforo.settings import worker as settings_worker
from traforo.telemetry import metrics
from traforo.worker import processes
from traforo.worker.ports import exchanges  # noqa: F401 - the package under test, imported before loops begin

SECRET = workers.SECRET
SECONDS = 20.0
"""How long anything may take before a test fails."""

Serve = Callable[["Peer"], Awaitable[None]]
"""One connection of a server."""


class Images(workers.FakeImages):
    """Images for a whole worker process."""

    async def start(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def collect(self, in_use: Collection[str]) -> list[str]:
        """Keep everything."""
        del in_use
        return []


@dataclass(slots=True)
class Message:
    """A request or an answer as it arrived."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    """Whether its end came before that of the connection, or is told by it."""
    trailers: list[tuple[str, str]] | None = None

    @property
    def status(self) -> int:
        """Status of an answer."""
        return int(self.start.split(" ")[1])

    def get(self, name: str) -> str | None:
        """Return a header's only value."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Write everything."""
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), SECONDS)

    async def head(self) -> Message:
        """Read a head."""
        data = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), SECONDS)
        lines = data.decode("latin-1").split("\r\n")
        return Message(lines[0], [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines[1:-2])])

    async def message(self, *, method: str = "GET") -> Message:
        """Read a request, or the final answer to a request of `method`, with its body."""
        found = await self.head()
        answer = found.start.startswith("HTTP/")
        if answer and (method == "HEAD" or found.status < 200 or found.status in {204, 304}):
            return found
        if found.get("transfer-encoding") is not None:
            await self._chunks(found)
        elif (length := found.get("content-length")) is not None:
            await self._exactly(found, int(length))
        elif answer:
            found.body = await asyncio.wait_for(self.reader.read(), SECONDS)
        return found

    async def _exactly(self, found: Message, length: int) -> None:
        try:
            found.body += await asyncio.wait_for(self.reader.readexactly(length), SECONDS)
        except asyncio.IncompleteReadError as error:
            found.body += error.partial
            found.whole = False

    async def _chunks(self, found: Message) -> None:
        while found.whole:
            try:
                line = await asyncio.wait_for(self.reader.readuntil(b"\r\n"), SECONDS)
                size = int(line, 16)
                if size == 0:
                    break
                await self._exactly(found, size)
                assert await self.reader.readexactly(2) == b"\r\n"
            except asyncio.IncompleteReadError:
                found.whole = False
                return
        found.trailers = []
        while (line := await asyncio.wait_for(self.reader.readuntil(b"\r\n"), SECONDS)) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            found.trailers.append((name, value.strip()))

    async def ended(self) -> bool:
        """Tell whether the other side sends nothing more, and has ended."""
        try:
            return await asyncio.wait_for(self.reader.read(65536), SECONDS) == b""
        except ConnectionResetError:
            return True

    async def rest(self) -> bytes:
        """Read to the end."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), SECONDS)
        return b""

    def close(self) -> None:
        """Close, with a reset if there is something unread."""
        self.writer.close()

    def abort(self) -> None:
        """Close with a reset."""
        handle = self.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


class Site:
    """A worker and its sandbox."""

    def __init__(self, client: httpx2.AsyncClient, measured: metrics.WorkerMetrics, clock: Any) -> None:
        self.client = client
        self.metrics = measured
        self.clock = clock
        self.created: dict[str, Any] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.Server] = []
        self.connections: list[int] = []
        """For each server, in order of `serve`, how many connections it had."""

    @property
    def id(self) -> str:
        """The sandbox's."""
        found: str = self.created["sandbox_id"]
        return found

    def prefix(self, port: int) -> str:
        """Return the path form of a port."""
        return f"/sandboxes/{self.id}/proxy/{port}"

    def host(self, port: int) -> str:
        """Return the host form of a port."""
        return f"{port}-{ids.parse_sandbox_id(self.id).dns}.localhost:{self.client.base_url.port}"

    async def serve(self, serve: Serve) -> int:
        """Run a server behind a port of the sandbox, one call for each connection; return the port."""
        number = len(self.connections)
        self.connections.append(0)

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections[number] += 1
            self._writers.append(writer)
            try:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await serve(Peer(reader, writer))
            finally:
                writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=2**20)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def say(self, answer: bytes, *, close: bool = False) -> int:
        """Run a server that answers every request so; return its port."""

        async def serve(peer: Peer) -> None:
            while True:
                await peer.message()
                await peer.send(answer)
                if close:
                    return

        return await self.serve(serve)

    async def call(self) -> Peer:
        """Open a connection to the worker."""
        url = self.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=2**20)
        self._writers.append(writer)
        return Peer(reader, writer)

    async def close(self) -> None:
        """Close every connection of tests and servers, and return when that is done."""
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), SECONDS)

    async def ask(self, request: bytes, *, method: str = "GET") -> Message:
        """Send a request on a connection of its own, and return the answer."""
        peer = await self.call()
        await peer.send(request)
        return await peer.message(method=method)

    def get(self, port: int, path: str = "/", *headers: str, method: str = "GET") -> bytes:
        """Return a request without a body, in the path form."""
        lines = [f"{method} {self.prefix(port)}{path} HTTP/1.1", "Host: worker", *headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def made(directory: Path, **settings: Any) -> AsyncIterator[Site]:
    """Run a worker with one sandbox."""
    spawner = runtimes.FakeSpawner()
    seen: list[metrics.WorkerMetrics] = []
    real = metrics.WorkerMetrics

    def remember(registry: prometheus_client.CollectorRegistry) -> metrics.WorkerMetrics:
        seen.append(real(registry))
        return seen[-1]

    made_settings = settings_worker.WorkerSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "state_dir": directory / "state",
            "run_dir": directory / "run",
            "hostname": "here",
            "total_memory_mib": 4096,
            **settings,
        }
    )
    metrics.WorkerMetrics = remember  # type: ignore[misc,assignment] # the record is made inside, once
    running = processes.running(made_settings, runtimes={"container": runtimes.FakeRuntime(spawner)}, images=Images())
    try:
        async with running as server, httpx2.AsyncClient(base_url=server.url, timeout=SECONDS) as client:
            metrics.WorkerMetrics = real  # type: ignore[misc]
            site = Site(client, seen[0], spawner.clock)
            if "auth" in settings:
                client.headers["authorization"] = f"Bearer {workers.sign(spawner.clock.now())}"
            answer = await client.post("/sandboxes", json={})
            assert answer.status_code == 201, answer.text
            site.created = answer.json()
            try:
                yield site
            finally:
                await site.close()
    finally:
        metrics.WorkerMetrics = real  # type: ignore[misc]
        await spawner.close()


def lower(message: Message) -> dict[str, str]:
    """Return headers by name in lower case."""
    return {name.lower(): value for name, value in message.headers}


CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
"""Start of a chunk."""

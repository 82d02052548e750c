"""Execs and files of one sandbox without the rest of a worker: real services over a fake runtime.

A bench can be left by its worker (`crash`), which comes back as a new one over the same spawner and directory.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client

from tests.fakes import runtimes
from traforo.api import applications, limits, servers
from traforo.domain import clocks, errors, ids, specs, states
from traforo.settings import worker as settings_worker
from traforo.telemetry import metrics
from traforo.worker.execs import commands, execs
from traforo.worker.files import files
from traforo.worker.interpreters import services
from traforo.worker.journal import records
from traforo.worker.routes import code as routes_code
from traforo.worker.routes import contexts
from traforo.worker.routes import execs as routes_execs
from traforo.worker.routes import files as routes_files
from traforo.worker.routes import streams as routes_streams
from traforo.worker.routes import terminals as routes_terminals
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

RESOURCES = specs.Resources(cpu=1, memory_mib=64, disk_mib=32, pids=64)


@dataclass
class FakeJournal:
    """Keeps records in memory. While `held` nothing gets safe, as when the disk is slow."""

    known: dict[str, records.ExecRecord] = field(default_factory=dict)
    held: bool = False
    full: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)

    async def room(self) -> None:
        self.full = False

    def put_exec(self, record: records.ExecRecord, then: Callable[[], None] | None = None) -> None:
        if not self.held:
            self.known[record.exec_id] = record
            if then is not None:
                asyncio.get_running_loop().call_soon(then)
        elif then is not None:
            self.waiting.append(then)

    def drop_exec(self, exec_id: str) -> None:
        self.known.pop(exec_id, None)

    async def flush(self) -> None:
        await until(lambda: not self.held)


@dataclass
class FakeContext:
    """What the routes of execs and files need of a context; every id opens the one sandbox."""

    settings: settings_worker.WorkerSettings
    execs: execs.Execs
    interpreters: services.Interpreters
    files: files.Files
    known: entries.Entry
    place: contexts.Place = field(default_factory=lambda: contexts.Place("http://worker:8081"))

    def entry(self, connection: object, text: str, *, live: bool = True, touch: bool = True) -> entries.Entry:
        if str(ids.parse_sandbox_id(text)) != self.known.text_id:
            raise errors.NotFound("no such sandbox", kind="sandbox", id=text)
        if live and self.known.running is None:
            raise errors.Conflict("not running")
        return self.known


@dataclass
class Served:
    """A bench behind a real port."""

    port: int
    path: str
    """Of the sandbox."""
    client: httpx2.AsyncClient
    """URLs begin after the sandbox's id."""


class Bench:
    """One sandbox, and the worker that looks after it."""

    def __init__(self, directory: Path, kept: execs.Limits | None = None) -> None:
        self.directory = directory / "logs"
        self.kept = kept
        self.spawner = runtimes.FakeSpawner()
        self.runtime = runtimes.FakeRuntime(self.spawner)
        self.journal = FakeJournal()
        self.files = files.Files()
        self.entry: entries.Entry
        self.claims: Callable[[entries.Entry, contract.RunningExec], bool] | None = None
        """Who takes over commands after a crash; None is the interpreters."""
        self._worker()

    def _worker(self) -> None:
        self.metrics = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
        self.execs = execs.Execs(
            self.directory,
            clock=clocks.SystemClock(),
            journal=self.journal,
            metrics=self.metrics,
            limits=self.kept,
        )
        self.interpreters = services.Interpreters(self.execs, clocks.SystemClock())
        self.execs.claim = self.claims or self.interpreters.claim

    async def start(self) -> None:
        """Make the sandbox."""
        sandbox_id = ids.new_sandbox_id(ids.worker_hash("here"))
        rootfs = contract.Rootfs("host", (), {"IMAGE": "yes"}, "user", "/tmp")
        request = contract.CreateRequest(str(sandbox_id), "box", RESOURCES, rootfs, b"{}", None)
        self.entry = entries.Entry(
            id=sandbox_id,
            spec=specs.SandboxSpec("host", "container", RESOURCES, 60.0, env={"SANDBOX": "yes"}),
            owner=None,
            rootfs=rootfs,
            state=states.SandboxState.RUNNING,
            created_at=0.0,
            expires_at=60.0,
            running=await self.runtime.create(request),
        )

    @property
    def root(self) -> Path:
        """The sandbox's root directory, on the host."""
        return self.spawner.sandboxes[self.entry.text_id].root()

    async def crash(self) -> None:
        """Let the worker die without a word, and another one take over."""
        await self.interpreters.close()
        await self.execs.close()  # nothing that is not done by a death as well
        self.spawner.detach()
        self.journal.held = False
        self.journal.waiting.clear()
        self._worker()
        adoption = await runtimes.FakeRuntime(self.spawner).start()
        self.entry.running = adoption.live[0] if adoption.live else None
        self.execs.restore(list(self.journal.known.values()))
        if self.entry.running is not None:
            await self.execs.adopt(self.entry)
            await self.interpreters.adopted()

    async def die(self, reason: states.EndReason = states.EndReason.DELETED) -> None:
        """Let the sandbox die, and bury it."""
        await self.kill_all()
        if self.entry.running is not None:
            await self.entry.running.kill(reason)
        self.entry.running = None
        self.entry.state = states.SandboxState.STOPPED
        self.entry.reason = reason
        self.entry.ended_at = 1.0
        await self.execs.end(self.entry)

    async def run(self, command: str | list[str], **options: Any) -> execs.Exec:
        """Start a command."""
        return await self.execs.start(self.entry, commands.spec(command, **options))

    async def seen(self, run: execs.Exec) -> None:
        """Return when a signal to its tree would find a command: the fake looks for an environment."""
        if run.running is not None:
            mark = f"{self.spawner.sandboxes[self.entry.text_id].mark}/{run.running.number}"
            await until(lambda: run.outcome is not None or runtimes._marked(mark))

    async def done(self, command: str | list[str], **options: Any) -> dict[str, Any]:
        """Run a command to its end and return its result."""
        run = await self.run(command, **options)
        await self.execs.wait(run)
        return await self.execs.result(run)

    async def output(self, run: execs.Exec, **options: Any) -> dict[str, bytes]:
        """Read all frames of an exec to its end."""
        found: dict[str, list[bytes]] = {"stdout": [], "stderr": [], "exit": []}
        async for frame in self.frames(run, encoding="base64", **options):
            found[frame.type].append(base64.b64decode(frame.data))
        return {name: b"".join(pieces) for name, pieces in found.items()}

    async def frames(self, run: execs.Exec, **options: Any) -> AsyncIterator[Any]:
        """Give every frame of an exec to its end."""
        asked: dict[str, Any] = {"cursor": 0, "wait": 20.0, "limit": 1000, "encoding": "utf8"} | options
        while True:
            page = await self.execs.frames(run, **asked)
            for frame in page.frames:
                yield frame
            asked["cursor"] = page.next_cursor
            if not page.has_more:
                return

    def app(self) -> applications.Application:
        """Return the application with the routes of this sandbox."""
        settings = settings_worker.WorkerSettings.model_validate({})
        context: Any = FakeContext(settings, self.execs, self.interpreters, self.files, self.entry)
        return applications.build(
            "test",
            [
                routes_execs.build(context),
                routes_code.build(context),
                routes_streams.build(context),
                routes_terminals.build(context),
                routes_files.build(context),
            ],
            measured=self.metrics,
            mode="dev",
            body_limits=limits.worker(),
        )

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Served]:
        """Serve the HTTP API of this sandbox over real connections."""
        app = await asyncio.to_thread(self.app)
        async with servers.serve(app, "127.0.0.1:0", grace=0.2) as server:
            base = f"{server.url}/sandboxes/{self.entry.text_id}"
            async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
                yield Served(server.port, f"/sandboxes/{self.entry.text_id}", client)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Give a client of the HTTP API of this sandbox; URLs begin after its id."""
        app = self.app()
        base = f"http://worker/sandboxes/{self.entry.text_id}"
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=base) as client:
            yield client

    async def kill_all(self) -> None:
        """Kill all commands at once, so that the fake need not look for them."""
        for sandbox in self.spawner.sandboxes.values():
            for run in sandbox.execs.values():
                if run.exit is None:
                    run.process.kill()
        await until(lambda: all(run.exit for box in self.spawner.sandboxes.values() for run in box.execs.values()))

    async def close(self) -> None:
        await self.kill_all()
        await self.spawner.close()
        await self.interpreters.close()
        await self.execs.close()


@asynccontextmanager
async def made(directory: Path, kept: execs.Limits | None = None) -> AsyncIterator[Bench]:
    """Give a bench and clean it up."""
    bench = Bench(directory, kept)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.close()


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something holds; fail when it never does."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to pass")


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())

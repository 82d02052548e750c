"""A whole worker but for its kernel work: real supervisor, journal, execs and routes over a fake runtime.

It can be crashed and started again over the same spawner and the same directory, as a real one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client

from tests.fakes import clocks, runtimes
from traforo.api import applications, replays, tokens
from traforo.domain import errors, ids, specs, states
from traforo.settings import worker as settings_worker
from traforo.telemetry import metrics
from traforo.worker import gauges
from traforo.worker.capacity import admissions, usages
from traforo.worker.interpreters import services
from traforo.worker.journal import journals
from traforo.worker.outputs import chronicles
from traforo.worker.ports import gates, proxies, publications
from traforo.worker.routes import contexts, doors
from traforo.worker.routes import observations as routes_observations
from traforo.worker.routes import sandboxes as routes_sandboxes
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, starts, supervisors

HOST = admissions.Host(cpu_milli=8000, memory_mib=16_384, disk_mib=10_000)
SECRET = "a secret of at least thirty-two bytes"


class FakeImages:
    """Knows `host`, and nothing of `missing`; `broken` is a defect."""

    async def resolve(self, reference: str) -> contract.Rootfs:
        if reference == "missing":
            raise errors.NotFound("no image 'missing'", kind="image", id="missing")
        if reference == "broken":
            raise RuntimeError("the image store has a defect")
        return contract.Rootfs(reference, (contract.Lower("/", "/"),), {"IMAGE": reference}, "user", "/tmp")


class FakeExecs:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.adopted: list[str] = []
        self.ended: list[tuple[str, states.EndReason | None]] = []
        self.forgotten: list[str] = []
        self.closed = False

    async def adopt(self, entry: entries.Entry) -> None:
        self.adopted.append(entry.text_id)

    async def end(self, entry: entries.Entry) -> None:
        self.ended.append((entry.text_id, entry.reason))

    async def forget(self, entry: entries.Entry) -> None:
        self.forgotten.append(entry.text_id)

    async def close(self) -> None:
        self.closed = True


class FakeWorker:
    """One worker process. `start` it, use it, and `close` or `crash` it."""

    def __init__(
        self,
        directory: Path,
        *,
        spawner: runtimes.FakeSpawner | None = None,
        clock: clocks.FakeClock | None = None,
        host: admissions.Host = HOST,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.clock = clock or clocks.FakeClock()
        self.spawner = spawner or runtimes.FakeSpawner(self.clock)
        self.settings = settings_worker.WorkerSettings.model_validate(
            {"state_dir": directory, "run_dir": directory / "run", "hostname": "here", **settings}
        )
        self.changes = settings
        self.host = host
        self.metrics = metrics.WorkerMetrics(prometheus_client.CollectorRegistry())
        self.images = FakeImages()
        self.execs = FakeExecs()
        self.ledger = admissions.Ledger(
            admissions.caps(
                host,
                live=self.settings.live_limit,
                cpu_overcommit=self.settings.cpu_overcommit,
                memory_overcommit=self.settings.memory_overcommit,
                disk_overcommit=self.settings.disk_overcommit,
            )
        )
        self.journal = journals.Journal(
            directory / "journal.db", self.clock, retention=self.settings.ended_retention_seconds
        )
        self.usages = usages.Usages(self.clock)
        self.authority = tokens.Authority(self.settings.auth, self.clock)
        self.guard = replays.ReplayGuard(on_use=self.journal.put_token)
        self.supervisor = supervisors.Supervisor(
            settings=self.settings,
            ledger=self.ledger,
            runtimes={"container": runtimes.FakeRuntime(self.spawner)},
            images=self.images,
            execs=self.execs,
            journal=self.journal,
            gauges=gauges.Gauges(self.metrics),
            clock=self.clock,
        )
        self.context = contexts.Context(
            settings=self.settings,
            place=contexts.Place(self.settings.base_url),
            host=host,
            clock=self.clock,
            supervisor=self.supervisor,
            execs=self.execs,  # type: ignore[arg-type]  # routes of execs are tested with the real ones
            interpreters=services.Interpreters(self.execs, self.clock),  # type: ignore[arg-type]  # as above
            files=None,  # type: ignore[arg-type]  # as above
            door=doors.Door(
                authority=self.authority,
                guard=self.guard,
                worker_id=self.settings.worker_id,
                clock=self.clock,
            ),
            authority=self.authority,
            ports=proxies.Proxy(
                settings=self.settings,
                gate=gates.Gate(self.authority, self.clock),
                published=publications.Publications(directory / "ports.json", lambda _: True),
                roster=self.supervisor.roster,
                measured=self.metrics,
                base_url=lambda: self.settings.base_url,
            ),
            metrics=self.metrics,
            usages=self.usages,
            chronicles=chronicles.Chronicles(self.execs, self.clock),  # type: ignore[arg-type]  # as above
        )

    async def start(self) -> FakeWorker:
        used = await self.supervisor.start(await self.journal.open())
        self.guard.restore(used.items(), self.clock.now())
        return self

    async def crash(self) -> FakeWorker:
        """Die without a word and start again. What the journal had not written is lost."""
        self.spawner.detach()
        self.journal._next = type(self.journal._next)()
        await self.journal.close()
        return await self.again()

    async def again(self, **changes: Any) -> FakeWorker:
        """Start another worker over what this one left."""
        settings = {**self.changes, **changes}
        found = FakeWorker(self.directory, spawner=self.spawner, clock=self.clock, host=self.host, **settings)
        return await found.start()

    async def close(self, *, keep: bool = False) -> None:
        await self.usages.close()
        await self.supervisor.close(keep=keep)
        await self.journal.close()

    async def create(self, **changes: Any) -> entries.Entry:
        """Create a sandbox without HTTP."""
        return await self.supervisor.create(self.creation(**changes))

    def creation(self, **changes: Any) -> starts.Creation:
        """Return a small create."""
        spec = specs.SandboxSpec(
            image=changes.pop("image", "host"),
            virtualization=changes.pop("virtualization", "container"),
            resources=changes.pop("resources", specs.Resources(cpu=1, memory_mib=64, disk_mib=32, pids=64)),
            ttl_seconds=changes.pop("ttl_seconds", 60.0),
            env=changes.pop("env", {}),
            idle_seconds=changes.pop("idle_seconds", None),
            prepare=changes.pop("prepare", ()),
        )
        return starts.Creation(spec=spec, accepted_at=self.clock.monotonic(), **changes)

    @property
    def unused(self) -> bool:
        """Whether nothing is held: no reservation, no lease, no live sandbox."""
        return (self.ledger.live, self.ledger.allocated) == (0, admissions.NOTHING) and self.spawner.live == []

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Give a client of the HTTP API of its sandboxes."""
        app = await asyncio.to_thread(
            applications.build,
            "test",
            [routes_sandboxes.build(self.context), routes_observations.build(self.context)],
            measured=self.metrics,
            mode=self.authority.mode,
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://worker", **options) as found:
            yield found

    def token(self, client_id: str = "alice", **claims: Any) -> str:
        """Return a client's token, good for one create."""
        return sign(self.clock.now(), client_id=client_id, **claims)

    def bearer(self, client_id: str = "alice", **claims: Any) -> dict[str, str]:
        """Return headers with a client's token."""
        return {"authorization": f"Bearer {self.token(client_id, **claims)}"}


def sign(now: float, **claims: Any) -> str:
    """Sign a client's token as whoever issues them does."""
    from joserfc import jwk, jwt

    content = {
        "client_id": "alice",
        "iss": "traforo",
        "aud": "traforo-api",
        "iat": now,
        "exp": now + 300,
        "jti": ids.new_request_id(),
        **claims,
    }
    return jwt.encode({"alg": "HS256"}, content, jwk.OctKey.import_key(SECRET.encode()))


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something holds; fail when it never does."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to pass")


@asynccontextmanager
async def made(directory: Path, **options: Any) -> AsyncIterator[FakeWorker]:
    """Give a worker that runs, and clean up whatever runs at the end."""
    worker = await FakeWorker(directory, **options).start()
    try:
        yield worker
    finally:
        worker.spawner.create_gate = None
        await worker.spawner.close()
        worker.spawner.detach()
        await worker.close(keep=True)

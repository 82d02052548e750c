"""Any order of creates, deletes, deaths, renewals, expiries and crashes: the books always agree with the world."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fakes import workers
from traforo.domain import errors, specs
from traforo.domain.states import EndReason, SandboxState
from traforo.worker.capacity import admissions
from traforo.worker.sandboxes import entries

HOST = admissions.Host(cpu_milli=2000, memory_mib=1024, disk_mib=100)
LIMITS: dict[str, Any] = {"cpu_overcommit": 1.0, "memory_overcommit": 1.0, "max_live_sandboxes": 5}
resources = st.builds(
    specs.Resources,
    cpu=st.sampled_from([0.1, 0.5, 1.5]),
    memory_mib=st.sampled_from([64, 300]),
    disk_mib=st.just(8),
    pids=st.just(8),
)
places = st.integers(0, 4)


class Worlds(RuleBasedStateMachine):
    """One worker after the other over one spawner."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="traforo-model-"))
        self.acknowledged: dict[str, EndReason | None] = {}
        """Ids that a create returned, and the reason for which each has ended as far as anybody was told."""
        self.idle: set[str] = set()
        """Ids of those that ended idle."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.worker = await workers.FakeWorker(self.directory, host=HOST, **LIMITS).start()

        self.run(begin())

    def pick(self, place: int) -> entries.Entry | None:
        """Return some entry that is known."""
        known = sorted(self.worker.supervisor.roster, key=lambda entry: entry.text_id)
        return known[place % len(known)] if known else None

    @rule(
        resources=resources, ttl=st.sampled_from([10.0, 100.0]), idle=st.sampled_from([None, 15.0]), fails=st.booleans()
    )
    def create(self, resources: specs.Resources, ttl: float, idle: float | None, fails: bool) -> None:
        async def create() -> None:
            if fails:
                self.worker.spawner.refuse.append(errors.StartFailed("no", stage="model"))
            try:
                entry = await self.worker.create(resources=resources, ttl_seconds=ttl, idle_seconds=idle)
            except (errors.NoCapacity, errors.StartFailed):
                self.worker.spawner.refuse.clear()
            else:
                self.acknowledged[entry.text_id] = None

        self.run(create())

    @rule(place=places, callers=st.integers(1, 3))
    def delete(self, place: int, callers: int) -> None:
        async def delete() -> None:
            if entry := self.pick(place):
                stop = self.worker.supervisor.stop
                await asyncio.gather(*(stop(entry, EndReason.DELETED) for _ in range(callers)))
                assert not entry.live
                assert entry.text_id not in self.worker.spawner.live

        self.run(delete())

    @rule(place=places, reason=st.sampled_from([EndReason.LOST, EndReason.OUT_OF_MEMORY]), seen=st.booleans())
    def die(self, place: int, reason: EndReason, seen: bool) -> None:
        async def die() -> None:
            entry = self.pick(place)
            if entry is not None and entry.text_id in self.worker.spawner.live:
                if not seen:
                    self.worker.spawner.detach()
                await self.worker.spawner.end(entry.text_id, reason)
                if not seen:
                    self.worker = await self.worker.crash()

        self.run(die())

    @rule(place=places)
    def use(self, place: int) -> None:
        if entry := self.pick(place):
            entry.activity.touch()

    @rule(place=places, seconds=st.sampled_from([1.0, 40.0]))
    def hold(self, place: int, seconds: float) -> None:
        async def hold() -> None:
            if entry := self.pick(place):
                with entry.activity.hold():
                    self.worker.clock.move(seconds)
                    self.worker.supervisor.tick()
                    await self.worker.supervisor._books.tasks.drain()
                    assert not entry.live or entry.expires_at > self.worker.clock.now()
                    assert entry.reason is not EndReason.IDLE or entry.text_id in self.idle

        self.run(hold())

    @rule(place=places, ttl=st.sampled_from([5.0, 50.0]), idle=st.sampled_from([None, 0.0, 6.0]))
    def renew(self, place: int, ttl: float, idle: float | None) -> None:
        async def renew() -> None:
            if entry := self.pick(place):
                try:
                    assert await self.worker.supervisor.renew(entry, ttl, idle) == self.worker.clock.now() + ttl
                    assert idle is None or entry.idle_seconds == (idle or None)
                except errors.Conflict:
                    assert entry.state is not SandboxState.RUNNING

        self.run(renew())

    @rule(seconds=st.sampled_from([1.0, 20.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        async def wait() -> None:
            self.worker.clock.move(seconds)
            self.worker.supervisor.tick()
            await self.worker.supervisor._books.tasks.drain()
            now = self.worker.clock.now()
            live = [entry for entry in self.worker.supervisor.roster if entry.live]
            assert not [entry for entry in live if entry.expires_at <= now]
            limited = [(entry, entry.idle_seconds) for entry in live if entry.idle_seconds is not None]
            assert not [entry for entry, limit in limited if entry.activity.idle() >= limit]

        self.run(wait())

    @rule(flushed=st.booleans())
    def crash(self, flushed: bool) -> None:
        async def crash() -> None:
            if flushed:
                await self.worker.journal.flush()
            self.worker = await self.worker.crash()

        self.run(crash())

    @invariant()
    def the_books_agree_with_the_world(self) -> None:
        async def agree() -> None:
            await self.worker.supervisor._books.tasks.drain()
            live = [entry for entry in self.worker.supervisor.roster if entry.live]
            assert {entry.text_id for entry in live} == set(self.worker.spawner.live)
            assert {entry.state for entry in live} <= {SandboxState.RUNNING}
            assert {entry.text_id for entry in live if entry.idle_seconds} == set(
                self.worker.supervisor._books.idles._due
            )
            self.idle |= {entry.text_id for entry in self.worker.supervisor.roster if entry.reason is EndReason.IDLE}
            for entry in self.worker.supervisor.roster:
                told = [event.number for event in entry.happenings.all()]
                assert told == list(range(entry.happenings.oldest, entry.happenings.next))
                assert entry.happenings.over == (not entry.live)
            demands = [admissions.demand(entry.spec.resources) for entry in live]
            held = self.worker.ledger.allocated
            assert self.worker.ledger.live == len(live) == len(self.worker.supervisor._books.expiries) <= 5
            assert held.cpu_milli == sum(demand.cpu_milli for demand in demands) <= HOST.cpu_milli
            assert held.memory_mib == sum(demand.memory_mib for demand in demands) <= HOST.memory_mib

        if hasattr(self, "worker"):
            self.run(agree())

    @invariant()
    def nothing_acknowledged_vanishes(self) -> None:
        """While it can be read at all, an acknowledged sandbox is there, and its first reason stays."""
        if not hasattr(self, "worker"):
            return
        for entry in self.worker.supervisor.roster:
            if entry.text_id in self.acknowledged:
                told = self.acknowledged[entry.text_id] = self.acknowledged[entry.text_id] or entry.reason
                assert entry.reason == told
        assert set(self.worker.spawner.live) <= set(self.acknowledged)

    def teardown(self) -> None:
        async def close() -> None:
            await self.worker.close()
            assert self.worker.unused

        if hasattr(self, "worker"):
            self.run(close())
        self.runner.close()
        shutil.rmtree(self.directory)


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

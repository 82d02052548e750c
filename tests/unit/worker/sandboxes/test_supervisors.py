"""Lives of sandboxes over a fake runtime: what is held is given back once, on proof, whatever happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes import clocks, workers
from traforo.domain import errors, ids, specs, states
from traforo.domain.clocks import SystemClock
from traforo.domain.states import EndReason, SandboxState
from traforo.worker.capacity import admissions
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import alarms, entries, labels, leases, repeats, rosters

SMALL = specs.Resources(cpu=1, memory_mib=64, disk_mib=32, pids=64)


async def settle(worker: workers.FakeWorker) -> None:
    """Let everything that was begun come to its end, the journal and what follows from it included."""
    for _ in range(3):
        await worker.supervisor._books.tasks.drain()
        await worker.journal.flush()
    await worker.supervisor._books.tasks.drain()


class TestCreate:
    async def test_a_sandbox_runs_when_create_returns(self, worker: workers.FakeWorker) -> None:
        """Its resources are reserved, its lease runs, its image is known and each phase was timed."""
        entry = await worker.create(ttl_seconds=60)
        assert (entry.state, entry.reason) == (SandboxState.RUNNING, None)
        assert entry.running is not None
        assert entry.expires_at == worker.clock.now() + 60 == entry.running.deadline
        assert entry.rootfs.env == {"IMAGE": "host"}
        assert worker.ledger.allocated == admissions.demand(SMALL)
        assert set(entry.timings_ms) == {"accepted_to_admitted", "admitted_to_ready", "total"}
        assert worker.supervisor.get(entry.id) is entry

    async def test_the_label_says_it_all(self, worker: workers.FakeWorker) -> None:
        """What the runtime keeps is enough to serve the sandbox again."""
        entry = await worker.create(owner="alice", jti="j", jti_expires_at=5.0, env={"A": "1"})
        assert entry.running is not None
        label = labels.decode(entry.running.label)
        assert (label.spec, label.owner, label.jti, label.jti_expires_at) == (entry.spec, "alice", "j", 5.0)
        assert (label.created_at, label.expires_at) == (entry.created_at, entry.expires_at)

    async def test_a_refusal_leaves_no_trace(self, tmp_path: Path) -> None:
        """Over a cap: no entry, no reservation, no token used, nothing asked of the runtime."""
        async with workers.made(tmp_path, max_live_sandboxes=1) as worker:
            await worker.create()
            used: list[str] = []
            with pytest.raises(errors.NoCapacity) as caught:
                await worker.create(use_token=lambda: used.append("it"))
            assert caught.value.fields["resource"] == "sandboxes"
            assert (used, worker.spawner.creates, len(worker.supervisor.roster)) == ([], 1, 1)

    async def test_a_used_token_makes_nothing(self, worker: workers.FakeWorker) -> None:
        """The reservation is given back."""

        def refuse() -> None:
            raise errors.Unauthenticated("used")

        with pytest.raises(errors.Unauthenticated):
            await worker.create(use_token=refuse)
        assert worker.unused
        assert worker.spawner.creates == 0

    async def test_an_unknown_virtualization_is_refused(self, worker: workers.FakeWorker) -> None:
        """The answer says which there are."""
        with pytest.raises(errors.InvalidRequest) as caught:
            await worker.create(virtualization="vm")
        assert caught.value.fields == {"field": "virtualization", "available": ["container"]}
        assert worker.unused

    async def test_an_unknown_image_leaves_nothing(self, worker: workers.FakeWorker) -> None:
        """It was the request's fault: there never was a sandbox."""
        with pytest.raises(errors.NotFound):
            await worker.create(image="missing")
        assert worker.unused
        assert len(worker.supervisor.roster) == 0

    async def test_a_label_too_large_leaves_nothing(self, worker: workers.FakeWorker) -> None:
        """What cannot be kept is refused before anything runs."""
        with pytest.raises(errors.TooLarge):
            await worker.create(env={"A": "\x01" * 20_000})
        assert worker.unused
        assert worker.spawner.creates == 0

    async def test_a_failed_start_can_be_read_about(self, worker: workers.FakeWorker) -> None:
        """Its reservation is free, the caller is told the id, and the record says why."""
        worker.spawner.refuse.append(errors.StartFailed("no", stage="mounts"))
        with pytest.raises(errors.StartFailed) as caught:
            await worker.create()
        entry = worker.supervisor.get(ids.parse_sandbox_id(caught.value.fields["sandbox_id"]))
        assert (entry.state, entry.reason) == (SandboxState.FAILED, EndReason.FAILED_TO_START)
        assert entry.ended_at == worker.clock.now()
        assert worker.unused
        await worker.supervisor.stop(entry, EndReason.DELETED)  # a delete of it is fine
        assert entry.reason is EndReason.FAILED_TO_START

    async def test_a_defect_keeps_the_reservation_until_the_deadline(self, worker: workers.FakeWorker) -> None:
        """An exception that no contract allows proves no death: only the end of the lease does."""
        with pytest.raises(RuntimeError):
            await worker.create(image="broken", ttl_seconds=60)
        assert worker.ledger.live == 1
        worker.clock.move(59.9)
        worker.supervisor.tick()
        assert worker.ledger.live == 1
        worker.clock.move(0.1)
        worker.supervisor.tick()
        assert worker.unused

    async def test_a_caller_who_leaves_changes_nothing(self, worker: workers.FakeWorker) -> None:
        """The start goes on, the sandbox is listed and held like any other."""
        worker.spawner.create_gate = asyncio.Event()
        caller = asyncio.create_task(worker.create())
        await workers.until(lambda: worker.spawner.creates)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        worker.spawner.create_gate.set()
        await worker.supervisor._books.tasks.drain()
        (entry,) = worker.supervisor.roster
        assert entry.state is SandboxState.RUNNING
        assert worker.ledger.live == 1

    async def test_a_storm_never_exceeds_a_cap(self, tmp_path: Path) -> None:
        """Many at once: exactly as many as fit get in, the others are refused, and all is free in the end."""
        host = admissions.Host(cpu_milli=1000, memory_mib=16_384, disk_mib=100)
        strict = {"cpu_overcommit": 1.0, "memory_overcommit": 1.0, "max_live_sandboxes": 100}
        async with workers.made(tmp_path, host=host, **strict) as worker:
            worker.spawner.create_gate = asyncio.Event()
            tenth = specs.Resources(cpu=0.1, memory_mib=64, disk_mib=1, pids=8)
            storm = [asyncio.create_task(worker.create(resources=tenth)) for _ in range(200)]
            await workers.until(lambda: worker.spawner.creates == 10)
            assert worker.ledger.allocated.cpu_milli == 1000
            worker.spawner.create_gate.set()
            results = await asyncio.gather(*storm, return_exceptions=True)
            made = [result for result in results if isinstance(result, entries.Entry)]
            refused = [result for result in results if isinstance(result, errors.NoCapacity)]
            assert (len(made), len(refused), worker.spawner.creates) == (10, 190, 10)
            await asyncio.gather(*(worker.supervisor.stop(entry, EndReason.DELETED) for entry in made))
            assert worker.unused

    async def test_a_full_journal_holds_creates_back(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A create waits for room instead of growing a queue without end."""
        waited: list[bool] = []

        async def room() -> None:
            waited.append(True)

        monkeypatch.setattr(type(worker.journal), "full", property(lambda _: not waited))
        monkeypatch.setattr(worker.journal, "room", room)
        await worker.create()
        assert waited == [True]

    async def test_a_cordoned_worker_takes_no_creates(self, worker: workers.FakeWorker) -> None:
        """What lives goes on, new ones have to go elsewhere."""
        entry = await worker.create()
        worker.supervisor.cordon()
        with pytest.raises(errors.WorkerUnavailable):
            await worker.create()
        assert entry.state is SandboxState.RUNNING


class TestRepeats:
    REPEAT = repeats.Repeat("key", "fingerprint")

    async def test_the_same_key_is_the_same_sandbox(self, worker: workers.FakeWorker) -> None:
        """Asked twice, at once or later, made once; the token counts once."""
        used: list[int] = []
        creation = worker.creation(repeat=self.REPEAT, owner="alice", use_token=lambda: used.append(1))
        first, second = await asyncio.gather(worker.supervisor.create(creation), worker.supervisor.create(creation))
        third = await worker.supervisor.create(creation)
        assert first is second is third
        assert (worker.spawner.creates, used) == (1, [1])

    async def test_a_key_that_names_another_request_is_a_conflict(self, worker: workers.FakeWorker) -> None:
        """Nothing is made."""
        await worker.create(repeat=self.REPEAT)
        with pytest.raises(errors.Conflict):
            await worker.create(repeat=repeats.Repeat("key", "other"))
        assert worker.spawner.creates == 1

    async def test_a_failed_create_can_be_tried_again(self, worker: workers.FakeWorker) -> None:
        """With the same key, and this time it works."""
        worker.spawner.refuse.append(errors.StartFailed("no", stage="mounts"))
        with pytest.raises(errors.StartFailed):
            await worker.create(repeat=self.REPEAT)
        entry = await worker.create(repeat=self.REPEAT)
        assert entry.state is SandboxState.RUNNING

    async def test_a_caller_who_left_finds_its_sandbox(self, worker: workers.FakeWorker) -> None:
        """The second request gets what the first began."""
        worker.spawner.create_gate = asyncio.Event()
        caller = asyncio.create_task(worker.create(repeat=self.REPEAT))
        await workers.until(lambda: worker.spawner.creates)
        caller.cancel()
        again = asyncio.create_task(worker.create(repeat=self.REPEAT))
        worker.spawner.create_gate.set()
        assert (await again).state is SandboxState.RUNNING
        assert worker.spawner.creates == 1

    async def test_a_key_survives_the_worker(self, worker: workers.FakeWorker) -> None:
        """The answer was lost with the worker that should have given it: the next one gives it."""
        entry = await worker.create(repeat=self.REPEAT, owner="alice")
        worker = await worker.crash()
        again = await worker.create(repeat=self.REPEAT, owner="alice")
        assert again.text_id == entry.text_id
        await worker.close()


class TestDelete:
    async def test_a_deleted_sandbox_is_dead_and_readable(self, worker: workers.FakeWorker) -> None:
        """Everything is free when it returns; the record stays, its execs have ended, the runtime forgets it."""
        entry = await worker.create()
        await worker.supervisor.stop(entry, EndReason.DELETED)
        assert worker.unused
        assert (entry.state, entry.reason, entry.running) == (SandboxState.STOPPED, EndReason.DELETED, None)
        assert entry.ended_at == worker.clock.now()
        assert worker.execs.ended == [(entry.text_id, EndReason.DELETED)]
        assert worker.supervisor.get(entry.id) is entry
        await settle(worker)
        assert worker.spawner.forgotten == [entry.text_id]

    async def test_everybody_shares_one_kill(self, worker: workers.FakeWorker) -> None:
        """Concurrent and later deletes all return when it is dead; it was killed once and released once."""
        entry = await worker.create()
        worker.spawner.kill_gate = asyncio.Event()
        deletes = [asyncio.create_task(worker.supervisor.stop(entry, EndReason.DELETED)) for _ in range(10)]
        await workers.until(lambda: worker.spawner.kills)
        assert not any(task.done() for task in deletes)
        assert (entry.state, worker.ledger.live) == (SandboxState.STOPPING, 1)
        deletes[0].cancel()  # one caller goes away; the kill is not its own
        worker.spawner.kill_gate.set()
        await asyncio.gather(*deletes[1:])
        await worker.supervisor.stop(entry, EndReason.DELETED)
        assert worker.spawner.kills == {entry.text_id: 1}
        assert worker.unused

    async def test_a_sandbox_that_starts_can_be_deleted(self, worker: workers.FakeWorker) -> None:
        """The delete waits for the start and then kills it; nothing is left."""
        worker.spawner.create_gate = asyncio.Event()
        create = asyncio.create_task(worker.create())
        await workers.until(lambda: worker.spawner.creates)
        (entry,) = worker.supervisor.roster
        delete = asyncio.create_task(worker.supervisor.stop(entry, EndReason.DELETED))
        await asyncio.sleep(0)
        assert entry.state is SandboxState.STARTING
        worker.spawner.create_gate.set()
        await asyncio.gather(create, delete)
        assert (entry.state, entry.reason) == (SandboxState.STOPPED, EndReason.DELETED)
        assert worker.unused

    async def test_a_start_that_fails_satisfies_a_delete(self, worker: workers.FakeWorker) -> None:
        """There is nothing to kill."""
        worker.spawner.create_gate = asyncio.Event()
        worker.spawner.refuse.append(errors.StartFailed("no", stage="mounts"))
        create = asyncio.create_task(worker.create())
        await workers.until(lambda: worker.spawner.creates)
        (entry,) = worker.supervisor.roster
        delete = asyncio.create_task(worker.supervisor.stop(entry, EndReason.DELETED))
        worker.spawner.create_gate.set()
        await delete
        with pytest.raises(errors.StartFailed):
            await create
        assert entry.reason is EndReason.FAILED_TO_START
        assert worker.unused

    async def test_a_kill_that_fails_is_tried_again(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The caller is told, the reservation is kept, and the clock finishes what the delete began."""
        entry = await worker.create(ttl_seconds=1000)
        assert entry.running is not None
        real = entry.running.kill
        failures = [errors.WorkerUnavailable("the spawner is away")]

        async def kill(reason: states.EndReason) -> object:
            if failures:
                raise failures.pop()
            return await real(reason)

        monkeypatch.setattr(entry.running, "kill", kill)
        with pytest.raises(errors.WorkerUnavailable):
            await worker.supervisor.stop(entry, EndReason.DELETED)
        assert (entry.state, worker.ledger.live) == (SandboxState.STOPPING, 1)
        worker.clock.move(1)
        worker.supervisor.tick()
        await worker.supervisor._books.tasks.drain()
        assert (entry.state, entry.reason) == (SandboxState.STOPPED, EndReason.DELETED)
        assert worker.unused

    async def test_a_thousand_rounds_leave_nothing(self, worker: workers.FakeWorker) -> None:
        """Create and delete, ten at a time: every count is where it began."""
        for _ in range(100):
            made = await asyncio.gather(*(worker.create() for _ in range(10)))
            await asyncio.gather(*(worker.supervisor.stop(entry, EndReason.DELETED) for entry in made))
        await settle(worker)
        assert worker.unused
        assert worker.spawner.sandboxes == {}
        assert len(worker.spawner.forgotten) == 1000
        assert len(worker.supervisor._books.expiries) == 0
        assert worker.metrics.worker_sandboxes_live._value.get() == 0
        assert len(worker.supervisor.roster) == 1000
        worker.clock.move(3600)
        worker.supervisor.tick()
        await settle(worker)
        assert len(worker.supervisor.roster) == 0
        assert len(worker.execs.forgotten) == 1000


class TestDeath:
    @pytest.mark.parametrize("reason", [EndReason.OUT_OF_MEMORY, EndReason.LOST, EndReason.EXPIRED])
    async def test_a_death_that_nobody_asked_for_is_noticed(
        self, worker: workers.FakeWorker, reason: EndReason
    ) -> None:
        """State, reason, resources and execs follow by themselves; the runtime forgets it when the journal has it."""
        entry = await worker.create()
        await worker.spawner.end(entry.text_id, reason, oom_kills=2)
        await settle(worker)
        assert (entry.state, entry.reason) == (SandboxState.STOPPED, reason)
        assert worker.execs.ended == [(entry.text_id, reason)]
        assert worker.unused
        assert worker.spawner.forgotten == [entry.text_id]

    async def test_death_and_delete_at_once_count_once(self, worker: workers.FakeWorker) -> None:
        """Whoever comes second finds it done."""
        entry = await worker.create()
        await asyncio.gather(
            worker.spawner.end(entry.text_id, EndReason.OUT_OF_MEMORY),
            worker.supervisor.stop(entry, EndReason.DELETED),
            worker.supervisor.stop(entry, EndReason.EXPIRED),
        )
        await settle(worker)
        assert entry.state is SandboxState.STOPPED
        assert worker.spawner.kills == {entry.text_id: 1}
        assert len(worker.execs.ended) == 1
        assert worker.unused

    async def test_a_reason_that_cannot_be_is_a_loss(self, worker: workers.FakeWorker) -> None:
        """What ran did not fail to start, whatever a runtime says; its resources are freed all the same."""
        entry = await worker.create()
        await worker.spawner.end(entry.text_id, EndReason.FAILED_TO_START)
        await settle(worker)
        assert entry.reason is EndReason.LOST
        assert worker.unused


class TestLease:
    async def test_a_lease_ends_to_the_second(self, worker: workers.FakeWorker) -> None:
        """Not a moment before, and then by a kill."""
        entry = await worker.create(ttl_seconds=30)
        other = await worker.create(ttl_seconds=31)
        worker.clock.move(29.999)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.state is SandboxState.RUNNING
        worker.clock.move(0.001)
        worker.supervisor.tick()
        await settle(worker)
        assert (entry.state, entry.reason) == (SandboxState.STOPPED, EndReason.EXPIRED)
        assert other.state is SandboxState.RUNNING

    async def test_the_clock_is_looked_at_by_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody calls, and the runtime keeps no deadline: a lease ends without help."""
        async with workers.made(tmp_path, clock=_RealClock()) as worker:
            monkeypatch.setattr(worker.spawner, "arm", lambda _: None)
            made = [await worker.create(ttl_seconds=ttl) for ttl in (0.02, 0.06)]
            ended = [entry.running.ended for entry in made if entry.running is not None]
            assert [end.reason for end in await asyncio.gather(*ended)] == [EndReason.EXPIRED] * 2

    async def test_a_step_of_the_wall_clock_is_noticed(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is a look at least every second for as long as anything lives, and some look sees it."""
        monkeypatch.setattr(alarms, "LONGEST_SECONDS", 0.02)
        looks, twice, real = [0], asyncio.Event(), worker.supervisor._alarm._action

        def look() -> None:
            real()
            looks[0] += 1
            if looks[0] == 2:
                twice.set()

        monkeypatch.setattr(worker.supervisor._alarm, "_action", look)
        entry = await worker.create(ttl_seconds=3600)
        assert entry.running is not None
        await twice.wait()
        worker.clock.step(3600)
        assert (await entry.running.ended).reason is EndReason.EXPIRED

    async def test_a_renewal_moves_the_end(self, worker: workers.FakeWorker) -> None:
        """From now on, in the runtime's label too, before it is told."""
        entry = await worker.create(ttl_seconds=30)
        worker.clock.move(20)
        expires_at = await worker.supervisor.renew(entry, 60)
        assert expires_at == entry.expires_at == worker.clock.now() + 60
        assert entry.running is not None
        assert labels.decode(entry.running.label).expires_at == expires_at == entry.running.deadline
        worker.clock.move(59.9)
        worker.supervisor.tick()
        assert entry.state is SandboxState.RUNNING
        worker.clock.move(0.1)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.EXPIRED

    async def test_a_lease_can_be_shortened(self, worker: workers.FakeWorker) -> None:
        """Renewing to less is how a caller lets go early."""
        entry = await worker.create(ttl_seconds=3600)
        await worker.supervisor.renew(entry, 1)
        worker.clock.move(1)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.EXPIRED

    async def test_renewals_are_kept_in_order(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two at once: what the runtime keeps is what was acknowledged last."""
        entry = await worker.create(ttl_seconds=30)
        assert entry.running is not None
        real, pauses = entry.running.update, [3, 0]

        async def update(*, label: bytes, deadline: float | None) -> None:
            for _ in range(pauses.pop(0)):
                await asyncio.sleep(0)
            await real(label=label, deadline=deadline)

        monkeypatch.setattr(entry.running, "update", update)
        first, second = await asyncio.gather(worker.supervisor.renew(entry, 100), worker.supervisor.renew(entry, 200))
        assert first < second == entry.expires_at == entry.running.deadline

    async def test_an_end_during_a_renewal_wins(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A renewal that the runtime took while the sandbox was being killed is not acknowledged."""
        entry = await worker.create(ttl_seconds=30)
        assert entry.running is not None
        expires_at, real, gate = entry.expires_at, entry.running.update, asyncio.Event()

        async def update(*, label: bytes, deadline: float | None) -> None:
            await real(label=label, deadline=deadline)
            await gate.wait()

        monkeypatch.setattr(entry.running, "update", update)
        renewal = asyncio.create_task(worker.supervisor.renew(entry, 100))
        await workers.until(lambda: worker.spawner.sandboxes[entry.text_id].deadline != expires_at)
        await worker.supervisor.stop(entry, EndReason.DELETED)
        gate.set()
        with pytest.raises(errors.Conflict):
            await renewal
        assert entry.expires_at == expires_at
        assert len(worker.supervisor._books.expiries) == 0

    @pytest.mark.parametrize("ttl", [0.5, 8 * 86400])
    async def test_a_lease_has_limits(self, worker: workers.FakeWorker, ttl: float) -> None:
        """A renewal has those of a create."""
        entry = await worker.create()
        with pytest.raises(errors.InvalidRequest):
            await worker.supervisor.renew(entry, ttl)

    async def test_what_has_ended_cannot_be_renewed(self, worker: workers.FakeWorker) -> None:
        """Stopped, or just gone without our knowing: a conflict either way."""
        entry = await worker.create()
        await worker.supervisor.stop(entry, EndReason.DELETED)
        with pytest.raises(errors.Conflict):
            await worker.supervisor.renew(entry, 60)
        gone = await worker.create()
        worker.spawner.sandboxes[gone.text_id].listeners.clear()
        await worker.spawner.end(gone.text_id, EndReason.LOST)
        with pytest.raises(errors.Conflict):
            await worker.supervisor.renew(gone, 60)

    async def test_ended_ones_are_forgotten_in_time(self, worker: workers.FakeWorker) -> None:
        """After an hour there is no entry, no record of its execs and no row in the journal."""
        entry = await worker.create()
        await worker.supervisor.stop(entry, EndReason.DELETED)
        worker.clock.move(3599.9)
        worker.supervisor.tick()
        assert worker.supervisor.get(entry.id) is entry
        worker.clock.move(0.1)
        worker.supervisor.tick()
        with pytest.raises(errors.NotFound):
            worker.supervisor.get(entry.id)
        await settle(worker)
        assert worker.execs.forgotten == [entry.text_id]
        worker = await worker.crash()
        assert len(worker.supervisor.roster) == 0
        await worker.close()

    async def test_ended_ones_are_bounded(self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
        """However short their lives: the longest ended are forgotten first."""
        monkeypatch.setattr(worker.supervisor.roster, "_max_ended", 2)
        made = [await worker.create() for _ in range(3)]
        for entry in made:
            await worker.supervisor.stop(entry, EndReason.DELETED)
        assert worker.supervisor.roster.get(made[0].text_id) is None
        assert worker.supervisor.roster.ended == 2
        await settle(worker)
        assert worker.execs.forgotten == [made[0].text_id]


def happened(entry: entries.Entry) -> list[states.Happening]:
    return [event.kind for event in entry.happenings.all()]


class TestIdle:
    async def test_nobody_uses_it(self, worker: workers.FakeWorker) -> None:
        """It ends when its limit is reached, not a moment before, and says why."""
        entry = await worker.create(ttl_seconds=600, idle_seconds=30.0)
        worker.clock.move(29.9)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.state is SandboxState.RUNNING
        worker.clock.move(0.1)
        worker.supervisor.tick()
        await settle(worker)
        assert (entry.state, entry.reason) == (SandboxState.STOPPED, EndReason.IDLE)
        assert entry.last_activity_at == worker.clock.now() - 30
        assert worker.unused
        assert len(worker.supervisor._books.idles) == 0

    async def test_use_moves_the_end(self, worker: workers.FakeWorker) -> None:
        """A touch costs nothing but the time it says; the clock looks again when that may be over."""
        entry = await worker.create(ttl_seconds=600, idle_seconds=30.0)
        books = worker.supervisor._books
        for _ in range(5):
            worker.clock.move(20)
            due = books.idles.next()
            entry.activity.touch()
            assert books.idles.next() == due
            worker.supervisor.tick()
        await settle(worker)
        assert entry.state is SandboxState.RUNNING
        worker.clock.move(30)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.IDLE

    async def test_a_hold_keeps_it(self, worker: workers.FakeWorker) -> None:
        """However long; the limit counts from its release."""
        entry = await worker.create(ttl_seconds=6000, idle_seconds=5.0)
        with entry.activity.hold():
            for _ in range(50):
                worker.clock.move(5)
                worker.supervisor.tick()
        worker.clock.move(4)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.state is SandboxState.RUNNING
        worker.clock.move(1)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.IDLE

    async def test_without_a_limit_nothing_is_idle(self, worker: workers.FakeWorker) -> None:
        """Only the lease ends it, and nobody looks at anything else."""
        entry = await worker.create(ttl_seconds=600)
        worker.clock.move(599)
        worker.supervisor.tick()
        assert (entry.live, len(worker.supervisor._books.idles)) == (True, 0)

    async def test_a_step_of_the_wall_clock_ends_nothing(self, worker: workers.FakeWorker) -> None:
        """Idle is time that passed."""
        entry = await worker.create(ttl_seconds=10_000, idle_seconds=30.0)
        worker.clock.step(5000)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.state is SandboxState.RUNNING
        worker.clock.step(-4000)
        worker.clock.move(30)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.IDLE

    async def test_a_renewal_changes_it(self, worker: workers.FakeWorker) -> None:
        """Set, shortened, taken away; each before it is acknowledged in the label, and alone as well."""
        entry = await worker.create(ttl_seconds=600)
        expires_at = entry.expires_at
        assert entry.running is not None
        for asked, expected in ((40.0, 40.0), (None, 40.0), (10.0, 10.0), (0.0, None), (20.0, 20.0)):
            assert await worker.supervisor.renew(entry, idle_seconds=asked) == expires_at
            assert (entry.idle_seconds, labels.decode(entry.running.label).idle_seconds) == (expected, expected)
        for wrong in (4.9, -1.0, 1e9):
            with pytest.raises(errors.InvalidRequest) as caught:
                await worker.supervisor.renew(entry, idle_seconds=wrong)
            assert caught.value.fields == {"field": "idle_seconds"}
        worker.clock.move(20)
        worker.supervisor.tick()
        await settle(worker)
        assert entry.reason is EndReason.IDLE

    async def test_a_restart_keeps_the_limit(self, worker: workers.FakeWorker) -> None:
        """The next worker goes on with the limit that was acknowledged; its start counts as use."""
        entry = await worker.create(ttl_seconds=600, idle_seconds=30.0)
        await worker.supervisor.renew(entry, idle_seconds=50.0)
        worker.clock.move(45)
        again = await worker.crash()
        found = again.supervisor.get(entry.id)
        assert (found.idle_seconds, found.activity.idle()) == (50.0, 0.0)
        worker.clock.move(49)
        again.supervisor.tick()
        await settle(again)
        assert found.state is SandboxState.RUNNING
        worker.clock.move(1)
        again.supervisor.tick()
        await settle(again)
        assert found.reason is EndReason.IDLE
        third = await again.again()
        assert third.supervisor.get(entry.id).last_activity_at == worker.clock.now() - 50
        await third.close()

    async def test_the_clock_is_looked_at_by_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody has to call."""
        monkeypatch.setattr(leases, "MIN_IDLE", 0.01)
        async with workers.made(tmp_path, clock=_RealClock()) as worker:
            entry = await worker.create(ttl_seconds=600, idle_seconds=0.05)
            await workers.until(lambda: not entry.live)
            assert entry.reason is EndReason.IDLE


class TestEvents:
    async def test_a_life_is_told(self, worker: workers.FakeWorker) -> None:
        """Each step, once, in order; a reader that waits is told that it is over."""
        entry = await worker.create()
        await worker.supervisor.renew(entry, 50)
        await worker.supervisor.stop(entry, EndReason.DELETED)
        kind = states.Happening
        assert happened(entry) == [kind.CREATED, kind.READY, kind.LEASE_RENEWED, kind.STOPPING, kind.STOPPED]
        assert [event.facts for event in entry.happenings.all()][3:] == [{"reason": "deleted"}, {"reason": "deleted"}]
        assert entry.happenings.over

    async def test_a_failed_start_is_told(self, worker: workers.FakeWorker) -> None:
        """With its code, and nothing after it."""
        worker.spawner.refuse.append(errors.StartFailed("no", stage="mounts"))
        with pytest.raises(errors.StartFailed) as caught:
            await worker.create()
        entry = worker.supervisor.get(ids.parse_sandbox_id(caught.value.fields["sandbox_id"]))
        assert happened(entry) == [states.Happening.CREATED, states.Happening.START_FAILED]
        assert (entry.happenings.all()[1].facts, entry.happenings.over) == ({"code": "start_failed"}, True)

    async def test_memory_is_told(self, worker: workers.FakeWorker) -> None:
        """Before the end that it caused."""
        entry = await worker.create()
        await worker.spawner.end(entry.text_id, EndReason.OUT_OF_MEMORY)
        await settle(worker)
        assert happened(entry)[-2:] == [states.Happening.OOM, states.Happening.STOPPED]

    async def test_events_survive_the_worker(self, worker: workers.FakeWorker) -> None:
        """With their numbers, of live and of ended sandboxes; the restart is an event."""
        live, ended = [await worker.create() for _ in range(2)]
        live.happenings.tell(states.Happening.PORT_PUBLISHED, port=80)
        await worker.supervisor.stop(ended, EndReason.DELETED)
        await settle(worker)
        before = {entry.text_id: list(entry.happenings.all()) for entry in (live, ended)}
        again = await worker.crash()
        found = again.supervisor.get(live.id).happenings
        assert list(found.all())[:-1] == before[live.text_id]
        assert (found.all()[-1].kind, found.all()[-1].number, found.over) == (states.Happening.ADOPTED, 3, False)
        past = again.supervisor.get(ended.id).happenings
        assert (list(past.all()), past.over) == (before[ended.text_id], True)
        await again.supervisor.stop(again.supervisor.get(live.id), EndReason.DELETED)
        await settle(again)
        third = await again.crash()
        assert happened(third.supervisor.get(live.id))[-3:] == [
            states.Happening.ADOPTED,
            states.Happening.STOPPING,
            states.Happening.STOPPED,
        ]
        await third.close()

    async def test_a_death_that_nobody_saw_is_told_once(self, worker: workers.FakeWorker) -> None:
        """By the worker that finds it, and kept."""
        entry = await worker.create()
        await settle(worker)
        worker.spawner.detach()
        await worker.spawner.end(entry.text_id, EndReason.LOST)
        again = await worker.crash()
        await settle(again)
        third = await again.crash()
        for one in (again, third):
            assert happened(one.supervisor.get(entry.id)).count(states.Happening.STOPPED) == 1
        await third.close()


class TestRestart:
    async def test_live_sandboxes_are_adopted(self, worker: workers.FakeWorker) -> None:
        """Same id, owner, spec, lease, image and resources; execs are taken over and the lease is kept."""
        entry = await worker.create(owner="alice", ttl_seconds=100, env={"A": "1"})
        await worker.supervisor.renew(entry, 200)
        worker = await worker.crash()
        found = worker.supervisor.get(entry.id)
        assert found.state is SandboxState.RUNNING
        assert found.running is not None
        for name in ("spec", "owner", "created_at", "expires_at", "rootfs", "text_id"):
            assert getattr(found, name) == getattr(entry, name)
        assert worker.ledger.allocated == admissions.demand(SMALL)
        assert worker.execs.adopted == [entry.text_id]
        worker.clock.move(200)
        worker.supervisor.tick()
        await settle(worker)
        assert found.reason is EndReason.EXPIRED
        assert worker.unused
        await worker.close()

    async def test_the_label_wins_over_a_journal_that_missed_it(self, worker: workers.FakeWorker) -> None:
        """Killed between two batches: the sandbox was acknowledged, so it exists."""
        entry = await worker.create(owner="alice")
        assert worker.journal._next.rows  # not written yet, and lost
        worker = await worker.crash()
        assert worker.supervisor.get(entry.id).owner == "alice"
        await worker.close()

    async def test_deaths_that_nobody_saw_are_told(self, worker: workers.FakeWorker) -> None:
        """The runtime remembers the reason until the journal has it."""
        entry = await worker.create()
        await worker.journal.flush()
        worker.spawner.detach()
        await worker.spawner.end(entry.text_id, EndReason.OUT_OF_MEMORY, oom_kills=1)
        worker = await worker.crash()
        found = worker.supervisor.get(entry.id)
        assert (found.state, found.reason) == (SandboxState.STOPPED, EndReason.OUT_OF_MEMORY)
        await settle(worker)
        assert worker.spawner.forgotten == [entry.text_id]
        assert worker.unused
        worker = await worker.crash()  # and the next one knows it from the journal
        assert worker.supervisor.get(entry.id).reason is EndReason.OUT_OF_MEMORY
        await worker.close()

    async def test_an_end_that_the_journal_missed_is_told_again(self, worker: workers.FakeWorker) -> None:
        """The runtime may forget only what is on disk: a crash in between repeats the telling."""
        entry = await worker.create()
        await worker.supervisor.stop(entry, EndReason.DELETED)
        assert worker.spawner.forgotten == []
        worker = await worker.crash()
        assert worker.supervisor.get(entry.id).reason is EndReason.DELETED
        await settle(worker)
        assert worker.spawner.forgotten == [entry.text_id]
        await worker.close()

    async def test_what_the_runtime_no_longer_knows_is_lost(self, worker: workers.FakeWorker) -> None:
        """Spawner and sandboxes went with the host: the journal's live ones are called lost, and nothing is held."""
        entry = await worker.create(owner="alice")
        await worker.journal.flush()
        worker.spawner.detach()
        await worker.spawner.close()
        worker.spawner.sandboxes.clear()
        worker = await worker.crash()
        found = worker.supervisor.get(entry.id)
        assert (found.state, found.reason, found.owner) == (SandboxState.STOPPED, EndReason.LOST, "alice")
        assert found.ended_at == worker.clock.now()
        assert worker.unused
        await worker.close()

    async def test_ended_ones_keep_their_hour(self, worker: workers.FakeWorker) -> None:
        """A restart neither shortens nor renews the time in which they can be read."""
        entry = await worker.create()
        await worker.supervisor.stop(entry, EndReason.DELETED)
        ended_at = worker.clock.now()
        await settle(worker)
        worker.clock.move(3000)
        worker = await worker.crash()
        assert worker.supervisor.get(entry.id).ended_at == ended_at
        worker.clock.move(600)
        worker.supervisor.tick()
        assert worker.supervisor.roster.get(entry.text_id) is None
        await worker.close()

    async def test_a_lease_that_ended_meanwhile_ends_now(self, worker: workers.FakeWorker) -> None:
        """The runtime kept the deadline while no worker ran."""
        entry = await worker.create(ttl_seconds=10)
        worker.spawner.detach()
        worker.clock.move(60)
        worker = await worker.crash()
        found = worker.supervisor.get(entry.id)
        assert (found.state, found.reason) == (SandboxState.STOPPED, EndReason.EXPIRED)
        assert found.ended_at == found.expires_at
        await worker.close()

    async def test_what_nobody_can_describe_is_left_alone(self, worker: workers.FakeWorker) -> None:
        """A label of another version: by journal if that has it, else it runs on, uncounted and unharmed."""
        known, unknown = await worker.create(owner="alice"), await worker.create()
        await worker.journal.flush()
        for entry in (known, unknown):
            worker.spawner.sandboxes[entry.text_id].label = b'{"v":99}'
        worker.journal.drop_sandbox(unknown.text_id)
        await worker.journal.flush()
        worker = await worker.crash()
        assert worker.supervisor.get(known.id).owner == "alice"
        assert worker.supervisor.roster.get(unknown.text_id) is None
        assert sorted(worker.spawner.live) == sorted([known.text_id, unknown.text_id])
        await worker.close()

    async def test_dead_ones_nobody_can_describe_are_forgotten(self, worker: workers.FakeWorker) -> None:
        """They hold nothing, and nobody could be told about them."""
        entry = await worker.create()
        worker.spawner.sandboxes[entry.text_id].label = b"garbage"
        worker.spawner.detach()
        await worker.spawner.end(entry.text_id, EndReason.LOST)
        worker = await worker.crash()
        await settle(worker)
        assert worker.spawner.forgotten == [entry.text_id]
        await worker.close()

    async def test_an_image_that_did_not_fit_the_label_is_asked_for(
        self, worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And one that is gone meanwhile costs the commands their defaults, not the sandbox its life."""

        async def large(reference: str) -> contract.Rootfs:
            return contract.Rootfs(reference, (), {"BIG": "x" * contract.MAX_LABEL_BYTES})

        monkeypatch.setattr(worker.images, "resolve", large)
        entry, gone = await worker.create(), await worker.create(image="missing")
        worker = await worker.crash()
        assert worker.supervisor.get(entry.id).rootfs.env == {"IMAGE": "host"}
        assert worker.supervisor.get(gone.id).rootfs.env == {}
        await worker.close()

    async def test_the_tokens_of_live_sandboxes_stay_used(self, worker: workers.FakeWorker) -> None:
        """From the label where the journal missed them, from the journal where the sandbox is gone."""
        until = worker.clock.now() + 100
        await worker.create(jti="of a live one", jti_expires_at=until)
        worker.journal.put_token("of a dead one", until)
        await worker.journal.flush()
        worker.journal.put_token("never written", until)
        worker = await worker.crash()
        assert {"of a live one", "of a dead one"} == worker.guard._used
        await worker.close()


class TestClose:
    async def test_drain_ends_every_sandbox(self, tmp_path: Path) -> None:
        """Starts in progress come up first; all are told why, and the journal has it."""
        worker = await workers.FakeWorker(tmp_path).start()
        entry = await worker.create()
        worker.spawner.create_gate = asyncio.Event()
        late = asyncio.create_task(worker.create())
        await workers.until(lambda: worker.spawner.creates == 2)
        closing = asyncio.create_task(worker.close(keep=False))
        await asyncio.sleep(0)
        worker.spawner.create_gate.set()
        await closing
        found = [entry, await late]
        assert {(one.state, one.reason) for one in found} == {(SandboxState.STOPPED, EndReason.WORKER_STOPPED)}
        assert worker.unused
        assert worker.execs.closed
        assert sorted(worker.spawner.forgotten) == sorted(one.text_id for one in found)
        worker = await worker.again()
        assert worker.supervisor.get(entry.id).reason is EndReason.WORKER_STOPPED
        await worker.close()

    async def test_keep_leaves_them_to_the_next_worker(self, tmp_path: Path) -> None:
        """Starts in progress end, nothing is killed, nobody is told of an end, and the next worker serves them."""
        worker = await workers.FakeWorker(tmp_path).start()
        entry = await worker.create()
        worker.spawner.create_gate = asyncio.Event()
        late = asyncio.create_task(worker.create())
        await workers.until(lambda: worker.spawner.creates == 2)
        closing = asyncio.create_task(worker.close(keep=True))
        await asyncio.sleep(0)
        worker.spawner.create_gate.set()
        await closing
        assert worker.spawner.kills == {}
        found = [entry, await late]
        assert {one.state for one in found} == {SandboxState.RUNNING}
        worker = await worker.again()
        assert {worker.supervisor.get(one.id).state for one in found} == {SandboxState.RUNNING}
        await worker.close()
        assert worker.unused


class _RealClock(clocks.FakeClock):
    """The machine's clock where a settable one is expected."""

    def now(self) -> float:
        return SystemClock().now()

    def monotonic(self) -> float:
        return SystemClock().monotonic()


def test_bounds_are_what_is_promised() -> None:
    """Numbers that the documentation gives."""
    assert (rosters.MAX_ENDED, repeats.MAX_KEYS, repeats.KEEP_SECONDS) == (10_000, 10_000, 600)

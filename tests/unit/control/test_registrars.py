import asyncio
import dataclasses

import pytest

from tests.fakes import clocks
from traforo.control import placements, registrars
from traforo.domain import errors, ids, workers
from traforo.store import contract, memory

WORKER = workers.Worker(worker_id="w1", hostname="one", base_url="http://one", max_live_sandboxes=5)
OTHER = workers.Worker(worker_id="w2", hostname="two", base_url="http://two", max_live_sandboxes=5)
DIGEST = ids.worker_hash("one")


class Store(memory.MemoryStore):
    """Remembers what it was given, waits where it is told to, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[contract.Batch] = []
        self.failing = False
        self.open = asyncio.Event()
        self.open.set()
        self.tries = asyncio.Semaphore(0)
        self.kept = asyncio.Event()

    async def write(self, batch: contract.Batch) -> None:
        self.batches.append(batch)
        self.tries.release()
        await self.open.wait()
        if self.failing:
            raise errors.Internal("cannot write: disk full")
        await super().write(batch)
        self.kept.set()


@pytest.fixture
def clock() -> clocks.FakeClock:
    return clocks.FakeClock(1000.0)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def registrar(store: Store, clock: clocks.FakeClock) -> registrars.Registrar:
    return registrars.Registrar(store, clock, lease_ttl=120.0, round_interval=0.0)


def chosen(registrar: registrars.Registrar, now: float) -> str:
    found = registrar.candidates.choose(placements.Request(), now=now, retry_max=2)
    return found.reason if isinstance(found, placements.Refusal) else found.worker.worker_id


async def test_registration_is_kept_before_it_is_acknowledged(registrar: registrars.Registrar, store: Store) -> None:
    """Once `register` has returned, another process finds the worker in the store."""
    member = await registrar.register(WORKER, 2)
    assert list(await store.members()) == [member]
    assert registrar.owner(DIGEST) == member


async def test_heartbeats_are_written_once_a_round(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    """Heartbeats that change no fact are no write of their own; a round writes the last of each in one transaction."""
    await registrar.register(WORKER, 0)
    await registrar.register(OTHER, 0)
    store.batches.clear()
    for live in range(50):
        clock.move(1.0)
        await registrar.register(WORKER, live)
        await registrar.register(OTHER, live)
    assert store.batches == []
    await registrar.write()
    lease = workers.Lease(heartbeat_at=1050.0, expires_at=1170.0, live_sandboxes=49)
    assert [dict(batch.renewed) for batch in store.batches] == [{"w1": lease, "w2": lease}]
    await registrar.write()
    assert len(store.batches) == 1


async def test_registrations_at_once_share_a_transaction(registrar: registrars.Registrar, store: Store) -> None:
    """While one write runs, all who come meanwhile wait for a single next one."""
    store.open.clear()
    many = [dataclasses.replace(WORKER, worker_id=f"w{n}", hostname=f"h{n}") for n in range(20)]
    tasks = [asyncio.ensure_future(registrar.register(worker, 0)) for worker in many]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.open.set()
    await asyncio.gather(*tasks)
    assert [len(batch.put) for batch in store.batches if batch.put] in ([20], [1, 19])
    assert len(await store.members()) == 20


async def test_restart_keeps_routes_until_the_lease_ends(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    """A new process over the same store routes and places as the old one did, and not a moment longer."""
    member = await registrar.register(WORKER, 0)
    again = registrars.Registrar(store, clock, lease_ttl=120.0, round_interval=0.0)
    await again.load()
    assert (again.owner(DIGEST), chosen(again, clock.now())) == (member, "w1")
    clock.move(120.0)
    with pytest.raises(errors.WorkerUnavailable):
        again.owner(DIGEST)
    assert chosen(again, clock.now()) == placements.Reason.NO_WORKER


async def test_deregistration_survives_too(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    await registrar.register(WORKER, 0)
    await registrar.deregister("w1", WORKER.base_url)
    await registrar.deregister("w1", WORKER.base_url)
    assert list(await store.members()) == []
    assert chosen(registrar, clock.now()) == placements.Reason.NO_WORKER
    with pytest.raises(errors.NotFound):
        registrar.owner(DIGEST)


async def test_only_who_registered_is_forgotten(registrar: registrars.Registrar, clock: clocks.FakeClock) -> None:
    """A second worker by the same id that leaves takes nothing from the one that is there."""
    await registrar.register(WORKER, 0)
    await registrar.deregister("w1", "http://elsewhere:8081")
    assert registrar.owner(DIGEST).worker == WORKER
    await registrar.register(dataclasses.replace(WORKER, base_url="http://elsewhere:8081"), 0)
    await registrar.deregister("w1", WORKER.base_url)
    assert registrar.owner(DIGEST).worker.base_url == "http://elsewhere:8081"
    assert chosen(registrar, clock.now()) == "w1"


async def test_deregistration_between_heartbeat_and_round(registrar: registrars.Registrar, store: Store) -> None:
    """A lease that waits to be written does not bring back a worker that left meanwhile."""
    await registrar.register(WORKER, 0)
    await registrar.register(WORKER, 1)
    await registrar.deregister("w1", WORKER.base_url)
    await registrar.write()
    assert list(await store.members()) == []


async def test_moved_worker_is_routed_to_its_new_place(registrar: registrars.Registrar, store: Store) -> None:
    await registrar.register(WORKER, 0)
    moved = dataclasses.replace(WORKER, base_url="http://new")
    member = await registrar.register(moved, 0)
    assert (registrar.owner(DIGEST).worker, list(await store.members())) == (moved, [member])


async def test_heir_of_a_host_name_replaces_the_dead_in_one_transaction(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    await registrar.register(WORKER, 0)
    with pytest.raises(errors.Conflict):
        await registrar.register(dataclasses.replace(OTHER, hostname="one"), 0)
    clock.move(120.0)
    store.batches.clear()
    heir = await registrar.register(dataclasses.replace(OTHER, hostname="one"), 0)
    assert [(list(batch.removed), list(batch.put)) for batch in store.batches] == [(["w1"], [heir])]
    assert registrar.owner(DIGEST) == heir


async def test_sweep_takes_the_lost_out_of_placement(
    registrar: registrars.Registrar, clock: clocks.FakeClock, store: Store
) -> None:
    """What a sweep finds is no write: nothing that is stored has changed."""
    await registrar.register(WORKER, 0)
    clock.move(120.0)
    store.batches.clear()
    registrar.sweep()
    await registrar.write()
    assert (chosen(registrar, 0.0), store.batches) == (placements.Reason.NO_WORKER, [])
    await registrar.register(WORKER, 0)
    assert chosen(registrar, clock.now()) == "w1"


async def test_failed_write_is_told_and_tried_again(registrar: registrars.Registrar, store: Store) -> None:
    """A registration that cannot be kept is refused; the next round keeps it, with the token ids that came along."""
    store.failing = True
    registrar.token_used("t1", 5000.0)
    with pytest.raises(errors.Internal):
        await registrar.register(WORKER, 0)
    assert registrar.owner(DIGEST).worker == WORKER
    store.failing = False
    await registrar.write()
    assert [member.worker for member in await store.members()] == [WORKER]
    assert list(await store.used_tokens(0.0)) == [contract.UsedToken("t1", 5000.0)]


async def test_failed_heartbeats_are_tried_again(registrar: registrars.Registrar, store: Store) -> None:
    await registrar.register(WORKER, 0)
    await registrar.register(WORKER, 4)
    store.failing = True
    with pytest.raises(errors.Internal):
        await registrar.write()
    store.failing = False
    await registrar.write()
    assert [member.lease.live_sandboxes for member in await store.members()] == [4]


async def test_cancelled_write_is_tried_again(registrar: registrars.Registrar, store: Store) -> None:
    store.open.clear()
    task = asyncio.ensure_future(registrar.register(WORKER, 0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.open.set()
    await registrar.write()
    assert [member.worker for member in await store.members()] == [WORKER]


async def test_used_tokens_come_back_until_they_expire(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    registrar.token_used("t1", 1045.0)
    registrar.token_used("t2", 1050.0)
    await registrar.close()
    clock.move(45.0)
    again = registrars.Registrar(store, clock, lease_ttl=120.0, round_interval=0.0)
    assert await again.load() == [contract.UsedToken("t2", 1050.0)]
    registrar.token_used("t3", 1090.0)
    await registrar.write()
    assert list(await store.used_tokens(0.0)) == [contract.UsedToken("t2", 1050.0), contract.UsedToken("t3", 1090.0)]


async def test_rounds_go_on_after_a_failure(
    registrar: registrars.Registrar, store: Store, clock: clocks.FakeClock
) -> None:
    """A store that fails for a while neither stops the sweeps nor loses what was to be written."""
    store.failing = True
    with pytest.raises(errors.Internal):
        await registrar.register(WORKER, 0)
    rounds = asyncio.ensure_future(registrar.run())
    for _ in range(4):
        await store.tries.acquire()
    store.failing = False
    await store.kept.wait()
    assert [member.worker for member in await store.members()] == [WORKER]
    rounds.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rounds


async def test_close_writes_what_is_left_and_never_raises(registrar: registrars.Registrar, store: Store) -> None:
    await registrar.register(WORKER, 0)
    await registrar.register(WORKER, 4)
    await registrar.close()
    assert [member.lease.live_sandboxes for member in await store.members()] == [4]
    await registrar.register(WORKER, 5)
    store.failing = True
    await registrar.close()

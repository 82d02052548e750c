"""Sandboxes made ahead of demand: claimed once, nobody's before, and gone whenever somebody needs their room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import workers
from traforo.domain import errors, states
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, labels, spares

MOST = 2


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "SETTLE_SECONDS", 0.0)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[workers.FakeWorker]:
    async with workers.made(tmp_path, warm_sandboxes=MOST) as found:
        yield found


def waiting(worker: workers.FakeWorker) -> list[entries.Entry]:
    return list(worker.supervisor._spares)


async def settle(worker: workers.FakeWorker) -> None:
    await worker.supervisor._books.tasks.drain()


async def ready(worker: workers.FakeWorker, **changes: Any) -> list[entries.Entry]:
    """Ask once, so that there are spares; return them."""
    await worker.create(prepare=("python",), **changes)
    await settle(worker)
    return waiting(worker)


def gauge(worker: workers.FakeWorker, name: str) -> float:
    return float(getattr(worker.metrics, f"worker_{name}")._value.get())


async def test_the_second_finds_what_the_first_caused(worker: workers.FakeWorker) -> None:
    """A create with `prepare` is cold and makes demand; the next is warm, and all that was asked for is its own."""
    warmed: list[str] = []

    async def warm(entry: entries.Entry) -> None:
        warmed.append(entry.text_id)

    worker.supervisor.warm = warm
    first = await worker.create(prepare=("python",))
    await settle(worker)
    assert first.start_type is states.StartType.COLD
    kept = waiting(worker)
    assert warmed == [entry.text_id for entry in kept]
    assert len(kept) == MOST
    worker.clock.move(5)
    entry = await worker.create(
        prepare=("python",), env={"A": "1"}, owner="alice", ttl_seconds=30, idle_seconds=20.0, jti="j"
    )
    assert entry is kept[0]
    assert entry.running is not None
    assert (entry.start_type, entry.state) == (states.StartType.WARM, states.SandboxState.RUNNING)
    assert (entry.owner, entry.spec.env, entry.idle_seconds) == ("alice", {"A": "1"}, 20.0)
    assert (entry.created_at, entry.expires_at) == (worker.clock.now(), worker.clock.now() + 30)
    label = labels.decode(entry.running.label)
    assert (label.spare, label.owner, label.spec, label.jti) == (False, "alice", entry.spec, "j")
    assert entry.running.deadline == entry.expires_at
    assert [event.kind.value for event in entry.happenings.with_record()] == ["created", "ready"]
    assert worker.supervisor.get(entry.id) is entry
    await settle(worker)
    assert len(waiting(worker)) == MOST
    assert (gauge(worker, "warm_hit_total"), gauge(worker, "warm_miss_total")) == (1, 1)
    assert (gauge(worker, "sandboxes_warm_ready"), gauge(worker, "sandboxes_warm_deficit")) == (MOST, 0)


async def test_nobody_knows_of_them(worker: workers.FakeWorker) -> None:
    """They are in no list, cannot be asked for, and hold a reservation."""
    kept = await ready(worker)
    assert worker.ledger.live == 1 + MOST
    for entry in kept:
        assert entry.running is not None
        assert labels.decode(entry.running.label).spare
        with pytest.raises(errors.NotFound):
            worker.supervisor.get(entry.id)
    assert len(worker.supervisor.roster) == 1


@pytest.mark.parametrize("changes", [{}, {"image": "other", "prepare": ("python",)}, {"prepare": ("node",)}])
async def test_another_kind_is_cold(worker: workers.FakeWorker, changes: dict[str, Any]) -> None:
    """Without `prepare`, of another image or with other interpreters a sandbox is made anew."""
    kept = await ready(worker)
    entry = await worker.create(**changes)
    assert entry.start_type is states.StartType.COLD
    assert entry not in kept
    await settle(worker)
    assert len(waiting(worker)) == MOST


async def test_each_is_claimed_once(worker: workers.FakeWorker) -> None:
    """Many at once get different sandboxes, warm as far as there are any."""
    await ready(worker)
    made = await asyncio.gather(*(worker.create(prepare=("python",)) for _ in range(5)))
    assert len({entry.text_id for entry in made}) == 5
    assert [entry.start_type for entry in made].count(states.StartType.WARM) == MOST


async def test_they_give_way(tmp_path: Path) -> None:
    """Their room is anybody's who asks for it, and they are only made where at least as much is free."""
    async with workers.made(tmp_path, warm_sandboxes=4, max_live_sandboxes=6) as worker:
        assert len(await ready(worker)) == 2
        for _ in range(5):
            assert (await worker.create()).state is states.SandboxState.RUNNING
        await settle(worker)
        assert (waiting(worker), worker.ledger.live) == ([], 6)
        with pytest.raises(errors.NoCapacity):
            await worker.create(prepare=("python",))


async def test_a_refused_create_leaves_it_waiting(worker: workers.FakeWorker) -> None:
    """Whoever comes with a used token gets nothing, and the next one gets the spare."""
    kept = await ready(worker)

    def refuse() -> None:
        raise errors.Unauthenticated("used")

    with pytest.raises(errors.Unauthenticated):
        await worker.create(prepare=("python",), use_token=refuse)
    assert set(waiting(worker)) == set(kept)
    assert (await worker.create(prepare=("python",))).start_type is states.StartType.WARM


async def test_one_that_dies_is_replaced_by_none(worker: workers.FakeWorker) -> None:
    """A spare that dies gives back what it held; a create that meets it just then fails and leaves nothing."""
    kept = await ready(worker)
    await worker.spawner.end(kept[0].text_id, states.EndReason.OUT_OF_MEMORY)
    await settle(worker)
    assert waiting(worker) == kept[1:]
    assert worker.ledger.live == MOST

    async def gone(*, label: bytes, deadline: float | None) -> None:
        raise errors.Lost("it has just died")

    assert kept[1].running is not None
    kept[1].running.update = gone  # type: ignore[method-assign]  # the moment between the look and the claim
    with pytest.raises(errors.StartFailed):
        await worker.create(prepare=("python",))
    await settle(worker)
    assert kept[1].text_id not in worker.spawner.live
    assert worker.ledger.live == 1 + len(waiting(worker))


async def test_a_claim_that_cannot_be(worker: workers.FakeWorker) -> None:
    """What does not fit into a label ends the spare, whose reservation is given back when it is dead and not before."""
    kept = await ready(worker)
    for number in range(MOST):
        with pytest.raises(errors.TooLarge):
            await worker.create(prepare=("python",), env={"A": "\x01" * 20_000}, owner=str(number))
        assert worker.ledger.live == len(worker.spawner.live)
    await settle(worker)
    assert not {entry.text_id for entry in kept} & set(worker.spawner.live)
    assert worker.ledger.live == len(worker.spawner.live) == 1 + MOST


async def test_a_claim_while_nobody_can_be_reached(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare that can be neither claimed nor killed keeps its reservation until it is dead."""
    kept = await ready(worker)

    async def lost(*_: object, **__: object) -> None:
        raise errors.WorkerUnavailable("the spawner is gone")

    for name in ("update", "kill"):
        monkeypatch.setattr(kept[0].running, name, lost)
    with pytest.raises(errors.WorkerUnavailable):
        await worker.create(prepare=("python",))
    await settle(worker)
    assert worker.ledger.live == len(worker.spawner.live)
    assert kept[0].text_id in worker.spawner.live
    await worker.spawner.end(kept[0].text_id, states.EndReason.EXPIRED)
    await settle(worker)
    assert worker.ledger.live == len(worker.spawner.live)


async def test_one_that_is_being_made_gives_way_too(tmp_path: Path) -> None:
    """Its interpreters need not be ready before its room is wanted."""
    async with workers.made(tmp_path, warm_sandboxes=1, max_live_sandboxes=4) as worker:
        begun = asyncio.Event()

        async def warm(entry: entries.Entry) -> None:
            begun.set()
            assert entry.running is not None
            await asyncio.shield(entry.running.ended)

        worker.supervisor.warm = warm
        await worker.create(prepare=("python",))
        await begun.wait()
        for _ in range(3):
            await worker.create()
        await settle(worker)
        assert (worker.ledger.live, len(worker.spawner.live), waiting(worker)) == (4, 4, [])


async def test_an_image_that_changed(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare of what the image was before is not given out."""
    kept = await ready(worker)

    async def resolve(reference: str) -> contract.Rootfs:
        return contract.Rootfs(reference, (contract.Lower("/new", "/"),), {}, "user", "/")

    monkeypatch.setattr(worker.images, "resolve", resolve)
    entry = await worker.create(prepare=("python",))
    assert (entry.start_type, entry.rootfs.cwd) == (states.StartType.COLD, "/")
    await settle(worker)
    assert not {one.text_id for one in kept} & set(worker.spawner.live)
    assert [one.rootfs.cwd for one in waiting(worker)] == ["/"] * MOST


async def test_they_end_when_nobody_asks_any_more(worker: workers.FakeWorker) -> None:
    """A spare expires by itself; another takes its place only while its kind is asked for."""
    kept = await ready(worker)
    worker.clock.move(spares.LEASE_SECONDS + 1)
    for entry in kept:
        await worker.spawner.end(entry.text_id, states.EndReason.EXPIRED)
    await settle(worker)
    fresh = waiting(worker)
    assert len(fresh) == MOST
    worker.clock.move(3600)
    for entry in fresh:
        await worker.spawner.end(entry.text_id, states.EndReason.EXPIRED)
    await settle(worker)
    assert waiting(worker) == []


async def test_interpreters_that_do_not_come_up(worker: workers.FakeWorker) -> None:
    """A sandbox that cannot be made ready ahead is counted and ended, and creates go on."""

    async def warm(entry: entries.Entry) -> None:
        raise errors.StartFailed("no python", stage="exec")

    worker.supervisor.warm = warm
    assert await ready(worker) == []
    assert worker.metrics.worker_warmup_failures_total.labels(reason="start_failed")._value.get() == 1
    assert (worker.ledger.live, len(worker.spawner.live)) == (1, 1)


@pytest.mark.parametrize("crash", [True, False])
async def test_the_next_worker_ends_them(worker: workers.FakeWorker, crash: bool) -> None:
    """After a crash and after a stop that keeps sandboxes, what was claimed lives, and what was not is gone."""
    await ready(worker)
    claimed = await worker.create(prepare=("python",), owner="alice", env={"A": "1"})
    await settle(worker)
    if crash:
        other = await worker.crash()
    else:
        await worker.close(keep=True)
        assert len(worker.spawner.live) == 2
        worker.spawner.detach()
        other = await worker.again()
    await settle(other)
    found = other.supervisor.get(claimed.id)
    assert (found.owner, found.spec.env, found.state) == ("alice", {"A": "1"}, states.SandboxState.RUNNING)
    assert sorted(other.spawner.live) == sorted(entry.text_id for entry in other.supervisor.roster)
    assert other.ledger.live == 2
    await other.close()
    assert other.unused

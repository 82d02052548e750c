"""A spawner that stands still, and sandboxes that die while they are being made or taken over: no caller waits for
ever, and nothing is left that is nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import uids
from tests.faults import planes
from traforo.domain import errors, ids, specs, states
from traforo.settings import worker as settings_worker
from traforo.worker.images import stores
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers, spawners

IMPATIENT = 0.5
"""Seconds that a spawner gets which stands still."""


@dataclass(frozen=True)
class Site:
    """Runtimes in this process, with a real spawner."""

    fleet: planes.Fleet
    """No plane of it runs: it finds processes and control groups."""
    settings: settings_worker.WorkerSettings
    rootfs: contract.Rootfs

    async def start(self) -> tuple[contract.Runtime, contract.Adoption]:
        """Make a runtime as a starting worker does."""
        runtime = await asyncio.to_thread(drivers.make, self.settings)
        return runtime, await runtime.start()

    def request(self, seconds: float = 300) -> contract.CreateRequest:
        """Ask for a small sandbox that lives so long."""
        return contract.CreateRequest(
            sandbox_id=str(ids.new_sandbox_id(ids.worker_hash("faults"))),
            hostname="faults",
            resources=specs.Resources(cpu=0.5, memory_mib=64, disk_mib=32, pids=20),
            rootfs=self.rootfs,
            label=b"label",
            deadline=time.time() + seconds,
        )

    def names(self) -> set[str]:
        """Return the sandboxes that have control groups."""
        return {path.name for path in self.fleet.sandbox_groups()}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    fleet = planes.fleet()
    settings = settings_worker.WorkerSettings(
        state_dir=fleet.state, run_dir=fleet.run, total_memory_mib=4096, uid_base=uids.WORKERS
    )
    images = stores.ImageStore(fleet.state, None)
    try:
        yield Site(fleet, settings, await images.resolve("host"))
    finally:
        await images.close()
        fleet.destroy()


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Have a process stopped for a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_spawner_that_stands_still_keeps_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks something of it is told that it cannot be reached; what lives goes on. When it moves again it is the
    same one, and what it made for those who had been sent away is gone.
    """
    monkeypatch.setattr(spawners, "_LIMITS", dataclasses.replace(spawners._LIMITS, seconds=IMPATIENT))
    runtime, _ = await site.start()
    living = await runtime.create(site.request())
    pid = planes.until(site.fleet.spawner, "a spawner")
    with standing_still(pid):
        wanted = [runtime.create(site.request()) for _ in range(3)]
        wishes = [*wanted, living.update(label=b"new", deadline=None), living.kill(states.EndReason.DELETED)]
        answers = await asyncio.gather(*wishes, return_exceptions=True)
        assert [type(answer) for answer in answers] == [errors.WorkerUnavailable] * len(wishes)
        with pytest.raises(errors.WorkerUnavailable):
            await runtime.create(site.request())
        assert (await living.files.stat("/", user="root")).kind is contract.FileKind.DIRECTORY

    async def created() -> contract.RunningSandbox:
        while True:
            with contextlib.suppress(errors.WorkerUnavailable):
                return await runtime.create(site.request())
            await asyncio.sleep(0.01)

    made = await asyncio.wait_for(created(), planes.START_SECONDS)
    assert site.fleet.spawner() == pid
    expected = {made.sandbox_id} | ({living.sandbox_id} if not living.ended.done() else set())
    assert site.names() == expected
    await asyncio.gather(made.kill(states.EndReason.DELETED), living.kill(states.EndReason.DELETED))
    await runtime.close(keep=False)
    assert (site.fleet.spawner(), site.names()) == (None, set())


async def test_one_that_dies_while_it_is_made_is_made_in_vain(site: Site) -> None:
    """Its end is told before anybody has read that it began: the caller hears of it, and it leaves no trace."""
    runtime, _ = await site.start()
    refused = 0
    for _ in range(50):
        try:
            made = await runtime.create(site.request(seconds=0))
        except errors.StartFailed:
            refused += 1
        else:
            assert (await made.ended).reason is states.EndReason.EXPIRED
            await runtime.forget(made.sandbox_id)
    assert refused
    assert site.names() == set()
    await runtime.close(keep=False)


async def test_ends_during_a_take_over_are_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes that expire between being listed and being taken over are dead to the new worker, and it knows why."""
    runtime, _ = await site.start()
    made = [await runtime.create(site.request(seconds=2)) for _ in range(8)]
    kept = await runtime.create(site.request())
    await runtime.close(keep=True)
    attach = spawners.Spawner.attach

    async def late(self: spawners.Spawner, sandbox_id: str) -> int:
        while sandbox_id != kept.sandbox_id and sandbox_id in site.names():
            await asyncio.sleep(0.01)
        return await attach(self, sandbox_id)

    monkeypatch.setattr(spawners.Spawner, "attach", late)
    second, adoption = await site.start()
    assert [one.sandbox_id for one in adoption.live] == [kept.sandbox_id]
    ends = {one.sandbox_id: one.end.reason for one in adoption.dead}
    assert ends == {one.sandbox_id: states.EndReason.EXPIRED for one in made}
    await second.close(keep=False)


async def test_a_sandbox_whose_init_has_just_been_killed_is_nobody_s_to_have(site: Site) -> None:
    """A new label is refused by a spawner that has not yet read of the death, and so nobody is told that it lives."""
    runtime, _ = await site.start()
    dead = await runtime.create(site.request())
    pid = planes.until(site.fleet.spawner, "a spawner")
    (init,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    with standing_still(pid):
        update = asyncio.ensure_future(dead.update(label=b"new", deadline=None))
        await asyncio.sleep(0.05)  # it is the first that the spawner will read
        os.kill(int(init), signal.SIGKILL)
        await asyncio.to_thread(planes.until, lambda: " Z " in Path(f"/proc/{init}/stat").read_text(), "its death")
    with pytest.raises(errors.Lost):
        await update
    assert (await dead.ended).reason is states.EndReason.LOST
    await runtime.close(keep=False)

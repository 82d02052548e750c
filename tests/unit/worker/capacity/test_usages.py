"""Measuring: for whoever asks, and for a while after."""

from __future__ import annotations

import pytest

from tests.fakes import workers
from traforo.domain import errors
from traforo.domain.states import EndReason
from traforo.worker.capacity import samples, usages
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries


async def sandbox(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> tuple[entries.Entry, list[object]]:
    """Return a sandbox that uses more from one measurement to the next, and where to put what they raise."""
    entry = await worker.create()
    trouble: list[object] = []
    used = [0]

    async def usage() -> contract.Usage:
        if trouble:
            raise trouble.pop()  # type: ignore[misc]  # an exception
        used[0] += 1
        return contract.Usage(cpu_seconds=float(used[0]), memory_bytes=1000 * used[0], pids=3)

    monkeypatch.setattr(entry.running, "usage", usage)
    return entry, trouble


async def test_now(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runtime says, with the use of processors in between, and the limit of the disk."""
    entry, _ = await sandbox(worker, monkeypatch)
    worker.clock.move(4)
    first = await worker.usages.now(entry)
    worker.clock.move(2)
    second = await worker.usages.now(entry)
    assert first == samples.Sample(worker.clock.now() - 2, 1.0, 25.0, 1000, None, None, 32 << 20, 3, None, None)
    assert second == samples.Sample(worker.clock.now(), 2.0, 50.0, 2000, None, None, 32 << 20, 3, None, None)


async def test_a_series(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on while somebody has asked not long ago, then no more; kept for as long as the sandbox can be read."""
    entry, trouble = await sandbox(worker, monkeypatch)
    await worker.usages.now(entry)
    began = worker.clock.now()
    for _ in range(40):
        worker.clock.move(usages.INTERVAL_SECONDS)
        await worker.usages.sample()
    found = worker.usages.series(entry, 0.0)
    assert [one.at for one in found] == [began + 10 * number for number in range(30)]
    assert [one.at for one in worker.usages.series(entry, began + 280)] == [began + 290]
    await worker.usages.now(entry)
    trouble.append(errors.Lost("it is gone"))
    await worker.usages.sample()  # one that cannot be measured now is no reason to stop
    await worker.supervisor.stop(entry, EndReason.DELETED)
    await worker.usages.sample()
    assert await worker.usages.now(entry) is None
    assert worker.usages.series(entry, 0.0) == found
    assert worker.usages._watched == {}


async def test_nobody_asked(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is measured or kept."""
    entry, trouble = await sandbox(worker, monkeypatch)
    trouble.append(AssertionError("measured"))
    await worker.usages.sample()
    assert (worker.usages.series(entry, 0.0), entry.history, len(trouble)) == ([], None, 1)


async def test_it_goes_on_by_itself(worker: workers.FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is closed."""
    monkeypatch.setattr(usages, "INTERVAL_SECONDS", 0.01)
    entry, _ = await sandbox(worker, monkeypatch)
    await worker.usages.now(entry)
    await workers.until(lambda: len(worker.usages.series(entry, 0.0)) >= 3)
    await worker.usages.close()
    assert worker.usages._timer is None or worker.usages._timer.cancelled()

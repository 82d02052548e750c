"""Workers of one host tell each other which user ids their sandboxes have."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog.testing

from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker.hosts import claims
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers, runtimes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives out ranges of user ids")


@contextlib.asynccontextmanager
async def _started(home: Path, uid_base: int, *, keep: bool = False) -> AsyncIterator[contract.Runtime]:
    settings = settings_worker.WorkerSettings(
        state_dir=home / "state", run_dir=home / "run", total_memory_mib=4096, uid_base=uid_base
    )
    try:
        runtime = await asyncio.to_thread(drivers.make, settings)
    except errors.StartFailed as error:
        pytest.skip(f"this host cannot run sandboxes: {error}")
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close(keep=keep)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Claims of these tests alone, whatever else runs on this host."""
    real = runtimes.Places

    def apart(binary: Path, run_dir: Path, disk_dir: Path) -> runtimes.Places:
        return real(binary, run_dir, disk_dir, tmp_path / "uids")

    monkeypatch.setattr(runtimes, "Places", apart)
    return tmp_path / "uids"


async def _ended(place: Path) -> None:
    for _ in range(1000):
        if not claims.claimed(place):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the spawner keeps its claim")


async def test_a_second_worker_on_the_same_ids_is_warned(tmp_path: Path, place: Path) -> None:
    """Not one beside it; and it is told what to set."""
    with structlog.testing.capture_logs() as lines:
        async with _started(tmp_path / "a", 0x30000000), _started(tmp_path / "b", 0xB0000000):
            assert [line for line in lines if line["event"] == "uids_shared"] == []
            async with _started(tmp_path / "c", 0x30010000):
                (line,) = [line for line in lines if line["event"] == "uids_shared"]
                assert (line["log_level"], line["other"]) == ("warning", str(tmp_path / "a" / "state"))
                assert "TRAFORO_WORKER_UID_BASE" in line["hint"]
    await _ended(place)


async def test_a_claim_outlives_its_worker_with_the_spawner(tmp_path: Path, place: Path) -> None:
    """Sandboxes that go on have their ids still; the next worker of the same place is not warned of itself."""
    with structlog.testing.capture_logs() as lines:
        async with _started(tmp_path / "a", 0x30000000, keep=True):
            pass
        assert [found.owner for found in claims.claimed(place)] == [str(tmp_path / "a" / "state")]
        async with _started(tmp_path / "a", 0x30000000):
            pass
    await _ended(place)
    assert [line for line in lines if line["event"] == "uids_shared"] == []

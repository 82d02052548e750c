"""Every runtime there is, ready for the suite: the fake always, real ones where this host can run them."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests import uids
from tests.contract.runtimes import subjects
from tests.fakes import runtimes
from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker import drivers
from traforo.worker.images import stores
from traforo.worker.runtimes import contract


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


REAL = [name for name, module in drivers.TABLE.items() if _importable(module)]


@pytest.fixture(params=["fake", *REAL])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[subjects.Subject]:
    if request.param == "fake":
        spawner = runtimes.FakeSpawner()
        rootfs = contract.Rootfs("fake", (contract.Lower("/", "/"),), user="root")
        found = subjects.Subject(lambda: runtimes.FakeRuntime(spawner), rootfs, isolates=False)
        await found.start()
        yield found
        await found.close()
        return
    settings = settings_worker.WorkerSettings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "run_dir": tmp_path / "run",
            "virtualization": request.param,
            "total_memory_mib": 4096,
            "uid_base": uids.WORKERS,
        }
    )
    images = stores.ImageStore(settings.state_dir, None)
    try:
        made = await asyncio.to_thread(drivers.make, settings)
        rootfs = await images.resolve("host")
        found = subjects.Subject(lambda: drivers.make(settings)[request.param], rootfs, isolates=True)
        found.make = _first(made[request.param], found.make)
        await found.start()
    except errors.StartFailed as error:
        await images.close()
        pytest.skip(f"this host cannot provide {request.param}: {error}")
    yield found
    await found.close()
    await images.close()


def _first(made: contract.Runtime, make: Callable[[], contract.Runtime]) -> Callable[[], contract.Runtime]:
    """Return a maker that gives the one that is there before it makes more."""
    ready = [made]
    return lambda: ready.pop() if ready else make()


@pytest.fixture
async def sandbox(subject: subjects.Subject) -> contract.RunningSandbox:
    return await subject.create()

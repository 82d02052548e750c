"""What faults need of a host, one fleet for the tests that leave it usable, and the seed of their choices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults import planes


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """Skip where no spawner of our own can be killed and counted after."""
    if os.geteuid() != 0:
        pytest.skip("control groups and namespaces of sandboxes can only be looked into by root")


@pytest.fixture(scope="session")
def scale() -> int:
    """How many times the default load: `TRAFORO_FAULTS_SCALE`."""
    return int(os.environ.get("TRAFORO_FAULTS_SCALE", "1"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Decides moments and order; the one that pytest prints, so that a failure can be had again."""
    return int(request.config.getoption("randomly_seed", 0))


@pytest.fixture(scope="session")
def _fleet() -> Iterator[planes.Fleet]:
    made = planes.fleet()
    try:
        yield made
    finally:
        made.destroy()


@pytest.fixture
def fleet(_fleet: planes.Fleet) -> Iterator[planes.Fleet]:
    """A control plane and a worker that run; a test may kill them, the next one starts them again. No test makes them
    write anything beside their logs: that would be an error nobody expected.
    """
    if _fleet.processes():  # of a test that failed: they must not make this one fail too
        _fleet.worker.kill()
        if (spawner := _fleet.spawner()) is not None:
            planes.kill(spawner)
        planes.until(lambda: not _fleet.processes(), "the end of what an earlier test left", facts=_fleet.remains)
    _fleet.ensure()
    yield _fleet
    for plane in (_fleet.control, _fleet.worker):
        assert plane.unexpected() == ""

from collections.abc import AsyncIterator

import pytest

from tests.unit.control import planes


@pytest.fixture
async def dev() -> AsyncIterator[planes.Plane]:
    """A control plane in `dev` mode with one worker."""
    async with planes.plane("dev") as made:
        assert (await made.register()).status_code == 200
        yield made


@pytest.fixture
async def prod() -> AsyncIterator[planes.Plane]:
    """A control plane in `prod` mode with one worker."""
    async with planes.plane("prod") as made:
        assert (await made.register()).status_code == 200
        yield made

"""Workers over a fake runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import workers


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[workers.FakeWorker]:
    async with workers.made(tmp_path) as found:
        yield found


@pytest.fixture
async def prod(tmp_path: Path) -> AsyncIterator[workers.FakeWorker]:
    async with workers.made(tmp_path, auth={"jwt_secret": workers.SECRET}) as found:
        yield found

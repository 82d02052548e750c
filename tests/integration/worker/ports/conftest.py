"""A worker, one sandbox in it, and servers and callers that say exactly what a test wants, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.fakes import sites


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[sites.Site]:
    async with sites.made(tmp_path) as found:
        yield found


@pytest.fixture
async def prod(tmp_path: Path) -> AsyncIterator[sites.Site]:
    async with sites.made(tmp_path, auth={"jwt_secret": sites.SECRET}) as found:
        yield found


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run these tests on the loop that servers run on: loops differ in how connections end."""
    del config, item
    return {"uvloop": uvloop.new_event_loop}

"""A host that can isolate, a probe in C, and one runtime for each test."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.security import ablations, labs
from traforo.domain import errors
from traforo.worker.hosts import features
from traforo.worker.images import stores
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers


async def _host_image(directory: Path) -> contract.Rootfs:
    store = stores.ImageStore(directory, None)
    try:
        return await store.resolve("host")
    finally:
        await store.close()


@pytest.fixture(scope="session")
def site() -> Iterator[labs.Site]:
    """What labs need, made once: the image `host` with the probe in its /opt, and control groups."""
    if os.geteuid() != 0:
        pytest.skip("this host lets nobody but root map users")
    try:
        drivers.find_binary()
    except errors.StartFailed:
        pytest.skip("needs traforo-init")
    with tempfile.TemporaryDirectory(prefix="trf-site-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        tools = directory / "tools"
        tools.mkdir()
        probe = ablations.compile_program(tools / "probe", [Path(__file__).parent / "probe.c"])
        found = features.probe("/usr")
        for answer in (found.namespaces, found.overlay, found.idmap):
            if not answer.ok:
                pytest.skip(f"this host cannot isolate: {answer.detail}")
        image = asyncio.run(_host_image(directory / "state"))
        lowers = (*image.lowers, contract.Lower(str(tools), "/opt"))
        rootfs = contract.Rootfs(image.image, lowers, image.env, image.user, image.cwd)
        os.environ["TRAFORO_TEST_SECRET"] = labs.SECRET
        yield labs.Site(directory, probe, rootfs, found, f"traforo-security-{os.getpid()}")
        del os.environ["TRAFORO_TEST_SECRET"]


@pytest.fixture
async def lab(site: labs.Site) -> AsyncIterator[labs.Lab]:
    """A runtime as it is."""
    async with site.lab() as lab:
        yield lab


@pytest.fixture
async def sandbox(lab: labs.Lab) -> labs.Sandbox:
    """A sandbox as it is."""
    return await lab.create()

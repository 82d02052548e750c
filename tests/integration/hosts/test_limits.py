"""Limits of sandboxes, on whatever control groups this host has: written where the kernel reads them, and enforced."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import uids
from tests.contract.runtimes import outputs
from tests.integration.hosts import places
from traforo.domain import errors, ids, specs, states
from traforo.settings import worker as settings_worker
from traforo.worker.hosts import cgroups
from traforo.worker.images import stores
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers, runtimes


class Bench:
    """The runtime as a worker has it."""

    def __init__(self, runtime: runtimes.ContainerRuntime, layout: cgroups.Layout, rootfs: contract.Rootfs) -> None:
        self.runtime = runtime
        self.layout = layout
        self.rootfs = rootfs

    async def create(self, **limits: object) -> contract.RunningSandbox:
        values: dict[str, object] = {"cpu": 1.0, "memory_mib": 128, "disk_mib": 32, "pids": 64, **limits}
        request = contract.CreateRequest(
            sandbox_id=str(ids.new_sandbox_id(ids.worker_hash("hosts"))),
            hostname="sandbox",
            resources=specs.Resources(**values),  # type: ignore[arg-type]  # a builder for tests
            rootfs=self.rootfs,
            label=b"",
            deadline=time.time() + 300,
        )
        sandbox = await self.runtime.create(request)
        await sandbox.files.mkdir("/data", 0o777, user="root", parents=True)
        return sandbox

    def needs(self, controller: str) -> cgroups.Hierarchy:
        """Return the hierarchy with a controller; skip where there is none."""
        for hierarchy in self.layout.hierarchies:
            if controller in hierarchy.controllers:
                return hierarchy
        pytest.skip(f"this host has no {controller} controller to use")

    def groups(self, sandbox_id: str) -> list[Path]:
        return [Path(hierarchy.path, sandbox_id) for hierarchy in self.layout.hierarchies]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A runtime of its own; afterwards its control groups are gone."""
    with places.home_of(0) as home:
        settings = settings_worker.WorkerSettings(
            state_dir=home / "state", run_dir=home / "run", total_memory_mib=4096, uid_base=uids.WORKERS
        )
        images = stores.ImageStore(settings.state_dir, None)
        try:
            runtime = await asyncio.to_thread(drivers.make, settings)
        except errors.StartFailed as error:
            pytest.skip(f"this host cannot run sandboxes: {error}")
        assert isinstance(runtime, runtimes.ContainerRuntime)
        await runtime.start()
        layout = runtime._host.layout
        try:
            yield Bench(runtime, layout, await images.resolve("host"))
        finally:
            await runtime.close(keep=False)
            await images.close()
        assert _left(layout) == []


async def test_every_limit_is_written(bench: Bench) -> None:
    """The kernel's files hold what was asked for, in every hierarchy, and nothing that limits is missing here."""
    resources = specs.Resources(cpu=0.5, memory_mib=96, disk_mib=32, pids=40)
    sandbox = await bench.create(cpu=0.5, memory_mib=96, pids=40)
    for hierarchy in bench.layout.hierarchies:
        wanted = dict(cgroups.settings(hierarchy, resources))
        found = {name: _read(hierarchy, sandbox, name) for name in wanted}
        assert found == wanted
        if hierarchy.version == 2:
            assert set(wanted) >= {f"{name}.max" for name in hierarchy.controllers}


async def test_cpu_is_limited(bench: Bench) -> None:
    """A loop is throttled."""
    hierarchy = bench.needs("cpu")
    sandbox = await bench.create(cpu=0.1)
    running = await sandbox.exec(outputs.start("while :; do :; done"))

    async def throttled() -> bool:
        numbers = dict(line.split() for line in _read(hierarchy, sandbox, "cpu.stat").splitlines())
        return int(numbers["nr_throttled"]) > 3

    await outputs.eventually(throttled)
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def test_memory_is_limited_without_a_way_out_to_swap(bench: Bench) -> None:
    """Who takes too much is killed, the end says why, and the sandbox goes on."""
    hierarchy = bench.needs("memory")
    sandbox = await bench.create(memory_mib=64, disk_mib=16)
    running = await sandbox.exec(outputs.start("a=$(head -c 300000000 /dev/zero | tr '\\0' x)"))
    assert (await outputs.finish(running)).exit == contract.ExecExit(signal=int(signal.SIGKILL), out_of_memory=True)
    if hierarchy.version == 2 and hierarchy.swap_file:
        assert _read(hierarchy, sandbox, "memory.swap.current") == "0"
    assert (await outputs.run(sandbox, "echo alive")).stdout == b"alive\n"
    assert (await sandbox.kill(states.EndReason.DELETED)).oom_kills >= 1


async def test_a_fork_bomb_is_bounded(bench: Bench) -> None:
    """It never has more processes than were asked for; it can be killed, and then all is as before."""
    hierarchy = bench.needs("pids")
    sandbox = await bench.create(pids=24)
    bomb = await sandbox.exec(outputs.start("f() { f & f & sleep 60; }; f 2>/dev/null"))

    async def refused() -> bool:
        assert int(_read(hierarchy, sandbox, "pids.current")) <= 25
        return "max 0" not in _read(hierarchy, sandbox, "pids.events").splitlines()

    await outputs.eventually(refused)
    await bomb.signal(signal.SIGKILL, tree=True)
    await outputs.finish(bomb)
    assert (await outputs.run(sandbox, "echo alive")).stdout == b"alive\n"


async def test_a_killed_tree_leaves_no_process(bench: Bench) -> None:
    """Whatever has left its session, twice forked, with its parents gone."""
    if bench.layout.v2 is None:
        pytest.skip("this host has no v2 tree to use")
    sandbox = await bench.create()
    command = "for i in 1 2 3; do setsid sh -c 'setsid sleep 1000 & (setsid sleep 1000 &)' & done; echo up; sleep 1000"
    running = await sandbox.exec(outputs.start(command))
    await outputs.line(running)

    async def all_started() -> bool:
        return await _count(sandbox, "sleep") == 7

    await outputs.eventually(all_started)
    await running.signal(signal.SIGKILL, tree=True)
    assert (await outputs.finish(running)).exit.signal == signal.SIGKILL
    assert await _count(sandbox, "sleep") == 0


async def test_a_deleted_sandbox_leaves_no_group(bench: Bench) -> None:
    """In no hierarchy, whatever ran in it."""
    sandbox = await bench.create()
    running = await sandbox.exec(outputs.start("(setsid sleep 1000 &); echo up; sleep 1000"))
    await outputs.line(running)
    groups = bench.groups(sandbox.sandbox_id)
    assert [group for group in groups if not group.is_dir()] == []
    await sandbox.kill(states.EndReason.DELETED)
    assert [group for group in groups if group.exists()] == []
    await outputs.finish(running)


def _left(layout: cgroups.Layout) -> list[Path]:
    """Return groups of sandboxes that are still there, and remove what a worker leaves on purpose."""
    left = [group for hierarchy in layout.hierarchies for group in Path(hierarchy.path).glob("sbx_*")]
    for hierarchy in layout.hierarchies:
        with contextlib.suppress(OSError):
            Path(hierarchy.path).rmdir()
    return left


def _read(hierarchy: cgroups.Hierarchy, sandbox: contract.RunningSandbox, name: str) -> str:
    return Path(hierarchy.path, sandbox.sandbox_id, name).read_text().strip()


async def _count(sandbox: contract.RunningSandbox, name: str) -> int:
    done = await outputs.run(sandbox, "cat /proc/[0-9]*/comm 2>/dev/null; true")
    return done.stdout.decode().splitlines().count(name)

"""SIGKILL of one process or two, at any moment, under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.faults import clients, planes, storms

CALLERS = 6


def kill_worker(fleet: planes.Fleet, chance: random.Random) -> None:
    fleet.worker.kill()


def kill_worker_twice(fleet: planes.Fleet, chance: random.Random) -> None:
    """The second time while it takes over, or soon after."""
    fleet.worker.kill()
    fleet.worker.launch()
    planes.until(lambda: len(fleet.worker.events("adopted")) or chance.random() < 0.01, "a start of the worker")


VICTIMS = ("worker", "spawner", "control", "control and worker")


@pytest.mark.parametrize("victim", VICTIMS)
async def test_what_was_acknowledged_outlives(victim: str, fleet: planes.Fleet, seed: int, scale: int) -> None:
    """Every sandbox with a 201 and without a 204 answers, holds its files, and its commands have written exactly what
    they write, with their own exit codes; a deleted one stays deleted; and nothing else lives.
    """
    chance = random.Random(f"{seed}/{victim}")
    async with clients.client(fleet.worker.url) as client:
        storm = storms.Storm(client, chance.randrange(1 << 30))
        async with storm.blowing(CALLERS * scale):
            for _ in range(scale):
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                await asyncio.to_thread(_kill, fleet, victim)
                await asyncio.to_thread(fleet.ensure)
                await asyncio.sleep(chance.uniform(0.2, 0.6))
        await storm.check()
    planes.until(lambda: fleet.processes() == [] and fleet.sandbox_groups() == [], "nothing left", facts=fleet.processes)


def _kill(fleet: planes.Fleet, victim: str) -> None:
    if "control" in victim:
        fleet.control.kill()
    if "worker" in victim:
        fleet.worker.kill()
    if "spawner" in victim:
        fleet.kill_spawner()

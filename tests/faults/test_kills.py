"""SIGKILL of one process or two, at any moment, under load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from tests.faults import clients, planes, storms

CALLERS = 6
VICTIMS = ("worker", "worker twice", "spawner", "spawner twice", "control", "control and worker")


@pytest.mark.timeout(150)
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
                await asyncio.sleep(chance.uniform(0.3, 1.2))
                await asyncio.to_thread(_kill, fleet, victim, chance)
                await asyncio.to_thread(fleet.ensure)
                await asyncio.sleep(chance.uniform(0.2, 0.6))
        await storm.check()
    planes.until(lambda: fleet.processes() == [], "no process left", facts=fleet.processes)
    planes.until(lambda: fleet.sandbox_groups() == [], "no control group left", facts=fleet.sandbox_groups)
    assert fleet.images() == []


@pytest.mark.timeout(3600)
async def test_one_kill_after_another(fleet: planes.Fleet, seed: int, scale: int) -> None:
    """Whatever is killed, in whichever order, while some callers ask the worker and some the control plane: what was
    acknowledged to either is there, round after round.
    """
    chance = random.Random(f"{seed}/mixed")
    for _ in range(scale):
        async with clients.client(fleet.worker.url) as worker, clients.client(fleet.control.url) as control:
            at_worker, at_control = [storms.Storm(one, chance.randrange(1 << 30)) for one in (worker, control)]
            async with at_worker.blowing(CALLERS - 2), at_control.blowing(2):
                for _ in range(4):
                    await asyncio.sleep(chance.uniform(0.1, 0.8))
                    victim = chance.choice(VICTIMS)
                    await asyncio.to_thread(_kill, fleet, victim, chance)
                    await asyncio.to_thread(fleet.ensure)
                    if "spawner" in victim:  # a worker killed before the next one knows all dies with it as if at once
                        await worker.delete((await worker.create(memory_mib=64))["sandbox_id"])
            await at_worker.check(alone=False)
            await at_control.check()
        planes.until(lambda: fleet.sandbox_groups() == [], "no control group left", facts=fleet.remains)
        assert (fleet.processes(), fleet.images()) == ([], [])


def _kill(fleet: planes.Fleet, victim: str, chance: random.Random) -> None:
    if "control" in victim:
        fleet.control.kill()
    if "worker" in victim:
        fleet.worker.kill()
    if "spawner" in victim:
        fleet.kill_spawner()
    if victim == "worker twice":  # while it starts, or takes over, or has just begun to serve
        fleet.worker.launch()
        known = len(fleet.worker.events("adopted"))
        if chance.random() < 0.7:
            planes.until(lambda: len(fleet.worker.events("adopted")) > known, "a take-over", planes.START_SECONDS)
        time.sleep(chance.choice([0, chance.uniform(0, 0.5)]))
        fleet.worker.kill()
    if victim == "spawner twice":  # while the worker hands its sandboxes over, or soon after
        time.sleep(chance.choice([0, chance.uniform(0, 0.1)]))
        fleet.kill_spawner()


@pytest.mark.timeout(100)
async def test_worker_and_spawner_killed_at_once_leave_nobody_without_an_owner(fleet: planes.Fleet, seed: int) -> None:
    """Every sandbox of before is told to be lost, or deleted where it was; nothing of them is left; and callers go on
    with new ones. What was younger than a batch of the journal may be unknown.
    """
    chance = random.Random(seed)
    async with clients.client(fleet.worker.url) as client:
        storm = storms.Storm(client, chance.randrange(1 << 30))
        async with storm.blowing(CALLERS):
            await asyncio.sleep(chance.uniform(0.5, 1.0))
            storm.stopping = True  # whoever is amid a create goes on until it has one
            fleet.kill_both()
            planes.until(lambda: fleet.processes() == [], "no process left", facts=fleet.processes)
            await asyncio.to_thread(fleet.ensure)
            assert len(fleet.sandbox_groups()) <= 5 * CALLERS  # of what is being made now, and no other
        unknown = 0
        for sandbox in storm.sandboxes:
            answer = await client.call("GET", f"/sandboxes/{sandbox.id}", (200, 404))
            if answer.status_code == 404:
                unknown += 1
                continue
            state, reason = answer.json()["state"], answer.json()["reason"]
            if state == "running":
                await client.delete(sandbox.id)
            else:
                assert (state, reason in {"lost", "deleted"}) == ("stopped", True), answer.text
                assert sandbox.deleted is not False or reason == "lost", answer.text
        assert unknown <= CALLERS
        assert await client.live() == set()
    planes.until(lambda: fleet.sandbox_groups() == [], "no control group left", facts=fleet.sandbox_groups)
    assert (fleet.processes(), fleet.images()) == ([], [])


async def test_a_killed_init_is_a_lost_sandbox(fleet: planes.Fleet) -> None:
    """It and its commands are told to be lost, its neighbours are not, and it leaves nothing."""
    async with clients.client(fleet.worker.url) as client:
        lost, other = [(await client.create(memory_mib=64))["sandbox_id"] for _ in range(2)]
        exec_id = await client.start(lost, "echo before; sleep 1000 & sleep 1000")

        async def said() -> bool:
            return bool((await client.exec(lost, exec_id))["stdout"])

        await clients.until(said, "output")
        await asyncio.to_thread(os.kill, fleet.init(lost), signal.SIGKILL)

        async def ended() -> bool:
            return await client.end(lost) == ("stopped", "lost")

        await clients.until(ended, "the end of the sandbox")
        output = await client.output(lost, exec_id)
        assert (output.ended, output.stdout) == (("lost", None), b"before\n")
        assert (await client.run(other, "echo here"))["output"] == "here\n"
        assert {path.name for path in fleet.sandbox_groups() if path.name.startswith("sbx_")} == {other}
        await client.delete(other)

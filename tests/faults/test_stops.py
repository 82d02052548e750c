"""SIGTERM: a worker that drains, and one that leaves its sandboxes to the next."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import httpx2
import pytest

from tests.faults import censuses, clients, planes, storms
from traforo.worker.hosts import disks

SMALL = {"memory_mib": 64}


async def test_a_drained_worker_leaves_nothing() -> None:
    """Nobody new is taken in, what runs is ended and told to have been; the exit code is 0, and no spawner, no process,
    no mount, no control group, not even the worker's own, no disk and no socket is left.
    """
    with planes.lent(control=True) as fleet:
        async with clients.client(fleet.worker.url) as client:
            made = [await client.create(**SMALL) for _ in range(10)]
            if not disks.missing():
                made.append(await client.create(**SMALL, disk_kind="disk", disk_mib=16))
            ids = [one["sandbox_id"] for one in made]
            busy = await client.start(ids[0], "echo begun; while :; do :; done")
            await client.run(ids[1], "sleep 1000 & echo left behind")
            spawner = planes.until(fleet.spawner, "a spawner")
            # The control plane does not answer the goodbye, so there is time to see what is refused meanwhile.
            os.kill(fleet.control.pid, signal.SIGSTOP)
            try:
                assert fleet.worker.process is not None
                fleet.worker.process.terminate()
                refused = await _until_refused(client)
            finally:
                os.kill(fleet.control.pid, signal.SIGCONT)
            assert (refused["code"], "stopping" in refused["message"]) == ("worker_unavailable", True)
            assert await asyncio.to_thread(fleet.worker.wait) == 0, fleet.worker.words()
            assert planes.ended(spawner)
            assert (fleet.spawner(), fleet.processes(), fleet.groups(), fleet.images()) == (None, [], [], [])
            assert not (fleet.run / "spawner.sock").exists()
            assert censuses.host(fleet) == []
            await asyncio.to_thread(fleet.ensure)
            assert {await client.end(one) for one in ids} == {("stopped", "worker_stopped")}
            output = await client.output(ids[0], busy)
            assert output.stdout == b"begun\n"
            assert output.ended in {("lost", None), ("signalled", 137)}


async def _until_refused(client: clients.Client) -> dict[str, str]:
    """Create until that is refused, and return the error. What was created meanwhile ends with the worker."""
    async with asyncio.timeout(8):
        while True:
            answer = await client.http.post("/sandboxes", json=SMALL)
            if answer.status_code != 201:
                assert answer.status_code == 503, answer.text
                error: dict[str, str] = answer.json()["error"]
                return error


async def test_a_worker_that_keeps_leaves_everything_to_the_next() -> None:
    """Exit code 0, and sandboxes, their commands and the spawner go on; the next worker has all of them, with output
    from the first byte to the last. A request that waits is told before the worker goes.
    """
    with planes.lent("--stop-policy=keep") as fleet:
        async with clients.client(fleet.worker.url) as client:
            storm = storms.Storm(client, 1)
            for number in range(4):
                made = storms.Sandbox((await client.create(**SMALL))["sandbox_id"])
                script = storms.counting(40, 0.05, number)
                made.execs[await client.start(made.id, script.command)] = script
                await client.write(made.id, "/tmp/file", bytes([number]) * 1000)
                made.files["/tmp/file"] = {bytes([number]) * 1000}
                storm.sandboxes.append(made)
            spawner = planes.until(fleet.spawner, "a spawner")
            before = set(fleet.processes())
            waiting = asyncio.create_task(_wait(client, storm.sandboxes[0].id))
            await asyncio.sleep(0.2)
            assert await asyncio.to_thread(fleet.worker.stop) == 0, fleet.worker.words()
            assert fleet.spawner() == spawner
            assert len(before & set(fleet.processes())) >= len(storm.sandboxes)
            assert await waiting in {None, 503}
            await asyncio.to_thread(fleet.worker.start)
            await storm.check()


async def _wait(client: clients.Client, sandbox_id: str) -> int | None:
    """Return the status of a request that waits for a command that does not end; None where the connection was cut."""
    try:
        body = {"command": "sleep 1000", "wait": True}
        return (await client.http.post(f"/sandboxes/{sandbox_id}/exec", json=body)).status_code
    except httpx2.TransportError:
        return None


async def test_a_stop_amid_load_is_clean(seed: int) -> None:
    """Callers who go on creating, writing and deleting neither hold it up nor get anything but answers, 503 and broken
    connections; every sandbox of theirs is dead after, each for the reason that was acknowledged.
    """
    with planes.lent() as fleet:
        async with clients.client(fleet.worker.url) as client:
            storm = storms.Storm(client, seed)
            async with storm.blowing(4):
                await asyncio.sleep(0.7)
                assert await asyncio.to_thread(fleet.worker.stop) == 0, fleet.worker.words()
                assert (fleet.spawner(), fleet.processes(), fleet.groups()) == (None, [], [])
                storm.stopping = True
                await asyncio.to_thread(fleet.worker.start)
            for sandbox in storm.sandboxes:
                reasons = {True: {"deleted"}, None: {"deleted", "worker_stopped"}, False: {"worker_stopped"}}
                state, reason = await client.end(sandbox.id)
                if state == "running":  # made after the stop, by a create that waited for an answer
                    await client.delete(sandbox.id)
                else:
                    assert reason in reasons[sandbox.deleted], sandbox


@pytest.mark.parametrize("policy", ["drain", "keep"])
async def test_a_stop_waits_for_a_spawner(policy: str, seed: int) -> None:
    """Asked to stop when its spawner has just been killed it does what it does otherwise: none is left, or all are left
    to the next.
    """
    with planes.lent(f"--stop-policy={policy}") as fleet:
        async with clients.client(fleet.worker.url) as client:
            ids = {(await client.create(**SMALL, cpu=0.1))["sandbox_id"] for _ in range(20)}
            fleet.kill_spawner()
            await asyncio.sleep(random.Random(seed).choice([0, 0.01, 0.05, 0.1, 0.2]))
            assert await asyncio.to_thread(fleet.worker.stop) == 0, fleet.worker.words()
            if policy == "drain":
                assert (fleet.spawner(), fleet.processes(), fleet.groups()) == (None, [], [])
            await asyncio.to_thread(fleet.worker.start)
            ends = {await client.end(sandbox_id) for sandbox_id in ids}
            assert ends == {("stopped", "worker_stopped") if policy == "drain" else ("running", None)}
            assert await client.live() == (set() if policy == "drain" else ids)

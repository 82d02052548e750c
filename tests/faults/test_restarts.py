"""What a worker, or a control plane, finds again after it was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.faults import censuses, clients, planes, storms, tokens
from traforo.worker.hosts import disks

SMALL = {"memory_mib": 64}
SUSPENDED = 400
HOG = "sleep 0.5; x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo survived"


def down(fleet: planes.Fleet, seconds: float) -> None:
    """Let no worker run for a while."""
    fleet.worker.kill()
    time.sleep(seconds)
    fleet.ensure()


async def test_ends_that_nobody_saw_are_true(fleet: planes.Fleet) -> None:
    """Commands that ended while no worker ran have their own exit code, signal, deadline or lack of memory to tell,
    and all of their output; one that filled its pipe meanwhile goes on.
    """
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(**SMALL))["sandbox_id"]
        counting, bursting = storms.counting(20, 0.05, 17), storms.bursting(50_000, 18)
        ids = {
            name: await client.start(sandbox_id, command, **more)
            for name, command, more in (
                ("counting", counting.command, {}),
                ("bursting", bursting.command, {}),
                ("signalled", "sleep 0.3; kill -TERM $$", {}),
                ("timed out", "echo before; sleep 1000", {"timeout_ms": 500}),
                ("in time", "sleep 0.3; exit 5", {"timeout_ms": 600_000}),
                ("out of memory", HOG, {}),
            )
        }
        await asyncio.to_thread(down, fleet, 1.5)
        found = {name: await client.output(sandbox_id, exec_id) for name, exec_id in ids.items()}
        assert {name: output.ended for name, output in found.items()} == {
            "counting": ("exited", 17),
            "bursting": ("exited", 18),
            "signalled": ("signalled", 143),
            "timed out": ("timed_out", 124),
            "in time": ("exited", 5),
            "out of memory": ("out_of_memory", 137),
        }
        assert (found["counting"].stdout, found["counting"].stderr) == (counting.stdout, counting.stderr)
        assert found["bursting"].stdout == bursting.stdout
        assert found["timed out"].stdout == b"before\n"
        assert {output.dropped for output in found.values()} == {0}
        # Once more, from the journal and the logs alone.
        await asyncio.to_thread(down, fleet, 0)
        again = {name: await client.output(sandbox_id, exec_id) for name, exec_id in ids.items()}
        assert again == found
        await client.delete(sandbox_id)


async def test_what_commands_left_running_is_in_nobodys_way(fleet: planes.Fleet) -> None:
    """After a restart commands start where earlier ones have ended and left processes behind, and those go on."""
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(**SMALL))["sandbox_id"]
        command = "(while :; do date +%s%N > /tmp/alive; sleep 0.05; done) & echo started"
        for _ in range(3):
            assert (await client.run(sandbox_id, command))["output"] == "started\n"
        for _ in range(2):
            await asyncio.to_thread(down, fleet, 0)
            for number in range(4):
                said = await client.run(sandbox_id, ["echo", str(number)])
                assert (said["output"], said["exit_code"]) == (f"{number}\n", 0)
        before = await client.read(sandbox_id, "/tmp/alive")

        async def goes_on() -> bool:
            return await client.read(sandbox_id, "/tmp/alive") not in {before, b""}

        await clients.until(goes_on, "news of a process that was left behind")
        await client.delete(sandbox_id)


async def test_leases_end_while_no_worker_runs(fleet: planes.Fleet) -> None:
    """To the second: those of the create, those renewed, and those a second spawner took over. Later it is told as
    what it was.
    """
    async with clients.client(fleet.worker.url) as client:
        created = (await client.create(**SMALL, ttl_seconds=600))["sandbox_id"]
        await asyncio.to_thread(fleet.kill_spawner)
        renewed = (await client.create(**SMALL, ttl_seconds=1000))["sandbox_id"]
        kept = (await client.create(**SMALL, ttl_seconds=600))["sandbox_id"]
        due = {}
        for sandbox_id, seconds in ((created, 2), (renewed, 3)):
            path = f"/sandboxes/{sandbox_id}/lease"
            await client.call("PATCH", path, 200, params={"ttl_seconds": seconds})
            due[sandbox_id] = time.time() + seconds
        handed_over = (await client.create(**SMALL, ttl_seconds=4))["sandbox_id"]
        due[handed_over] = time.time() + 4
        await asyncio.to_thread(fleet.kill_spawner)
        await client.call("DELETE", f"/sandboxes/{kept}", 204)  # by the new spawner: it has taken over
        fleet.worker.kill()
        ends = await asyncio.to_thread(_watch, fleet, due)
        assert {sandbox_id: abs(ends[sandbox_id] - due[sandbox_id]) < 1 for sandbox_id in due} == dict.fromkeys(
            due, True
        )
        await asyncio.to_thread(fleet.ensure)
        found = {sandbox_id: await client.end(sandbox_id) for sandbox_id in due}
        assert found == dict.fromkeys(due, ("stopped", "expired"))


def _watch(fleet: planes.Fleet, due: dict[str, float]) -> dict[str, float]:
    """Return when the control groups of each were gone."""
    ends: dict[str, float] = {}
    while len(ends) < len(due) and time.time() < max(due.values()) + 5:
        left = {path.name for path in fleet.sandbox_groups()}
        ends |= {sandbox_id: time.time() for sandbox_id in due if sandbox_id not in left and sandbox_id not in ends}
        time.sleep(0.01)
    return ends


async def test_a_worker_that_was_suspended_catches_up(fleet: planes.Fleet, scale: int) -> None:
    """Leases end while it stands still, more of them than it can be told of; then it knows each end and its reason."""
    async with clients.client(fleet.worker.url) as client:
        todo = iter(range(SUSPENDED * scale))
        made: list[str] = []

        async def create() -> None:
            for _ in todo:
                made.append((await client.create(**SMALL, cpu=0.1, ttl_seconds=4))["sandbox_id"])  # noqa: PERF401

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(create())
        kept = (await client.create(**SMALL))["sandbox_id"]
        exec_id = await client.start(kept, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done")
        os.kill(fleet.worker.pid, signal.SIGSTOP)
        try:
            planes.until(lambda: not _names(fleet) & set(made), "the end of all leases", facts=fleet.remains)
        finally:
            os.kill(fleet.worker.pid, signal.SIGCONT)

        async def known() -> bool:
            return await client.live() == {kept}

        await clients.until(known, "knowledge of the ends")
        assert {await client.end(one) for one in made} == {("stopped", "expired")}
        assert (await client.output(kept, exec_id)).stdout == b"1\n2\n3\n4\n5\n6\n7\n8\n"
        await client.delete(kept)


async def test_without_worker_and_spawner_there_is_no_sandbox(fleet: planes.Fleet) -> None:
    """Killed together they take everything with them: no process and no mount is left even before a worker runs again,
    and no control group and no disk image after. Sandboxes and commands are told to be lost; what had ended before
    keeps its reason.
    """
    wanted: list[dict[str, object]] = [{}, {"disk_kind": "disk", "disk_mib": 16}]
    async with clients.client(fleet.worker.url) as client:
        lost = [
            (await client.create(**SMALL, **more))["sandbox_id"] for more in wanted[: 1 if disks.missing() else None]
        ]
        running = [await client.start(one, "echo before; setsid sleep 1000 & sleep 1000") for one in lost]
        for sandbox_id, exec_id in zip(lost, running, strict=True):
            await _said(client, sandbox_id, exec_id)
        deleted = (await client.create(**SMALL))["sandbox_id"]
        await client.delete(deleted)
        await asyncio.sleep(0.2)  # the journal may lose what is younger than its batch
        fleet.kill_both()
        planes.until(lambda: fleet.processes() == [], "the end of every process", facts=fleet.processes)
        assert censuses.host(fleet) == []
        await asyncio.to_thread(fleet.ensure)
        assert (fleet.sandbox_groups(), fleet.images(), censuses.host(fleet)) == ([], [], [])
        assert {await client.end(one) for one in lost} == {("stopped", "lost")}
        assert await client.end(deleted) == ("stopped", "deleted")
        ends = [(await client.output(*one)).ended for one in zip(lost, running, strict=True)]
        assert ends == [("lost", None) for _ in lost]
        assert await client.live() == set()


async def test_what_lost_commands_wrote_can_be_read(fleet: planes.Fleet) -> None:
    """What was in the log when worker and sandbox died together is still told."""
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(**SMALL))["sandbox_id"]
        exec_id = await client.start(sandbox_id, "echo before; sleep 1000")
        await _said(client, sandbox_id, exec_id)
        await asyncio.sleep(0.2)  # the journal may lose what is younger than its batch
        fleet.kill_both()
        await asyncio.to_thread(fleet.ensure)
        for _ in range(2):
            output = await client.output(sandbox_id, exec_id)
            assert (output.ended, output.stdout) == (("lost", None), b"before\n")
            await asyncio.to_thread(down, fleet, 0)


async def _said(client: clients.Client, sandbox_id: str, exec_id: str) -> None:
    """Return when a command has written something."""

    async def said() -> bool:
        return bool((await client.exec(sandbox_id, exec_id))["stdout"])

    await clients.until(said, "output")


async def test_the_control_plane_knows_its_worker_at_once(fleet: planes.Fleet) -> None:
    """Started again it sends creates and everything else on, without waiting for a heartbeat, which is half a minute
    away; the worker and its sandboxes do not notice.
    """
    async with clients.client(fleet.control.url) as client, clients.client(fleet.worker.url) as worker:
        await client.call("POST", "/sandboxes", 201, json=SMALL)  # so it is registered
        sandbox_id = (await client.create(**SMALL))["sandbox_id"]
        exec_id = await worker.start(sandbox_id, "sleep 0.5; echo done")
        fleet.control.kill()
        assert (await worker.run(sandbox_id, "echo meanwhile"))["output"] == "meanwhile\n"
        fleet.control.start()
        first = await client.http.get(f"/sandboxes/{sandbox_id}", follow_redirects=False)
        assert first.status_code == 307
        created = await client.http.post("/sandboxes", json=SMALL, follow_redirects=False)
        assert created.status_code == 307
        assert (await client.end(sandbox_id)) == ("running", None)
        assert (await client.output(sandbox_id, exec_id)).stdout == b"done\n"
        for one in await worker.live():
            await client.delete(one)


async def test_a_token_is_used_up_for_good() -> None:
    """A `jti` that made a sandbox makes none after the worker was killed, not even where the kill came right after the
    answer, and the sandbox was dead before anybody could be asked; nor after the control plane was killed.
    """
    used = [tokens.client(planes.SECRET) for _ in range(3)]
    with planes.lent(secret=planes.SECRET, control=True) as fleet:
        async with clients.client(fleet.worker.url) as worker, clients.client(fleet.control.url) as control:
            await _create(worker, used[0], 201)
            await _create(worker, used[0], 401)
            await _create(control, used[1], 201)
            await _create(worker, used[2], 201, ttl_seconds=1)
            fleet.worker.kill()
            fleet.control.kill()
            planes.until(lambda: len(_names(fleet)) == 2, "the end of the third", facts=lambda: _names(fleet))
            await asyncio.to_thread(fleet.ensure)
            for token in used:
                await _create(worker, token, 401)
                await _create(control, token, 401)
            assert len(_names(fleet)) == 2


async def _create(client: clients.Client, token: str, expected: int, **more: object) -> None:
    """Create with a token; a refusal is for its having been used before."""
    headers = {"authorization": f"Bearer {token}"}
    answer = await client.call("POST", "/sandboxes", expected, json={**SMALL, **more}, headers=headers)
    if expected == 401:
        assert answer.json()["error"]["reason"] == "replayed"


def _names(fleet: planes.Fleet) -> set[str]:
    return {path.name for path in fleet.sandbox_groups() if path.name.startswith("sbx_")}

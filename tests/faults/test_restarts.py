"""What a worker, or a control plane, finds again after it was killed."""

from __future__ import annotations

import asyncio
import os
import time

from tests.faults import clients, planes, storms, tokens

SMALL = {"memory_mib": 64}
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


async def test_a_token_is_used_up_for_good(seed: int) -> None:
    """A `jti` that made a sandbox makes none after the worker was killed, not even where the kill came right after the
    answer, and the sandbox was dead before anybody could be asked; nor after the control plane was killed.
    """
    with planes.lent(secret=planes.SECRET, control=True) as fleet:
        used = [tokens.client(planes.SECRET) for _ in range(3)]
        async with clients.client(fleet.worker.url) as client:

            async def create(token: str, expected: int, ttl: int = 600) -> None:
                headers = {"authorization": f"Bearer {token}"}
                body = {**SMALL, "ttl_seconds": ttl}
                answer = await client.call("POST", "/sandboxes", expected, json=body, headers=headers)
                if expected == 401:
                    assert answer.json()["error"]["reason"] == "replayed"

            await create(used[0], 201)
            await create(used[0], 401)
            async with clients.client(fleet.control.url) as control:
                headers = {"authorization": f"Bearer {used[1]}"}
                made = await control.http.post("/sandboxes", json=SMALL, headers=headers)
                assert made.status_code == 201, made.text
            await create(used[2], 201, ttl=1)
            os.kill(fleet.worker.pid, 9)
            fleet.worker.kill()
            fleet.control.kill()
            planes.until(lambda: len(_names(fleet)) == 2, "the end of the third", facts=lambda: _names(fleet))
            await asyncio.to_thread(fleet.ensure)
            for token in used:
                await create(token, 401)
                async with clients.client(fleet.control.url) as control:
                    headers = {"authorization": f"Bearer {token}"}
                    again = await control.http.post("/sandboxes", json=SMALL, headers=headers)
                    assert again.status_code == 401, again.text
            assert len(_names(fleet)) == 2


def _names(fleet: planes.Fleet) -> set[str]:
    return {path.name for path in fleet.sandbox_groups() if path.name.startswith("sbx_")}

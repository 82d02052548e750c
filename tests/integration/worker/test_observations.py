"""Looking at sandboxes through a whole worker: idle ends, events, metrics and logs, over a restart too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fakes import runtimes, workers
from traforo.api import schemas
from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker import processes
from traforo.worker.sandboxes import leases


class Images(workers.FakeImages):
    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def collect(self, in_use: object) -> list[str]:
        return []


class Bench:
    """Starts workers over one spawner and one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spawner = runtimes.FakeSpawner()

    @contextlib.asynccontextmanager
    async def running(self, runtime: Any = None, **values: Any) -> AsyncIterator[httpx2.AsyncClient]:
        settings = settings_worker.WorkerSettings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "state_dir": self.directory / "state",
                "run_dir": self.directory / "run",
                "total_memory_mib": 4096,
                "stop_policy": "keep",
                **values,
            }
        )
        found = {"container": runtime or runtimes.FakeRuntime(self.spawner)}
        async with (
            processes.running(settings, runtimes=found, images=Images()) as server,
            httpx2.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            yield client


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path)
    yield found
    await found.spawner.close()


async def create(client: httpx2.AsyncClient, **body: Any) -> str:
    answer = await client.post("/sandboxes", json=body)
    assert answer.status_code == 201, answer.text
    return f"/sandboxes/{answer.json()['sandbox_id']}"


async def events(client: httpx2.AsyncClient, url: str, cursor: int = 0) -> list[dict[str, Any]]:
    """Read every event, until one says that it is dead."""
    found: list[dict[str, Any]] = []
    while True:
        page = (await client.get(f"{url}/events?wait=20&cursor={cursor}")).json()
        found += page["events"]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow idle limits that nobody wants to wait for in earnest."""
    monkeypatch.setattr(leases, "MIN_IDLE", 0.05)


@pytest.mark.usefixtures("quick")
async def test_a_command_that_runs_is_use_and_one_in_the_background_is_none(bench: Bench) -> None:
    """Without any request; who waits for events or reads logs does not count."""
    async with bench.running() as client:
        used, unused = await create(client), await create(client)
        await client.post(f"{used}/exec", json={"command": ["sleep", "100"]})
        await client.post(f"{unused}/exec", json={"command": ["sleep", "100"], "background": True})
        for url in (used, unused):
            assert (await client.patch(f"{url}/lease?idle_seconds=0.2")).status_code == 200
        ended = await events(client, unused)
        assert ended[-1]["type"] in {"stopped", "exec_ended"}
        assert [one["facts"] for one in ended if one["type"] == "stopped"] == [{"reason": "idle"}]
        shown = (await client.get(unused)).json()
        assert (shown["state"], shown["reason"], shown["idle_at"]) == ("stopped", "idle", None)
        held = (await client.get(used)).json()
        assert (held["state"], held["idle_at"], held["idle_seconds"]) == ("running", None, 0.2)
        assert (await client.delete(used)).status_code == 204


@pytest.mark.usefixtures("quick")
async def test_a_restart_keeps_the_limit_and_the_hold(bench: Bench) -> None:
    """The next worker knows which command runs in the foreground, and ends the sandbox when it is over."""
    async with bench.running() as client:
        url = await create(client)
        command = "until [ -e go ]; do sleep 0.01; done"
        await client.post(f"{url}/exec", json={"command": command, "cwd": "/tmp"})
        await client.patch(f"{url}/lease?idle_seconds=0.2")
    async with bench.running() as client:
        assert (await client.get(url)).json()["idle_at"] is None
        assert (await client.put(f"{url}/files?path=/tmp/go", content=b"")).status_code == 200
        found = await events(client, url)
    kinds = [one["type"] for one in found if one["type"] != "exec_ended"]
    assert kinds == ["created", "ready", "exec_started", "lease_renewed", "adopted", "stopping", "stopped"]
    assert [one["cursor"] for one in found] == list(range(len(found)))
    assert found[-1]["facts"] == {"reason": "idle"}


async def test_logs_of_an_ended_sandbox_after_a_restart(bench: Bench) -> None:
    """The same entries under the same cursors, for as long as it can be read; following ends at once."""
    async with bench.running(stop_policy="drain") as client:
        url = await create(client)
        for word in ("one", "two"):
            answer = await client.post(f"{url}/exec", json={"command": f"echo {word}", "wait": True})
            assert answer.status_code == 200
        await client.delete(url)
        before = schemas.LogPage.model_validate_json((await client.get(f"{url}/logs")).content)
        assert [one.data for one in before.entries if one.type == "stdout"] == ["one\n", "two\n"]
        assert before.has_more is False
    async with bench.running() as client:
        after = schemas.LogPage.model_validate_json((await client.get(f"{url}/logs")).content)
        assert after == before
        middle = before.entries[3].cursor
        rest = schemas.LogPage.model_validate_json((await client.get(f"{url}/logs?cursor={middle}")).content)
        assert rest.entries == before.entries[4:]
        lines = (await client.get(f"{url}/logs?follow=true")).text.splitlines()
        assert [schemas.LogEntry.model_validate_json(line) for line in lines] == before.entries


async def test_following_over_a_socket(bench: Bench) -> None:
    """One entry a line while it happens, to the end of the sandbox."""
    async with bench.running() as client:
        url = await create(client)
        seen: list[dict[str, Any]] = []
        async with client.stream("GET", f"{url}/logs?follow=true") as stream:
            assert stream.headers["content-type"] == "application/x-ndjson"
            async for line in stream.aiter_lines():
                seen.append(json.loads(line))
                told = json.loads(seen[-1]["data"]) if seen[-1]["type"] == "event" else {}
                if told.get("type") == "ready":
                    await client.post(f"{url}/exec", json={"command": "echo hello; echo oh >&2"})
                elif told.get("type") == "exec_ended":
                    await client.delete(url)
        assert [(one["type"], one["data"]) for one in seen if one["type"] != "event"] == [
            ("stdout", "hello\n"),
            ("stderr", "oh\n"),
        ]
        assert json.loads(seen[-1]["data"])["type"] == "stopped"


async def test_a_worker_that_stops_lets_go_of_its_readers(bench: Bench) -> None:
    """Who follows a sandbox that goes on is not waited for."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(bench.running())
        url = await create(client)
        stream = await client.send(client.build_request("GET", f"{url}/logs?follow=true"), stream=True)
        lines = stream.aiter_lines()
        assert json.loads(await anext(lines))["type"] == "event"
        await stream.aclose()


class Unlimited(runtimes.FakeRuntime):
    """A runtime of a host where no control groups were delegated."""

    limits_enforced = frozenset({"disk"})


async def test_limits_that_are_not_enforced_are_told(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """In each answer and in the log; a measurement shows no limit that is none."""
    async with bench.running(Unlimited(bench.spawner), require_limits=False) as client:
        answer = (await client.post("/sandboxes")).json()
        assert answer["limits_enforced"] == ["disk"]
        now = (await client.get(f"/sandboxes/{answer['sandbox_id']}/metrics")).json()["now"]
        assert (now["memory_limit_bytes"], now["pids_limit"]) == (None, None)
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "limits_not_enforced" in line]
    assert [(one["limits"], one["level"]) for one in logged] == [("cpu, memory, pids", "warning")]


async def test_log_lines_name_the_exec(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """That of the request which made it too: so what somebody asked for and what came of it are one search."""
    async with bench.running() as client:
        sandbox = f"/sandboxes/{(await client.post('/sandboxes')).json()['sandbox_id']}"
        for path, body in (("exec", {"command": "true"}), ("exec/code", {"code": "1", "runtime": "bash"})):
            exec_id = (await client.post(f"{sandbox}/{path}", json={**body, "wait": True})).json()["exec_id"]
            await client.get(f"{sandbox}/exec/{exec_id}")
            lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if exec_id in line]
            assert [(one["method"], one["exec_id"]) for one in lines if one["event"] == "request"] == [
                ("POST", exec_id),
                ("GET", exec_id),
            ]


async def test_limits_that_are_required(bench: Bench) -> None:
    """A worker that cannot enforce them does not start."""
    with pytest.raises(errors.StartFailed, match="cpu, memory, pids") as caught:
        async with bench.running(Unlimited(bench.spawner), require_limits=True):
            pass
    assert caught.value.fields["stage"] == "limits"

"""A whole worker over real sockets and a fake runtime: from the settings to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

import httpx2
import prometheus_client
import pytest

from tests.fakes import runtimes, workers
from traforo.api import servers
from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.telemetry import metrics
from traforo.worker import chores, drivers, processes
from traforo.worker.images import stores
from traforo.worker.runtimes import contract

NEVER = {"worker_warm_hit_total"}
"""Declared for pools of sandboxes that wait ahead of demand, which there are none of yet."""


class Images(workers.FakeImages):
    """An image store that remembers what it was asked."""

    def __init__(self) -> None:
        self.resolved: list[str] = []
        self.in_use: list[list[str]] = []
        self.refused: set[str] = set()
        self.failure: errors.TraforoError | None = None

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def resolve(self, reference: str) -> contract.Rootfs:
        self.resolved.append(reference)
        if reference in self.refused:
            raise errors.NotFound("no such image", kind="image", id=reference)
        return await super().resolve(reference)

    async def collect(self, in_use: Collection[str]) -> list[str]:
        self.in_use.append(list(in_use))
        if self.failure is not None:
            raise self.failure
        return ["old"]


class Bench:
    """Starts workers over one spawner and one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spawner = runtimes.FakeSpawner()
        self.images = Images()

    def settings(self, **values: Any) -> settings_worker.WorkerSettings:
        return settings_worker.WorkerSettings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "state_dir": self.directory / "state",
                "run_dir": self.directory / "run",
                "hostname": "here",
                "total_memory_mib": 4096,
                **values,
            }
        )

    @contextlib.asynccontextmanager
    async def running(self, **values: Any) -> AsyncIterator[httpx2.AsyncClient]:
        """Run a worker, and give a client of it."""
        runtime = runtimes.FakeRuntime(self.spawner)
        async with (
            processes.running(self.settings(**values), runtimes={"container": runtime}, images=self.images) as server,
            httpx2.AsyncClient(base_url=server.url, timeout=20) as client,
        ):
            yield client


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path)
    yield found
    await found.spawner.close()


async def create(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/sandboxes", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def tunnel(client: httpx2.AsyncClient, path: str, token: str) -> None:
    """Open a plain connection through a port, and close it."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    writer.write(f"{head}Connection: Upgrade\r\nUpgrade: traforo-tcp\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
    writer.close()
    await writer.wait_closed()


async def test_a_worker_from_end_to_end(bench: Bench) -> None:
    """Create, run, write, read, delete over a real socket; the connect URL is that of the bound port."""
    async with bench.running() as client:
        made = await create(client)
        assert made["connect_url"] == str(client.base_url).rstrip("/")
        url = f"/sandboxes/{made['sandbox_id']}"
        done = (await client.post(f"{url}/exec", json={"command": "echo out; exit 3", "wait": True})).json()
        assert (done["stdout"], done["exit_code"]) == ("out\n", 3)
        written = await client.put(f"{url}/files?path=/tmp/f", content=b"data")
        assert written.status_code == 200, written.text
        assert (await client.get(f"{url}/files?path=/tmp/f")).content == b"data"
        assert (await client.delete(url)).status_code == 204
        for method, path in (("POST", "exec"), ("PUT", "files?path=/tmp/f"), ("GET", "files/list?path=/")):
            answer = await client.request(method, f"{url}/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert len((await client.get(f"{url}/exec")).json()["execs"]) == 1
        document = (await client.get("/openapi.json")).json()
        assert {"/sandboxes", "/sandboxes/{sandbox_id}/lease", "/sandboxes/{sandbox_id}/exec"} <= set(document["paths"])


async def test_every_metric_is_updated(bench: Bench) -> None:
    """Whatever is declared is told by real requests: no series that stays at nothing for ever."""
    async with bench.running(pre_pull={"images": ["missing"]}) as client:
        made = await create(client)
        await client.post(f"/sandboxes/{made['sandbox_id']}/exec", json={"wait": True})
        await workers.until(lambda: "missing" in bench.images.resolved)
        text = (await client.get("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert (values["worker_sandboxes_live"], values["worker_memory_total_mib"]) == ("1.0", "4096.0")
    assert values["worker_memory_allocated_mib"] == f"{float(made['memory_mib'])}"
    assert values["worker_cpu_allocated_cores"] == "1.0"
    assert values['worker_sandbox_first_exec_tti_seconds_count{start_type="cold"}'] == "1.0"
    assert values['worker_warmup_failures_total{reason="not_found"}'] == "1.0"


async def test_no_metric_is_declared_in_vain(tmp_path: Path) -> None:
    """Real requests touch every one of them, those for what does not exist yet apart."""
    seen: list[metrics.WorkerMetrics] = []
    real = metrics.WorkerMetrics

    def remember(registry: prometheus_client.CollectorRegistry) -> metrics.WorkerMetrics:
        seen.append(real(registry))
        return seen[-1]

    bench = Bench(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traforo.telemetry.metrics.WorkerMetrics", remember)
        auth = {"jwt_secret": workers.SECRET}
        async with bench.running(auth=auth, pre_pull={"images": ["missing"]}) as client:
            token = workers.sign(bench.spawner.clock.now())
            client.headers["authorization"] = f"Bearer {token}"
            made = await create(client)
            await client.post(f"/sandboxes/{made['sandbox_id']}/exec", json={"wait": True})
            assert (await client.post("/sandboxes")).status_code == 401
            await tunnel(client, f"/sandboxes/{made['sandbox_id']}/proxy/{client.base_url.port}/", token)
            await workers.until(lambda: "missing" in bench.images.resolved)
    assert set(seen[0].untouched()) <= NEVER


async def test_draining_ends_the_sandboxes_and_keeping_does_not(bench: Bench) -> None:
    """The next worker serves what was kept, running execs and their output included."""
    async with bench.running(stop_policy="keep") as client:
        made = await create(client)
        url = f"/sandboxes/{made['sandbox_id']}"
        command = "echo one; until [ -e go ]; do sleep 0.01; done; echo two; exit 4"
        started = (await client.post(f"{url}/exec", json={"command": command, "cwd": "/tmp"})).json()
        frames = await client.get(f"{started['frames_url']}?wait=20")
        assert [frame["data"] for frame in frames.json()["frames"]] == ["one\n"]
    assert bench.spawner.live == [made["sandbox_id"]]
    async with bench.running(stop_policy="drain") as client:
        assert (await client.get(url)).json()["state"] == "running"
        await client.put(f"{url}/files?path=/tmp/go", content=b"")
        done: dict[str, Any] = {}
        for _ in range(1000):
            done = (await client.get(started["poll_url"])).json()
            if done["status"] == "exited":
                break
            await asyncio.sleep(0.01)
        assert (done["stdout"], done["exit_code"]) == ("one\ntwo\n", 4)
    assert bench.spawner.live == []
    async with bench.running() as client:
        found = (await client.get(url)).json()
        assert (found["state"], found["reason"]) == ("stopped", "worker_stopped")
        assert (await client.get(started["poll_url"])).json()["stdout"] == "one\ntwo\n"


async def test_a_worker_that_cannot_serve_ends_nothing(bench: Bench) -> None:
    """Its port is taken: the sandboxes that it had adopted live on, whatever the policy."""
    async with bench.running(stop_policy="keep") as client:
        made = await create(client)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(errors.InvalidRequest):
            async with bench.running(listen=f"127.0.0.1:{taken.getsockname()[1]}"):
                raise AssertionError("it served on a port that was taken")
    assert bench.spawner.live == [made["sandbox_id"]]


async def test_a_directory_is_one_workers(bench: Bench) -> None:
    """A second worker over the same state would take the sandboxes of the first: it is refused, and harms nobody."""
    async with bench.running() as client:
        made = await create(client)
        with pytest.raises(errors.Conflict, match="another worker"):
            async with bench.running():
                raise AssertionError("two workers share a directory")
        assert (await client.get(f"/sandboxes/{made['sandbox_id']}")).json()["state"] == "running"


async def test_a_directory_that_cannot_be_is_told(bench: Bench) -> None:
    """With the setting to change."""
    (bench.directory / "state").write_text("a file")
    with pytest.raises(errors.Internal) as caught:
        async with bench.running():
            raise AssertionError("it served without a directory")
    assert "TRAFORO_WORKER_STATE_DIR" in str(caught.value.hint)


async def test_a_client_that_hangs_up_leaks_nothing(bench: Bench) -> None:
    """Its connection is cut in the middle of the create: the sandbox comes up, is listed, and can be deleted."""
    async with bench.running() as client:
        bench.spawner.create_gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"POST /sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await workers.until(lambda: bench.spawner.creates)
        writer.close()
        await writer.wait_closed()
        bench.spawner.create_gate.set()
        await workers.until(lambda: bench.spawner.live)
        (found,) = (await client.get("/sandboxes?state=running")).json()["sandboxes"]
        assert (await client.delete(f"/sandboxes/{found['sandbox_id']}")).status_code == 204
        assert bench.spawner.live == []


async def test_the_control_plane_is_told(bench: Bench) -> None:
    """Registered with what is true, and taken back at the end; away or not, the worker serves."""
    calls: list[tuple[str, dict[str, Any]]] = []

    async def control(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        body = (await receive()).get("body", b"")
        calls.append((f"{scope['method']} {scope['path']}", httpx2.Response(200, content=body or b"{}").json()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with servers.serve(control, "127.0.0.1:0") as server:
        async with bench.running(control_url=server.url, hardware_sku="gpu-1") as client:
            await _eventually(lambda: bool(calls))
            await create(client)
        (first, facts), *_, (last, _) = calls
        assert first == "PUT /internal/workers/worker_local/registration"
        assert last == "DELETE /internal/workers/worker_local/registration"
        assert facts == {
            "hostname": "here",
            "base_url": str(client.base_url).rstrip("/"),
            "hardware_sku": "gpu-1",
            "virtualizations": ["container"],
            "total_cores": facts["total_cores"],
            "total_memory_mib": 4096,
            "max_live_sandboxes": 1024,
            "live_sandboxes": 0,
            "images": [],
        }
    async with bench.running(control_url=server.url) as client:  # nobody is there any more
        await create(client)


async def test_images_are_tried_before_demand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`host` and the configured ones are made ready, the script runs in each of the latter and leaves nothing."""
    tried = bench.directory / "tried"
    pre_pull = {"images": ["one", "two"], "warmup_script": f"echo $IMAGE >> {tried}; test $IMAGE = one"}
    async with bench.running(pre_pull=pre_pull) as client:
        await _eventually(lambda: bench.spawner.creates == 2 and bench.spawner.live == [])
        text = (await client.get("/metrics")).text
    assert tried.read_text().split() == ["one", "two"]
    assert bench.images.resolved[:3] == ["host", "host", "one"]
    assert 'worker_warmup_failures_total{reason="start_failed"} 1.0' in text


async def test_the_default_image_is_ready_before_anybody_asks(bench: Bench) -> None:
    """The first create is no slower than the second; a host that has no image serves all the same, and says so."""
    async with bench.running() as client:
        assert bench.images.resolved[0] == "host"
    bench.images.refused = {"host"}
    async with bench.running() as client:
        await _eventually(lambda: bench.images.resolved[-2:] == ["host", "host"])
        assert (await client.post("/sandboxes")).status_code == 404
        assert 'worker_warmup_failures_total{reason="not_found"} 1.0' in (await client.get("/metrics")).text


async def test_old_images_are_thrown_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything that live sandboxes have mounted named; a store that fails is asked again."""
    monkeypatch.setattr(chores, "COLLECT_SECONDS", 0.01)
    async with bench.running() as client:
        await create(client)
        bench.images.in_use.clear()
        await _eventually(lambda: bool(bench.images.in_use))
        assert bench.images.in_use[0] == ["/"]
        bench.images.failure = errors.Internal("the disk is broken")
        bench.images.in_use.clear()
        await _eventually(lambda: len(bench.images.in_use) > 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """`serve` returns when everything is put away; both signals are the process's own again."""
    runtime = runtimes.FakeRuntime(bench.spawner)
    monkeypatch.setattr(drivers, "make", lambda _: {"container": runtime})
    monkeypatch.setattr(stores, "ImageStore", lambda *_: bench.images)
    settings = bench.settings(listen=f"127.0.0.1:{_free_port()}")
    serving = asyncio.create_task(processes.serve(settings))
    async with httpx2.AsyncClient(base_url=settings.base_url) as client:
        for _ in range(1000):
            with contextlib.suppress(httpx2.ConnectError):
                if (await client.get("/healthz")).status_code == 200:
                    break
            await asyncio.sleep(0.01)
        await create(client)
    os.kill(os.getpid(), number)
    await serving
    assert bench.spawner.live == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_unknown_virtualization_is_refused(tmp_path: Path) -> None:
    """Before anything is started, with those that there are."""
    settings = settings_worker.WorkerSettings.model_validate({"virtualization": "paper", "state_dir": tmp_path})
    with pytest.raises(errors.InvalidRequest, match="container"):
        drivers.make(settings)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def _eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to pass")

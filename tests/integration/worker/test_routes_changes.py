"""Watches over HTTP and WebSocket, on a whole worker over real sockets and a fake runtime."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websockets

from tests.fakes import benches, runtimes
from tests.integration.worker import test_processes as workers
from tests.integration.worker import test_routes_execs as shared
from traforo.api import schemas
from traforo.worker.files import changes

bench = shared.bench
client = shared.client
read = shared.read
problem = shared.problem


async def until(client: httpx2.AsyncClient, url: str, wanted: set[tuple[str, str]]) -> int:
    """Poll until all of these changes were told; return the cursor behind them."""
    cursor = 0
    for _ in range(200):
        page = read(await client.get(f"{url}?cursor={cursor}&wait=5"), 200, schemas.WatchedChanges)
        cursor = int(page["next_cursor"])
        wanted = wanted - {(change["kind"], change["path"]) for change in page["changes"]}
        if not wanted:
            return cursor
    raise AssertionError(wanted)


async def test_polling(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """What is made, written, moved and removed below a directory is told in order, by cursor."""
    top = bench.root / "tmp" / "d"
    top.mkdir()
    started = read(
        await client.post("/files/watches", json={"path": "/tmp/d", "recursive": True}), 201, schemas.WatchStarted
    )
    assert bench.entry.activity.holds == 1
    url = f"/files/watches/{started['watch_id']}"
    empty = read(await client.get(url), 200, schemas.WatchedChanges)
    assert (empty["changes"], empty["next_cursor"], empty["overflow"], empty["ended"]) == ([], 0, False, False)
    (top / "sub").mkdir()
    (top / "f").write_bytes(b"1")
    await until(client, url, {("created", "/tmp/d/sub"), ("created", "/tmp/d/f")})
    (top / "f").rename(top / "sub" / "g")
    cursor = await until(client, url, {("created", "/tmp/d/sub/g")})
    page = read(await client.get(f"{url}?cursor=0"), 200, schemas.WatchedChanges)
    assert [change["cursor"] for change in page["changes"]] == list(range(cursor))
    moved = [change for change in page["changes"] if change["path"] == "/tmp/d/sub/g"]
    assert moved[0]["moved_from"] == "/tmp/d/f"
    assert (await client.delete(url)).status_code == 204
    assert problem(await client.get(url), 404)["kind"] == "watch"
    assert bench.entry.activity.holds == 0


async def test_end(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A watch whose directory goes away says so, and holds nothing any more."""
    top = bench.root / "tmp" / "d"
    top.mkdir()
    started = (await client.post("/files/watches", json={"path": "/tmp/d"})).json()
    top.rmdir()
    page = read(await client.get(f"/files/watches/{started['watch_id']}?wait=20"), 200, schemas.WatchedChanges)
    assert page["ended"] is True
    assert bench.entry.activity.holds == 0


async def test_limits(client: httpx2.AsyncClient, bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox has so many watches and no more; one that has ended makes room."""
    monkeypatch.setattr(changes, "PER_SANDBOX", 2)
    (bench.root / "tmp" / "d").mkdir()
    for bad, status in (("/tmp/none", 404), ("tmp", 400)):
        assert (await client.post("/files/watches", json={"path": bad})).status_code == status
    first = (await client.post("/files/watches", json={"path": "/tmp/d"})).json()["watch_id"]
    assert (await client.post("/files/watches", json={"path": "/tmp"})).status_code == 201
    assert problem(await client.post("/files/watches", json={"path": "/tmp"}), 429)["code"] == "rate_limited"
    (bench.root / "tmp" / "d").rmdir()
    assert (await client.get(f"/files/watches/{first}?wait=20")).json()["ended"] is True
    assert (await client.post("/files/watches", json={"path": "/tmp"})).status_code == 201
    await bench.files.close()
    assert bench.entry.activity.holds == 0


async def test_a_watch_that_nobody_reads(
    client: httpx2.AsyncClient, bench: benches.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after a while, so that a forgotten one does not keep a sandbox alive."""
    monkeypatch.setattr(changes, "FORGOTTEN_SECONDS", 0.01)
    started = (await client.post("/files/watches", json={"path": "/tmp"})).json()
    await benches.until(lambda: bench.entry.activity.holds == 0)
    assert problem(await client.get(f"/files/watches/{started['watch_id']}"), 404)["kind"] == "watch"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[workers.Bench]:
    found = workers.Bench(tmp_path)
    yield found
    await found.spawner.close()


def root(spawner: runtimes.FakeSpawner, sandbox_id: str) -> Path:
    return spawner.sandboxes[sandbox_id].root()


async def test_pushing(worker: workers.Bench) -> None:
    """Over a WebSocket changes come by themselves, and the end of the directory ends it."""
    async with worker.running() as client:
        sandbox_id = (await workers.create(client))["sandbox_id"]
        top = root(worker.spawner, sandbox_id) / "tmp" / "d"
        top.mkdir(parents=True)
        url = str(client.base_url).replace("http", "ws").rstrip("/") + f"/sandboxes/{sandbox_id}/files/watch"
        seen: set[tuple[str, str]] = set()
        page: dict[str, Any] = {}
        async with websockets.connect(f"{url}?path=/tmp/d&recursive=true") as socket:
            (top / "f").write_bytes(b"1")
            while ("created", "/tmp/d/f") not in seen:
                page = json.loads(await asyncio.wait_for(socket.recv(), 20))
                schemas.WatchedChanges.model_validate(page)
                seen |= {(change["kind"], change["path"]) for change in page["changes"]}
            (top / "f").unlink()
            top.rmdir()
            while not page["ended"]:
                page = json.loads(await asyncio.wait_for(socket.recv(), 20))
            await asyncio.wait_for(socket.wait_closed(), 20)
            assert socket.close_code == 1000
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with websockets.connect(f"{url}?path=/tmp/none"):
                pass
        assert caught.value.response.status_code == 404


async def test_client_that_goes_away(worker: workers.Bench) -> None:
    """Its watch ends with it."""
    async with worker.running() as client:
        sandbox_id = (await workers.create(client))["sandbox_id"]
        (root(worker.spawner, sandbox_id) / "tmp" / "d").mkdir(parents=True, exist_ok=True)
        url = str(client.base_url).replace("http", "ws").rstrip("/") + f"/sandboxes/{sandbox_id}/files/watch"
        for _ in range(changes.PER_SANDBOX + 2):
            async with websockets.connect(f"{url}?path=/tmp/d") as socket:
                await socket.send("whatever")


async def test_signed_urls(worker: workers.Bench) -> None:
    """A signed URL opens one file for one method, as much as it says, until it expires; in `dev` mode too."""
    async with worker.running() as client:
        sandbox_id = (await workers.create(client))["sandbox_id"]
        base = f"/sandboxes/{sandbox_id}/files"

        async def signed(**body: Any) -> str:
            answer = read(await client.post(f"{base}/signed-url", json=body), 200, schemas.SignedUrl)
            return str(answer["url"])

        put = await signed(path="/tmp/f", method="PUT", max_bytes=5)
        assert (await client.put(put, content=b"{}", headers={"content-type": "application/json"})).status_code == 200
        assert problem(await client.put(put, content=b"123456"), 413)["limit"] == 5
        get = await signed(path="/tmp/f")
        assert (await client.get(get)).content == b"{}"
        assert (await client.head(get)).headers["content-length"] == "2"
        assert (await client.get(get, headers={"range": "bytes=1-"})).content == b"}"
        assert problem(await client.get(put), 403)["code"] == "forbidden"
        assert problem(await client.put(get, content=b"x"), 403)["code"] == "forbidden"
        assert problem(await client.get(f"{get}&path=/etc/passwd"), 403)["code"] == "forbidden"
        assert problem(await client.get(f"{get}&user=root"), 403)["code"] == "forbidden"
        head, _, rest = get.rpartition(".")
        assert problem(await client.get(f"{head}.{rest[::-1]}"), 401)["reason"] == "signature"
        assert problem(await client.get(f"{base}?signature=nonsense"), 401)["reason"] == "malformed"
        other = (await workers.create(client))["sandbox_id"]
        assert problem(await client.get(get.replace(sandbox_id, other)), 401)["reason"] == "wrong_subject"
        name = "L3RtcC9jYWbp"
        await client.put(f"{base}?path_b64={name}", content=b"odd")
        assert (await client.get(await signed(path_b64=name))).content == b"odd"
        for body, status in (
            ({"path": "/tmp/f", "max_bytes": 3}, 400),
            ({"path": "/tmp/f", "method": "DELETE"}, 400),
            ({"path": "/tmp/f", "expires_in_seconds": 7 * 86400 + 1}, 400),
            ({"path": "/" + "x" * 3000}, 413),
        ):
            assert (await client.post(f"{base}/signed-url", json=body)).status_code == status
        await client.delete(f"/sandboxes/{sandbox_id}")
        assert (await client.get(get)).status_code == 409


async def test_signed_urls_without_another_credential(worker: workers.Bench) -> None:
    """In `prod` mode the URL is all that is needed, for its file alone; and nobody signs without a credential."""
    from tests.fakes import workers as fakes

    async with worker.running(auth={"jwt_secret": fakes.SECRET}) as client:
        import time

        bearer = {"authorization": f"Bearer {fakes.sign(time.time())}"}
        made = await client.post("/sandboxes", json={}, headers=bearer)
        base = f"/sandboxes/{made.json()['sandbox_id']}/files"
        bearer = {"authorization": f"Bearer {made.json()['token']}"}
        await client.put(f"{base}?path=/tmp/f", content=b"data", headers=bearer)
        assert (await client.get(f"{base}?path=/tmp/f")).status_code == 401
        assert (await client.post(f"{base}/signed-url", json={"path": "/tmp/f"})).status_code == 401
        signed = await client.post(f"{base}/signed-url", json={"path": "/tmp/f"}, headers=bearer)
        assert (await client.get(signed.json()["url"])).content == b"data"
        token = signed.json()["url"].partition("signature=")[2]
        stolen = {"authorization": f"Bearer {token}"}
        assert (await client.get(f"{base}?path=/tmp/f", headers=stolen)).status_code == 401
        token = made.json()["token"]
        assert (await client.get(f"{base}?signature={token}")).status_code == 401

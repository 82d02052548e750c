"""The control plane as a process, over real sockets and a real database file."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from traforo.api import answers, servers, tokens
from traforo.control import processes
from traforo.domain import clocks, errors, ids
from traforo.settings import control, groups
from traforo.store import databases

SECRET = "a secret of thirty-two bytes at least"
SANDBOX = f"sbx_{ids.worker_hash('one.example')}_01K6Z8Q4T3V7WXYZ0123456789"
REGISTRATION: dict[str, Any] = {"hostname": "one.example", "base_url": "http://127.0.0.1:9", "max_live_sandboxes": 10}
PROGRAM = """
import sys
from pathlib import Path
from traforo.api import servers
from traforo.control import processes
from traforo.settings import control
from traforo.telemetry import logs
settings = control.ControlSettings(listen="127.0.0.1:0", state_dir=Path(sys.argv[1]))
logs.configure(settings.log, "control")
servers.run(processes.serve(settings))
"""


def settings(state_dir: Path, secret: str = "", listen: str = "127.0.0.1:0") -> control.ControlSettings:
    return control.ControlSettings(
        listen=listen, state_dir=state_dir, auth=groups.AuthSettings(jwt_secret=SecretStr(secret))
    )


@asynccontextmanager
async def running(state_dir: Path, secret: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    """Run a control plane in this process and give a client of it."""
    async with (
        processes.running(settings(state_dir, secret)) as server,
        httpx2.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        yield http


class Process:
    """A control plane of its own process."""

    def __init__(self, inner: asyncio.subprocess.Process, url: str) -> None:
        self.inner = inner
        self.url = url

    async def stop(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit code and what it logged since it was ready."""
        self.inner.send_signal(number)
        _, said = await self.inner.communicate()
        return self.inner.returncode or 0, said.decode()


async def start(state_dir: Path) -> Process:
    inner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(state_dir), stderr=asyncio.subprocess.PIPE
    )
    assert inner.stderr is not None
    async for line in inner.stderr:
        event = json.loads(line)
        if event["event"] == "control plane ready":
            return Process(inner, f"http://{event['listen']}")
    raise AssertionError(f"it ended with {await inner.wait()}")


async def register(url: str, **changes: Any) -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.put("/internal/workers/w1/registration", json=REGISTRATION | changes)
        assert answer.status_code == 200


async def location(url: str) -> str | None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        return (await http.get(f"/sandboxes/{SANDBOX}/exec/")).headers.get("location")


async def test_killed_process_is_replaced_without_a_gap(tmp_path: Path) -> None:
    """What was registered is routable from the first moment of the next process, even after SIGKILL."""
    first = await start(tmp_path)
    await register(first.url)
    assert (await first.stop(signal.SIGKILL))[0] == -signal.SIGKILL
    second = await start(tmp_path)
    assert await location(second.url) == f"http://127.0.0.1:9/sandboxes/{SANDBOX}/exec/"
    assert (await second.stop(signal.SIGTERM))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """The process ends with 0 and says so, and has written the last heartbeat."""
    process = await start(tmp_path)
    await register(process.url)
    await register(process.url, live_sandboxes=7)
    code, said = await process.stop(number)
    events = [json.loads(line) for line in said.splitlines()]
    assert (code, events[-1]["event"]) == (0, "control plane stopping")
    assert [event for event in events if event["level"] in ("warning", "error")] == []
    store = await databases.open_store(databases.sqlite(tmp_path / processes.DATABASE))
    assert [member.lease.live_sandboxes for member in await store.members()] == [7]
    await store.close()


async def test_state_directory_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    async with running(tmp_path / "a" / "b"):
        mode = await asyncio.to_thread(lambda: (tmp_path / "a" / "b").stat().st_mode)
        assert mode & 0o777 == 0o700


async def test_state_directory_serves_one_at_a_time(tmp_path: Path) -> None:
    """Two processes over one file would undo each other's writes; the directory is free again when the first ends."""
    async with running(tmp_path):
        with pytest.raises(errors.Conflict, match="another control plane"):
            async with running(tmp_path):
                pass
    async with running(tmp_path) as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "file").write_text, "")
    with pytest.raises(errors.Internal) as caught:
        async with running(tmp_path / "file" / "state"):
            pass
    assert caught.value.hint == "set TRAFORO_CONTROL_STATE_DIR"


async def test_address_in_use_leaves_nothing_behind(tmp_path: Path) -> None:
    """A process that cannot listen lets go of everything it had taken."""
    async with processes.running(settings(tmp_path / "a")) as server:
        with pytest.raises(errors.InvalidRequest) as caught:
            async with processes.running(settings(tmp_path / "b", listen=str(server.address))):
                pass
        assert caught.value.fields == {"field": "listen"}
    async with running(tmp_path / "b") as http:
        assert (await http.get("/healthz")).status_code == 200


async def raw(url: str, data: bytes) -> bytes:
    """Send bytes as they are and return the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(data)
    head = b""
    while not head.endswith(b"\r\n\r\n") and (line := await reader.readline()):
        head += line
    writer.close()
    await writer.wait_closed()
    return head


@pytest.mark.parametrize(
    "target",
    [
        b"//evil.example/sandboxes/%s",
        b"/\\evil.example/sandboxes/%s",
        b"http://evil.example//sandboxes/%s",
        b"/sandboxes/%s\r\nlocation: http://evil.example/",
        b"/sandboxes/%s\nlocation: http://evil.example/",
        b"/sandboxes/%s/\x00",
        b"/sandboxes/%s/a b",
        b"/sandboxes/%s/\xff",
        b"/sandboxes%%2f%s",
        b"/sandboxes/%%2e%%2e/%s",
        b"/sandboxes/%s?a=\x01",
        b"/sandboxes/",
        b"*",
        b"sandboxes/%s",
        b"@evil.example/sandboxes/%s",
    ],
)
async def test_hostile_targets_are_redirected_nowhere(tmp_path: Path, target: bytes) -> None:
    """Through the real parser: no answer to such a request line has a location of a host that is not a worker's."""
    line = b"GET " + (target % SANDBOX.encode() if b"%s" in target else target) + b" HTTP/1.1\r\n"
    async with running(tmp_path) as http:
        await register(str(http.base_url))
        head = await raw(str(http.base_url).rstrip("/"), line + b"host: evil\r\n\r\n")
    status = head.split(b" ", 2)[1]
    found = [part for part in head.lower().split(b"\r\n") if part.startswith(b"location:")]
    if found:
        assert (status, found[0].startswith(b"location: http://127.0.0.1:9/sandboxes/sbx_"), len(found)) == (
            b"307",
            True,
            1,
        )
    else:
        assert status in (b"400", b"404")


async def test_absolute_target_is_routed_by_its_path(tmp_path: Path) -> None:
    """A proxy's form of a request names a host, which has no say in where it is sent."""
    line = f"GET http://evil.example/sandboxes/{SANDBOX}/a%2Fb/?x=%0d HTTP/1.1\r\nhost: evil\r\n\r\n".encode()
    async with running(tmp_path) as http:
        await register(str(http.base_url))
        head = await raw(str(http.base_url).rstrip("/"), line)
    assert f"\r\nlocation: http://127.0.0.1:9/sandboxes/{SANDBOX}/a%2Fb/?x=%0d\r\n".encode() in head


async def test_create_is_followed_with_its_body_and_placement(tmp_path: Path) -> None:
    """A client that follows the redirect brings the worker its body, and a placement in place of its credential."""
    seen: list[tuple[str, bytes, str | None]] = []
    clock = clocks.SystemClock()
    authority = tokens.Authority(settings(tmp_path, SECRET).auth, clock)

    async def worker(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        authorization = dict(scope["headers"]).get(b"authorization")
        seen.append((scope["query_string"].decode(), message["body"], authorization))
        await answers.json({"made": True}, 201)(scope, receive, send)

    async with servers.serve(worker, "127.0.0.1:0") as server, running(tmp_path, SECRET) as http:
        internal = {"authorization": f"Bearer {authority.sign_internal('w1')}"}
        body = REGISTRATION | {"base_url": f"http://localhost:{server.port}"}
        assert (await http.put("/internal/workers/w1/registration", json=body, headers=internal)).status_code == 200
        client = {"authorization": f"Bearer {client_token()}"}
        answer = await http.post("/sandboxes", content=b'{"cpu": 2}', headers=client, follow_redirects=True)
        assert (answer.status_code, answer.json()) == (201, {"made": True})
    [(query, received, authorization)] = seen
    placed = authority.verify_placement(dict(httpx2.QueryParams(query))["placement"], "w1")
    assert (placed.client_id, placed.jti, received, authorization) == ("alice", "jti-1", b'{"cpu": 2}', None)


def client_token() -> str:
    from joserfc import jwk, jwt

    now = clocks.SystemClock().now()
    claims = {"client_id": "alice", "iss": "traforo", "aud": "traforo-api", "iat": now, "exp": now + 60, "jti": "jti-1"}
    return jwt.encode({"alg": "HS256"}, claims, jwk.OctKey.import_key(SECRET.encode()))


async def test_used_token_stays_used_in_the_next_process(tmp_path: Path) -> None:
    """A registration that was overheard cannot be replayed after a restart."""
    authority = tokens.Authority(settings(tmp_path, SECRET).auth, clocks.SystemClock())
    headers = {"authorization": f"Bearer {authority.sign_internal('w1')}"}
    statuses = []
    for _ in range(2):
        async with running(tmp_path, SECRET) as http:
            answer = await http.put("/internal/workers/w1/registration", json=REGISTRATION, headers=headers)
            statuses.append(answer.status_code)
    assert statuses == [200, 401]


async def test_list_asks_over_the_network(tmp_path: Path) -> None:
    """One worker answers, one refuses the connection: the page says whose sandboxes may be missing."""
    asked: list[dict[bytes, bytes]] = []

    async def worker(scope: Any, receive: Any, send: Any) -> None:
        asked.append(dict(scope["headers"]))
        page = {"sandboxes": [{"sandbox_id": SANDBOX}], "next_cursor": None}
        await answers.json(page)(scope, receive, send)

    async with servers.serve(worker, "127.0.0.1:0") as server, running(tmp_path) as http:
        await register(str(http.base_url), base_url=server.url)
        gone = REGISTRATION | {"hostname": "two.example", "base_url": "http://127.0.0.1:1"}
        assert (await http.put("/internal/workers/w2/registration", json=gone)).status_code == 200
        found = (await http.get("/sandboxes", headers={"x-request-id": "r1"})).json()
    assert found == {
        "sandboxes": [{"sandbox_id": SANDBOX}],
        "next_cursor": None,
        "incomplete": True,
        "missing_workers": ["w2"],
    }
    assert [headers[b"x-request-id"] for headers in asked] == [b"r1"]


async def test_large_upload_is_answered_with_its_redirect(tmp_path: Path) -> None:
    """A body that goes to the wrong place is not refused for its length, and does not break the answer."""
    async with running(tmp_path) as http:
        await register(str(http.base_url))
        answer = await http.put(f"/sandboxes/{SANDBOX}/files?path=/a", content=b"x" * 3 * 1024 * 1024)
        assert answer.headers["location"] == f"http://127.0.0.1:9/sandboxes/{SANDBOX}/files?path=/a"
        assert (await http.get("/healthz")).status_code == 200


async def test_cancelled_write_leaves_the_store_whole(tmp_path: Path) -> None:
    """A write that is cut off at any point is either there or not, and the store goes on working."""
    from tests.contract.store.test_stores import member
    from traforo.store import contract

    store = await databases.open_store(databases.sqlite(tmp_path / "a.sqlite3"))
    batch = contract.Batch(put=[member("a"), member("b")], used_tokens=[contract.UsedToken("t", 9e9)])
    for turns in range(30):
        await store.write(contract.Batch(removed=["a", "b"]))
        task = asyncio.ensure_future(store.write(batch))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(await store.members()) in (0, 2)
    await store.write(batch)
    assert len(await store.members()) == 2
    await store.close()


async def test_database_is_one_that_other_tools_can_read(tmp_path: Path) -> None:
    """After a clean stop the file holds everything by itself: no log beside it is needed to read it."""
    async with running(tmp_path) as http:
        await register(str(http.base_url))
    assert sorted(await asyncio.to_thread(os.listdir, tmp_path)) == [processes.DATABASE, processes.LOCK]
    engine = sa.create_engine(f"sqlite:///file:{tmp_path / processes.DATABASE}?mode=ro&uri=true")
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT worker_id, base_url FROM workers").all()
    engine.dispose()
    assert [tuple(row) for row in found] == [("w1", "http://127.0.0.1:9")]

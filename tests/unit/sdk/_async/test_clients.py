import httpx2
import pytest

from tests.fakes.servers import FakeServer
from traforo.sdk import errors, pauses
from traforo.sdk._async.clients import AsyncClient
from traforo.sdk._async.sandboxes import AsyncSandbox


async def test_create_follows_the_redirect(worker: FakeServer, control: FakeServer) -> None:
    """Method and body are kept, and everything after the create goes to the worker at once."""
    async with await AsyncSandbox.create("img", cpu=0.5, env={"A": "b"}, url=control.url) as sandbox:
        await sandbox.exec(["true"])
        assert sandbox.connect_url == worker.url
    assert control.paths() == ["POST /sandboxes"]
    assert [path.split("/")[0] for path in worker.paths()] == ["POST ", "POST ", "DELETE "]
    assert worker.requests[0].json == {"image": "img", "cpu": 0.5, "env": {"A": "b"}}
    assert worker.requests[0].query == {"placement": "signed"}


async def test_a_token_stays_with_its_server(closed_worker: FakeServer, closed_control: FakeServer) -> None:
    """The client's token is not carried to another origin; there the sandbox's own token opens it."""
    async with await AsyncSandbox.create(url=closed_control.url, token="client") as sandbox:
        await sandbox.exec(["true"])
    assert closed_control.requests[0].headers["authorization"] == "Bearer client"
    assert "authorization" not in closed_worker.requests[0].headers
    assert [asked.headers["authorization"] for asked in closed_worker.requests[1:]] == ["Bearer tok"] * 2


async def test_a_function_mints_a_token_for_each_request(closed_control: FakeServer) -> None:
    """A token that is good for one create is made for that create."""
    minted = (f"token{number}" for number in range(9))
    async with AsyncClient(closed_control.url, token=lambda: next(minted)) as client:
        for _ in range(2):
            await AsyncSandbox.create(client=client)
    sent = [asked.headers["authorization"] for asked in closed_control.requests]
    assert sent == ["Bearer token0", "Bearer token1"]


async def test_the_variables_are_used(
    closed_worker: FakeServer, closed_control: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAFORO_URL and TRAFORO_TOKEN stand in for arguments."""
    monkeypatch.setenv("TRAFORO_URL", closed_control.url)
    monkeypatch.setenv("TRAFORO_TOKEN", "client")
    async with await AsyncSandbox.create():
        pass
    assert closed_control.requests[0].headers["authorization"] == "Bearer client"
    assert len(closed_worker.sandboxes) == 1


async def test_the_clients_token_opens_what_was_found_by_id(
    closed_worker: FakeServer, closed_control: FakeServer
) -> None:
    """Without the sandbox's token, the client's own is shown to the worker that the server named."""
    made = closed_worker.create({})
    found = await AsyncSandbox.connect(made.sandbox_id, url=closed_control.url, token="client")
    await found.delete()
    assert [asked.headers["authorization"] for asked in closed_worker.requests] == ["Bearer client"] * 2
    assert made.state == "stopped"


async def test_connections_are_kept(worker: FakeServer, control: FakeServer) -> None:
    """A client opens one connection to each server, however many requests follow one another."""
    ports: set[object] = set()
    worker.on_connection = ports.add
    async with AsyncClient(control.url) as client, await AsyncSandbox.create(client=client) as sandbox:
        for _ in range(5):
            await sandbox.exec(["true"])
        await AsyncSandbox.connect(sandbox.id, client=client)
    assert len(ports) == 1


async def test_a_lost_answer_to_a_create_makes_no_second_sandbox(worker: FakeServer, control: FakeServer) -> None:
    """The create is sent again with the same Idempotency-Key."""
    faults = iter(["drop-after"])
    worker.fault = lambda _: next(faults, None)
    async with await AsyncSandbox.create(url=control.url):
        assert len(worker.sandboxes) == 1
    keys = [asked.headers["idempotency-key"] for asked in worker.requests[:2]]
    assert keys[0] == keys[1]


async def test_a_lost_answer_to_an_exec_is_told(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is never run twice behind the caller's back."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        worker.fault = lambda asked: "drop" if asked.path.endswith("/exec") else None
        with pytest.raises(errors.ConnectionFailed, match="broke during POST"):
            await sandbox.exec(["true"])
    assert sum(path.startswith("POST") and path.endswith("/exec") for path in worker.paths()) == 1


async def test_what_may_happen_twice_is_asked_again(worker: FakeServer) -> None:
    """A broken connection does not disturb reads and deletes; a server that is down does."""
    sandbox = await AsyncSandbox.create(url=worker.url)
    faults = iter(["drop", None, "drop"])
    worker.fault = lambda _: next(faults, None)
    assert (await sandbox.info()).state == "running"
    await sandbox.delete()
    worker.fault = lambda _: "drop"
    with pytest.raises(errors.ConnectionFailed):
        await sandbox.info()
    await sandbox.close()


async def test_no_server_is_told_with_a_hint() -> None:
    """The words of the system, where it was looked for, and what to do."""
    with pytest.raises(
        errors.ConnectionFailed, match=r"cannot reach http://127\.0\.0\.1:1: connection refused"
    ) as caught:
        await AsyncSandbox.create(url="http://127.0.0.1:1/")
    assert "traforo up" in (caught.value.hint or "")


async def test_an_answer_that_does_not_come_is_told(worker: FakeServer) -> None:
    """The client waits for as long as it was told."""
    async with AsyncClient(worker.url, timeout=0.5) as client, await AsyncSandbox.create(client=client) as sandbox:
        worker.fault = lambda asked: "stall" if asked.method == "GET" else None
        with pytest.raises(errors.RequestTimedOut):
            await sandbox.info()


async def test_errors_of_the_server_are_raised(control: FakeServer) -> None:
    """With code, status, request id, fields and hint."""
    with pytest.raises(errors.NotFound, match="no image 'none'") as caught:
        await AsyncSandbox.create("none", url=control.url)
    error = caught.value
    assert (error.status, error.request_id, error.fields["kind"]) == (404, "01HREQUEST", "image")
    assert error.hint == "look at the list of images"


async def test_redirects_are_bounded(worker: FakeServer) -> None:
    """Servers that send a create to and fro are told, not followed for ever."""
    with FakeServer(worker) as one, FakeServer(one) as other:
        one.worker = other
        with pytest.raises(errors.BadAnswer, match="more than 5 times"):
            await AsyncSandbox.create(url=one.url)
        with pytest.raises(errors.BadAnswer, match="more than 5 times"):
            await AsyncSandbox.connect("sbx_1", url=one.url)


async def test_the_list_is_read_to_its_end(worker: FakeServer, control: FakeServer) -> None:
    """Page by page, newest first, down to the limit."""
    ids = [worker.create({}).sandbox_id for _ in range(5)]
    worker.sandboxes[ids[0]].state = "stopped"
    assert [info.sandbox_id for info in await AsyncSandbox.list(url=control.url)] == ids[::-1]
    assert [info.sandbox_id for info in await AsyncSandbox.list(url=control.url, limit=3)] == ids[:1:-1]
    assert len(await AsyncSandbox.list(url=control.url, state="running")) == 4


async def test_an_id_cannot_change_the_request(control: FakeServer) -> None:
    """What is no id is not sent."""
    with pytest.raises(errors.MalformedId):
        await AsyncSandbox.connect("sbx_1/exec?x=", url=control.url)
    assert control.requests == []


async def test_a_client_can_be_used_again_after_close(worker: FakeServer) -> None:
    """Closing frees connections; the next request opens new ones."""
    client = AsyncClient(worker.url)
    sandbox = await AsyncSandbox.create(client=client)
    await client.close()
    assert (await sandbox.info()).sandbox_id == sandbox.id
    await client.close()


async def test_an_http_client_of_ones_own_stays_open(worker: FakeServer) -> None:
    """It is used, and not closed."""
    seen: list[str] = []

    async def look(request: httpx2.Request) -> None:
        seen.append(request.method)

    async with httpx2.AsyncClient(event_hooks={"request": [look]}) as http:
        async with AsyncClient(worker.url, http=http) as client:
            await AsyncSandbox.create(client=client)
        assert not http.is_closed
    assert seen == ["POST"]


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")


@pytest.mark.usefixtures("proxied")
async def test_proxies_of_the_environment_are_not_used(worker: FakeServer) -> None:
    """A server on loopback is reached directly."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert sandbox.id in worker.sandboxes

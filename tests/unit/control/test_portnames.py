import json
from typing import Any

import pytest

from tests.unit.control import planes
from traforo.control import portnames
from traforo.domain import ids

SANDBOX = ids.parse_sandbox_id(planes.SANDBOX)
BELOW = f"http://one.example:8081/sandboxes/{SANDBOX}/proxy/8000"
HOST = f"8000-{SANDBOX.dns}.localhost:8080"


def refused(reply: planes.Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["error"]["code"]


@pytest.mark.parametrize(
    "host", [HOST, HOST.upper(), f"8000-{SANDBOX.dns}.localhost", f"08000-{SANDBOX.dns}.localhost."]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "BREW"])
async def test_name_of_a_port_leads_to_the_worker(dev: planes.Plane, host: str, method: str) -> None:
    """In the form that the worker's registered address is enough for."""
    reply = await dev.ask(method, b"/a%2Fb/", b"c=%0d&d", headers={"host": host})
    assert (reply.status, reply.location, reply.body) == (307, BELOW + "/a%2Fb/?c=%0d&d", b"")


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs", "/sandboxes", f"/sandboxes/{SANDBOX}", "//evil.example"])
async def test_every_path_of_such_a_host_is_the_ports(dev: planes.Plane, path: str) -> None:
    """Nothing of this API is served under a name that belongs to a sandbox, nor does a path change where it leads."""
    reply = await dev.ask("GET", path.encode(), headers={"host": HOST})
    assert (reply.status, reply.location) == (307, BELOW + path)


@pytest.mark.parametrize("path", ["/", "/upload", f"/sandboxes/{SANDBOX}/files"])
async def test_any_body_is_the_ports_business(dev: planes.Plane, path: str) -> None:
    """It is not read here, so it has no limit here."""
    reply = await dev.ask("POST", path.encode(), headers={"host": HOST, "content-length": str(2**30)})
    assert (reply.status, reply.location) == (307, BELOW + path)


async def test_handshake_is_redirected(dev: planes.Plane) -> None:
    """A WebSocket's client learns the same."""
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "scheme": "ws", "path": "/ws", "raw_path": b"/ws", "query_string": b""}
    await dev.application(scope | {"headers": [(b"host", HOST.encode())]}, receive, send)
    assert (told[0]["type"], told[0]["status"]) == ("websocket.http.response.start", 307)
    assert dict(told[0]["headers"])[b"location"] == f"{BELOW}/ws".replace("http", "ws", 1).encode()


async def test_no_credential_is_looked_at(prod: planes.Plane) -> None:
    """Who may use a port is known where it is."""
    token = "traforo_traffic_token=x"
    reply = await prod.ask("GET", b"/", token.encode(), headers={"host": f"8000-{SANDBOX.dns}.ports.example"})
    assert (reply.status, reply.location) == (307, f"{BELOW}/?{token}")


async def test_name_that_no_worker_has(dev: planes.Plane) -> None:
    """The error is that of the same id in a path."""
    other = ids.parse_sandbox_id(f"sbx_{ids.worker_hash('two.example')}_01K6Z8Q4T3V7WXYZ0123456788")
    assert refused(await dev.ask("GET", b"/", headers={"host": f"1-{other.dns}.localhost"})) == (404, "not_found")
    dev.clock.move(planes.LEASE)
    assert refused(await dev.ask("GET", b"/", headers={"host": HOST})) == (503, "worker_unavailable")


async def test_id_in_a_name_that_is_none(dev: planes.Plane) -> None:
    """It has the length of one, and a digit that no id has."""
    malformed = {"host": f"8000-{'9' * 52}.localhost"}
    assert refused(await dev.ask("GET", b"/", headers=malformed)) == (400, "malformed_id")


async def test_request_for_no_path(dev: planes.Plane) -> None:
    """`OPTIONS *` is about a server, and has no place below a path."""
    assert refused(await dev.ask("OPTIONS", b"*", headers={"host": HOST})) == (400, "invalid_request")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:8080",
        SANDBOX.dns,
        f"8000-{SANDBOX.dns}",
        f"{SANDBOX.dns}.localhost",
        f"0-{SANDBOX.dns}.localhost",
        f"65536-{SANDBOX.dns}.localhost",
        f"8000-{SANDBOX.dns}.a/b",
        f"a.8000-{SANDBOX.dns}.localhost",
    ],
)
def test_other_hosts_are_not_concerned(host: str) -> None:
    """Requests for this API go on as they were."""
    assert portnames.named([(b"accept", b"*/*"), (b"host", host.encode())]) is None
    assert portnames.named([]) is None

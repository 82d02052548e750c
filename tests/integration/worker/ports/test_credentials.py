"""Who reaches a port in `prod` mode, and what its server is shown of their credentials; and the routes about ports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes import sites, workers


async def mirror(peer: sites.Peer) -> None:
    """Answer with the headers."""
    while True:
        found = await peer.message()
        body = json.dumps({"start": found.start} | sites.lower(found)).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def about(site: sites.Site, port: int, query: str = "") -> dict[str, Any]:
    answer = await site.client.get(f"/sandboxes/{site.id}/ports/{port}/url{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_credentials(prod: sites.Site) -> None:
    """Client's token, sandbox token and traffic token open it; the server sees none of them."""
    port = await prod.serve(mirror)
    traffic = (await about(prod, port))["token"]
    jwt = prod.client.headers["authorization"]
    ways: tuple[tuple[str, ...], ...] = (
        (f"Authorization: {jwt}",),
        (f"Authorization: Bearer {prod.created['token']}",),
        (f"X-Traforo-Traffic-Token: {traffic}",),
        (f"Cookie: a=b; __traforo_traffic={traffic}",),
    )
    for headers in ways:
        answer = await prod.ask(prod.get(port, "/x", *headers))
        assert answer.status == 200
        seen = json.loads(answer.body)
        assert "authorization" not in seen
        assert traffic not in str(seen)
        assert seen.get("cookie", "a=b") == "a=b"
    both = (f"X-Traforo-Traffic-Token: {traffic}", "Authorization: Basic YTpi")
    assert json.loads((await prod.ask(prod.get(port, "/", *both))).body)["authorization"] == "Basic YTpi"


async def test_a_token_in_the_url(prod: sites.Site) -> None:
    """It opens, is taken out of the URL, and comes back as a cookie for this port."""
    port = await prod.serve(mirror)
    traffic = (await about(prod, port))["token"]
    answer = await prod.ask(prod.get(port, f"/x?a=1&traforo_traffic_token={traffic}"))
    assert json.loads(answer.body)["start"] == "GET /x?a=1 HTTP/1.1"
    cookie = f"__traforo_traffic={traffic}; Path={prod.prefix(port)}; HttpOnly; SameSite=Lax"
    assert answer.get("set-cookie") == cookie
    request = f"GET /x?traforo_traffic_token={traffic} HTTP/1.1\r\nHost: {prod.host(port)}\r\n\r\n"
    assert "Path=/;" in str((await prod.ask(request.encode())).get("set-cookie"))


async def test_refusals(prod: sites.Site) -> None:
    """Without a credential 401, with another's 403, and the server hears nothing of it."""
    port = await prod.serve(mirror)
    other = workers.sign(prod.clock.now(), client_id="mallory")
    for headers, status, code in (
        ((), 401, "unauthenticated"),
        (("Authorization: Bearer x.y.z",), 401, "unauthenticated"),
        (("X-Traforo-Traffic-Token: x",), 401, "unauthenticated"),
        ((f"Authorization: Bearer {other}",), 403, "forbidden"),
    ):
        for connection in ((), ("Connection: Upgrade", "Upgrade: traforo-tcp")):
            answer = await prod.ask(prod.get(port, "/", *headers, *connection))
            assert (answer.status, answer.get("x-traforo-error")) == (status, code)
            assert json.loads(answer.body)["error"]["request_id"] == answer.get("x-request-id")
    assert (await prod.ask(prod.get(port, "/"))).get("www-authenticate") == "Bearer"
    assert prod.connections == [0]
    assert prod.count("worker_auth_failures_total", reason="missing") >= 2


async def test_public_ports(tmp_path: Path) -> None:
    """One is opened and closed again by its owner alone; other ports stay as they are; a restart changes nothing."""
    async with sites.made(tmp_path, auth={"jwt_secret": sites.SECRET}) as site:
        port, other = await site.serve(mirror), await site.serve(mirror)
        url = f"/sandboxes/{site.id}/ports/{port}"
        stranger = {"authorization": f"Bearer {workers.sign(site.clock.now(), client_id='mallory')}"}
        assert (await site.client.post(url, json={"public": True}, headers=stranger)).status_code == 403
        assert (await site.client.post(url, json={"public": True})).json() == await about(site, port)
        assert (await about(site, port))["public"]
        listed = (await site.client.get(f"/sandboxes/{site.id}/ports")).json()["ports"]
        known = {row["port"]: row for row in listed}
        assert (known[port]["public"], known[other]["public"]) == (True, False)
        seen = json.loads((await site.ask(site.get(port, "/", "Authorization: Bearer theirs"))).body)
        assert seen["authorization"] == "Bearer theirs"
        ours = f"Authorization: {site.client.headers['authorization']}"
        assert "authorization" not in json.loads((await site.ask(site.get(port, "/", ours))).body)
        assert (await site.ask(site.get(other))).status == 401
        assert (await site.client.post(url, json={"public": False})).json()["public"] is False
        assert (await site.ask(site.get(port))).status == 401


async def test_urls(site: sites.Site) -> None:
    """Both forms, with the scheme that is asked for; nothing need listen there."""
    base = f"127.0.0.1:{site.client.base_url.port}"
    assert await about(site, 8000) == {
        "sandbox_id": site.id,
        "port": 8000,
        "protocol": "http",
        "url": f"http://{base}{site.prefix(8000)}",
        "host_url": f"http://{site.host(8000)}",
        "token": None,
        "public": False,
    }
    for scheme in ("http", "https", "ws", "wss"):
        found = await about(site, 8000, f"?protocol={scheme}")
        assert (found["protocol"], found["url"].split(":")[0], found["host_url"].split(":")[0]) == (scheme,) * 3
    for bad in ("ports/0/url", "ports/x/url", "ports/65536/url", "ports/80/url?protocol=ftp"):
        assert (await site.client.get(f"/sandboxes/{site.id}/{bad}")).status_code == 400


async def test_web_pages_of_other_origins(site: sites.Site) -> None:
    """In `dev` mode they are kept from the API, not from ports; a page of a port is kept from the API as well."""
    port = await site.serve(mirror)
    origin = f"Origin: http://{site.host(port)}"
    assert (await site.ask(site.get(port, "/", origin))).status == 200
    request = f"POST /sandboxes HTTP/1.1\r\nHost: 127.0.0.1\r\n{origin}\r\nContent-Length: 2\r\n\r\n{{}}"
    assert (await site.ask(request.encode())).status == 403
    assert (await site.ask(request.replace(origin, "Origin: null").encode())).status == 403

from typing import Any

import pytest

from traforo.api import problems, routes
from traforo.domain import errors


def named(name: str) -> routes.App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError(name)

    app.__name__ = name
    return app


def declared(path: str, methods: str | None, name: str) -> routes.Declared:
    return routes.Declared(path, None if methods is None else frozenset(methods.split()), named(name))


@pytest.fixture
def table() -> routes.Table:
    return routes.Table(
        [
            declared("/sandboxes", "POST", "create"),
            declared("/sandboxes", "GET", "list"),
            declared("/sandboxes/{id}", "GET", "read"),
            declared("/sandboxes/{id}/exec/{exec_id}", "GET", "exec"),
            declared("/sandboxes/{id}/exec/code", "POST", "code"),
            declared("/sandboxes/{id}/exec", "POST", "start"),
            declared("/healthz", "GET", "health"),
        ]
    )


@pytest.mark.parametrize(
    "method, path, name, params",
    [
        ("POST", "/sandboxes", "create", {}),
        ("GET", "/sandboxes", "list", {}),
        ("GET", "/sandboxes/x", "read", {"id": "x"}),
        ("GET", "/sandboxes/x/exec/y", "exec", {"id": "x", "exec_id": "y"}),
        ("POST", "/sandboxes/x/exec/code", "code", {"id": "x"}),
        ("POST", "/sandboxes/a%2Fb/exec", "start", {"id": "a%2Fb"}),
    ],
)
def test_path_leads_to_its_route(
    table: routes.Table, method: str, path: str, name: str, params: dict[str, str]
) -> None:
    """A literal wins over a parameter."""
    app, found = table.find(method, path)
    assert (getattr(app, "__name__", ""), found) == (name, params)


@pytest.mark.parametrize(
    "path",
    ["", "/", "//", "/sandboxes/", "/sandboxes//exec", "/sandboxes/x/", "/healthz/x", "/Sandboxes", "*", "sandboxes"],
)
def test_path_that_no_route_has(table: routes.Table, path: str) -> None:
    """A parameter is never empty, and a slash too many is another path."""
    with pytest.raises(errors.NotFound, match="no such route") as caught:
        table.find("GET", path)
    assert caught.value.fields == {"kind": "route"}


def test_method_that_no_route_of_the_path_has(table: routes.Table) -> None:
    """The error lists the methods of the path; where a literal stands, a parameter's are not among them."""
    with pytest.raises(problems.MethodNotAllowed) as caught:
        table.find("PUT", "/sandboxes")
    assert caught.value.fields == {"allow": "GET, HEAD, POST"}
    with pytest.raises(problems.MethodNotAllowed) as caught:
        table.find("GET", "/sandboxes/x/exec/code")
    assert caught.value.fields == {"allow": "POST"}


@pytest.mark.parametrize(
    "method, path, name, params",
    [
        ("GET", "/sandboxes/x", "find", {"id": "x"}),
        ("PUT", "/sandboxes/x", "any", {"id": "x"}),
        ("BREW", "/sandboxes/x/a/b", "rest", {"id": "x", "rest": "a/b"}),
        ("GET", "/sandboxes/x//b", "rest", {"id": "x", "rest": "/b"}),
        ("GET", "/sandboxes/x/", "rest", {"id": "x", "rest": ""}),
        ("GET", "/sandboxes/x/known", "known", {"id": "x"}),
        ("PUT", "/sandboxes/x/known", "rest", {"id": "x", "rest": "known"}),
    ],
)
def test_rest_of_a_path(method: str, path: str, name: str, params: dict[str, str]) -> None:
    """What the control plane sends on: any method, any path below, exactly as it came."""
    table = routes.Table(
        [
            declared("/sandboxes/{id}", "GET", "find"),
            declared("/sandboxes/{id}", None, "any"),
            declared("/sandboxes/{id}/{rest:path}", None, "rest"),
            declared("/sandboxes/{id}/known", "GET", "known"),
        ]
    )
    app, found = table.find(method, path)
    assert (getattr(app, "__name__", ""), found) == (name, params)


def test_head_of_a_document(table: routes.Table) -> None:
    """What answers GET answers HEAD, where nothing is looked up by a parameter; what names HEAD is asked itself."""
    assert getattr(table.find("HEAD", "/healthz")[0], "__name__", "") == "health"
    with pytest.raises(problems.MethodNotAllowed):
        table.find("HEAD", "/sandboxes/x/exec/y")
    own = routes.Table([declared("/a", "GET", "get"), declared("/a", "HEAD", "head")])
    assert getattr(own.find("HEAD", "/a")[0], "__name__", "") == "head"


def test_first_declaration_wins() -> None:
    """Of two routes for one thing the first is kept."""
    table = routes.Table([declared("/a", "GET", "first"), declared("/a", "GET", "second")])
    assert getattr(table.find("GET", "/a")[0], "__name__", "") == "first"


def sockets_table() -> routes.Table:
    return routes.Table(
        [
            declared("/sandboxes/{id}/exec/{exec_id}", "GET", "exec"),
            routes.Declared("/sandboxes/{id}/exec/{exec_id}/ws", frozenset(), named("attach"), socket=True),
            routes.Declared("/sandboxes/{id}/exec/ws", frozenset(), named("start"), socket=True),
        ]
    )


async def test_sockets_are_found_by_path() -> None:
    """WebSockets have routes of their own; a request does not find those, nor they a request's."""
    table = sockets_table()
    for path, name in (("/sandboxes/x/exec/y/ws", "attach"), ("/sandboxes/x/exec/ws", "start")):
        app, params = table.find_socket(path)
        assert (getattr(app, "__name__", ""), params["id"]) == (name, "x")
    app, params = table.find("GET", "/sandboxes/x/exec/ws")
    assert (getattr(app, "__name__", ""), params["exec_id"]) == ("exec", "ws")
    with pytest.raises(errors.NotFound):
        table.find("GET", "/sandboxes/x/exec/y/ws")
    with pytest.raises(errors.NotFound):
        table.find_socket("/sandboxes/x/exec/y")


async def test_handshake_of_what_takes_every_method() -> None:
    """An application for every method answers a handshake too, as a refusal: so it can redirect one."""
    told: list[Any] = []

    async def redirect(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["method"]) == ("http", "GET")
        assert (await receive())["body"] == b""
        await send({"type": "http.response.start", "status": 307, "headers": [(b"location", b"/there")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        raise AssertionError("the handshake has no body")

    table = routes.Table([routes.Declared("/sandboxes/{rest:path}", None, redirect)])
    await table({"type": "websocket", "path": "/sandboxes/x/exec/y/ws"}, receive, send)
    assert [message["type"] for message in told] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert told[0]["status"] == 307

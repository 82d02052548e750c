"""From method and path to an endpoint, by counting segments: a path is compared with the few that are as long.

It knows the routes that `operations.router` makes and calls their endpoints with the request, or the WebSocket, and the
path's parameters, and nothing in between. A literal segment wins over a parameter; `{name:path}` at the end takes what
nothing else does. What answers every method of a path answers a WebSocket's handshake as well. What answers GET of a
path without parameters, a document, answers HEAD: the server leaves out the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from traforo.api import problems, sockets
from traforo.domain import errors

App = ASGIApp
"""An ASGI application; it finds the parameters of its path in `scope["path_params"]`."""
_TAIL = ":path"


@dataclass(frozen=True, slots=True)
class Declared:
    """A route as it was declared."""

    path: str
    """`/sandboxes/{sandbox_id}/exec`."""
    methods: frozenset[str] | None
    """None takes every method that no other route of the path takes."""
    app: App
    socket: bool = False
    """It is for WebSockets; then it has no methods."""


def endpoint(function: Callable[..., Awaitable[Response]]) -> App:
    """Return an application that calls an endpoint with the request and the parameters of its path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await function(Request(scope, receive, send), **scope["path_params"])
        await response(scope, receive, send)

    return app


def socket_endpoint(function: Callable[..., Awaitable[None]]) -> App:
    """Return an application that calls an endpoint with the WebSocket and the parameters of its path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await function(sockets.Socket(scope, receive, send), **scope["path_params"])

    return app


def refusal(app: App) -> App:
    """Return an application that answers a handshake as `app` answers a request without a body."""

    async def denying(scope: Scope, receive: Receive, send: Send) -> None:
        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def deny(message: Message) -> None:
            await send({**message, "type": "websocket." + message["type"]})

        del receive
        await app({**scope, "type": "http", "method": "GET"}, nothing, deny)

    return denying


@dataclass(slots=True)
class _Pattern:
    """All routes of one path."""

    segments: tuple[str | None, ...]
    """Literals, and None where a parameter is."""
    names: tuple[str, ...]
    tail: bool = False
    """Whether the last parameter takes the rest of the path."""
    apps: dict[str, App] = field(default_factory=dict)
    other: App | None = None
    """Takes the methods that have none."""
    socket: App | None = None
    """Takes WebSockets."""

    def match(self, parts: list[str]) -> dict[str, str] | None:
        """Return the parameters, None when the path is another."""
        values = []
        for segment, part in zip(self.segments[:-1] if self.tail else self.segments, parts, strict=False):
            if segment is None and part:
                values.append(part)
            elif segment != part:
                return None
        if self.tail:
            values.append("/".join(parts[len(self.segments) - 1 :]))
        return dict(zip(self.names, values, strict=True))


class Table:
    """Finds endpoints, and answers as an ASGI application."""

    def __init__(self, declared: Iterable[Declared]) -> None:
        patterns: dict[str, _Pattern] = {}
        for route in declared:
            pattern = patterns.setdefault(route.path, _pattern(route.path))
            if route.socket:
                pattern.socket = pattern.socket or route.app
            elif route.methods is None:
                pattern.other = pattern.other or route.app
            for method in route.methods or ():
                pattern.apps.setdefault(method, route.app)
        for pattern in patterns.values():
            if "GET" in pattern.apps and not pattern.names:
                pattern.apps.setdefault("HEAD", pattern.apps["GET"])
        ordered = sorted(patterns.values(), key=lambda pattern: [segment is None for segment in pattern.segments])
        self._exact: dict[int, list[_Pattern]] = {}
        self._tails = sorted((one for one in ordered if one.tail), key=lambda one: -len(one.segments))
        for pattern in ordered:
            if not pattern.tail:
                self._exact.setdefault(len(pattern.segments), []).append(pattern)

    def find(self, method: str, path: str) -> tuple[App, Mapping[str, str]]:
        """Return what answers, and the parameters of its path. Raises `NotFound`, `MethodNotAllowed`."""
        allowed: Iterable[str] = ()
        for pattern, params in self._candidates(path.split("/")):
            # A path has the methods of its best route: `code` is no id, whatever an id would take.
            app = pattern.other if allowed else pattern.apps.get(method) or pattern.other
            if app is not None:
                return app, params
            allowed = allowed or pattern.apps.keys()
        if not allowed:
            raise errors.NotFound("no such route", kind="route")
        allow = ", ".join(sorted(allowed))
        raise problems.MethodNotAllowed(f"cannot {method[:16]} here: only {allow}", allow=allow)

    def find_socket(self, path: str) -> tuple[App, Mapping[str, str]]:
        """Return what takes a WebSocket, and the parameters of its path. Raises `NotFound`."""
        for pattern, params in self._candidates(path.split("/")):
            if pattern.socket is not None:
                return pattern.socket, params
            if pattern.other is not None:
                return refusal(pattern.other), params
        raise errors.NotFound("no such route for WebSockets", kind="route")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or talk to a WebSocket."""
        if scope["type"] == "http":
            app, scope["path_params"] = self.find(scope["method"], scope["path"])
        else:
            app, scope["path_params"] = self.find_socket(scope["path"])
        await app(scope, receive, send)

    def _candidates(self, parts: list[str]) -> Iterator[tuple[_Pattern, dict[str, str]]]:
        for pattern in self._exact.get(len(parts), ()):
            params = pattern.match(parts)
            if params is not None:
                yield pattern, params
        for pattern in self._tails:
            if len(pattern.segments) <= len(parts):
                params = pattern.match(parts)
                if params is not None:
                    yield pattern, params


def _pattern(path: str) -> _Pattern:
    segments: list[str | None] = []
    names: list[str] = []
    for part in path.split("/"):
        if part.startswith("{") and part.endswith("}"):
            segments.append(None)
            names.append(part[1:-1].removesuffix(_TAIL))
        else:
            segments.append(part)
    return _Pattern(tuple(segments), tuple(names), tail=path.endswith(_TAIL + "}"))

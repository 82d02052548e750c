"""A WebSocket as a route sees it: messages in, messages out, an end with a code; and whose credential it came with.

Browsers cannot set headers on a WebSocket, so a token may come in the query or as a subprotocol; here it becomes the
header that every other request has, and the rest of the program need not know. It decides nothing about messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib import parse

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from traforo.api import bodies, problems
from traforo.domain import errors

TOKEN_PARAMETER = "access_token"  # noqa: S105 - a name
"""Name of the query parameter that may hold a token. Queries are never logged."""
TOKEN_PROTOCOL = "traforo.token."  # noqa: S105 - a name
"""Start of a subprotocol whose rest is a token."""
PROTOCOL = "traforo"
"""Subprotocol for browsers to offer beside the token, so that the answer need not repeat that."""

GONE = "traforo.gone"
"""Extension of the ASGI scope: a future that is done when the peer has gone."""
NORMAL = 1000
"""Close code: everything was said."""
MALFORMED = 1007
"""Close code: a message cannot be read."""
VIOLATION = 1008
"""Close code: a message is not allowed."""
TOO_LARGE = 1009
DEFECT = 1011
STOPPING = 1012
"""Close code: the server stops; try again."""
_MAX_PARAMETERS = 100
_OWN_CODES = 4000
"""Close codes of our own are the status of the same error over HTTP, behind this."""


class Socket:
    """One WebSocket, before and after its handshake. `receive` is for one task at a time, and so is `send`."""

    __slots__ = ("_receive", "_send", "accepted", "connection", "gone")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.connection = HTTPConnection(credentialed(scope))
        """Path, query and headers of the handshake, with the credential in `Authorization`."""
        self.gone: asyncio.Future[None] | None = scope.get("extensions", {}).get(GONE)
        """Done when the peer has gone, even while nobody receives; None where the server does not tell."""
        self.accepted = False
        self._receive = receive
        self._send = send

    async def accept(self) -> None:
        """Answer the handshake; until then errors become HTTP answers. Raises `bodies.Disconnected`."""
        await self._receive()  # the connect that the scope told of
        self.accepted = True
        await self._out({"type": "websocket.accept", "subprotocol": _subprotocol(self.connection.scope)})

    async def receive(self) -> bytes | str | None:
        """Return the next message, None when there will be no more. The peer waits until its message was taken."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        data: bytes | None = message.get("bytes")
        text: str = message.get("text") or ""
        return text if data is None else data

    async def send(self, data: bytes | str) -> None:
        """Send a message when there is room for it. Raises `bodies.Disconnected`."""
        if isinstance(data, str):
            await self._out({"type": "websocket.send", "text": data})
        else:
            await self._out({"type": "websocket.send", "bytes": data})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End it. Without effect when the peer is gone."""
        with contextlib.suppress(OSError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _out(self, message: dict[str, object]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise bodies.Disconnected from error


def close_code(error: errors.TraforoError) -> int:
    """Return the code with which an error ends a WebSocket."""
    if isinstance(error, errors.InvalidRequest):
        return VIOLATION
    if isinstance(error, errors.TooLarge):
        return TOO_LARGE
    if isinstance(error, errors.Internal):
        return DEFECT
    if isinstance(error, errors.WorkerUnavailable):
        return STOPPING
    return _OWN_CODES + problems.status(error)


def credentialed(scope: Scope) -> Scope:
    """Return the scope with a token of the query or of a subprotocol as its `Authorization`, unless it has one."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if any(name == b"authorization" for name, _ in headers):
        return scope
    token = _offered(scope) or _asked(scope)
    if token is None:
        return scope
    return {**scope, "headers": [*headers, (b"authorization", b"Bearer " + token.encode("latin-1", "replace"))]}


def _offered(scope: Scope) -> str | None:
    offered = (name for name in scope.get("subprotocols", ()) if name.startswith(TOKEN_PROTOCOL))
    return next((name.removeprefix(TOKEN_PROTOCOL) for name in offered), None)


def _asked(scope: Scope) -> str | None:
    query: bytes = scope["query_string"]
    if TOKEN_PARAMETER.encode() not in query:
        return None
    try:
        found = parse.parse_qs(query.decode("latin-1"), max_num_fields=_MAX_PARAMETERS).get(TOKEN_PARAMETER)
    except ValueError as error:
        raise errors.InvalidRequest(f"cannot read the query: more than {_MAX_PARAMETERS} parameters") from error
    return found[0] if found else None


def _subprotocol(scope: Scope) -> str | None:
    """Choose among the offered ones: browsers take no for an answer, but not silence."""
    offered: list[str] = scope.get("subprotocols", [])
    return next((name for name in offered if not name.startswith(TOKEN_PROTOCOL)), offered[0] if offered else None)

"""Requests that name a port of a sandbox by their host, `{port}-{dns_id}.{domain}`: sent on to the sandbox's worker.

Such names should lead to the worker itself; below `localhost` they lead to whatever listens on this machine. The
redirect is to the other form, the path below `/sandboxes/{id}/proxy/{port}`: the registered base URL is the one address
of a worker that is known here, and with it a redirect leads nowhere else and never back to here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from traforo.api import answers, routes
from traforo.control import contexts, redirects
from traforo.domain import errors, ids
from traforo.telemetry import traces

_NAME = re.compile(rb"([0-9]{1,5})-([a-z0-9]{52})\.[^/?#@\s]+", re.IGNORECASE)
_MAX_PORT = 65535


class SendOn:
    """An application that sends such requests on, and has all others answered by the one that it is around."""

    def __init__(self, app: ASGIApp, context: contexts.Context) -> None:
        self._app = app
        self._context = context
        self._refusal = routes.refusal(self._redirect)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or the handshake of a WebSocket."""
        if named(scope.get("headers", ())) is None:
            await self._app(scope, receive, send)
        else:
            await (self._redirect if scope["type"] == "http" else self._refusal)(scope, receive, send)

    async def _redirect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 307. Raises `MalformedId`, `NotFound`, `WorkerUnavailable`, `InvalidRequest`, `TooLarge`."""
        port, dns_id = named(scope["headers"]) or ("", "")
        sandbox = ids.parse_sandbox_id(dns_id)
        target = redirects.target(scope)
        if not target.startswith(b"/"):
            raise errors.InvalidRequest("cannot redirect: the request is for no path", field="path")
        owner = self._context.registrar.owner(sandbox.worker)
        below = f"{redirects.PREFIX.decode()}{sandbox}/proxy/{port}".encode()
        location = redirects.location(owner.worker.base_url, below + target, scheme=scope.get("scheme", ""))
        await answers.redirect(location, traces.headers())(scope, receive, send)


def named(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str] | None:
    """Return port and id of the sandbox that `Host` names, None for any other host. Names are in lower case."""
    for name, value in headers:
        if name == b"host":
            found = _NAME.fullmatch(value)
            if found is not None and 1 <= int(found[1]) <= _MAX_PORT:
                return str(int(found[1])), found[2].decode().lower()
            return None
    return None

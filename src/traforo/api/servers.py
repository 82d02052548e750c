"""Serving an application over HTTP/1.1 and WebSockets: uvicorn on uvloop and httptools, with limits of our own.

A server is started in the event loop that is running, so several can share one; it takes no signals and starts no
process. Sockets are bound here, so that port 0 works and a port in use is told in words.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import uvicorn
import uvloop

from traforo.api import protocols, upgrades
from traforo.domain import errors
from traforo.settings import addresses

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept, longer than the 60 s of common proxies, so that they close it first."""
GRACE_SECONDS = 5.0
"""How long requests may go on once the server stops."""
BACKLOG = 2048
"""Connections that wait to be accepted."""

Result = TypeVar("Result")


class Server:
    """A running server. Made by `start`."""

    def __init__(self, inner: _Inner, sockets: list[socket.socket], address: addresses.Address) -> None:
        self.address = address
        """Where it listens; the port is the real one."""
        self._inner = inner
        self._task = asyncio.create_task(inner.serve(sockets), name=f"serve {address}")

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self.address.port

    @property
    def url(self) -> str:
        """How this machine reaches it."""
        return addresses.url(self.address, "127.0.0.1")

    async def wait(self) -> None:
        """Return when it has stopped."""
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Take no more connections, let running requests end within the limit, cut the others off. Idempotent.

        Answers that go on until somebody ends them (`answers.endless`, `protocols.Exchange`) are cut off at once.
        """
        self._inner.should_exit = True
        self._inner.end_endless()
        await self.wait()
        self._inner.abort()


async def start(
    app: Callable[..., Any],
    listen: addresses.Address | str,
    *,
    grace: float = GRACE_SECONDS,
    takeover: protocols.Takeover | None = None,
) -> Server:
    """Serve an application, but for the requests that `takeover` takes. Returns when it accepts connections.

    Raises:
        InvalidRequest: The address cannot be bound; field `listen`.
    """
    wanted = addresses.parse(listen) if isinstance(listen, str) else listen
    sockets = await _bound(wanted)
    address = addresses.Address(wanted.host, sockets[0].getsockname()[1])
    inner = _Inner(_config(app, grace, takeover))
    server = Server(inner, sockets, address)
    while not inner.started:
        if server._task.done():  # noqa: SLF001 - the same module
            await server._task  # noqa: SLF001 - as above: raises what went wrong
        await asyncio.sleep(0)
    return server


@contextlib.asynccontextmanager
async def serve(
    app: Callable[..., Any],
    listen: addresses.Address | str,
    *,
    grace: float = GRACE_SECONDS,
    takeover: protocols.Takeover | None = None,
) -> AsyncIterator[Server]:
    """Serve an application for the length of a block."""
    server = await start(app, listen, grace=grace, takeover=takeover)
    try:
        yield server
    finally:
        await server.stop()


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a process's main coroutine on uvloop, with as many descriptors as this host lets it have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class _Inner(uvicorn.Server):
    """uvicorn's server without its hold on signals, which belong to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end_endless(self) -> None:
        """Close the connections whose answer would not end by itself. Their readers go on elsewhere, from a cursor."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, protocols.Protocol):
                connection.end_endless()

    def abort(self) -> None:
        """Close the connections that outlived the grace period."""
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport | None = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


def _config(app: Callable[..., Any], grace: float, takeover: protocols.Takeover | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=functools.partial(protocols.Protocol, takeover=takeover),  # type: ignore[arg-type] # it is called, no more
        ws=upgrades.Connection,
        loop="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace)),
    )


async def _bound(address: addresses.Address) -> list[socket.socket]:
    """Bind every address that a name stands for, all on one port."""
    loop = asyncio.get_running_loop()
    port = address.port
    found: list[socket.socket] = []
    try:
        infos = await loop.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in dict.fromkeys(infos):
            listener = socket.socket(family, kind, protocol)
            found.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not address.wildcard))
            listener.bind((place[0], port, *place[2:]))
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in found:
            listener.close()
        raise errors.InvalidRequest(f"cannot listen on '{address}': {error.strerror}", field="listen") from error
    return found

"""What asyncio does in its own way: waiting, local files, tokens that are awaited. `_sync/edges` has the same names."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

import httpx2

from traforo.sdk import disks, errors, transports, tunnels

if TYPE_CHECKING:
    from traforo.sdk._async import sockets

P = ParamSpec("P")
R = TypeVar("R")

TokenSource = str | Callable[[], str | Awaitable[str]] | None
"""A token, or what mints one for each request; None takes TRAFORO_TOKEN, if it is set."""

Listener = Callable[[str], object] | None
"""Told each piece of text as it comes. A coroutine function is awaited."""
Done = Awaitable[None]
"""What a function returns that does something and returns nothing."""
Tunnel = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""Bytes in both directions."""

_TASKS: set[asyncio.Task[None]] = set()
"""What is done although nobody waits for it any more; asyncio itself forgets such tasks."""


class _Tls(httpx2.AsyncBaseTransport):
    """Loads the system's certificates with the first request that needs them: it takes longer than a create."""

    def __init__(self) -> None:
        self._real: httpx2.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._real is None:
            self._real = httpx2.AsyncHTTPTransport(limits=transports.LIMITS, socket_options=transports.SOCKET_OPTIONS)
        return await self._real.handle_async_request(request)

    async def aclose(self) -> None:
        if self._real is not None:
            await self._real.aclose()


def http_client() -> httpx2.AsyncClient:
    """Return a client with one pool of connections that are kept alive."""
    plain = httpx2.AsyncHTTPTransport(verify=False, limits=transports.LIMITS, socket_options=transports.SOCKET_OPTIONS)
    return httpx2.AsyncClient(transport=_Tls(), mounts={"http://": plain}, headers=transports.HEADERS)


async def sleep(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


async def minted(source: str | Callable[[], str | Awaitable[str]] | None) -> str | None:
    """Return a token for one request."""
    if not callable(source):
        return source
    token = source()
    return await token if inspect.isawaitable(token) else token


async def run(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what may block, in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Read a local file to its end."""
    while block := await asyncio.to_thread(file.read, disks.BLOCK_BYTES):
        yield block


async def pieces(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Give out what an iterator that may block gives out."""
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        yield piece


async def anyway(work: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Do what is to be done although the caller is leaving, for so long at most; that it fails is of no interest.

    It is a task of its own, which goes on when the caller is cancelled once more.
    """

    async def done() -> None:
        with contextlib.suppress(errors.TraforoError, TimeoutError):
            async with asyncio.timeout(seconds):
                await work()

    task = asyncio.create_task(done())
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)
    await asyncio.wait({task})


async def told(listener: Callable[[str], object], text: str) -> None:
    """Hand a piece of text on."""
    outcome = listener(text)
    if inspect.isawaitable(outcome):
        await outcome


def lock() -> asyncio.Lock:
    """Return what keeps two tasks apart."""
    return asyncio.Lock()


async def websocket(url: str, headers: Mapping[str, str]) -> sockets.Socket:
    """Open a WebSocket at an HTTP URL. Raises `TraforoError`."""
    from traforo.sdk._async import sockets  # noqa: PLC0415 - the library is loaded only where it is used

    return await sockets.connected(url, headers)


async def tunnel(url: str, headers: Mapping[str, str]) -> Tunnel:
    """Ask for an upgrade to plain bytes at a URL. Raises `TraforoError`."""
    target = tunnels.target(url)
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(target.host, target.port, ssl=target.tls or None), transports.CONNECT_SECONDS
        )
    except (OSError, TimeoutError) as error:
        raise tunnels.unreachable(url, error) from error
    try:
        writer.write(tunnels.request(target, headers))
        head = await asyncio.wait_for(reader.readuntil(tunnels.END_OF_HEAD), tunnels.ANSWER_SECONDS)
        if (length := tunnels.refused_bytes(head)) is not None:
            tunnels.refuse(head, await reader.read(length))
    except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
        writer.close()
        raise tunnels.unreachable(url, error) from error
    except BaseException:
        writer.close()
        raise
    return reader, writer

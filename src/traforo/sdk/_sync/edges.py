"""What a plain thread does in its own way: waiting, local files, tokens. `_async/edges` has the same names."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

import httpx2

from traforo.sdk import disks, errors, transports, tunnels

if TYPE_CHECKING:
    from traforo.sdk._sync import sockets

P = ParamSpec("P")
R = TypeVar("R")

TokenSource = str | Callable[[], str] | None
"""A token, or what mints one for each request; None takes TRAFORO_TOKEN, if it is set."""

Listener = Callable[[str], object] | None
"""Told each piece of text as it comes."""
Done: TypeAlias = None
"""What a function returns that does something and returns nothing."""
Tunnel = socket.socket
"""Bytes in both directions."""


class _Tls(httpx2.BaseTransport):
    """Loads the system's certificates with the first request that needs them: it takes longer than a create."""

    def __init__(self) -> None:
        self._real: httpx2.HTTPTransport | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._real is None:
            self._real = httpx2.HTTPTransport(limits=transports.LIMITS, socket_options=transports.SOCKET_OPTIONS)
        return self._real.handle_request(request)

    def close(self) -> None:
        if self._real is not None:
            self._real.close()


def http_client() -> httpx2.Client:
    """Return a client with one pool of connections that are kept alive."""
    plain = httpx2.HTTPTransport(verify=False, limits=transports.LIMITS, socket_options=transports.SOCKET_OPTIONS)
    return httpx2.Client(transport=_Tls(), mounts={"http://": plain}, headers=transports.HEADERS)


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def minted(source: str | Callable[[], str] | None) -> str | None:
    """Return a token for one request."""
    return source() if callable(source) else source


def run(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call what may block."""
    return function(*args, **kwargs)


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Read a local file to its end."""
    while block := file.read(disks.BLOCK_BYTES):
        yield block


def pieces(source: Iterator[bytes]) -> Iterator[bytes]:
    """Give out what an iterator that may block gives out."""
    return source


def anyway(work: Callable[[], object], seconds: float) -> None:  # noqa: ARG001 - `work` has limits of its own
    """Do what is to be done although the caller is leaving; that it fails is of no interest."""
    with contextlib.suppress(errors.TraforoError):
        work()


def told(listener: Callable[[str], object], text: str) -> None:
    """Hand a piece of text on."""
    listener(text)


def lock() -> threading.Lock:
    """Return what keeps two threads apart."""
    return threading.Lock()


def websocket(url: str, headers: Mapping[str, str]) -> sockets.Socket:
    """Open a WebSocket at an HTTP URL. Raises `TraforoError`."""
    from traforo.sdk._sync import sockets  # noqa: PLC0415 - the library is loaded only where it is used

    return sockets.connected(url, headers)


def tunnel(url: str, headers: Mapping[str, str]) -> Tunnel:
    """Ask for an upgrade to plain bytes at a URL. Raises `TraforoError`."""
    target = tunnels.target(url)
    try:
        connection = socket.create_connection((target.host, target.port), transports.CONNECT_SECONDS)
        if target.tls:
            connection = tunnels.secured(connection, target.host)
    except OSError as error:
        raise tunnels.unreachable(url, error) from error
    try:
        connection.settimeout(tunnels.ANSWER_SECONDS)
        connection.sendall(tunnels.request(target, headers))
        head = b""
        while not head.endswith(tunnels.END_OF_HEAD):  # byte by byte: what follows belongs to the tunnel
            head += tunnels.checked(connection.recv(1), head)
        if (length := tunnels.refused_bytes(head)) is not None:
            tunnels.refuse(head, connection.recv(length))
        connection.settimeout(None)
    except (OSError, EOFError) as error:
        connection.close()
        raise tunnels.unreachable(url, error) from error
    except BaseException:
        connection.close()
        raise
    return connection

"""What a plain thread does in its own way: waiting, local files, tokens. `_async/edges` has the same names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import IO, ParamSpec, TypeVar

import httpx2

from traforo.sdk import disks, transports

P = ParamSpec("P")
R = TypeVar("R")

TokenSource = str | Callable[[], str] | None
"""A token, or what mints one for each request; None takes TRAFORO_TOKEN, if it is set."""


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

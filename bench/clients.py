"""Two thin HTTP clients over `http11`: a blocking one for one request at a time, an asyncio one for many.

One keep-alive connection to each origin, TCP_NODELAY on it, redirects followed with method, headers and body kept. A
connection that the server has closed meanwhile is opened again before a request, never in the middle of one: a request
that was sent and not answered is a failure.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.contenders import MeasurementError
from bench.http11 import ProtocolError, Response, ResponseReader, request_bytes

TIMEOUT_SECONDS = 60.0
"""Limit of one request. Nothing measured takes a second; past this the answer does not matter any more."""
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({307, 308})


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads."""

    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, int]:
        return self.host, self.port

    @classmethod
    def of(cls, url: str) -> _Place:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ProtocolError(f"not an http URL: {url!r}")
        target = parts.path or "/"
        return cls(parts.hostname, parts.port or 80, f"{target}?{parts.query}" if parts.query else target)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request that can be said again to another place."""

    method: str
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, method: str, body: Any) -> _Call:
        if body is None:
            return cls(method, {}, b"")
        return cls(method, {"content-type": "application/json"}, json.dumps(body).encode())

    def bytes_for(self, place: _Place) -> bytes:
        authority = f"{place.host}:{place.port}"
        return request_bytes(self.method, place.target, authority, headers=self.headers, body=self.body)


class Client:
    """Blocking."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def connect(self, *urls: str) -> None:
        """Open what is not open, so that no handshake falls into a time taken afterwards."""
        for url in urls:
            self._socket(_Place.of(url))

    def request(self, method: str, url: str, body: Any = None) -> Response:
        """Send one request and follow its redirects."""
        call = _Call.of(method, body)
        for _ in range(_MOST_REDIRECTS + 1):
            place = _Place.of(url)
            try:
                response = self._exchange(place, call.bytes_for(place))
            except (OSError, ProtocolError) as error:
                self._drop(place.origin)
                raise MeasurementError(f"{method}: {error}") from error
            if response.status not in _REDIRECTS:
                return response
            url = response.headers["location"]
        raise MeasurementError(f"{method}: too many redirects")

    def close(self) -> None:
        """Close all connections."""
        for origin in list(self._sockets):
            self._drop(origin)

    def _exchange(self, place: _Place, data: bytes) -> Response:
        connection = self._socket(place)
        connection.sendall(data)
        reader = ResponseReader()
        while True:
            received = connection.recv(1 << 16)
            if not received:
                raise ProtocolError("closed before the answer")
            response = reader.feed(received)
            if response is not None:
                if response.headers.get("connection", "").lower() == "close":
                    self._drop(place.origin)
                return response

    def _socket(self, place: _Place) -> socket.socket:
        connection = self._sockets.get(place.origin)
        # Readable without a request means that the server has closed it.
        if connection is not None and select.select([connection], [], [], 0)[0]:
            self._drop(place.origin)
            connection = None
        if connection is None:
            connection = socket.create_connection(place.origin, timeout=TIMEOUT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[place.origin] = connection
        return connection

    def _drop(self, origin: tuple[str, int]) -> None:
        connection = self._sockets.pop(origin, None)
        if connection is not None:
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection, one request on it at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._answer: asyncio.Future[Response] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            response = self._reader.feed(data)
        except ProtocolError as error:
            self._fail(error)
            return
        if response is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ProtocolError("closed before the answer"))

    async def exchange(self, data: bytes) -> Response:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            response = await self._answer
        if response.headers.get("connection", "").lower() == "close":
            self.close()
        return response

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class AsyncClient:
    """The same for asyncio. One caller at a time: a load uses one client for each of its tasks."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, int], _Connection] = {}

    async def connect(self, *urls: str) -> None:
        """Open what is not open, so that no handshake falls into a time taken afterwards."""
        for url in urls:
            await self._connection(_Place.of(url))

    async def request(self, method: str, url: str, body: Any = None) -> Response:
        """Send one request and follow its redirects."""
        call = _Call.of(method, body)
        for _ in range(_MOST_REDIRECTS + 1):
            place = _Place.of(url)
            try:
                connection = await self._connection(place)
                response = await connection.exchange(call.bytes_for(place))
            except (OSError, ProtocolError, TimeoutError) as error:
                await self._drop(place.origin)
                raise MeasurementError(f"{method}: {type(error).__name__}: {error}") from error
            if response.status not in _REDIRECTS:
                return response
            url = response.headers["location"]
        raise MeasurementError(f"{method}: too many redirects")

    async def close(self) -> None:
        """Close all connections."""
        for origin in list(self._connections):
            await self._drop(origin)

    async def _connection(self, place: _Place) -> _Connection:
        connection = self._connections.get(place.origin)
        if connection is None or not connection.is_open:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                _, connection = await loop.create_connection(_Connection, place.host, place.port)
            self._connections[place.origin] = connection
        return connection

    async def _drop(self, origin: tuple[str, int]) -> None:
        connection = self._connections.pop(origin, None)
        if connection is not None:
            connection.close()

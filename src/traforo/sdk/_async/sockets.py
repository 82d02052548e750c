"""A WebSocket, in the words of the SDK's errors. Loaded with the first one that is opened. Written by hand twice."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from websockets import exceptions
from websockets.asyncio import client

from traforo.sdk import handshakes, transports


class Socket:
    """One open connection. Any number may send and one may receive."""

    def __init__(self, connection: client.ClientConnection, url: str) -> None:
        self._connection = connection
        self._url = url

    async def receive(self) -> bytes | str | None:
        """Return the next message, None when the server ended the connection in good order. Raises `TraforoError`."""
        try:
            return await self._connection.recv()
        except exceptions.ConnectionClosed as error:
            problem = handshakes.closed(error, self._url)
            if problem is not None:
                raise problem from error
            return None

    async def send(self, message: bytes | str) -> None:
        """Send a message, waiting for room. Raises `TraforoError` when the connection is over."""
        try:
            await self._connection.send(message)
        except exceptions.ConnectionClosed as error:
            raise handshakes.gone(error, self._url) from error

    async def close(self) -> None:
        """Close the connection; one that is closed is fine."""
        with contextlib.suppress(OSError, exceptions.WebSocketException):
            await self._connection.close()


async def connected(url: str, headers: Mapping[str, str]) -> Socket:
    """Open a WebSocket at an HTTP URL. Raises `TraforoError`; `handshakes.Unsupported` where there is none."""
    try:
        connection = await client.connect(
            handshakes.address(url), additional_headers=dict(headers), **handshakes.OPTIONS
        )
    except (OSError, EOFError, exceptions.WebSocketException) as error:
        raise handshakes.refused(error, url) from error
    raw = connection.transport.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):  # it may be over already: what the server sent is still to be read
            for option in transports.SOCKET_OPTIONS:
                raw.setsockopt(*option)
    return Socket(connection, url)

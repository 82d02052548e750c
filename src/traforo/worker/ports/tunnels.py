"""Bytes both ways once HTTP is over: WebSockets, other upgrades, and plain TCP. Nothing of them is looked at.

Each direction is held back while its receiver does not keep up, and ends for itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from traforo.api import protocols
from traforo.worker.ports import upstreams

LINGER_SECONDS = 30.0
"""How long a side may take to read what was sent to it before the other one ended."""


class Tunnel:
    """A caller's connection and one into a sandbox, joined: `feed` and what is beside it is the caller's side."""

    def __init__(
        self, connection: protocols.Protocol, upstream: upstreams.Upstream, on_end: Callable[[int, int], None]
    ) -> None:
        """Join two connections. `on_end` is told once how many bytes went in and out."""
        self._connection = connection
        self._client = connection.transport
        self._upstream = upstream
        self._server = upstream.transport
        self._on_end: Callable[[int, int], None] | None = on_end
        self._ends = 0
        self._in = self._out = 0
        handle = self._client.get_extra_info("socket")
        if handle is not None and handle.family in {socket.AF_INET, socket.AF_INET6}:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # peers that vanish leave nothing behind

    # ----------------------------------------------------------------------------------------- from the caller

    def feed(self, data: bytes) -> None:
        """Pass on bytes of the caller."""
        self._in += len(data)
        if not self._server.is_closing():
            self._server.write(data)

    def end(self) -> None:
        """Pass on that the caller sends no more."""
        self._end(self._server)

    def cancel(self) -> None:
        """The caller is gone: what it sent still arrives."""
        self._over()
        _close(self._server)

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        self._upstream.pause_reading()

    def resume_writing(self) -> None:
        """The caller keeps up again."""
        self._upstream.resume_reading()

    # ----------------------------------------------------------------------------------------- from the server

    def received(self, data: bytes) -> None:
        """Pass on bytes of the server."""
        self._out += len(data)
        if not self._client.is_closing():
            self._client.write(data)

    def ended(self) -> None:
        """Pass on that the server sends no more."""
        self._end(self._client)

    def lost(self) -> None:
        """The server is gone: what it sent still arrives."""
        self._over()
        _close(self._client)

    def pause_feeding(self) -> None:
        """The server does not keep up."""
        self._connection.pause_reading()

    def resume_feeding(self) -> None:
        """The server keeps up again."""
        self._connection.resume_reading()

    # ---------------------------------------------------------------------------------------------- the rest

    def _end(self, transport: object) -> None:
        self._ends += 1
        for one in (self._client, self._server):
            if one.is_closing():
                continue
            if self._ends == 2:
                _close(one)
            elif one is transport:
                one.write_eof()

    def _over(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self._in, self._out)


def _close(transport: asyncio.Transport) -> None:
    """Close when everything was sent, or when that takes too long."""
    if not transport.is_closing():
        transport.close()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)

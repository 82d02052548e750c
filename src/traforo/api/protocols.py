"""The HTTP/1.1 connection: uvicorn's, with limits on what a peer may send before anybody has looked at it.

The parser limits neither the head of a request nor the time it takes. Here a head that is too large is refused while
it comes in, and a peer that stops in the middle of a request is cut off.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http import httptools_impl

from traforo.api import problems
from traforo.domain import errors, ids

MAX_URL_BYTES = 16 * 1024
"""Longest request target: the longest path of a file, each byte escaped, and room for the rest of the query."""
MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of names and values of all headers."""
MAX_HEADERS = 128
"""Most headers."""
STALL_SECONDS = 30.0
"""How long a peer may pause in the middle of a request."""


class _Refused(Exception):
    """The head of a request is over a limit."""


class Protocol(httptools_impl.HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_bytes = 0
        self._refusal = "it is not HTTP/1.1"
        self._in_message = True  # a fresh connection owes a request
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the class above
        """Begin to watch for a peer that stalls."""
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        self._watch = self.loop.call_later(STALL_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what the peer sent."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._in_message = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(f"its target has more than {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(f"it has more than {MAX_HEADERS} headers, or {MAX_HEAD_BYTES} bytes of them")

    def on_message_complete(self) -> None:
        """Note that the peer owes nothing more."""
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read as a request, in the form of every other error. `msg` is uvicorn's, and unused."""
        del msg
        request_id = ids.new_request_id()
        error = errors.InvalidRequest(f"cannot read the request: {self._refusal}")
        body = problems.body(error, request_id)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _refuse(self, why: str) -> None:
        self._refusal = why
        raise _Refused(why)

    def _look(self) -> None:
        """Cut off a peer that has paused for too long in the middle of a request; look again later otherwise."""
        if self.transport.is_closing():
            return
        left = self._heard_at + STALL_SECONDS - self.loop.time()
        if left <= 0 and self._owing():
            self.transport.close()
            return
        self._watch = self.loop.call_later(left if left > 0 else STALL_SECONDS, self._look)

    def _owing(self) -> bool:
        """Tell whether the peer is the one who is waited for."""
        if not self._in_message or self.flow.read_paused:
            return False
        cycle: httptools_impl.RequestResponseCycle | None = self.cycle
        return cycle is None or not cycle.waiting_for_100_continue

"""Bodies that are large or of unknown length: counted on their way in, drained within limits if nobody reads them."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Send

from traforo.api import bodies

DRAIN_BYTES = 8 * 1024 * 1024
"""Most bytes of an unwanted body that are read and thrown away, so that its sender gets to see the answer."""
DRAIN_SECONDS = 2.0
"""How long that may take."""


class Upload:
    """A body that is large or of unknown length: counted on its way in; what nobody reads is drained, within limits.

    An answer that comes before the end of its request's body is sent at once. Then a bounded rest is read, since a
    connection closed with unread data resets and takes the answer with it; only then is it closed.
    """

    def __init__(
        self, length: int | None, receive: Receive, send: Send, *, limit: int | None, expect: bool = False
    ) -> None:
        """Take over a body of `length` bytes (None: unknown) that may have `limit` bytes (None: any number).

        With `expect` the sender waits for "100 Continue", which the server says when the body is first asked for.
        """
        self._length = length
        self._expect = expect
        self._receive = receive
        self._send = send
        self._limit = limit
        self._seen = 0
        self._touched = False
        self._ended = length == 0
        self._closing = False

    def check(self) -> None:
        """Raise `TooLarge` for a body that says itself that it is too long."""
        if self._limit is not None and self._length is not None and self._length > self._limit:
            raise bodies.too_large(self._limit)

    async def receive(self) -> Message:
        """Give out the next piece. Raises `TooLarge` when there were too many."""
        self._touched = True
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        self._seen += len(message.get("body", b""))
        if self._limit is not None and self._seen > self._limit:
            raise bodies.too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on."""
        if self._ended:
            await self._send(message)
        elif message["type"] == "http.response.start":
            rest = None if self._length is None else self._length - self._seen
            # A caller who waits for "100 Continue" sends no body after another answer, yet the server expects one.
            self._closing = rest is None or rest > DRAIN_BYTES or (self._expect and not self._touched)
            if self._closing:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await self._send(message)
        elif self._closing and not message.get("more_body", False) and not (self._expect and not self._touched):
            await self._send({**message, "more_body": True})
            await self._drain()
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await self._send(message)

    async def _drain(self) -> None:
        end = self._seen + DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._seen < end:
                    message = await self._receive()
                    self._seen += len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            pass  # the sender had its chance to read the answer

"""Answers that are large or of unknown length: a block at a time is in memory, and what ends early is broken off.

A client that takes a part for the whole would be worse off than one that sees a broken connection. One that stops
reading is cut off after a while, so that it cannot hold a file for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from traforo.api import bodies, sendfiles
from traforo.domain import errors

BLOCK_BYTES = 512 * 1024
"""Most bytes that are in memory of one answer."""
AT_ONCE_BYTES = 64 * 1024
"""An answer up to this size is one message, and nobody looks whether the client is still there."""
STALL_SECONDS = 120.0
"""How long a client may take to read one block."""
RAW = "application/octet-stream"

Result = TypeVar("Result")


class Source(Protocol):
    """A file that is read in order, from where it was left."""

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes; fewer at the end alone."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        ...

    def close(self) -> None:
        """Close it. Idempotent."""
        ...


class Download(Response):
    """A number of bytes that is known beforehand. Owns its source, and closes it whatever happens."""

    def __init__(
        self,
        source: Source,
        length: int,
        *,
        offset: int = 0,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send `length` bytes from `offset` on, where the source has been brought already."""
        super().__init__(None, status, headers, media_type=RAW)
        self._source = source
        self._length = length
        self._offset = offset
        self.headers["content-length"] = str(length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send exactly as many bytes as were promised. Raises `InvalidRequest` where there are fewer now.

        The connection is broken off then.
        """
        try:
            if scope["method"] == "HEAD":
                await _begin(self, send)
                await send({"type": "http.response.body"})
            elif self._length <= AT_ONCE_BYTES:
                data = await self._source.read(self._length) if self._length else b""
                if len(data) < self._length:
                    raise _shorter()
                await _begin(self, send)
                await send({"type": "http.response.body", "body": data})
            else:
                await _begin(self, send)
                if not await self._by_kernel(scope, send):
                    await _sent(self._blocks(), receive, send)
        finally:
            self._source.close()

    async def _by_kernel(self, scope: Scope, send: Send) -> bool:
        sender = sendfiles.offered(scope)
        if sender is None or not await sender.send(
            self._source.fileno(), self._offset, self._length, stall=STALL_SECONDS
        ):
            return False
        await send({"type": "http.response.body"})
        return True

    async def _blocks(self) -> AsyncIterator[bytes]:
        left = self._length
        while left > 0:
            data = await self._source.read(min(left, BLOCK_BYTES))
            if not data:
                raise _shorter()
            left -= len(data)
            yield data


class Stream(Response):
    """Bytes of a number that shows at the end. Owns what gives them: an asynchronous generator."""

    def __init__(
        self, pieces: AsyncGenerator[bytes], *, media_type: str = RAW, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(None, 200, headers, media_type=media_type)
        self._pieces = pieces
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send all of it; nothing is sent before there is a first piece, so that an error can still be told."""
        async with contextlib.aclosing(self._pieces) as pieces:
            first = await anext(pieces, b"")
            await _begin(self, send)
            await _sent(_chained(first, pieces), receive, send)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for work, and cancel it when its caller goes away. For requests whose body was read.

    Raises what the work raises, and `Disconnected`.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise bodies.Disconnected
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _sent(pieces: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    """Send pieces as they come, until the client is gone or reads no more. Raises `Disconnected`."""
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async for piece in pieces:
            if gone.done():
                raise bodies.Disconnected
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError as error:
                raise errors.RateLimited("cannot go on sending: the client has stopped reading") from error
        await send({"type": "http.response.body"})
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _begin(response: Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _shorter() -> errors.InvalidRequest:
    return errors.InvalidRequest("cannot go on sending: the file was made shorter")

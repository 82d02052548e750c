"""Files sent by the kernel: from a descriptor to a connection, without passing through this process.

It is offered to an application in the scope of a request (`EXTENSION`), by the server whose connections allow it, and
is for the body of an answer whose head was sent with the length of that body. Everything that was written before has
left by then, and nothing else is written until it is done.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import time
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http import httptools_impl

from traforo.api import bodies, threads
from traforo.domain import errors

EXTENSION = "traforo.sendfile"
"""Key in `scope["extensions"]`; its value is a `Sender`."""
CHUNK_BYTES = 1024 * 1024
"""Most bytes that are sent at once: what is not in memory is read from a disk meanwhile, which is done in a thread."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether the connection was given up by this side."""
_POLL_SECONDS = 0.001
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Sender:
    """Sends a file, or a part of it, as the body of one answer."""

    def __init__(self, cycle: httptools_impl.RequestResponseCycle) -> None:
        self._cycle = cycle

    async def send(self, fd: int, offset: int, count: int, *, stall: float) -> bool:
        """Send `count` bytes from `offset` on; False, and nothing sent, for a file that the kernel does not send.

        Raises `InvalidRequest` when the file has fewer bytes, `RateLimited` when the peer takes none for `stall`
        seconds, `Disconnected`.
        """
        await self._flush(stall)
        connection = os.dup(self._cycle.transport.get_extra_info("socket").fileno())
        end = offset + count
        try:
            while offset < end:
                await self._writable(connection, stall)
                try:
                    sent = await threads.run(os.sendfile, connection, fd, offset, min(end - offset, CHUNK_BYTES))
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in _CANNOT and offset == end - count:
                        return False
                    raise _translated(error) from error
                if not sent:
                    raise errors.InvalidRequest("cannot go on sending: the file was made shorter")
                offset += sent
        finally:
            os.close(connection)
        self._cycle.expected_content_length -= count
        return True

    async def _flush(self, stall: float) -> None:
        """Return when everything that was written before is with the kernel."""
        await asyncio.sleep(0)
        deadline = time.monotonic() + stall
        while self._cycle.transport.get_write_buffer_size():
            self._check(deadline)
            await asyncio.sleep(_POLL_SECONDS)
        self._check(deadline)

    async def _writable(self, connection: int, stall: float) -> None:
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        deadline = time.monotonic() + stall
        self._check(deadline)
        while not poll.poll(0):
            await _room(connection)
            self._check(deadline)

    def _check(self, deadline: float) -> None:
        if self._cycle.disconnected or self._cycle.transport.is_closing():
            raise bodies.Disconnected
        if time.monotonic() > deadline:
            raise errors.RateLimited("cannot go on sending: the client has stopped reading")


def offer(cycle: httptools_impl.RequestResponseCycle) -> None:
    """Offer it to the application that answers a request."""
    scope = cast("dict[str, Any]", cycle.scope)
    scope.setdefault("extensions", {})[EXTENSION] = Sender(cycle)


def offered(scope: Scope) -> Sender | None:
    """Return what was offered for a request."""
    found: Sender | None = scope.get("extensions", {}).get(EXTENSION)
    return found


async def _room(connection: int) -> None:
    """Return when a connection takes more, or has ended, or when it is time to look around."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connection, _resolve, ready)
    try:
        await asyncio.wait([ready], timeout=_LOOK_SECONDS)
    finally:
        loop.remove_writer(connection)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _translated(error: OSError) -> Exception:
    if error.errno in _GONE:
        return bodies.Disconnected()
    return errors.InvalidRequest(f"cannot go on sending: {os.strerror(error.errno or 0).lower()}")

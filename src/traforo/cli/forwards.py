"""Listens on this machine and passes each connection on to a port of a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from traforo.cli import printers, problems, streams

if TYPE_CHECKING:
    from traforo.sdk import AsyncSandbox

BLOCK_BYTES = 64 * 1024
LOOK_SECONDS = 5.0
"""How often it looks whether the sandbox still runs."""
_PORTS = 65535


def pair(text: str) -> tuple[int, int]:
    """Read `PORT` or `LOCAL:PORT`. Raises `UsageError`."""
    here, colon, there = text.rpartition(":")
    words = (here, there) if colon else (there, there)
    if not all(word.isascii() and word.isdecimal() and int(word) <= _PORTS for word in words) or int(words[1]) == 0:
        raise printers.UsageError(f"cannot forward {text!r}", "write PORT or LOCAL:PORT, such as 8000 or 8080:80")
    return int(words[0]), int(words[1])


async def serve(sandbox: AsyncSandbox, wanted: Sequence[tuple[int, int]], address: str) -> int:
    """Forward until a signal or the end of the sandbox. Raises OSError when it cannot listen."""
    over = asyncio.Event()
    received: list[int] = []

    def leave(number: int) -> None:
        received.append(number)
        over.set()

    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for here, there in wanted:
            forward = _Forward(sandbox, there)
            try:
                server = await asyncio.start_server(forward.connected, address, here)
            except OSError as error:
                reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
                raise OSError(f"cannot listen on {address}:{here}: {reason}") from error
            stack.push_async_callback(forward.close)
            stack.callback(server.close)
            print(f"{address}:{server.sockets[0].getsockname()[1]} -> {there}", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, leave, number)
            stack.callback(loop.remove_signal_handler, number)
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), LOOK_SECONDS)
            if not over.is_set() and (end := await _end(sandbox)) is not None:
                printers.error(f"the sandbox has ended{end}")
                return 1
    if received and received[0] != signal.SIGINT:
        raise streams.Left(received[0])
    return 0


async def _end(sandbox: AsyncSandbox) -> str | None:
    """Return the reason of its end, in parentheses, or nothing where none is known; None while it lives."""
    from traforo.sdk import errors

    try:
        info = await sandbox.info()
    except errors.NotFound:
        return ""
    except errors.ConnectionFailed:
        return None  # the server may come back
    if info.ended_at is None:
        return None
    return f" ({info.reason.replace('_', ' ')})" if info.reason else ""


class _Forward:
    """The connections to one port."""

    def __init__(self, sandbox: AsyncSandbox, port: int) -> None:
        self._sandbox = sandbox
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        task = asyncio.create_task(self._pass(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from traforo.sdk import errors

        try:
            inside, outside = await self._sandbox.ports.connect(self._port)
        except errors.TraforoError as error:
            message, hint = problems.told(error)
            which = f"port {self._port}"
            printers.error(message if which in message else f"{which}: {message}", hint)
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, outside), _copy(inside, writer))
        except OSError:
            pass  # one side broke off, which the other is told by the same
        finally:
            for end in (writer, outside):
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(BLOCK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()

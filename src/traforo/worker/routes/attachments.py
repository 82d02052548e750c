"""A client attached to an exec over a WebSocket: output goes down, input and signals come up, at once and for long.

Neither direction holds up the other, and the exec depends on neither: it goes on when its clients go. A client that
writes faster than the command reads is not read from; one whose input the command does not take is told so by the end
of the connection, since a message has no answer.
"""

from __future__ import annotations

import asyncio

from traforo.api import sockets
from traforo.domain import errors
from traforo.worker.execs import controls, packets, runs, streams

GRACE_SECONDS = 0.5
"""How long after a command stopped reading its end may come that explains it."""


async def attach(socket: sockets.Socket, run: runs.Exec, stream: streams.Stream) -> None:
    """Serve an accepted socket until the end was told, or the client has gone.

    Raises `InvalidRequest` (a message that cannot be read), `Conflict` (one that cannot be carried out) and
    `bodies.Disconnected`.
    """
    up = asyncio.create_task(_obey(socket, run))
    up.add_done_callback(lambda _: stream.stop())
    if socket.gone is not None:
        socket.gone.add_done_callback(lambda _: up.cancel())
    try:
        while (batch := await stream.next()) is not None:
            for message in packets.messages(batch):
                await socket.send(message)
        if up.done() and not up.cancelled():
            up.result()
        if stream.ended:
            await socket.close(sockets.NORMAL)
    finally:
        up.cancel()
        await asyncio.wait([up])
        if not up.cancelled():
            up.exception()  # it was raised above, or something else was


async def _obey(socket: sockets.Socket, run: runs.Exec) -> None:
    """Carry out what the client says, one thing after the other, until it has no more to say."""
    while (message := await socket.receive()) is not None:
        wanted = packets.read(message)
        if run.outcome is not None:
            continue  # that it has ended is on its way
        try:
            await _carry_out(wanted, run)
        except errors.Conflict:
            if not await _ends(run):
                raise


async def _carry_out(wanted: packets.Stdin | packets.End | packets.Resize | packets.Signal, run: runs.Exec) -> None:
    match wanted:
        case packets.Stdin(data):
            await controls.write(run, data)
        case packets.End():
            await controls.finish(run)
        case packets.Resize(size):
            await controls.resize(run, size)
        case packets.Signal(number, tree):
            await controls.signal(run, number, tree=tree)


async def _ends(run: runs.Exec) -> bool:
    """Tell whether an exec has ended, or does so right now."""
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await run.end()
    except TimeoutError:
        return False
    return True

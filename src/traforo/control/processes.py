"""The control plane as a process: makes every part from the settings, runs until it is told to stop, stops cleanly.

The only place that knows which store and which clock are used. It configures no log and parses no argument: that is for
whoever starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

from traforo.api import replays, servers, tokens
from traforo.control import app, contexts, inquiries, registrars
from traforo.domain import clocks, errors
from traforo.settings import control
from traforo.store import contract, databases
from traforo.telemetry import logs, metrics

DATABASE = "control.sqlite3"
"""Name of the database file in the state directory."""
LOCK = "lock"
"""Name of the file there that a running control plane holds a lock on."""


async def serve(settings: control.ControlSettings) -> None:
    """Run a control plane until SIGTERM or SIGINT.

    Raises `InvalidRequest` (address), `Internal` (state directory), `Conflict` (another one uses it).
    """
    with _stop_signals() as stopping:
        async with running(settings) as server:
            logs.get(__name__).info("control plane ready", listen=str(server.address), auth_mode=settings.auth.mode)
            waiting = [asyncio.create_task(stopping.wait()), asyncio.create_task(server.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                await _end(task)
            logs.get(__name__).info("control plane stopping")


@contextlib.asynccontextmanager
async def running(settings: control.ControlSettings) -> AsyncIterator[servers.Server]:
    """Run a control plane for the length of a block; signals are the caller's. Raises as `serve` does."""
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(_claim, settings, stack)
        store: contract.Store = await databases.open_store(databases.sqlite(settings.state_dir / DATABASE))
        stack.push_async_callback(store.close)
        context = await _assemble(settings, store, stack)
        rounds = asyncio.create_task(context.registrar.run(), name="registry rounds")
        stack.push_async_callback(_end, rounds)
        yield await stack.enter_async_context(servers.serve(app.build(context), settings.listen))


def _claim(settings: control.ControlSettings, stack: contextlib.AsyncExitStack) -> None:
    """Make the directory, and make sure that no other control plane uses it: each would undo what the other writes."""
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = stack.enter_context((settings.state_dir / LOCK).open("w"))
    except OSError as error:
        message = f"cannot use the state directory '{settings.state_dir}': {error.strerror}"
        raise errors.Internal(message, hint="set TRAFORO_CONTROL_STATE_DIR") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"cannot use the state directory '{settings.state_dir}': another control plane does"
        raise errors.Conflict(message, hint="set TRAFORO_CONTROL_STATE_DIR") from error


async def _assemble(
    settings: control.ControlSettings, store: contract.Store, stack: contextlib.AsyncExitStack
) -> contexts.Context:
    clock = clocks.SystemClock()
    registrar = registrars.Registrar(
        store, clock, lease_ttl=settings.worker_lease_ttl, round_interval=settings.worker_lease_sweep_interval
    )
    guard = replays.ReplayGuard(on_use=registrar.token_used)
    guard.restore(((token.jti, token.expires_at) for token in await registrar.load()), clock.now())
    stack.push_async_callback(registrar.close)
    authority = tokens.Authority(settings.auth, clock)
    # Threads, because one reads certificates and the other /proc.
    client = await stack.enter_async_context(await asyncio.to_thread(inquiries.new_client))
    registry = await asyncio.to_thread(metrics.new_registry)
    return contexts.Context(
        settings=settings,
        clock=clock,
        authority=authority,
        guard=guard,
        registrar=registrar,
        inquiries=inquiries.Inquiries(client, authority, clock),
        metrics=metrics.ControlMetrics(registry),
    )


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn SIGTERM and SIGINT into an event."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

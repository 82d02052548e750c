"""The worker as a process: makes every part from the settings, takes over what an earlier one left, stops in order.

The only place that knows which images, runtimes and clock are used. It configures no log and parses no argument: that
is for whoever starts it. On the way out nobody new is taken in, the control plane is told, requests get their answers,
and then the sandboxes end or are left to the next worker, as the settings say.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol

import httpx2

from traforo.api import servers
from traforo.domain import clocks, errors
from traforo.settings import worker
from traforo.telemetry import logs
from traforo.worker import app, assemblies, chores, drivers, registrations
from traforo.worker.capacity import admissions, capacities
from traforo.worker.images import stores
from traforo.worker.routes import contexts
from traforo.worker.runtimes import contract

LOCK = "lock"
"""Name of the file in the state directory that a running worker holds a lock on."""
MAX_IMAGES = 1000
"""Most images that a registration names."""


class Images(chores.Images, Protocol):
    """Where images come from; `traforo.worker.images.stores.ImageStore` is one."""

    async def start(self) -> None:
        """Get ready."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...


async def serve(settings: worker.WorkerSettings) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Raises `InvalidRequest` (address, settings), `StartFailed` (this host cannot run sandboxes), `Internal` (state
    directory).
    """
    about = {"worker_id": settings.worker_id, "auth_mode": settings.auth.mode}
    with _stop_signals() as stopping, logs.scope(**about):
        async with running(settings) as server:
            logs.get(__name__).info("worker ready", listen=str(server.address))
            waiting = [asyncio.create_task(stopping.wait()), asyncio.create_task(server.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                await _end(task)
            logs.get(__name__).info("worker stopping", policy=settings.stop_policy)


@contextlib.asynccontextmanager
async def running(
    settings: worker.WorkerSettings,
    *,
    runtimes: Mapping[str, contract.Runtime] | None = None,
    images: Images | None = None,
    clock: clocks.Clock | None = None,
) -> AsyncIterator[servers.Server]:
    """Run a worker for the length of a block; signals are the caller's. Raises as `serve` does.

    `runtimes`, `images` and `clock` take the place of the real ones, in tests.
    """
    clock = clock or clocks.SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(_claim, settings, stack)
        host = await asyncio.to_thread(capacities.host, settings)
        settings = _filled(settings, host)
        images = images or _images(settings)
        stack.push_async_callback(images.close)
        await images.start()
        runtimes = runtimes if runtimes is not None else await asyncio.to_thread(drivers.make, settings)
        _check_limits(settings, runtimes)
        await chores.warm(images)
        ending = assemblies.Ending()
        context = await assemblies.assemble(settings, host, runtimes, images, clock, stack, ending)
        serving = servers.serve(app.build(context), settings.listen, takeover=context.ports)
        server = await stack.enter_async_context(serving)
        context.place.base_url = settings.url_at(server.port)
        ending.keep = settings.stop_policy == "keep"
        await _register(context, stack)
        beside = asyncio.create_task(chores.run(context, images), name="chores")
        stack.push_async_callback(_end, beside)
        stack.callback(context.supervisor.cordon)
        yield server


def _claim(settings: worker.WorkerSettings, stack: contextlib.AsyncExitStack) -> None:
    """Make the directories, and make sure that no other worker uses them: it would lose its sandboxes to us."""
    for directory in (settings.state_dir, settings.run_dir):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot use the directory '{directory}': {error.strerror}"
            raise errors.Internal(message, hint="set TRAFORO_WORKER_STATE_DIR, TRAFORO_WORKER_RUN_DIR") from error
    lock = stack.enter_context((settings.state_dir / LOCK).open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"cannot use the directory '{settings.state_dir}': another worker does"
        raise errors.Conflict(message, hint="give each worker of a host a state_dir, run_dir and uid_base") from error


def _check_limits(settings: worker.WorkerSettings, runtimes: Mapping[str, contract.Runtime]) -> None:
    """Say which limits of sandboxes this host cannot enforce. Raises `StartFailed` where all are required."""
    for name, runtime in runtimes.items():
        missing = ", ".join(sorted(contract.LIMITS - runtime.limits_enforced))
        if not missing:
            continue
        if settings.limits_required:
            raise errors.StartFailed(
                f"this host cannot enforce the limits of a sandbox: {missing}",
                stage="limits",
                hint="see `traforo doctor`; TRAFORO_WORKER_REQUIRE_LIMITS=false starts the worker without them",
            )
        logs.get(__name__).warning("limits_not_enforced", virtualization=name, limits=missing)


def _filled(settings: worker.WorkerSettings, host: admissions.Host) -> worker.WorkerSettings:
    """Return the settings with what was found out in place of zeros."""
    found = {
        "total_cores": host.cpu_milli / admissions.MILLI,
        "total_memory_mib": host.memory_mib,
        "total_disk_mib": host.disk_mib,
    }
    return settings.model_copy(update=found)


def _images(settings: worker.WorkerSettings) -> Images:
    return stores.ImageStore(settings.state_dir, None if settings.any_image_path else settings.image_roots)


async def _register(context: contexts.Context, stack: contextlib.AsyncExitStack) -> None:
    """Begin to tell the control plane of this worker, where there is one."""
    settings = context.settings
    if not settings.control_url:
        return

    def facts() -> dict[str, Any]:
        return {
            "hostname": settings.hostname,
            "base_url": context.place.base_url,
            "hardware_sku": settings.hardware_sku,
            "virtualizations": context.supervisor.virtualizations,
            "total_cores": settings.total_cores,
            "total_memory_mib": settings.total_memory_mib,
            "max_live_sandboxes": settings.live_limit,
            "live_sandboxes": context.supervisor.ledger.live,
            "images": context.supervisor.images()[:MAX_IMAGES],
        }

    client = await asyncio.to_thread(httpx2.AsyncClient)  # reads certificates
    await stack.enter_async_context(client)
    registration = registrations.Registration(
        client=client,
        control_url=settings.control_url,
        worker_id=settings.worker_id,
        authority=context.authority,
        facts=facts,
        heartbeat=settings.registration_heartbeat,
        jitter_percent=settings.registration_jitter_percent,
    )
    registration.start()
    stack.push_async_callback(registration.stop)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn the first SIGTERM or SIGINT into an event; the second one acts as ever, on a worker that takes too long."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

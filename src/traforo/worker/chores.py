"""What a worker does unasked: makes images ready ahead of demand, proves that they work, throws old ones away.

It runs beside the serving and never in its way; whatever fails here is logged and counted, and costs nobody a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Protocol

from traforo.domain import errors, specs, states
from traforo.telemetry import logs
from traforo.worker.capacity import resources
from traforo.worker.execs import commands
from traforo.worker.routes import contexts
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import starts

COLLECT_SECONDS = 600.0
"""Time between two looks for images that nothing needs any more."""
HOST_IMAGE = "host"
"""The image of a create that names none: made ready in any case."""
OWNER = "traforo:warm-up"
"""Owner of the sandboxes in which images are tried: no client has this id, so nobody sees them."""
_MARGIN_SECONDS = 60.0

_log = logs.get(__name__)


class Images(Protocol):
    """What is needed of the image store."""

    async def resolve(self, reference: str) -> contract.Rootfs:
        """Make an image ready."""
        ...

    async def collect(self, in_use: Collection[str]) -> list[str]:
        """Remove what is neither in use nor meant by any reference; return what that was."""
        ...


async def warm(images: Images) -> None:
    """Make the default image ready before the first create can ask for it. What goes wrong is told by `run`."""
    with contextlib.suppress(errors.TraforoError):
        await images.resolve(HOST_IMAGE)


async def run(context: contexts.Context, images: Images) -> None:
    """Prepare the configured images, then look after the store, for as long as the worker runs."""
    wanted = context.settings.pre_pull.images
    for image in dict.fromkeys((HOST_IMAGE, *wanted)):
        try:
            await images.resolve(image)
            if image in wanted and context.settings.pre_pull.warmup_script:
                await _try(context, image)
        except errors.TraforoError as error:
            context.metrics.worker_warmup_failures_total.labels(reason=error.code).inc()
            _log.error("image_not_ready", image=image, error=str(error))
        else:
            _log.info("image_ready", image=image)
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        await collect(context, images)


async def collect(context: contexts.Context, images: Images) -> None:
    """Throw away images that nothing needs. Not while it is unknown what some sandbox has mounted."""
    in_use = context.supervisor.image_sources()
    if in_use is None:
        _log.warning("images_kept", why="the image of a live sandbox is unknown")
        return
    try:
        removed = await images.collect(in_use)
    except errors.TraforoError as error:
        _log.error("images_not_collected", error=str(error))
        return
    if removed:
        _log.info("images_removed", images=removed)


async def _try(context: contexts.Context, image: str) -> None:
    """Run the warm-up script in a sandbox of an image. Raises `StartFailed` if it does not end with status 0."""
    settings = context.settings
    seconds = settings.pre_pull.warmup_timeout_seconds
    spec = specs.SandboxSpec(
        image=image,
        virtualization=settings.virtualization,
        resources=resources.complete(resources.Wish(), context.host, default_pids=settings.default_pids),
        ttl_seconds=min(seconds + _MARGIN_SECONDS, settings.max_ttl),
    )
    entry = await context.supervisor.create(starts.Creation(spec, context.clock.monotonic(), owner=OWNER))
    try:
        script = commands.spec(settings.pre_pull.warmup_script, timeout_ms=int(seconds * 1000))
        run = await context.execs.start(entry, script)
        await context.execs.wait(run)
        if run.outcome is None or run.outcome.exit_code != 0:
            output = (await context.execs.result(run))["output"]
            raise errors.StartFailed(f"the warm-up script failed: {str(output)[-1000:]!r}", stage="warmup")
    finally:
        await context.supervisor.stop(entry, states.EndReason.DELETED)

"""The store of images: where the worker asks what a reference means to a runtime.

A reference that was resolved a moment ago costs a dictionary look-up. Beyond a second its source is looked at again,
in a thread, and only what changed is prepared anew. The `host` image is looked at in the background, since an old one
stays good. Nothing is removed on its own account but what was left half-made: only the worker knows what its sandboxes
use.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from traforo.domain import errors
from traforo.domain.clocks import Clock, SystemClock
from traforo.worker.images import paths, references
from traforo.worker.images.limits import Limits
from traforo.worker.images.references import Kind, Reference
from traforo.worker.images.workshops import Prepared, Workshop
from traforo.worker.runtimes.contract import Rootfs

Result = TypeVar("Result")

_MAX_KNOWN = 4096
"""References remembered at once; the one not used for longest goes."""
_FRESH_SECONDS = 1.0
"""How long a source is taken to be what it was."""
_HOST_FRESH_SECONDS = 60.0
"""The same for the host: an image of it is good for as long as it is mounted, only its copies of /etc grow old."""
_ON_ITS_WAY_SECONDS = 600.0
"""How long after it was handed out an image may still be on its way into a sandbox."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image that this host has ready."""

    reference: str
    """The reference for which it was prepared first."""
    kind: str
    """The part of the reference before the colon."""
    bytes: int
    """Bytes of its files on the worker's disk; 0 for what is mounted where it lies."""


@dataclass(slots=True)
class _Known:
    """A reference that was resolved."""

    prepared: Prepared
    fresh_until: float
    used_at: float


class ImageStore:
    """Resolves references. Belongs to one event loop; what takes time is done in threads of its own."""

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        allowed_roots: Sequence[str | os.PathLike[str]] | None,
        *,
        limits: Limits | None = None,
        clock: Clock | None = None,
        privileged: bool | None = None,
        machine: str | None = None,
        host_root: str | os.PathLike[str] = "/",
    ) -> None:
        """Keep images below `state_dir`/images, which is made when it is needed first.

        `allowed_roots` are the directories from which `dir:` and archive images may be taken: None allows every path,
        an empty list none. `privileged` (default: are we root) sets owners in images; `machine` (default: this one) is
        as `uname -m` says it; `host_root` is the root of what `host` means.
        """
        self._workshop = Workshop(
            Path(state_dir),
            paths.Roots.of(allowed_roots),
            limits or Limits(),
            privileged=os.geteuid() == 0 if privileged is None else privileged,
            machine=machine or os.uname().machine,
            host_root=Path(host_root),
        )
        self._clock = clock or SystemClock()
        self._known: dict[str, _Known] = {}
        self._used_at: dict[str, float] = {}
        """When images that no reference means any more were handed out last, by key."""
        self._resolving: dict[str, asyncio.Task[Rootfs]] = {}
        self._opening = asyncio.Lock()
        self._opened = False
        # Apart, so that looking at a source never waits until somebody else's archive is unpacked.
        self._quick = ThreadPoolExecutor(2, "images-look")
        self._heavy = ThreadPoolExecutor(2, "images-unpack")

    async def start(self) -> None:
        """Make the directory of images and remove what an earlier worker left half-made. Raises `StartFailed`."""
        async with self._opening:
            if not self._opened:
                await self._in_thread(self._quick, self._workshop.shelf.open)
                self._opened = True

    async def close(self) -> None:
        """Make preparations that still run fail with `WorkerUnavailable`, and wait until the threads have ended."""
        self._workshop.stop.set()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        await asyncio.to_thread(self._quick.shutdown)
        await asyncio.to_thread(self._heavy.shutdown)

    async def resolve(self, reference: str) -> Rootfs:
        """Return what a runtime mounts for a reference, prepared first if need be.

        Callers that ask for the same reference at once share one preparation, and one that goes away does not end it.
        Raises `NotFound` (kind `image`), `InvalidRequest` (field `image`), `TooLarge` or `NoCapacity`.
        """
        known = self._known.get(reference)
        if known is not None:
            now = self._clock.monotonic()
            known.used_at = now
            if now < known.fresh_until:
                return known.prepared.rootfs
        task = self._resolving.get(reference) or self._begin(references.parse(reference), known)
        if known is not None and reference == Kind.HOST:
            return known.prepared.rootfs
        return await asyncio.shield(task)

    async def inventory(self) -> list[ImageFacts]:
        """Return the images that are ready: prepared ones on disk, and directories that were asked for."""
        await self.start()
        shelved = await self._in_thread(self._quick, lambda: list(self._workshop.shelf.all()))
        mounted = [reference for reference, known in self._known.items() if known.prepared.key is None]
        return [
            *(ImageFacts(record.reference, record.kind, record.bytes) for _, record in shelved),
            *(ImageFacts(reference, Kind.DIRECTORY, 0) for reference in mounted),
        ]

    async def collect(self, in_use: Collection[str]) -> list[str]:
        """Remove images that were superseded: the reference for which they were made means something else by now.

        `in_use` are the sources of the lowers of every live sandbox, those of earlier workers included: what a sandbox
        has mounted must not go. Returns the keys of what was removed.
        """
        await self.start()
        directory = self._workshop.shelf.directory
        mounted = {path.relative_to(directory).parts[0] for path in map(Path, in_use) if path.is_relative_to(directory)}
        meant = {known.prepared.key for known in self._known.values()}
        since = self._clock.monotonic() - _ON_ITS_WAY_SECONDS
        self._used_at = {key: at for key, at in self._used_at.items() if at > since}
        removed = []
        for key, record in await self._in_thread(self._quick, lambda: list(self._workshop.shelf.all())):
            needed = key in mounted or key in meant or key in self._used_at
            if not needed and record.reference in self._known:
                await self._in_thread(self._heavy, functools.partial(self._workshop.shelf.remove, key))
                removed.append(key)
        return removed

    def _begin(self, reference: Reference, known: _Known | None) -> asyncio.Task[Rootfs]:
        """Start to resolve a reference, once for all who ask meanwhile."""
        if self._workshop.stop.is_set():
            raise errors.WorkerUnavailable("cannot prepare the image: the worker is stopping")
        task = asyncio.create_task(self._resolve(reference, known), name=f"image {reference.kind}")
        self._resolving[reference.text] = task

        def end(done: asyncio.Task[Rootfs]) -> None:
            del self._resolving[reference.text]
            if not done.cancelled():
                # Whoever waits gets the error; if nobody does any more, that is no defect.
                done.exception()

        task.add_done_callback(end)
        return task

    async def _resolve(self, reference: Reference, known: _Known | None) -> Rootfs:
        await self.start()
        try:
            prepared = await self._prepare(reference, known.prepared if known else None)
        except errors.TraforoError:
            if reference.kind is Kind.HOST and known is not None:
                prepared = known.prepared
            else:
                self._retire(reference.text)
                raise
        now = self._clock.monotonic()
        if known is None or prepared is not known.prepared:
            self._retire(reference.text)
        fresh = _HOST_FRESH_SECONDS if reference.kind is Kind.HOST else _FRESH_SECONDS
        self._known[reference.text] = _Known(prepared, now + fresh, now)
        if len(self._known) > _MAX_KNOWN:
            self._retire(min(self._known, key=lambda text: self._known[text].used_at))
        return prepared.rootfs

    async def _prepare(self, reference: Reference, earlier: Prepared | None) -> Prepared:
        """Return the image as it was if its source is what it was, else make it anew."""
        workshop = self._workshop
        if earlier is not None and await self._in_thread(self._quick, lambda: workshop.holds(reference, earlier)):
            return earlier
        quick = reference.kind in {Kind.HOST, Kind.DIRECTORY}
        return await self._in_thread(self._quick if quick else self._heavy, lambda: workshop.prepare(reference))

    def _retire(self, text: str) -> None:
        """Forget what a reference meant, but not when that was handed out."""
        known = self._known.pop(text, None)
        if known is not None and known.prepared.key is not None:
            self._used_at[known.prepared.key] = known.used_at

    async def _in_thread(self, executor: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

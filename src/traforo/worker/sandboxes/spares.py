"""Sandboxes made ahead of demand, with interpreters that are ready: each is claimed once, by whoever comes first.

Kept for kinds of sandbox that were asked for with `prepare` of late, and for no others: a plain sandbox is made sooner
than anybody could look for one. Nobody was ever told of a spare, so it may be killed at any time: when its room is
wanted, when its kind is no longer asked for, when a worker starts and finds it. It becomes somebody's in one step, when
the runtime has the new label.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from traforo.domain import errors, specs, states
from traforo.telemetry import logs
from traforo.worker.capacity import demands
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, holdings, lifecycles

LEASE_SECONDS = 1200.0
"""How long a spare lives that nobody claims; the runtime itself ends it then."""
SETTLE_SECONDS = 0.05
"""How long after a claim the next one is made: the one who claimed goes first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a spare has to have in common with what is asked for. All the rest is told to it when it is claimed."""

    image: str
    virtualization: str
    resources: specs.Resources
    prepare: tuple[str, ...]


def kind(spec: specs.SandboxSpec) -> Kind:
    """Return the kind of a sandbox."""
    return Kind(spec.image, spec.virtualization, spec.resources, spec.prepare)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who makes spares."""

    make: Callable[[specs.SandboxSpec], Awaitable[entries.Entry]]
    """Makes one, reservation included. Raises what a start raises."""
    warm: Callable[[entries.Entry], Awaitable[None]]
    """Has its interpreters ready."""
    forget: Callable[[str, str], None]
    """Lets the runtime (its virtualization) forget a dead sandbox (its id)."""


class Spares:
    """The spares of one worker, at most `most` of them. Belongs to one event loop."""

    def __init__(self, books: holdings.Holdings, hooks: Hooks, *, most: int) -> None:
        self._books = books
        self._hooks = hooks
        self._most = most
        self._demand: demands.Demand[Kind] = demands.Demand()
        self._waiting: dict[Kind, list[entries.Entry]] = {}
        self._refilling: asyncio.Task[None] | None = None
        self._warming: entries.Entry | None = None
        """The one that is being made: its interpreters are not ready yet."""
        self._closed = False
        self._log = logs.get(__name__)

    def __iter__(self) -> Iterator[entries.Entry]:
        """Give those that wait."""
        return iter([entry for waiting in self._waiting.values() for entry in waiting])

    async def take(self, spec: specs.SandboxSpec) -> entries.Entry | None:
        """Return a spare of this kind, which is the caller's now and still has its reservation; None if there is none.

        Whether there was one or not, more of this kind will be made.
        """
        if not spec.prepare or not self._most:
            return None
        wanted = kind(spec)
        self._demand.note(wanted, self._books.clock.monotonic())
        self._refill_soon()
        if not self._waiting.get(wanted):
            return None
        try:
            rootfs = await self._books.images.resolve(spec.image)
        except errors.TraforoError:
            return None  # the start that follows tells
        while waiting := self._waiting.get(wanted):
            entry = self._remove(waiting[0])
            if entry.rootfs == rootfs and entry.running is not None and not entry.running.ended.done():
                return entry
            self._books.tasks.spawn(self._kill(entry))  # the image has changed
        return None

    def put_back(self, entry: entries.Entry) -> None:
        """Take a spare again that was not claimed after all."""
        self._waiting.setdefault(kind(entry.spec), []).append(entry)
        self._show()

    async def give_way(self) -> bool:
        """End all spares, because their room is wanted; False if there were none."""
        waiting = [self._remove(entry) for entry in self]
        if self._warming is not None:
            waiting.append(self._warming)
        await asyncio.gather(*map(self._kill, waiting))
        return bool(waiting)

    async def close(self) -> None:
        """End all of them, and make no more."""
        self._closed = True
        await self.give_way()

    # -------------------------------------------------------------------------------------------- making

    def _refill_soon(self) -> None:
        if self._refilling is None or self._refilling.done():
            self._refilling = self._books.tasks.spawn(self._refill())

    async def _refill(self) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        while not self._closed:
            targets = self._demand.targets(self._most, self._books.clock.monotonic())
            self._show(sum(targets.values()))
            extra = [entry for one, waiting in self._waiting.items() for entry in waiting[targets.get(one, 0) :]]
            await asyncio.gather(*(self._kill(self._remove(entry)) for entry in extra))
            missing = next((one for one in targets if len(self._waiting.get(one, [])) < targets[one]), None)
            if missing is None or not await self._add(missing):
                return

    async def _add(self, wanted: Kind) -> bool:
        """Make one more of a kind; False where that cannot be now."""
        spec = specs.SandboxSpec(
            image=wanted.image,
            virtualization=wanted.virtualization,
            resources=wanted.resources,
            ttl_seconds=LEASE_SECONDS,
            prepare=wanted.prepare,
        )
        try:
            entry = await self._hooks.make(spec)
        except errors.NoCapacity:
            return False
        except errors.TraforoError as error:
            self._failed(error)
            return False
        if entry.running is not None:
            entry.running.ended.add_done_callback(functools.partial(self._died, entry))
        self._warming = entry
        try:
            await self._hooks.warm(entry)
        except errors.TraforoError as error:
            self._failed(error)
            await self._kill(entry)
            return False
        finally:
            self._warming = None
        if self._closed:
            await self._kill(entry)
        elif entry.running is not None and not entry.running.ended.done():
            self.put_back(entry)
        return True

    def _failed(self, error: errors.TraforoError) -> None:
        self._books.gauges.warm_failed(error.code)
        self._log.warning("spare_not_made", error=str(error))

    # ------------------------------------------------------------------------------------------- their ends

    def _remove(self, entry: entries.Entry) -> entries.Entry:
        waiting = self._waiting[kind(entry.spec)]
        waiting.remove(entry)
        if not waiting:
            del self._waiting[kind(entry.spec)]
        self._show()
        return entry

    async def _kill(self, entry: entries.Entry) -> None:
        if entry.running is not None:
            try:
                await entry.running.kill(states.EndReason.DELETED)
            except errors.TraforoError as error:  # the runtime ends it by its deadline, and says so then
                self._log.warning("spare_not_killed", sandbox_id=entry.text_id, error=str(error))

    def _died(self, entry: entries.Entry, future: asyncio.Future[contract.SandboxEnd]) -> None:
        """Give back what a spare held; one that was claimed is its owner's."""
        if entry.state is not states.SandboxState.PENDING:
            return
        if entry in self._waiting.get(kind(entry.spec), []):
            self._remove(entry)
        entry.running = None
        holdings.move(entry, lifecycles.Event.ADMITTED)
        holdings.move(entry, lifecycles.Event.START_FAILED)  # it never was anybody's
        self._books.ledger.release(entry.text_id)
        self._books.gauges.refresh(self._books.ledger)
        self._hooks.forget(entry.spec.virtualization, entry.text_id)
        if future.result().reason is states.EndReason.EXPIRED and not self._closed:
            self._refill_soon()

    def _show(self, target: int | None = None) -> None:
        self._books.gauges.warm(sum(map(len, self._waiting.values())), target)
        self._books.gauges.refresh(self._books.ledger)

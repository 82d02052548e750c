"""The sandboxes of this worker, from adoption at start to the last kill: whoever wants something of one asks here.

It speaks no HTTP and checks no credential. The pure parts decide (table of states, ledger, leases, roster), `starts`
and `ends` act; this puts them together, keeps the clock and stops in order.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping

from traforo.domain import clocks, errors, ids, states
from traforo.settings import worker as settings_worker
from traforo.telemetry import logs
from traforo.worker import gauges, tasks
from traforo.worker.capacity import admissions
from traforo.worker.journal import journalfiles, journals
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import (
    activities,
    adoptions,
    alarms,
    ends,
    entries,
    happenings,
    holdings,
    labels,
    leases,
    repeats,
    rosters,
    spares,
    starts,
)

Entry = entries.Entry
Creation = starts.Creation

_ADOPT_SECONDS = 10.0
_LEASED = frozenset({states.SandboxState.RUNNING, states.SandboxState.PAUSED})


class Supervisor:
    """All sandboxes of one worker. Belongs to one event loop."""

    def __init__(
        self,
        *,
        settings: settings_worker.WorkerSettings,
        ledger: admissions.Ledger,
        runtimes: Mapping[str, contract.Runtime],
        images: holdings.Images,
        execs: holdings.Execs,
        journal: journals.Journal,
        gauges: gauges.Gauges,
        clock: clocks.Clock,
    ) -> None:
        retention = settings.ended_retention_seconds
        self._books = books = holdings.Holdings(
            worker=ids.worker_hash(settings.hostname),
            ledger=ledger,
            roster=rosters.Roster(retention=retention),
            expiries=leases.Deadlines(),
            idles=leases.Deadlines(),
            unproven=leases.Deadlines(),
            repeats=repeats.Repeats(),
            tasks=tasks.Tasks(),
            runtimes=runtimes,
            images=images,
            execs=execs,
            journal=journal,
            gauges=gauges,
            clock=clock,
        )
        self.roster = books.roster
        self.ledger = ledger
        self.cordoned = False
        """Whether creates are refused."""
        self._strangers = 0
        self._settings = settings
        self._enforced = {name: sorted(runtime.limits_enforced) for name, runtime in runtimes.items()}
        self._alarm = alarms.Alarm(clock, self.tick)
        self._ends = ends.Ends(books, self._alarm.arm, retention=retention)
        self._starts = starts.Starts(
            books, starts.Hooks(self._leased, self._ready, self._ends.died, self._ends.retire, self._vanished)
        )
        self._spares = spares.Spares(
            books,
            spares.Hooks(self._starts.spare, self._warm, self._ends.forgettable),
            most=settings.warm_sandboxes,
        )
        self.warm: Callable[[entries.Entry], Awaitable[None]] | None = None
        """Has the interpreters of a sandbox ready that it is to have."""
        self._log = logs.get(__name__)

    @property
    def virtualizations(self) -> list[str]:
        """What this worker can isolate with."""
        return sorted(self._books.runtimes)

    def limits_enforced(self, virtualization: str) -> list[str]:
        """Return which limits of a sandbox this host enforces, sorted."""
        return self._enforced.get(virtualization, [])

    def images(self) -> list[str]:
        """Return the images that live sandboxes were made from."""
        return sorted({entry.spec.image for entry in [*self.roster, *self._spares] if entry.live})

    def image_sources(self) -> list[str] | None:
        """Return the directories that live sandboxes have mounted; None where that is not known of each of them."""
        live = [entry for entry in [*self.roster, *self._spares] if entry.live]
        if self._strangers or not all(entry.rootfs.lowers for entry in live):
            return None
        return sorted({lower.source for entry in live for lower in entry.rootfs.lowers})

    async def start(self, left: journalfiles.Contents) -> dict[str, float]:
        """Start the runtimes and take over what an earlier worker left; `left` is its journal.

        Returns the tokens that must not work again, as `jti` to Unix seconds. Raises `StartFailed`.
        """
        adoption = contract.Adoption([], [])
        for runtime in self._books.runtimes.values():
            more = await runtime.start()
            adoption = contract.Adoption([*adoption.live, *more.live], [*adoption.dead, *more.dead])
        plan = adoptions.plan(adoption, left.sandboxes, self._books.clock.now())
        told = {record.sandbox_id: record.events for record in left.sandboxes}
        for entry in [*(found.entry for found in plan.live), *(ended.entry for ended in plan.ended)]:
            text_id = entry.text_id
            entry.happenings = happenings.Happenings(
                self._books.clock,
                functools.partial(self._books.journal.put_event, text_id),
                [*told.get(text_id, ()), *left.events.get(text_id, ())],
            )
        for ended in plan.ended:
            self._ends.known(ended)
        for spare in plan.spares:
            self._books.tasks.spawn(self._discard(spare))
        for found in plan.live:
            await self._adopt(found)
        self._strangers = len(plan.unreadable)
        for sandbox_id in plan.unreadable:
            self._log.error("sandbox_unreadable", sandbox_id=sandbox_id, effect="it runs on until its deadline")
        for sandbox_id in plan.nameless:
            self._log.error("dead_sandbox_unreadable", sandbox_id=sandbox_id)
            for name in self._books.runtimes:
                self._ends.forgettable(name, sandbox_id)
        self._books.gauges.refresh(self.ledger)
        self._log.info("adopted", live=len(plan.live), ended=len(plan.ended), unreadable=len(plan.unreadable))
        return adoptions.used_tokens(dict(left.tokens), plan)

    async def _discard(self, spare: contract.RunningSandbox) -> None:
        """End a spare of an earlier worker."""
        await spare.kill(states.EndReason.DELETED)
        for name in self._books.runtimes:
            self._ends.forgettable(name, spare.sandbox_id)

    async def _warm(self, entry: entries.Entry) -> None:
        if self.warm is not None:
            await self.warm(entry)

    def _vanished(self, entry: entries.Entry) -> None:
        self._ends.forgettable(entry.spec.virtualization, entry.text_id)

    async def _adopt(self, found: adoptions.Found) -> None:
        books, entry = self._books, found.entry
        if not found.image_known:
            try:
                entry.rootfs = await books.images.resolve(entry.spec.image)
            except errors.TraforoError as error:
                self._log.warning("image_unknown", sandbox_id=entry.text_id, image=entry.spec.image, error=str(error))
        self.ledger.restore(entry.text_id, admissions.demand(entry.spec.resources))
        self.roster.add(entry)
        self._leased(entry)
        entry.activity = activities.Activity(books.clock)  # when it was last used, nobody knows any more
        self._used(entry)
        entry.happenings.tell(states.Happening.ADOPTED)
        if entry.repeat_key is not None and entry.repeat_fingerprint is not None:
            result: asyncio.Future[entries.Entry] = asyncio.get_running_loop().create_future()
            result.set_result(entry)
            repeat = repeats.Repeat(entry.repeat_key, entry.repeat_fingerprint)
            books.repeats.put(entry.owner, repeat, result, entry.created_at)
        try:  # one sandbox whose init lies, hangs or dies at this moment must not keep the worker from starting
            await asyncio.wait_for(books.execs.adopt(entry), _ADOPT_SECONDS)
        except (errors.TraforoError, TimeoutError) as error:
            self._log.error("execs_unreadable", sandbox_id=entry.text_id, error=str(error))
        found.running.ended.add_done_callback(functools.partial(self._ends.died, entry))
        books.journal.put_sandbox(holdings.record(entry))

    async def create(self, creation: starts.Creation) -> entries.Entry:
        """Make a sandbox and return it when a first command can start, or the one a repeated request made before.

        Goes on without its caller. Raises `WorkerUnavailable`, `NoCapacity` (both before any side effect),
        `InvalidRequest`, `NotFound` (image), `StartFailed`, `Unauthenticated` (the token is used up), `Conflict` (the
        key came with another request), `TooLarge`.
        """
        if creation.repeat is None:
            return await self._create(creation)
        books, now = self._books, self._books.clock.now()
        known = books.repeats.find(creation.owner, creation.repeat, now)
        if known is None:
            known = books.tasks.spawn(self._create(creation))
            books.repeats.put(creation.owner, creation.repeat, known, now)
        return await asyncio.shield(known)

    async def _create(self, creation: starts.Creation) -> entries.Entry:
        if self._books.journal.full:
            await self._books.journal.room()
        spare = await self._spares.take(creation.spec)
        try:
            entry = self._admit(creation, spare)
        except errors.NoCapacity:
            if not await self._spares.give_way():
                raise
            entry = self._admit(creation, None)
        except BaseException:
            if spare is not None:
                self._spares.put_back(spare)
            raise
        entry.starting = self._books.tasks.spawn(self._starts.start(entry, creation.accepted_at))
        await asyncio.shield(entry.starting)
        return entry

    def _admit(self, creation: starts.Creation, spare: entries.Entry | None) -> entries.Entry:
        if self.cordoned:
            raise errors.WorkerUnavailable("cannot create: this worker is stopping")
        return self._starts.admit(creation, spare)

    def get(self, sandbox_id: ids.SandboxId) -> entries.Entry:
        """Return a sandbox, live or ended. Ownership is the caller's to check. Raises `NotFound`."""
        entry = self.roster.get(str(sandbox_id))
        if entry is None:
            raise errors.NotFound(f"no sandbox {sandbox_id}", kind="sandbox", id=str(sandbox_id))
        return entry

    async def renew(
        self, entry: entries.Entry, ttl_seconds: float | None = None, idle_seconds: float | None = None
    ) -> float:
        """Let the lease of a running sandbox end in `ttl_seconds` from now; return its end in Unix seconds.

        `idle_seconds` is its new idle limit, 0 for none; None leaves either as it is. When this returns, the new
        limits would survive this process. Raises `Conflict`, `InvalidRequest`.
        """
        most = self._settings.max_ttl
        seconds = None if ttl_seconds is None else leases.ttl(ttl_seconds, default=most, most=most)
        leases.idle(idle_seconds, most=most)
        return await self._books.tasks.shielded(self._renew(entry, seconds, idle_seconds))

    async def _renew(self, entry: entries.Entry, seconds: float | None, idle_seconds: float | None) -> float:
        if entry.renewing is None:
            entry.renewing = asyncio.Lock()
        async with entry.renewing:
            running = _leasable(entry)
            expires_at = entry.expires_at if seconds is None else self._books.clock.now() + seconds
            idle = entry.idle_seconds
            if idle_seconds is not None:
                idle = leases.idle(idle_seconds, most=self._settings.max_ttl)
            try:
                label = labels.encode(entry, expires_at=expires_at, idle_seconds=idle)
                await running.update(label=label, deadline=expires_at)
            except (errors.Lost, errors.NotFound) as error:
                raise errors.Conflict("cannot renew the lease: the sandbox has just ended") from error
            _leasable(entry)
            entry.expires_at, entry.idle_seconds = expires_at, idle
            entry.activity.touch()
            self._leased(entry)
            self._used(entry)
            entry.happenings.tell(
                states.Happening.LEASE_RENEWED, expires_at=clocks.rfc3339(expires_at), idle_seconds=idle
            )
            self._books.journal.put_sandbox(holdings.record(entry))
            return expires_at

    async def stop(self, entry: entries.Entry, reason: states.EndReason) -> None:
        """Return when the sandbox is dead, whoever else wants it dead as well. Idempotent."""
        await self._ends.stop(entry, reason)

    def tick(self) -> None:
        """End what is over or idle, forget what could be read for long enough. Cheap when there is nothing to do."""
        books = self._books
        now = books.clock.now()
        for text_id in books.expiries.pop(now):
            entry = self.roster.get(text_id)
            if entry is not None and entry.live:
                books.tasks.spawn(self._expire(entry, states.EndReason.EXPIRED))
        for text_id in books.idles.pop(books.clock.monotonic()):
            entry = self.roster.get(text_id)
            if entry is not None and entry.live and not self._used(entry):
                books.tasks.spawn(self._expire(entry, states.EndReason.IDLE))
        for text_id in books.unproven.pop(now):
            self.ledger.release(text_id)
            books.gauges.refresh(self.ledger)
        for entry in self.roster.prune(now):
            self._ends.drop(entry)
        if len(self.roster) or len(books.unproven):
            self._alarm.arm(books.expiries.next())
        if (due := books.idles.next()) is not None:
            self._alarm.arm(now + due - books.clock.monotonic())

    async def _expire(self, entry: entries.Entry, reason: states.EndReason) -> None:
        await self.stop(entry, reason)
        self._log.info("sandbox_expired", sandbox_id=entry.text_id, reason=entry.reason)

    def _leased(self, entry: entries.Entry) -> None:
        self._books.expiries.set(entry.text_id, entry.expires_at)
        self._alarm.arm(entry.expires_at)

    def _ready(self, entry: entries.Entry) -> None:
        if entry.idle_seconds is not None:
            self._used(entry)

    def _used(self, entry: entries.Entry) -> bool:
        """Tell whether a sandbox is within its idle limit, and have the clock look at it again when that may end."""
        books = self._books
        if entry.idle_seconds is None:
            books.idles.drop(entry.text_id)
            return True
        left = leases.idle_left(entry.idle_seconds, entry.activity.idle())
        if left:
            books.idles.set(entry.text_id, books.clock.monotonic() + left)
            self._alarm.arm(books.clock.now() + left)
        return left > 0

    def cordon(self) -> None:
        """Take no more creates; what lives goes on."""
        self.cordoned = True

    async def close(self, *, keep: bool) -> None:
        """Stop for good: end every sandbox, or with `keep` leave them to the next worker. The journal is flushed."""
        self.cordon()
        await self._spares.close()
        if not keep:
            stops = [self.stop(entry, states.EndReason.WORKER_STOPPED) for entry in self.roster if entry.live]
            for result in await asyncio.gather(*stops, return_exceptions=True):
                if isinstance(result, BaseException):
                    self._log.error("sandbox_stop_failed", error=repr(result))
        self._alarm.cancel()
        await self._books.tasks.drain()  # starts that are under way too
        await self._books.execs.close()
        await self._books.journal.flush()
        await self._books.tasks.drain()  # the runtimes forget what the journal now has
        for runtime in self._books.runtimes.values():
            await runtime.close(keep=keep)


def _leasable(entry: entries.Entry) -> contract.RunningSandbox:
    """Return the handle of a sandbox whose lease can be renewed. Raises `Conflict`."""
    if entry.running is None or entry.state not in _LEASED:
        raise errors.Conflict(f"cannot renew the lease: the sandbox is {entry.state.value}", state=entry.state.value)
    return entry.running

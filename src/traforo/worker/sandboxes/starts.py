"""How a sandbox comes up: admission in one step, then the start, which ends well or leaves nothing.

A start belongs to the sandbox and not to the request: a caller who goes away changes nothing about it. A reservation
of a start that failed is given back when the runtime vouches that nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

from traforo.domain import errors, ids, specs, states
from traforo.telemetry import logs
from traforo.worker.capacity import admissions
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities, entries, happenings, holdings, labels, lifecycles, repeats


@dataclass(frozen=True, slots=True)
class Creation:
    """A create whose request was checked."""

    spec: specs.SandboxSpec
    accepted_at: float
    """Monotonic seconds at which the request came in."""
    owner: str | None = None
    jti: str | None = None
    jti_expires_at: float = 0.0
    """Unix seconds."""
    use_token: Callable[[], None] = lambda: None
    """Uses the token up, as the last thing before anything is made. Raises `Unauthenticated`."""
    repeat: repeats.Repeat | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told about a start."""

    leased: Callable[[entries.Entry], None]
    """It has a lease now."""
    ready: Callable[[entries.Entry], None]
    """It runs, and its idle limit counts."""
    died: Callable[[entries.Entry, asyncio.Future[contract.SandboxEnd]], None]
    """Its runtime proved it dead."""
    failed: Callable[[entries.Entry], None]
    """It came to nothing, and can be read about."""
    vanished: Callable[[entries.Entry], None]
    """It was a spare that is dead, and the runtime may forget it."""


class Starts:
    """Makes sandboxes."""

    def __init__(self, books: holdings.Holdings, hooks: Hooks) -> None:
        self._books = books
        self._hooks = hooks
        self._log = logs.get(__name__)

    def admit(self, creation: Creation, spare: entries.Entry | None = None) -> entries.Entry:
        """Reserve, use the token up and make the entry: one step that nothing else can come between.

        A `spare` has its reservation, and becomes the entry.
        """
        books, spec = self._books, creation.spec
        if spec.virtualization not in books.runtimes:
            raise errors.InvalidRequest(
                f"cannot create: this worker has no virtualization {spec.virtualization!r}",
                field="virtualization",
                available=sorted(books.runtimes),
            )
        entry = spare or self._reserved(spec)
        try:
            creation.use_token()
        except BaseException:
            if spare is None:
                books.ledger.release(entry.text_id)
            raise
        now = books.clock.now()
        entry.spec, entry.owner = spec, creation.owner
        entry.created_at, entry.expires_at = now, now + spec.ttl_seconds
        entry.jti, entry.jti_expires_at = creation.jti, creation.jti_expires_at
        if creation.repeat is not None:
            entry.repeat_key, entry.repeat_fingerprint = creation.repeat.key, creation.repeat.fingerprint
        entry.activity = activities.Activity(books.clock)
        entry.happenings = happenings.Happenings(books.clock, functools.partial(books.journal.put_event, entry.text_id))
        entry.idle_seconds = spec.idle_seconds
        entry.start_type = states.StartType.COLD if spare is None else states.StartType.WARM
        entry.happenings.tell(states.Happening.CREATED)
        holdings.move(entry, lifecycles.Event.ADMITTED)
        books.roster.add(entry)
        self._hooks.leased(entry)
        return entry

    def _reserved(self, spec: specs.SandboxSpec) -> entries.Entry:
        """Reserve for a new sandbox, and return an entry for it that nobody knows yet. Raises `NoCapacity`."""
        books = self._books
        sandbox_id = ids.new_sandbox_id(books.worker)
        now = books.clock.now()
        entry = entries.Entry(
            id=sandbox_id,
            spec=spec,
            owner=None,
            rootfs=contract.Rootfs(spec.image, ()),
            state=states.SandboxState.PENDING,
            created_at=now,
            expires_at=now + spec.ttl_seconds,
        )
        books.ledger.admit(entry.text_id, admissions.demand(spec.resources))
        return entry

    async def spare(self, spec: specs.SandboxSpec) -> entries.Entry:
        """Make a sandbox that is nobody's yet. Raises `NoCapacity` unless there is room to spare, and as `start`."""
        books = self._books
        books.ledger.check_spare(admissions.demand(spec.resources))
        entry = self._reserved(spec)
        try:
            entry.running = await self._made(entry, spare=True)
        except errors.TraforoError:
            books.ledger.release(entry.text_id)
            raise
        except BaseException:
            books.unproven.set(entry.text_id, entry.expires_at)
            raise
        books.gauges.refresh(books.ledger)
        return entry

    async def start(self, entry: entries.Entry, accepted_at: float) -> None:
        """Bring an admitted sandbox up. Raises what the image store and the runtime raise, and `TooLarge`."""
        books = self._books
        admitted_at = books.clock.monotonic()
        spare = entry.running
        try:
            running = await (self._made(entry) if spare is None else self._claimed(entry, spare))
        except errors.TraforoError as error:
            self._failed(entry, error, held=spare is not None)
            if spare is not None:
                await self._end_spare(entry, spare)
            raise
        except BaseException:
            # Not what a runtime promises, so perhaps it lives. Its deadline is the proof of death that is left.
            books.unproven.set(entry.text_id, entry.expires_at)
            self._failed(entry, None)
            raise
        ready_at = books.clock.monotonic()
        entry.running = running
        entry.timings_ms = {
            "accepted_to_admitted": _ms(admitted_at - accepted_at),
            "admitted_to_ready": _ms(ready_at - admitted_at),
            "total": _ms(ready_at - accepted_at),
        }
        entry.on_first_exec = functools.partial(self._first_exec, entry, accepted_at)
        holdings.move(entry, lifecycles.Event.READY)
        entry.activity.touch()
        entry.happenings.tell(states.Happening.READY)
        self._hooks.ready(entry)
        running.ended.add_done_callback(functools.partial(self._hooks.died, entry))
        books.journal.put_sandbox(holdings.record(entry))
        books.gauges.ready(entry, ready_at - accepted_at)
        books.gauges.refresh(books.ledger)

    async def _claimed(self, entry: entries.Entry, running: contract.RunningSandbox) -> contract.RunningSandbox:
        """Give a spare the label of what it is now, which makes it that for every worker to come."""
        label = labels.encode(entry, expires_at=entry.expires_at, idle_seconds=entry.idle_seconds)
        try:
            await running.update(label=label, deadline=entry.expires_at)
        except (errors.Lost, errors.NotFound) as error:
            raise errors.StartFailed("cannot start the sandbox: it has just ended", stage="claim") from error
        return running

    async def _end_spare(self, entry: entries.Entry, running: contract.RunningSandbox) -> None:
        """End a spare that could not be claimed. What it holds is given back when it is dead, whenever that is."""
        entry.running = None
        running.ended.add_done_callback(functools.partial(self._spare_ended, entry))
        with contextlib.suppress(errors.TraforoError):  # the runtime ends it by the deadline of spares
            await running.kill(states.EndReason.DELETED)

    def _spare_ended(self, entry: entries.Entry, _: asyncio.Future[contract.SandboxEnd]) -> None:
        self._books.ledger.release(entry.text_id)
        self._books.gauges.refresh(self._books.ledger)
        self._hooks.vanished(entry)

    async def _made(self, entry: entries.Entry, *, spare: bool = False) -> contract.RunningSandbox:
        entry.rootfs = await self._books.images.resolve(entry.spec.image)
        request = contract.CreateRequest(
            sandbox_id=entry.text_id,
            hostname=f"sbx-{entry.id.ulid.lower()}",
            resources=entry.spec.resources,
            rootfs=entry.rootfs,
            label=labels.encode(entry, expires_at=entry.expires_at, idle_seconds=entry.idle_seconds, spare=spare),
            deadline=entry.expires_at,
        )
        return await self._books.runtimes[entry.spec.virtualization].create(request)

    def _failed(self, entry: entries.Entry, error: errors.TraforoError | None, *, held: bool = False) -> None:
        """Take note of a failed start; without an error it is not proven that nothing is left."""
        books = self._books
        holdings.move(entry, lifecycles.Event.START_FAILED)
        entry.ended_at = books.clock.now()
        entry.happenings.tell(states.Happening.START_FAILED, code="internal" if error is None else error.code)
        entry.happenings.end()
        books.expiries.drop(entry.text_id)
        if error is not None and not held:
            books.ledger.release(entry.text_id)
        books.gauges.refresh(books.ledger)
        if error is not None and not isinstance(error, errors.StartFailed):
            books.roster.remove(entry.text_id)  # the request was at fault: there never was a sandbox
            return
        if error is not None:
            error.fields.setdefault("sandbox_id", entry.text_id)
        self._log.warning("sandbox_start_failed", sandbox_id=entry.text_id, error=str(error), proven=error is not None)
        self._hooks.failed(entry)
        books.journal.put_sandbox(holdings.record(entry))

    def _first_exec(self, entry: entries.Entry, accepted_at: float) -> None:
        self._books.gauges.first_exec(entry, self._books.clock.monotonic() - accepted_at)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)

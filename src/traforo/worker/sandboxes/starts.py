"""How a sandbox comes up: admission in one step, then the start, which ends well or leaves nothing.

A start belongs to the sandbox and not to the request: a caller who goes away changes nothing about it. A reservation
of a start that failed is given back when the runtime vouches that nothing is left.
"""

from __future__ import annotations

import asyncio
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


class Starts:
    """Makes sandboxes."""

    def __init__(self, books: holdings.Holdings, hooks: Hooks) -> None:
        self._books = books
        self._hooks = hooks
        self._log = logs.get(__name__)

    def admit(self, creation: Creation) -> entries.Entry:
        """Reserve, use the token up and make the entry: one step that nothing else can come between."""
        books, spec = self._books, creation.spec
        if spec.virtualization not in books.runtimes:
            raise errors.InvalidRequest(
                f"cannot create: this worker has no virtualization {spec.virtualization!r}",
                field="virtualization",
                available=sorted(books.runtimes),
            )
        sandbox_id = ids.new_sandbox_id(books.worker)
        text_id = str(sandbox_id)
        books.ledger.admit(text_id, admissions.demand(spec.resources))
        try:
            creation.use_token()
        except BaseException:
            books.ledger.release(text_id)
            raise
        now = books.clock.now()
        entry = entries.Entry(
            id=sandbox_id,
            text_id=text_id,
            spec=spec,
            owner=creation.owner,
            rootfs=contract.Rootfs(spec.image, ()),
            state=states.SandboxState.PENDING,
            created_at=now,
            expires_at=now + spec.ttl_seconds,
            jti=creation.jti,
            jti_expires_at=creation.jti_expires_at,
            repeat_key=creation.repeat.key if creation.repeat else None,
            repeat_fingerprint=creation.repeat.fingerprint if creation.repeat else None,
            activity=activities.Activity(books.clock),
            happenings=happenings.Happenings(books.clock, functools.partial(books.journal.put_event, text_id)),
            idle_seconds=spec.idle_seconds,
        )
        entry.happenings.tell(states.Happening.CREATED)
        holdings.move(entry, lifecycles.Event.ADMITTED)
        books.roster.add(entry)
        self._hooks.leased(entry)
        return entry

    async def start(self, entry: entries.Entry, accepted_at: float) -> None:
        """Bring an admitted sandbox up. Raises what the image store and the runtime raise, and `TooLarge`."""
        books = self._books
        admitted_at = books.clock.monotonic()
        try:
            running = await self._make(entry)
        except errors.TraforoError as error:
            self._failed(entry, error)
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

    async def _make(self, entry: entries.Entry) -> contract.RunningSandbox:
        entry.rootfs = await self._books.images.resolve(entry.spec.image)
        request = contract.CreateRequest(
            sandbox_id=entry.text_id,
            hostname=f"sbx-{entry.id.ulid.lower()}",
            resources=entry.spec.resources,
            rootfs=entry.rootfs,
            label=labels.encode(entry, expires_at=entry.expires_at, idle_seconds=entry.idle_seconds),
            deadline=entry.expires_at,
        )
        return await self._books.runtimes[entry.spec.virtualization].create(request)

    def _failed(self, entry: entries.Entry, error: errors.TraforoError | None) -> None:
        """Take note of a failed start; without an error it is not proven that nothing is left."""
        books = self._books
        holdings.move(entry, lifecycles.Event.START_FAILED)
        entry.ended_at = books.clock.now()
        entry.happenings.tell(states.Happening.START_FAILED, code="internal" if error is None else error.code)
        entry.happenings.end()
        books.expiries.drop(entry.text_id)
        if error is not None:
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

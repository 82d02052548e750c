"""What happened to one sandbox, in order: told once where it happens, kept for as long as the sandbox can be read.

Each event has a number that never changes, so a reader goes on where it stopped, over a restart of the worker too.
Memory is bounded: beyond `MAX_KEPT` the oldest are forgotten, and a late reader is told how many. Telling is cheap and
never waits; what is told goes to the journal behind the teller's back. What tells of births and deaths is kept in the
sandbox's own record, since that is written at those moments anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from traforo.domain import clocks, states

MAX_KEPT = 1000
"""Events of one sandbox that can be read."""

Kind = states.Happening

WITH_RECORD = frozenset({Kind.CREATED, Kind.READY, Kind.START_FAILED, Kind.STOPPING, Kind.STOPPED})
"""Kinds that are told at most once, right before the record of the sandbox is written, and are kept in it."""

_NOTHING: Mapping[str, Any] = {}


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that happened."""

    number: int
    """From 0 up, without gaps."""
    at: float
    """Unix seconds."""
    kind: states.Happening
    facts: Mapping[str, Any] = _NOTHING
    """JSON values."""

    def shown(self) -> dict[str, Any]:
        """Return what `schemas.Event` describes."""
        return {
            "cursor": self.number,
            "ts": clocks.rfc3339(self.at),
            "type": self.kind,
            "facts": self.facts,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, oldest first."""

    events: Sequence[Event]
    next_cursor: int
    dropped: int
    """How many between the cursor and the first event are forgotten."""


class Happenings:
    """The events of one sandbox. Belongs to one event loop.

    `keep` is given each event that has to be written down by itself.
    """

    __slots__ = ("_clock", "_events", "_first", "_keep", "_life", "_over", "_waiters")

    def __init__(
        self,
        clock: clocks.Clock,
        keep: Callable[[Event], None] | None = None,
        known: Iterable[Event] = (),
    ) -> None:
        """Begin with what an earlier worker knew, in any order; each number counts once."""
        self._clock = clock
        self._keep = keep
        self._events: list[Event] = []
        self._life: list[Event] = []
        self._first = 0
        if known:
            found = {event.number: event for event in known}
            self._events = [found[number] for number in sorted(found)][-MAX_KEPT:]
            self._life = [event for event in found.values() if event.kind in WITH_RECORD]
            self._first = _contiguous(self._events)
        self._waiters: list[asyncio.Future[None]] = []
        self._over = False

    @property
    def oldest(self) -> int:
        """Number of the oldest event that is kept."""
        return self._first

    @property
    def next(self) -> int:
        """Number of the next event."""
        return self._first + len(self._events)

    def tell(self, kind: states.Happening, /, **facts: Any) -> None:
        """Tell that something happened now. `facts` are small JSON values; cut what is hostile."""
        event = Event(self._first + len(self._events), self._clock.now(), kind, facts or _NOTHING)
        self._events.append(event)
        if len(self._events) > MAX_KEPT:
            del self._events[0]
            self._first += 1
        if kind in WITH_RECORD:
            self._life.append(event)
        elif self._keep is not None:
            self._keep(event)
        if self._waiters:
            self._wake()

    def end(self) -> None:
        """Tell that nothing will happen any more: nobody need wait."""
        self._over = True
        self._wake()

    def with_record(self) -> tuple[Event, ...]:
        """Return what belongs into the sandbox's record."""
        return tuple(self._life)

    @property
    def over(self) -> bool:
        """Whether nothing will happen any more."""
        return self._over

    def all(self) -> Sequence[Event]:
        """Return every event that is kept, oldest first."""
        return self._events

    def page(self, cursor: int, limit: int) -> Page:
        """Return at most `limit` events from number `cursor` on."""
        start = max(0, cursor - self._first)
        found = self._events[start : start + limit]
        first = found[0].number if found else max(cursor, self._first)
        return Page(found, found[-1].number + 1 if found else first, max(0, first - cursor))

    async def wait(self, cursor: int, seconds: float) -> None:
        """Return when there is an event of number `cursor`, when there will be no more, or after `seconds`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._over and self.next <= cursor and (left := until - loop.time()) > 0:
            waiter: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(left, _resolve, waiter)
            with self.listening(waiter):
                try:
                    await waiter
                finally:
                    timer.cancel()

    @contextlib.contextmanager
    def listening(self, waiter: asyncio.Future[None]) -> Iterator[None]:
        """Have `waiter` resolved by the next event."""
        self._waiters.append(waiter)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waking, self._waiters = self._waiters, []
        for waiter in waking:
            _resolve(waiter)


def _contiguous(events: list[Event]) -> int:
    """Leave out what lies before the last gap: what a crash took; return the number of the first that stays."""
    for index in range(len(events) - 1, 0, -1):
        if events[index - 1].number != events[index].number - 1:
            del events[:index]
            break
    return events[0].number if events else 0


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

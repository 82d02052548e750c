"""The log of a whole sandbox, read: output of all its execs and its events, put in order while they are being read.

Nothing is written for it: the logs of execs and the events are what there is. One page opens only the logs that have
something to give, reads them piece by piece, and looks at about a MiB; so a sandbox with thousands of execs costs a
reader as little memory as one with one. What may still be overtaken by older output is held back for a moment, so a
cursor never passes over anything. What stands where is decided in `traforo.worker.outputs.merges`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import heapq
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import msgspec

from traforo.domain import clocks
from traforo.worker.execs import results, runs
from traforo.worker.outputs import framelogs, frames, logviews, merges
from traforo.worker.sandboxes import entries, happenings

PAGE_BYTES = 1024 * 1024
"""Output that one page looks at; it always gets on."""
HEARTBEAT_SECONDS = 15.0
"""Longest silence of one who follows."""
PAUSE_SECONDS = 0.02
"""Least time between two looks of one who follows, in which more may come."""
_PAUSE_FACTOR = 20  # a follower that works for long at each look does so the more rarely
_FIRST_FRAMES = 4
_NEVER = 1 << 62

Stream = Literal["all", "stdout", "stderr", "events"]
T = TypeVar("T")


class LogEntry(msgspec.Struct, frozen=True):
    """What `schemas.LogEntry` describes."""

    cursor: str
    ts: str
    type: str
    exec_id: str | None
    data: str


class Logs(Protocol):
    """Where output is; `traforo.worker.execs.execs.Execs` is one."""

    def visible(self, entry: entries.Entry) -> list[runs.Exec]:
        """Return the execs of a sandbox that can be asked about."""
        ...

    async def log(self, run: runs.Exec) -> framelogs.FrameLog:
        """Return the log of an exec."""
        ...

    async def read(self, log: framelogs.FrameLog, work: Callable[[], T]) -> T:
        """Read a log, in a thread where that may take long."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries, and how."""

    stream: Stream = "all"
    encoding: results.Encoding = "utf8"

    def has(self, kind: frames.Kind) -> bool:
        """Tell whether output of this kind is wanted."""
        return self.stream == "all" or self.stream == kind.name.lower()

    @property
    def events(self) -> bool:
        """Whether events are wanted."""
        return self.stream in {"all", "events"}


@dataclass(slots=True)
class Page:
    """Some entries, oldest first."""

    last: merges.Key
    """Key of the last entry that was looked at, shown or not: where to go on."""
    entries: list[LogEntry] = field(default_factory=list)
    room: int = PAGE_BYTES
    full: bool = False
    """There is more to read at once."""
    held: bool = False
    """Something is held back, for a moment."""
    over: bool = False
    """Nothing more will come."""

    @property
    def more(self) -> bool:
        """There is more now, or may be later."""
        return self.full or self.held or not self.over


class Chronicles:
    """Reads the logs of the sandboxes of one worker. Belongs to one event loop."""

    def __init__(self, logs: Logs, clock: clocks.Clock) -> None:
        self._logs = logs
        self._clock = clock
        self._latest_ms = 0

    async def page(
        self,
        entry: entries.Entry,
        after: merges.Key,
        limit: int,
        wanted: Wanted | None = None,
        places: dict[str, int] | None = None,
    ) -> Page:
        """Return at most `limit` entries behind `after`.

        `places` is the memory of one who goes on: numbers of the next frames by exec.
        """
        wanted = wanted or Wanted()
        visible = self._logs.visible(entry)
        page = Page(after, over=entry.happenings.over and all(run.outcome is not None for run in visible))
        horizon = _NEVER if page.over else self._horizon(visible)
        heap: list[tuple[merges.Key, int, _Events | _Output]] = []
        serial = itertools.count()
        if wanted.events:
            told = _Events(entry.happenings, after, places)
            if told.key is not None:
                heap.append((told.key, next(serial), told))
        if wanted.stream != "events":
            outputs = (_Output.of(run, after, self._logs, wanted, places) for run in visible)
            heap.extend((source.key, next(serial), source) for source in outputs if source is not None)
        heapq.heapify(heap)
        while heap:
            key, _, found = heapq.heappop(heap)
            if key.ms > horizon:
                page.held = True
                break
            if page.room <= 0 or len(page.entries) >= limit:
                page.full = True
                break
            bound = heap[0][0] if heap else merges.Key(_NEVER, 0, "", 0)
            following = await found.take(
                page, limit - len(page.entries), min(bound, merges.Key(horizon + 1, 0, "", -1))
            )
            if following is not None:
                heapq.heappush(heap, (following, next(serial), found))
        return page

    async def follow(
        self, entry: entries.Entry, after: merges.Key, wanted: Wanted
    ) -> AsyncGenerator[list[LogEntry], None]:
        """Yield entries behind `after` as they come, until nothing more can; an empty list is a sign of life."""
        loop = asyncio.get_running_loop()
        places: dict[str, int] = {}
        silent_since = loop.time()
        while True:
            news: asyncio.Future[None] = loop.create_future()
            with self._listening(entry, news):
                began = loop.time()
                page = await self.page(entry, after, _FOLLOW_ENTRIES, wanted, places)
                now = loop.time()
                after = page.last
                if page.entries:
                    yield page.entries
                    silent_since = now
                if not page.more:
                    return
                if page.full:
                    continue
                if not page.held:
                    await asyncio.wait([news], timeout=max(0.0, silent_since + HEARTBEAT_SECONDS - now))
                if news.done() and news.exception() is not None:  # this worker is stopping
                    return
            if loop.time() - silent_since >= HEARTBEAT_SECONDS:
                yield []
                silent_since = loop.time()
            await asyncio.sleep(max(PAUSE_SECONDS, _PAUSE_FACTOR * (now - began)))

    def _horizon(self, visible: list[runs.Exec]) -> int:
        """Return the millisecond before which nothing can come any more."""
        self._latest_ms = max(self._latest_ms, int(self._clock.now() * 1000))
        moving = (run.pump.moving_ms for run in visible if run.pump is not None)
        return min((ms for ms in moving if ms is not None), default=self._latest_ms) - 1

    @contextlib.contextmanager
    def _listening(self, entry: entries.Entry, news: asyncio.Future[None]) -> Iterator[None]:
        running = [run for run in self._logs.visible(entry) if run.outcome is None]
        for run in running:
            run.watchers.append(news)
        try:
            with entry.happenings.listening(news):
                yield
        finally:
            if news.done():
                news.exception()  # looked at, or asyncio complains
            for run in running:
                with contextlib.suppress(ValueError):
                    run.watchers.remove(news)


_FOLLOW_ENTRIES = 1000


class _Events:
    """The events of a sandbox behind a key."""

    def __init__(self, told: happenings.Happenings, after: merges.Key, places: dict[str, int] | None) -> None:
        found = [(merges.of_event(event.kind, event.at, event.number), event) for event in told.all()]
        self._places = {} if places is None else places
        place = after.number + 1 if after.source == merges.NOBODY else self._places.get(merges.NOBODY)
        if place is not None:
            self._found = [(key, event) for key, event in found if event.number >= place]
        else:
            self._found = [(key, event) for key, event in found if key > after]
        self._at = 0

    @property
    def key(self) -> merges.Key | None:
        return self._found[self._at][0] if self._at < len(self._found) else None

    async def take(self, page: Page, limit: int, bound: merges.Key) -> merges.Key | None:
        """Add events up to `bound`; return the key of the next one."""
        while limit and self._at < len(self._found) and (self._found[self._at][0] <= bound):
            key, event = self._found[self._at]
            self._at += 1
            page.last = max(page.last, key)
            limit -= 1
            page.entries.append(_told(key, event))
            self._places[merges.NOBODY] = event.number + 1
        return self.key


class _Output:
    """The output of one exec behind a key."""

    def __init__(
        self, run: runs.Exec, key: merges.Key, after: merges.Key, logs: Logs, wanted: Wanted, places: dict[str, int]
    ) -> None:
        self.key = key
        """Where its next frame stands; before it was opened, no later than that."""
        self._run = run
        self._source = run.id.removeprefix("exec_")
        self._after = after
        self._logs = logs
        self._wanted = wanted
        self._places = places
        self._log: framelogs.FrameLog | None = None
        self._view = logviews.View((), 0, 0, frames.Amounts())
        self._next = 0
        self._known = True
        self._chunk = _FIRST_FRAMES
        self._carries: dict[frames.Kind, bytes] = {}

    @classmethod
    def of(
        cls, run: runs.Exec, after: merges.Key, logs: Logs, wanted: Wanted, places: dict[str, int] | None
    ) -> _Output | None:
        """Return what may have output behind `after`; None for what cannot, told without looking at its log."""
        if run.outcome is not None and not run.logged:
            return None
        mine = after.source == run.id.removeprefix("exec_") or (places is not None and run.id in places)
        if not mine and run.completed_at is not None and int(run.completed_at * 1000) < after.ms:
            return None
        begun = merges.Key(int(run.started_at * 1000), merges.BEFORE, "", -1)
        return cls(run, max(begun, after), after, logs, wanted, {} if places is None else places)

    async def take(self, page: Page, limit: int, bound: merges.Key) -> merges.Key | None:
        """Add output up to `bound`; return the key of the next frame, None when there is none."""
        if self._log is None:
            return await self._open()
        log, view = self._log, self._view
        read = functools.partial(self._read, view, min(limit, self._chunk), max(page.room, 1), bound)
        shown = await self._logs.read(log, read)
        if not shown.looked:
            self.key = shown.following or self.key
            return shown.following
        page.room -= shown.size
        if shown.first > self._next:
            page.entries.append(self._gap(log, shown))
        page.entries += shown.entries
        page.last = max(page.last, shown.last)
        self._next, self._known = shown.last.number + 1, True
        self._places[self._run.id] = self._next
        self._after = shown.last
        if shown.following is not None:
            self._chunk = shown.looked + 1
            self.key = shown.following
            return self.key
        self._chunk *= 2
        if self._next >= view.count:
            if self._run.outcome is not None:
                self._places.pop(self._run.id, None)
            return None
        self.key = shown.last
        return self.key

    async def _open(self) -> merges.Key | None:
        self._log = log = await self._logs.log(self._run)
        self._view = view = log.view(seal=self._run.outcome is None)
        oldest = view.segments[0].first if view.segments else view.count
        place = self._places.get(self._run.id)
        if place is not None:
            self._next = place
        elif self._after.source == self._source:
            self._next = self._after.number + 1
        elif int(self._run.started_at * 1000) <= self._after.ms:
            find = functools.partial(_search, view, self._after, self._source, oldest)
            self._next = await self._logs.read(log, find)
            if self._next == oldest > 0:  # what came before may have been behind the cursor, or not
                self._next, self._known = oldest - 1, False
        if self._next >= view.count or not view.segments:
            return None
        header = await self._logs.read(log, functools.partial(view.header, max(self._next, oldest)))
        if header is None:  # dropped since: the reading itself passes over it
            return self.key
        self.key = merges.of_frame(self._source, header.ms, header.number, self._after)
        return self.key

    def _read(self, view: logviews.View, limit: int, room: int, bound: merges.Key) -> _Shown:
        """Read frames up to `bound` in any thread."""
        shown = _Shown(self._after)
        expected = self._next
        for frame in view.read(expected, limit, room):
            head = frame.header
            key = merges.of_frame(self._source, head.ms, head.number, shown.last)
            if key > bound:
                shown.following = key
                break
            if not shown.looked:
                shown.first, shown.first_ms = head.number, key.ms
            if head.number != expected:  # something between was dropped
                self._carries.clear()
            expected = head.number + 1
            shown.looked += 1
            shown.last = key
            shown.size += frames.HEADER_BYTES + len(frame.payload)
            if self._wanted.has(head.kind) and (data := self._data(view, frame)):
                shown.entries.append(self._entry(key, head.ms, head.kind.name.lower(), data))
        return shown

    def _data(self, view: logviews.View, frame: frames.Frame) -> str:
        if self._wanted.encoding == "base64":
            return base64.b64encode(frame.payload).decode()
        head = frame.header
        carry = self._carries[head.kind] if head.kind in self._carries else view.carry(frame)
        final = head.kind not in frames.STREAMS or bool(head.flags & frames.FINAL)
        text, self._carries[head.kind] = frames.text(carry, frame.payload, final=final)
        return text

    def _gap(self, log: framelogs.FrameLog, shown: _Shown) -> LogEntry:
        """Tell of output that is no longer kept; of how much, where that is known."""
        missing = str(log.position(shown.first) - log.position(self._next)) if self._known else ""
        key = merges.Key(shown.first_ms, merges.OUTPUT, self._source, shown.first - 1)
        return self._entry(key, key.ms, "gap", missing)

    def _entry(self, key: merges.Key, ms: int, kind: str, data: str) -> LogEntry:
        return LogEntry(str(key), clocks.rfc3339(ms / 1000), kind, self._run.id, data)


@dataclass(slots=True)
class _Shown:
    """What one reading of a log gave."""

    last: merges.Key
    entries: list[LogEntry] = field(default_factory=list)
    looked: int = 0
    """Frames that were taken."""
    first: int = 0
    first_ms: int = 0
    size: int = 0
    following: merges.Key | None = None
    """Key of the first frame that was not taken, where that is known."""


def _search(view: logviews.View, after: merges.Key, source: str, oldest: int) -> int:
    def ms_of(number: int) -> int | None:
        header = view.header(number)
        return None if header is None else header.ms

    return merges.first_after(after, source, oldest, view.count, ms_of)


def _told(key: merges.Key, event: happenings.Event) -> LogEntry:
    data = msgspec.json.encode({"type": event.kind, **event.facts}).decode()
    exec_id = event.facts.get("exec_id")
    return LogEntry(str(key), clocks.rfc3339(event.at), "event", exec_id if isinstance(exec_id, str) else None, data)

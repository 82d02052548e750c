"""Watches of files for clients: what changed is kept in a ring of its own for each, and read by cursor.

A sandbox can change files faster than anybody reads. So a ring has a size, what falls out of it is told as an overflow,
and a watch that nobody asks for any more ends. Watches end with this worker too: whoever had one looks at everything
again, as after an overflow.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from traforo.domain import errors, ids
from traforo.worker import insides
from traforo.worker.files import replacements
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities, entries

RING = 10_000
"""Most changes of one watch that are kept."""
PER_SANDBOX = 16
"""Most watches of one sandbox."""
AT_ONCE = 1024
"""Most watches of this worker."""
FORGOTTEN_SECONDS = 300.0
"""How long a watch goes on that nobody asks for."""
BURST = 64
"""Changes at once after which a watch takes a breath, so that a busy sandbox costs others little."""
BREATH_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Page:
    """Some changes of a watch."""

    changes: Sequence[tuple[int, contract.Change]]
    """With their cursors."""
    next_cursor: int
    overflow: bool
    """Changes before these are lost: look at everything again."""
    ended: bool
    """There will be no more: the directory, or the sandbox, is gone."""


class Ring:
    """The last changes, numbered from 0. Pure."""

    def __init__(self, size: int = RING) -> None:
        self._kept: collections.deque[contract.Change] = collections.deque(maxlen=size)
        self.next_cursor = 0
        """Number of the change that comes next."""

    def add(self, change: contract.Change) -> None:
        """Keep a change, and forget the oldest if there are too many. An overflow is a gap, and no change."""
        if change.kind is contract.ChangeKind.OVERFLOW:
            self.next_cursor += 1  # so that a reader who had everything sees that it has not
            self._kept.clear()
            return
        self._kept.append(change)
        self.next_cursor += 1

    def read(self, cursor: int, limit: int) -> tuple[list[tuple[int, contract.Change]], int, bool]:
        """Return changes from `cursor` on, where to go on, and whether there were others that are lost.

        A cursor that lies ahead is of another watch: everything that is kept comes, as after an overflow.
        """
        first = self.next_cursor - len(self._kept)
        begin = cursor if first <= cursor <= self.next_cursor else first
        found = list(itertools.islice(self._kept, begin - first, begin - first + limit))
        return [(begin + number, change) for number, change in enumerate(found)], begin + len(found), begin != cursor


class Watch:
    """A watch of a client. Made and ended by `Watches`."""

    def __init__(self, watch_id: str, sandbox_id: str, inner: contract.Watch, hold: activities.Hold) -> None:
        self.id = watch_id
        self.sandbox_id = sandbox_id
        self.ring = Ring()
        self.ended = False
        self.forgotten: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self._inner = inner
        self._hold = hold
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Take in changes until there will be no more."""
        try:
            while changes := await self._inner.changes():
                for change in filter(None, map(_shown, changes)):
                    self.ring.add(change)
                self._news.set()
                await asyncio.sleep(BREATH_SECONDS if len(changes) >= BURST else 0)
        except errors.TraforoError:
            pass  # the sandbox is gone, or lied
        finally:
            await self.end()

    async def end(self) -> None:
        """Give back what it holds. Idempotent."""
        self.ended = True
        self._news.set()
        self._hold.release()
        with contextlib.suppress(errors.TraforoError):
            await self._inner.close()

    async def read(self, cursor: int, *, wait: float, limit: int) -> Page:
        """Return what changed since `cursor`, and wait for something up to `wait` seconds."""
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    while cursor == self.ring.next_cursor and not self.ended:
                        self._news.clear()
                        await self._news.wait()
        changes, after, overflow = self.ring.read(cursor, limit)
        return Page(changes, after, overflow, self.ended and after == self.ring.next_cursor)


def _shown(change: contract.Change) -> contract.Change | None:
    """Return a change as it is told, None for one of a name that is ours for a moment: a file before it has its own."""
    if _is_ours(change.path):
        return None
    if change.moved_from is not None and _is_ours(change.moved_from):
        return dataclasses.replace(change, moved_from=None)
    return change


def _is_ours(path: str) -> bool:
    return path.rpartition("/")[2].startswith(replacements.PREFIX)


class Watches:
    """All watches of this worker."""

    def __init__(self) -> None:
        self._known: dict[str, Watch] = {}

    async def start(self, entry: entries.Entry, path: str, *, user: str | None, recursive: bool) -> Watch:
        """Watch a directory. Raises what the runtime raises for a path, `RateLimited`."""
        inside, name = insides.files(entry), insides.user(entry, user)
        self._check_room(entry.text_id)
        watch_id = f"watch_{ids.new_request_id()}"
        hold = entry.activity.hold()
        try:
            inner = await inside.watch(path, user=name, recursive=recursive)
        except BaseException:
            hold.release()
            raise
        watch = Watch(watch_id, entry.text_id, inner, hold)
        self._known[watch_id] = watch
        watch.task = asyncio.create_task(watch.run(), name=watch_id)
        self._expect(watch)
        return watch

    def get(self, entry: entries.Entry, watch_id: str) -> Watch:
        """Return a watch of this sandbox. Raises `NotFound`."""
        watch = self._known.get(watch_id)
        if watch is None or watch.sandbox_id != entry.text_id:
            raise errors.NotFound(f"no watch {watch_id[:64]!r}", kind="watch", id=watch_id[:64])
        return watch

    async def read(self, watch: Watch, cursor: int, *, wait: float, limit: int) -> Page:
        """Return what changed since `cursor`; while somebody waits a watch is not forgotten."""
        self._remember(watch)
        try:
            return await watch.read(cursor, wait=wait, limit=limit)
        finally:
            if watch.id in self._known:
                self._expect(watch)

    async def stop(self, watch: Watch) -> None:
        """End a watch. Idempotent."""
        self._known.pop(watch.id, None)
        self._remember(watch)
        if watch.task is not None:
            watch.task.cancel()
            await asyncio.wait([watch.task])
        await watch.end()  # a task that was cancelled before its first step did not

    async def close(self) -> None:
        """End all of them."""
        for watch in list(self._known.values()):
            await self.stop(watch)

    def _check_room(self, sandbox_id: str) -> None:
        mine = [watch for watch in self._known.values() if watch.sandbox_id == sandbox_id]
        for watch in mine:
            if watch.ended and len(mine) >= PER_SANDBOX:  # nobody came for its last words
                self._remember(self._known.pop(watch.id))
        if sum(watch.sandbox_id == sandbox_id for watch in self._known.values()) >= PER_SANDBOX or (
            len(self._known) >= AT_ONCE
        ):
            raise errors.RateLimited(
                "cannot watch: too many watches", hint=f"at most {PER_SANDBOX} for one sandbox; delete some"
            )

    def _expect(self, watch: Watch) -> None:
        self._remember(watch)
        loop = asyncio.get_running_loop()
        watch.forgotten = loop.call_later(FORGOTTEN_SECONDS, self._forget, watch)

    def _remember(self, watch: Watch) -> None:
        if watch.forgotten is not None:
            watch.forgotten.cancel()
            watch.forgotten = None

    def _forget(self, watch: Watch) -> None:
        self._known.pop(watch.id, None)
        if watch.task is not None:
            watch.task.cancel()

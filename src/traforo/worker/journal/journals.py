"""The worker's own record: one SQLite file that says which sandboxes and execs there were, and which tokens are used.

It answers what the runtime cannot know any more after a restart. It is never asked on the way of a request and never
the authority on what lives: that is the label the runtime keeps. One thread writes, in batches of at most 20 ms; the
queue is bounded, and whoever creates work waits in `room` while it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traforo.domain import clocks
from traforo.telemetry import logs
from traforo.worker.journal import journalfiles, records
from traforo.worker.sandboxes import happenings

BATCH_SECONDS = 0.02
"""How long the first write of a batch waits for others: what a crash can lose."""
MAX_QUEUE = 10_000
"""Writes that may wait for the disk before creates do."""
PRUNE_SECONDS = 1.0
"""Least time between two rounds of throwing away what is past its retention."""
RETRY_SECONDS = 0.1
"""Wait before another attempt at a batch, times the number of attempts."""
RETRIES = 3
"""Attempts at one batch before it is given up; what lives is then still known by its label."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Writes that wait: for each key the latest alone, what was overtaken need not be written."""

    rows: dict[tuple[str, str], Any] = field(default_factory=dict)
    then: list[Callable[[], None]] = field(default_factory=list)
    """Called on the loop when the rows are safe."""
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """Resolved when the rows are written or given up."""


class Journal:
    """The file and its thread. Its methods belong to the event loop that `open` was awaited in.

    Batches are put together on the loop and handed over one at a time, so that neither side ever waits for a lock.
    """

    def __init__(self, path: Path, clock: clocks.Clock, *, retention: float) -> None:
        self._path = path
        self._clock = clock
        self._retention = retention
        self._log = logs.get(__name__)
        self._next = _Batch()
        self._inbox: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._room: list[asyncio.Future[None]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lost = 0
        """Writes that were given up because the disk failed."""

    async def open(self) -> journalfiles.Contents:
        """Open or make the file, start the thread and return what is in the file. A bad file is moved aside."""
        self._loop = asyncio.get_running_loop()
        opened: futures.Future[journalfiles.Contents] = futures.Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="journal", daemon=True)
        self._thread.start()
        return await asyncio.wrap_future(opened)

    def put_sandbox(self, record: records.SandboxRecord, then: Callable[[], None] | None = None) -> None:
        """Write a sandbox behind the caller's back; `then` is called on the loop when it is safe on disk."""
        self._put(("sandbox", record.sandbox_id), record, then)

    def put_exec(self, record: records.ExecRecord, then: Callable[[], None] | None = None) -> None:
        """Write an exec behind the caller's back; `then` is called on the loop when it is safe on disk."""
        self._put(("exec", record.exec_id), record, then)

    def put_event(self, sandbox_id: str, event: happenings.Event) -> None:
        """Write an event of a sandbox behind the caller's back."""
        self._put(
            ("event", f"{sandbox_id}/{event.number}"), records.EventRecord(sandbox_id=sandbox_id, event=event), None
        )

    def put_token(self, jti: str, expires_at: float) -> None:
        """Remember that a token was used, until it would expire."""
        self._put(("token", jti), expires_at, None)

    def drop_sandbox(self, sandbox_id: str) -> None:
        """Forget a sandbox and its execs."""
        self._put(("sandbox", sandbox_id), None, None)

    def drop_exec(self, exec_id: str) -> None:
        """Forget an exec."""
        self._put(("exec", exec_id), None, None)

    @property
    def full(self) -> bool:
        """Whether creates have to wait in `room`."""
        return len(self._next.rows) >= MAX_QUEUE

    async def room(self) -> None:
        """Return when the queue has room. Ends of sandboxes are queued regardless: they cannot be refused."""
        while self.full:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    async def flush(self) -> None:
        """Return when everything put so far is on disk, or given up."""
        if self._thread is None:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._next.waiters.append(waiter)
        self._send()
        await waiter

    async def close(self) -> None:
        """Write what waits and close the file. Idempotent."""
        thread = self._thread
        if thread is not None:
            await self.flush()
            self._thread = None
            self._inbox.put(None)
            await asyncio.to_thread(thread.join)

    def _put(self, key: tuple[str, str], value: Any, then: Callable[[], None] | None) -> None:
        self._next.rows[key] = value
        if then is not None:
            self._next.then.append(then)
        if self._timer is None and not self._writing and self._loop is not None:
            self._timer = self._loop.call_later(BATCH_SECONDS, self._send)

    def _send(self) -> None:
        """Hand the batch to the thread, unless it still has one: then it gets this one after that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._writing and self._thread is not None:
            self._writing = True
            self._inbox.put(self._next)
            self._next = _Batch()
            while self._room:
                _resolve(self._room.pop())

    def _sent(self, batch: _Batch, lost: int) -> None:
        self.lost += lost
        self._writing = False
        if self._next.rows or self._next.waiters:
            self._send()
        for waiter in batch.waiters:
            _resolve(waiter)
        for then in () if lost else batch.then:
            then()

    def _run(self, opened: futures.Future[journalfiles.Contents]) -> None:
        """The thread: open, then write batches until there comes None."""
        try:
            connection = journalfiles.connect(self._path, self._log)
            self._prune(connection)
            contents = journalfiles.load(connection)
        except Exception as error:  # noqa: BLE001  # supervisor of this thread: who awaits `open` gets the error
            opened.set_exception(error)
            return
        opened.set_result(contents)
        pruned = time.monotonic()
        with contextlib.closing(connection):
            while (batch := self._inbox.get()) is not None:
                lost = self._write(connection, batch.rows)
                if time.monotonic() - pruned > PRUNE_SECONDS:
                    self._prune(connection)
                    pruned = time.monotonic()
                if self._loop is not None:
                    with contextlib.suppress(RuntimeError):  # the loop was closed without us, as in a crash
                        self._loop.call_soon_threadsafe(self._sent, batch, lost)

    def _write(self, connection: sqlite3.Connection, rows: dict[tuple[str, str], Any]) -> int:
        """Write rows in one transaction; return how many were given up: none or all."""
        for attempt in range(1, RETRIES + 1):
            try:
                journalfiles.write(connection, rows)
            except journalfiles.FAILURES:
                self._log.exception("journal_write_failed", attempt=attempt, rows=len(rows))
                time.sleep(RETRY_SECONDS * attempt)
            else:
                return 0
        return len(rows)

    def _prune(self, connection: sqlite3.Connection) -> None:
        try:
            journalfiles.prune(connection, self._clock.now(), self._retention)
        except journalfiles.FAILURES:
            self._log.exception("journal_prune_failed")


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

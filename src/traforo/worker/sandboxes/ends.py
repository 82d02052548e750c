"""How a sandbox ends: asked for or by itself, once, and only on proof.

Whoever wants it dead awaits the same kill. Its reservation is given back, its lease dropped and its end journaled in
one step when the runtime has proven the death; the runtime may forget it when the journal has it on disk.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from traforo.domain import states
from traforo.telemetry import logs
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import adoptions, entries, holdings, lifecycles

RETRY_SECONDS = 1.0
"""Wait before a kill that failed is tried again."""


class Ends:
    """Ends sandboxes. `arm` has the clock look again at a moment (Unix seconds)."""

    def __init__(self, books: holdings.Holdings, arm: Callable[[float], None], *, retention: float) -> None:
        self._books = books
        self._arm = arm
        self._retention = retention
        self._forgettable: list[tuple[str, str]] = []
        self._forgetting: asyncio.Task[None] | None = None
        self._log = logs.get(__name__)

    async def stop(self, entry: entries.Entry, reason: states.EndReason) -> None:
        """Return when the sandbox is dead and its execs have ended, whoever else asked for it. Idempotent."""
        if entry.live and entry.stopping is None:
            entry.stopping = self._books.tasks.spawn(self._stop(entry, reason))
        if entry.stopping is not None:
            await asyncio.shield(entry.stopping)
        if entry.burying is not None and not entry.burying.done():
            await asyncio.shield(entry.burying)

    async def _stop(self, entry: entries.Entry, reason: states.EndReason) -> None:
        try:
            if entry.starting is not None and not entry.starting.done():
                await asyncio.wait([entry.starting])
            if entry.running is not None and entry.live:
                if entry.state is not states.SandboxState.STOPPING:
                    holdings.move(entry, lifecycles.Event.STOP, reason)
                    entry.happenings.tell(states.Happening.STOPPING, reason=reason)
                self.ended(entry, await entry.running.kill(entry.reason or reason))
        finally:
            if entry.live:  # the kill failed: whoever asks next tries again, and so does the clock
                entry.stopping = None
                again = self._books.clock.now() + RETRY_SECONDS
                self._books.expiries.set(entry.text_id, again)
                self._arm(again)

    def died(self, entry: entries.Entry, future: asyncio.Future[contract.SandboxEnd]) -> None:
        """Take note of what the runtime says of its own accord."""
        self.ended(entry, future.result())

    def ended(self, entry: entries.Entry, end: contract.SandboxEnd) -> None:
        """Take note of a proven death. Without effect when it is known."""
        if not entry.live:
            return
        books = self._books
        asked = entry.state is states.SandboxState.STOPPING
        reason = states.EndReason.LOST if end.reason is states.EndReason.FAILED_TO_START else end.reason
        holdings.move(entry, lifecycles.Event.DIED, reason)
        entry.ended_at = books.clock.now()
        entry.last_activity_at = entry.activity.last()
        entry.running = None
        entry.on_first_exec = None
        if reason is states.EndReason.OUT_OF_MEMORY:
            entry.happenings.tell(states.Happening.OOM, killed=end.oom_kills)
        entry.happenings.tell(states.Happening.STOPPED, reason=reason)
        books.expiries.drop(entry.text_id)
        books.idles.drop(entry.text_id)
        books.ledger.release(entry.text_id)
        books.gauges.refresh(books.ledger)
        books.gauges.ended(reason)
        self.retire(entry)
        forget = functools.partial(self.forgettable, entry.spec.virtualization, entry.text_id)
        books.journal.put_sandbox(holdings.record(entry, end.oom_kills), forget)
        entry.burying = books.tasks.spawn(self._bury(entry))
        if not asked:
            self._log.warning("sandbox_ended", sandbox_id=entry.text_id, reason=reason, oom_kills=end.oom_kills)

    async def _bury(self, entry: entries.Entry) -> None:
        """End its execs; nothing happens to it afterwards."""
        try:
            await self._books.execs.end(entry)
        finally:
            entry.happenings.end()

    def known(self, ended: adoptions.Ended) -> None:
        """Take in a sandbox that ended before this worker started."""
        entry = ended.entry
        self._books.roster.add(entry)
        self.retire(entry)
        forget = functools.partial(self.forgettable, entry.spec.virtualization, entry.text_id)
        if ended.news:
            self._log.warning("sandbox_ended", sandbox_id=entry.text_id, reason=entry.reason, seen="at start")
            entry.happenings.tell(states.Happening.STOPPED, reason=entry.reason)
            self._books.gauges.ended(entry.reason or states.EndReason.LOST)
            self._books.journal.put_sandbox(holdings.record(entry, ended.oom_kills), forget if ended.forget else None)
        elif ended.forget:
            forget()
        entry.happenings.end()

    def retire(self, entry: entries.Entry) -> None:
        """Keep an ended entry for as long as it can be read."""
        for pushed in self._books.roster.retire(entry):
            self.drop(pushed)
        self._arm((entry.ended_at or 0.0) + self._retention)

    def drop(self, entry: entries.Entry) -> None:
        """Forget everything about an entry that has left the roster."""
        self._books.journal.drop_sandbox(entry.text_id)
        self._books.tasks.spawn(self._books.execs.forget(entry))

    def forgettable(self, virtualization: str, sandbox_id: str) -> None:
        """Let the runtime forget a dead sandbox: its end is safe elsewhere."""
        self._forgettable.append((virtualization, sandbox_id))
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = self._books.tasks.spawn(self._forget())

    async def _forget(self) -> None:
        while self._forgettable:
            virtualization, sandbox_id = self._forgettable.pop()
            if (runtime := self._books.runtimes.get(virtualization)) is not None:
                await runtime.forget(sandbox_id)

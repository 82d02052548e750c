"""The registry at work: takes registrations, keeps placement in step, writes what must survive, and looks for the lost.

A registration that changes facts is written before it is acknowledged, all that wait at that moment in one transaction.
A heartbeat that only renews a lease is written by the next round, with all others of that round: after a crash a lease
may end up to one round early, never late. Decisions are made in `registries` and `placements`; this is their shell.
"""

from __future__ import annotations

import asyncio

from traforo.control import placements, registries
from traforo.domain import clocks, errors, workers
from traforo.store import contract
from traforo.telemetry import logs

_WARNINGS = frozenset({registries.Event.UNAVAILABLE})


class Registrar:
    """Every worker that this control plane knows. Times are in seconds."""

    def __init__(self, store: contract.Store, clock: clocks.Clock, *, lease_ttl: float, round_interval: float) -> None:
        self.candidates = placements.Candidates()
        self.lease_ttl = lease_ttl
        self._store = store
        self._clock = clock
        self._round_interval = round_interval
        self._state = registries.State()
        self._log = logs.get("traforo.control.registrars")
        self._unwritten: set[str] = set()
        """Workers whose facts differ from what is stored, or who left."""
        self._renewed: set[str] = set()
        """Workers of whom nothing but the lease differs."""
        self._used_tokens: list[contract.UsedToken] = []
        self._writing = asyncio.Lock()

    async def load(self) -> list[contract.UsedToken]:
        """Take up what an earlier process left, and return the token ids that it had used up. Raises `Internal`."""
        now = self._clock.now()
        self._state = registries.restore(await self._store.members(), now=now, ttl=self.lease_ttl)
        self.candidates = placements.Candidates(m for m in self._state.members.values() if m.live(now))
        self._log.info("workers loaded", workers=len(self._state.members))
        return list(await self._store.used_tokens(now))

    async def register(self, worker: workers.Worker, live_sandboxes: int) -> workers.Member:
        """Register a worker, or renew its lease. Raises `Conflict`, `NoCapacity`, and `Internal` if it is not kept."""
        now = self._clock.now()
        change = registries.register(self._state, worker, live_sandboxes, now=now, ttl=self.lease_ttl)
        self._apply(change)
        member = self._state.members[worker.worker_id]
        if change.facts_changed:
            await self.write()
        return member

    async def deregister(self, worker_id: str, base_url: str) -> None:
        """Forget the worker that registered with this base URL. Unknown ones are fine.

        Raises `Internal` if that cannot be kept.
        """
        change = registries.deregister(self._state, worker_id, base_url)
        if change is not None:
            self._apply(change)
        elif any(member.worker.worker_id == worker_id for member in self.members()):
            self._log.warning("worker not forgotten: another one has its id", worker_id=worker_id, base_url=base_url)
        if worker_id in self._unwritten:
            await self.write()

    def owner(self, digest: str) -> workers.Member:
        """Return the live worker of a hash. Raises `NotFound` or `WorkerUnavailable`."""
        return registries.owner(self._state, digest, now=self._clock.now())

    def members(self) -> list[workers.Member]:
        """Return every known worker, unavailable ones too."""
        return list(self._state.members.values())

    def token_used(self, jti: str, expires_at: float) -> None:
        """Remember a token id with the next write."""
        self._used_tokens.append(contract.UsedToken(jti, expires_at))

    def sweep(self) -> None:
        """Act on leases that have ended."""
        for change in registries.sweep(self._state, now=self._clock.now()):
            self._apply(change)

    async def write(self) -> None:
        """Write whatever has changed, in one transaction. Raises `Internal`; then it stays to be written."""
        async with self._writing:  # whoever waits here finds its change written by the one before, with all others
            unwritten, renewed, used = self._unwritten, self._renewed, self._used_tokens
            if not (unwritten or renewed or used):
                return
            self._unwritten, self._renewed, self._used_tokens = set(), set(), []
            try:
                await self._store.write(self._batch(unwritten, renewed - unwritten, used))
            except BaseException:
                self._unwritten |= unwritten
                self._renewed |= renewed
                self._used_tokens = used + self._used_tokens
                raise

    async def run(self) -> None:
        """Sweep and write, again and again, until cancelled. What fails is tried again in the next round."""
        while True:
            await asyncio.sleep(self._round_interval)
            try:
                self.sweep()
                await self.write()
            except Exception as error:  # noqa: BLE001 - the supervisor of this task: leases have to go on ending
                self._log.error("cannot keep the registry", exc_info=error)

    async def close(self) -> None:
        """Write what is left. Never raises: what is lost is less than a round of heartbeats."""
        try:
            await self.write()
        except errors.Internal as error:
            self._log.error("cannot keep the registry", exc_info=error)

    def _apply(self, change: registries.Change) -> None:
        registries.apply(self._state, change)
        for worker_id in change.dropped:
            self.candidates.drop(worker_id)
            self._unwritten.add(worker_id)
        if change.event is registries.Event.UNAVAILABLE:
            self.candidates.drop(change.worker_id)
        if change.put is not None:
            self.candidates.put(change.put)
            (self._unwritten if change.facts_changed else self._renewed).add(change.worker_id)
        if change.event is not registries.Event.RENEWED:
            log = self._log.warning if change.event in _WARNINGS else self._log.info
            base_url = change.put.worker.base_url if change.put is not None else None
            log(f"worker {change.event}", worker_id=change.worker_id, base_url=base_url)

    def _batch(self, unwritten: set[str], renewed: set[str], used: list[contract.UsedToken]) -> contract.Batch:
        members = self._state.members
        return contract.Batch(
            removed=[worker_id for worker_id in unwritten if worker_id not in members],
            put=[members[worker_id] for worker_id in unwritten if worker_id in members],
            renewed={worker_id: members[worker_id].lease for worker_id in renewed if worker_id in members},
            used_tokens=used,
            tokens_expired_at=self._clock.now(),
        )

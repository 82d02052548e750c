"""Which worker gets a new sandbox, decided without I/O.

Candidates are kept in rings, one for each virtualization and SKU, so that a decision costs the same with one worker and
with ten thousand. Round robin goes over those that had room when last heard of. Only if none had, it goes over the full
ones too: what the registry knows is up to a heartbeat old, and the worker itself is the authority on its capacity.
It refuses to promise anything: a placement is a hint, and the worker may send the request back to be placed again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from traforo.domain import workers

DEFAULT_VIRTUALIZATION = "container"
_ANY = ""


class Reason(enum.StrEnum):
    """Why there is no place."""

    NO_WORKER = "no_worker"
    """No live worker offers the virtualization."""
    NO_MATCHING_HARDWARE_SKU = "no_matching_hardware_sku"
    """Live workers offer the virtualization, none of them on the hardware asked for."""
    PLACEMENT_RETRY_EXHAUSTED = "placement_retry_exhausted"
    """The request was sent back by workers too often, or by the only one that could take it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody gets the sandbox."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Request:
    """What a placement depends on."""

    virtualization: str = ""
    """Empty where the caller leaves it to the worker: one that offers `container` then, or else any."""
    hardware_sku: str = ""
    """Empty for any."""
    retry: int = 0
    """How often workers have sent this request back."""
    refused_by: str = ""
    """The worker that sent it back last; it is not asked again."""


class Ring:
    """Names in a circle. Adding, removing and going one further cost the same however many there are."""

    __slots__ = ("_at", "_names", "_places")

    def __init__(self) -> None:
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._at = 0

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Put a name into the circle, once."""
        if name not in self._places:
            self._places[name] = len(self._names)
            self._names.append(name)

    def discard(self, name: str) -> None:
        """Take a name out, if it is there; the last one takes its place."""
        place = self._places.pop(name, None)
        if place is None:
            return
        last = self._names.pop()
        if last != name:
            self._names[place] = last
            self._places[last] = place

    def next(self, usable: Callable[[str], bool]) -> str | None:
        """Return the next usable name, or None when a whole turn finds none."""
        for _ in range(len(self._names)):
            self._at = (self._at + 1) % len(self._names)
            if usable(name := self._names[self._at]):
                return name
        return None


class Candidates:
    """The workers that may be chosen. `put` and `drop` follow the registry; `choose` is the decision."""

    def __init__(self, members: Iterable[workers.Member] = ()) -> None:
        self._members: dict[str, workers.Member] = {}
        self._roomy: dict[tuple[str, str], Ring] = {}
        self._full: dict[tuple[str, str], Ring] = {}
        for member in members:
            self.put(member)

    def put(self, member: workers.Member) -> None:
        """Take note of what a worker said last."""
        worker_id = member.worker.worker_id
        known = self._members.get(worker_id)
        if known is None or known.worker != member.worker or (known.room > 0) != (member.room > 0):
            self.drop(worker_id)
            rings = self._roomy if member.room > 0 else self._full
            for key in _keys(member.worker):
                rings.setdefault(key, Ring()).add(worker_id)
        self._members[worker_id] = member

    def drop(self, worker_id: str) -> None:
        """Stop choosing a worker: it left, or its lease ended."""
        if (known := self._members.pop(worker_id, None)) is None:
            return
        rings = self._roomy if known.room > 0 else self._full
        for key in _keys(known.worker):
            ring = rings[key]
            ring.discard(worker_id)
            if not ring:
                del rings[key]

    def choose(self, request: Request, *, now: float, retry_max: int) -> workers.Member | Refusal:
        """Pick a worker with a live lease, or say why there is none. Successive calls go round."""
        if request.retry > retry_max:
            return Refusal(Reason.PLACEMENT_RETRY_EXHAUSTED)
        kinds = (request.virtualization,) if request.virtualization else (DEFAULT_VIRTUALIZATION, _ANY)
        refused_by = request.refused_by
        for kind in kinds:
            if (member := self._next((kind, request.hardware_sku), now, refused_by)) is not None:
                return member
        if refused_by and any(self._next((kind, request.hardware_sku), now) for kind in kinds):
            return Refusal(Reason.PLACEMENT_RETRY_EXHAUSTED)
        if request.hardware_sku and any(self._next((kind, _ANY), now) for kind in kinds):
            return Refusal(Reason.NO_MATCHING_HARDWARE_SKU)
        return Refusal(Reason.NO_WORKER)

    def _next(self, key: tuple[str, str], now: float, refused_by: str = "") -> workers.Member | None:
        def usable(worker_id: str) -> bool:
            return worker_id != refused_by and self._members[worker_id].live(now)

        for rings in (self._roomy, self._full):
            if (ring := rings.get(key)) is not None and (worker_id := ring.next(usable)) is not None:
                return self._members[worker_id]
        return None


def _keys(worker: workers.Worker) -> Iterable[tuple[str, str]]:
    for virtualization in (*worker.virtualizations, _ANY):
        yield virtualization, _ANY
        if worker.hardware_sku:
            yield virtualization, worker.hardware_sku

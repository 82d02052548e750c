"""Who may use how much of this host. The worker's ledger is the authority on capacity; placement only guesses.

Everything is counted in whole thousandths of a core and whole MiB, so that a million admissions and releases leave
exactly what was there before. A ledger neither starts nor ends sandboxes: it is told, and it refuses what does not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from traforo.domain import errors, specs
from traforo.domain.states import DiskKind

MILLI = 1000
"""Thousandths in a core: the finest share of a processor that is counted."""


@dataclass(frozen=True, slots=True)
class Host:
    """What this host has, before overcommit."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int

    @property
    def mib_per_core(self) -> int:
        """Memory that goes with one core when a caller names none: total memory over total cores, rounded down."""
        return self.memory_mib * MILLI // self.cpu_milli


@dataclass(frozen=True, slots=True)
class Demand:
    """What one sandbox counts for."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int


NOTHING = Demand(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Caps:
    """How much may be admitted at once: the ceilings of all live sandboxes together stay within these."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int
    live: int


def caps(host: Host, *, live: int, cpu_overcommit: float, memory_overcommit: float, disk_overcommit: float) -> Caps:
    """Return the caps of a host. A ceiling counts divided by its factor, which is the same as a cap that many times.

    Factors are read as decimals (1.1 is exactly eleven tenths) and the caps rounded down.
    """
    return Caps(
        cpu_milli=_times(host.cpu_milli, cpu_overcommit),
        memory_mib=_times(host.memory_mib, memory_overcommit),
        disk_mib=_times(host.disk_mib, disk_overcommit),
        live=live,
    )


def _times(amount: int, factor: float) -> int:
    if not factor >= 1:
        raise errors.InvalidRequest(f"cannot overcommit by {factor!r}: it must be 1 or more")
    return int(amount * Fraction(repr(factor)))


def demand(resources: specs.Resources) -> Demand:
    """Return what a sandbox with these ceilings counts for. A disk in memory counts within the memory."""
    return Demand(
        cpu_milli=milli(resources.cpu),
        memory_mib=resources.memory_mib,
        disk_mib=resources.disk_mib if resources.disk_kind is DiskKind.DISK else 0,
    )


def milli(cpu: float) -> int:
    """Return cores as thousandths, finer shares rounded up: what is asked for is never counted short."""
    return math.ceil(round(cpu * MILLI, 6))  # 0.1 * 1000 is a hair over 100 in floats, and means 100


class Ledger:
    """Reservations by sandbox. One event loop owns it, and each call is one step of it, hence atomic."""

    def __init__(self, limits: Caps) -> None:
        self.caps = limits
        self.allocated = NOTHING
        """The sum of all reservations; may be over the caps only by what was restored."""
        self._held: dict[str, Demand] = {}

    @property
    def live(self) -> int:
        """How many sandboxes hold a reservation."""
        return len(self._held)

    def admit(self, key: str, wanted: Demand) -> None:
        """Reserve for the sandbox `key`, or refuse without a trace.

        Raises `NoCapacity` with `resource` (`sandboxes`, `cpu`, `memory`, `disk`), what was `requested` and what is
        `available`.
        """
        if key in self._held:
            raise errors.Internal(f"cannot admit {key!r} twice")
        held, limits = self.allocated, self.caps
        if len(self._held) >= limits.live:
            raise _refusal("sandboxes", 1, limits.live - len(self._held))
        if held.cpu_milli + wanted.cpu_milli > limits.cpu_milli:
            raise _refusal("cpu", wanted.cpu_milli / MILLI, (limits.cpu_milli - held.cpu_milli) / MILLI)
        if held.memory_mib + wanted.memory_mib > limits.memory_mib:
            raise _refusal("memory", wanted.memory_mib, limits.memory_mib - held.memory_mib)
        if held.disk_mib + wanted.disk_mib > limits.disk_mib:
            raise _refusal("disk", wanted.disk_mib, limits.disk_mib - held.disk_mib)
        self._take(key, wanted)

    def check_spare(self, wanted: Demand) -> None:
        """Raise `NoCapacity` unless at least half of everything would still be free with this on top."""
        held, limits = self.allocated, self.caps
        for resource, after, cap in (
            ("sandboxes", len(self._held) + 1, limits.live),
            ("cpu", held.cpu_milli + wanted.cpu_milli, limits.cpu_milli),
            ("memory", held.memory_mib + wanted.memory_mib, limits.memory_mib),
            ("disk", held.disk_mib + wanted.disk_mib, limits.disk_mib),
        ):
            if 2 * after > cap:
                raise _refusal(resource, after, cap // 2)

    def restore(self, key: str, wanted: Demand) -> None:
        """Reserve for a sandbox that already runs, whatever the caps say: what was acknowledged exists."""
        if key in self._held:
            raise errors.Internal(f"cannot restore {key!r} twice")
        self._take(key, wanted)

    def release(self, key: str) -> None:
        """Give back what `key` holds. Call it once, with proof that the sandbox is dead; twice is `Internal`."""
        freed = self._held.pop(key, None)
        if freed is None:
            raise errors.Internal(f"cannot release {key!r}: nothing is reserved for it")
        held = self.allocated
        self.allocated = Demand(
            held.cpu_milli - freed.cpu_milli, held.memory_mib - freed.memory_mib, held.disk_mib - freed.disk_mib
        )

    def _take(self, key: str, wanted: Demand) -> None:
        held = self.allocated
        self._held[key] = wanted
        self.allocated = Demand(
            held.cpu_milli + wanted.cpu_milli, held.memory_mib + wanted.memory_mib, held.disk_mib + wanted.disk_mib
        )


def _refusal(resource: str, requested: float, available: float) -> errors.NoCapacity:
    return errors.NoCapacity(
        f"cannot admit the sandbox: no {resource} left on this worker",
        resource=resource,
        requested=requested,
        available=max(0, available),
    )

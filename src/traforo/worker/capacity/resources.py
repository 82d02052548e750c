"""From the resources a caller names to the complete ones of a spec: defaults, ranges and the reasons for both.

Pure: a function of the request, the host and two settings. What fits *now* is for `admissions` to say; this module
refuses only what could never be given on this host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from traforo.domain import errors, specs
from traforo.domain.states import DiskKind
from traforo.worker.capacity import admissions

MIN_CPU_MILLI = 10
"""0.01 cores: one period of 100 ms then holds one millisecond, the least the kernel's quota can express."""
MIN_MEMORY_MIB = 16
"""Room for init, a shell and a small command; less only makes starts fail in ways that look like faults."""
MIN_DERIVED_MEMORY_MIB = 64
"""A caller who names no memory gets at least enough for an interpreter."""
MAX_DEFAULT_DISK_MIB = 1024
"""Default size of the writable layer where memory allows it."""
MIN_PIDS, MAX_PIDS = 2, 4_194_304
"""Init and one command; the most process ids that Linux has."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller named; None where nothing was."""

    cpu: float | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    disk_kind: DiskKind = DiskKind.TMPFS
    pids: int | None = None


def complete(wish: Wish, host: admissions.Host, *, default_pids: int) -> specs.Resources:
    """Fill in defaults and check ranges. Raises `InvalidRequest` with `field`.

    | field | least | most | default |
    |---|---|---|---|
    | `cpu` | 0.01 | cores of the host | 1 (the host's cores where it has less) |
    | `memory_mib` | 16 | memory of the host | memory per core times `cpu`, at least 64 |
    | `disk_mib` | 1 | `memory_mib` on tmpfs, else disk of the host | the lesser of 1024 and half of `memory_mib` |
    | `pids` | 2 | 4194304 | the setting `default_pids` |
    """
    cpu_milli = _cpu(wish.cpu, host)
    memory_mib = _memory(wish.memory_mib, cpu_milli, host)
    return specs.Resources(
        cpu=cpu_milli / admissions.MILLI,
        memory_mib=memory_mib,
        disk_mib=_disk(wish, memory_mib, host),
        pids=_within("pids", default_pids if wish.pids is None else wish.pids, MIN_PIDS, MAX_PIDS),
        disk_kind=wish.disk_kind,
    )


def _cpu(wanted: float | None, host: admissions.Host) -> int:
    if wanted is None:
        return min(admissions.MILLI, host.cpu_milli)
    if not math.isfinite(wanted * admissions.MILLI):
        raise errors.InvalidRequest(f"cannot use cpu {wanted!r}: it must be a number of cores", field="cpu")
    return _within("cpu", admissions.milli(wanted), MIN_CPU_MILLI, host.cpu_milli, scale=admissions.MILLI)


def _memory(wanted: int | None, cpu_milli: int, host: admissions.Host) -> int:
    if wanted is not None:
        return _within("memory_mib", wanted, MIN_MEMORY_MIB, host.memory_mib)
    derived = host.mib_per_core * cpu_milli // admissions.MILLI
    return min(max(derived, MIN_DERIVED_MEMORY_MIB), host.memory_mib)


def _disk(wish: Wish, memory_mib: int, host: admissions.Host) -> int:
    if wish.disk_mib is None:
        default = min(MAX_DEFAULT_DISK_MIB, memory_mib // 2)
        return default if wish.disk_kind is DiskKind.TMPFS else max(1, min(default, host.disk_mib))
    if wish.disk_kind is DiskKind.TMPFS and wish.disk_mib > memory_mib:
        raise errors.InvalidRequest(
            f"cannot give a disk of {wish.disk_mib} MiB in {memory_mib} MiB of memory: a tmpfs disk counts as memory",
            hint="ask for disk_kind 'disk', or for more memory_mib",
            field="disk_mib",
        )
    most = memory_mib if wish.disk_kind is DiskKind.TMPFS else host.disk_mib
    return _within("disk_mib", wish.disk_mib, 1, most)


def _within(field: str, value: int, least: int, most: int, *, scale: int = 1) -> int:
    if least <= value <= most:
        return value
    shown, low, high = (f"{number / scale:g}" if scale != 1 else str(number) for number in (value, least, most))
    raise errors.InvalidRequest(f"cannot use {field} {shown}: it must be from {low} to {high} here", field=field)

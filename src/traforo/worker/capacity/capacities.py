"""What this host has to give away: what the operator said, else what this process may use.

A worker in a container or a service with limits sees the whole machine in /proc; its own cgroup says what it really
gets. Both kinds of cgroups are read, from the one this process is in up to the root, and the least value counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker.capacity import admissions

MIB = 1024 * 1024


def host(settings: settings_worker.WorkerSettings, root: Path = Path("/")) -> admissions.Host:
    """Return cores, memory and disk to give away. Blocks; `root` is another place for /proc and /sys in tests.

    Raises `InvalidRequest` where something cannot be found out and has to be configured.
    """
    return admissions.Host(
        cpu_milli=admissions.milli(settings.total_cores) or _cpu_milli(root),
        memory_mib=settings.total_memory_mib or _memory_mib(root),
        disk_mib=settings.total_disk_mib or _disk_mib(settings.state_dir),
    )


def _cpu_milli(root: Path) -> int:
    found = [len(os.sched_getaffinity(0)) * admissions.MILLI]
    for place in _cgroups(root, "cpu"):
        quota, _, period = (_read(place / "cpu.max") or "").partition(" ")
        if not period:
            quota, period = _read(place / "cpu.cfs_quota_us") or "", _read(place / "cpu.cfs_period_us") or ""
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(max(1, int(quota) * admissions.MILLI // int(period)))
    return min(found)


def _memory_mib(root: Path) -> int:
    found = [
        int(line.split()[1]) // 1024
        for line in (_read(root / "proc/meminfo") or "").splitlines()
        if line.startswith("MemTotal:")
    ]
    for place in _cgroups(root, "memory"):
        limit = _read(place / "memory.max") or _read(place / "memory.limit_in_bytes") or ""
        if limit.isdecimal():
            found.append(int(limit) // MIB)
    if not found or min(found) < 1:
        raise errors.InvalidRequest("cannot find out how much memory there is", field="total_memory_mib")
    return min(found)


def _disk_mib(state_dir: Path) -> int:
    """Return what is free where the state directory is, or will be."""
    place = next(parent for parent in (state_dir, *state_dir.parents) if parent.exists())
    facts = os.statvfs(place)
    return max(1, facts.f_bavail * facts.f_frsize // MIB)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of this process's cgroup and of those above it, in both hierarchies."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            top = top if top.exists() else root / "sys/fs/cgroup" / controller
        else:
            continue
        inner = top / path.lstrip("/")
        yield from (place for place in (inner, *inner.parents) if place == top or top in place.parents)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

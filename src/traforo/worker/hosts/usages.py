"""What a process tree uses, as this host's kernel counts it. Blocks; parsing is pure.

Numbers come from control groups, from a file system and from a network namespace, all of them the kernel's own: nothing
that runs in a sandbox has a say in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from traforo.worker.hosts import cgroups

_USEC = re.compile(r"(?m)^usage_usec (\d+)$")
_TEXT_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Groups:
    """What control groups count. None where none of them does."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None


def read_text(path: str) -> str:
    """Return the beginning of a file of the kernel, "" where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _TEXT_MAX).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _number(path: str) -> int | None:
    text = read_text(path).strip()
    return int(text) if text.isdecimal() else None


def cpu_seconds(stat: str) -> float | None:
    """Read the text of a v2 cpu.stat. Pure."""
    match = _USEC.search(stat)
    return int(match[1]) / 1e6 if match else None


def read_groups(hierarchies: Sequence[cgroups.Hierarchy], name: str) -> Groups:
    """Return what the control groups called `name` count."""
    cpu: float | None = None
    memory = peak = processes = None
    for hierarchy in hierarchies:
        place = f"{hierarchy.path}/{name}"
        if hierarchy.version == 2:
            cpu = cpu_seconds(read_text(f"{place}/cpu.stat"))  # every v2 group has it, with or without a controller
            files = "memory.current", "memory.peak"
        else:
            files = "memory.usage_in_bytes", "memory.max_usage_in_bytes"
            spent = _number(f"{place}/cpuacct.usage") if "cpu" in hierarchy.controllers and cpu is None else None
            cpu = spent / 1e9 if spent is not None else cpu
        if "memory" in hierarchy.controllers:
            memory, peak = (_number(f"{place}/{file}") for file in files)
        if "pids" in hierarchy.controllers:
            processes = _number(f"{place}/pids.current")
    return Groups(cpu, memory, peak, processes)


def network_bytes(text: str) -> tuple[int, int] | None:
    """Read /proc/<pid>/net/dev: bytes received and sent but for loopback, None where there is nothing else. Pure."""
    received = sent = 0
    found = False
    for line in text.splitlines()[2:]:
        name, separator, rest = line.rpartition(":")
        fields = rest.split()
        if not separator or name.strip() == "lo" or len(fields) < 9:
            continue
        if fields[0].isdecimal() and fields[8].isdecimal():
            found = True
            received += int(fields[0])
            sent += int(fields[8])
    return (received, sent) if found else None


def disk_bytes(path: str) -> tuple[int, int]:
    """Return how many bytes of a file system are used, and how many it has. Raises `OSError`."""
    facts = os.statvfs(path)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize, facts.f_blocks * facts.f_frsize

"""What a reader must know about the machine to judge the figures, and nothing that names it."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def described() -> dict[str, str | int | float]:
    """Return processor, memory, kernel, cgroup version, Python and the load at the start."""
    return {
        "processors": os.cpu_count() or 0,
        "processor": _field(Path("/proc/cpuinfo"), "model name"),
        "memory_mib": int(_field(Path("/proc/meminfo"), "MemTotal").split()[0] or 0) // 1024,
        "kernel": platform.release(),
        "cgroup": _cgroup(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "uid": os.getuid(),
    }


def available_bytes() -> int:
    """Return what the kernel says could be had without swapping."""
    return int(_field(Path("/proc/meminfo"), "MemAvailable").split()[0]) * 1024


def _cgroup() -> str:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "v2"
    return "v1, hybrid" if Path("/sys/fs/cgroup/unified").exists() else "v1"


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0"

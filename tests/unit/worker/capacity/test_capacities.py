"""What a host has: the operator's word, the machine, or the cgroup this process is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from traforo.domain import errors
from traforo.settings import worker
from traforo.worker.capacity import capacities
from traforo.worker.capacity.admissions import Host

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB and no cgroups."""
    put(tmp_path, "proc/meminfo", "MemFree: 1 kB\nMemTotal:  8388608 kB\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def settings(root: Path, **values: Any) -> worker.WorkerSettings:
    return worker.WorkerSettings.model_validate({"state_dir": root / "not" / "yet", "run_dir": root, **values})


def test_what_is_configured_counts(root: Path) -> None:
    """Zero alone means: find out."""
    given = settings(root, total_cores=2.5, total_memory_mib=100, total_disk_mib=7)
    assert capacities.host(given, root) == Host(2500, 100, 7)


def test_a_bare_machine(root: Path) -> None:
    """Cores this process may use, all of the memory, what is free where the state will be."""
    found = capacities.host(settings(root), root)
    assert (found.cpu_milli, found.memory_mib) == (CORES * 1000, 8192)
    assert found.disk_mib >= 1


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"memory.max": "max", "cpu.max": "max 100000"}, (CORES * 1000, 8192)),
        ({"memory.max": "1073741824", "cpu.max": "50000 100000"}, (500, 1024)),
    ],
)
def test_a_limit_of_the_second_kind(root: Path, files: dict[str, str], expected: tuple[int, int]) -> None:
    """The cgroup of a service or container, and the word for none."""
    put(root, "proc/self/cgroup", "0::/a/b\n")
    for name, text in files.items():
        put(root, f"sys/fs/cgroup/a/b/{name}", text)
    found = capacities.host(settings(root), root)
    assert (found.cpu_milli, found.memory_mib) == expected


def test_a_limit_further_up(root: Path) -> None:
    """What holds for the parent holds for us."""
    put(root, "proc/self/cgroup", "0::/a/b\n")
    put(root, "sys/fs/cgroup/a/memory.max", str(2 << 30))
    put(root, "sys/fs/cgroup/a/b/memory.max", str(3 << 30))
    assert capacities.host(settings(root), root).memory_mib == 2048


def test_limits_of_the_first_kind(root: Path) -> None:
    """One hierarchy a controller; a limit beyond the machine is none; a path that is hidden from us is the root."""
    put(root, "proc/self/cgroup", "5:memory:/hidden\n4:cpu,cpuacct:/x\n3:pids:/x\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    put(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000")
    put(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000")
    found = capacities.host(settings(root), root)
    assert (found.cpu_milli, found.memory_mib) == (min(1500, CORES * 1000), 8192)
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(1 << 30))
    put(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1")
    found = capacities.host(settings(root), root)
    assert (found.cpu_milli, found.memory_mib) == (CORES * 1000, 1024)


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    """Then it has to be configured, and the error names the setting."""
    with pytest.raises(errors.InvalidRequest) as caught:
        capacities.host(settings(tmp_path), tmp_path)
    assert caught.value.fields == {"field": "total_memory_mib"}


def test_this_machine() -> None:
    """The real one has something of everything."""
    found = capacities.host(worker.WorkerSettings())
    assert min(found.cpu_milli, found.memory_mib, found.disk_mib) > 0

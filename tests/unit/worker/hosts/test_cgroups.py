"""Control groups: mounts are found in mountinfo, and limits become what each generation of the kernel's files takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from traforo.domain import specs
from traforo.worker.hosts import cgroups

HYBRID = """\
24 30 0:22 / /proc rw,nosuid - proc proc rw
31 30 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
34 31 0:29 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
35 31 0:30 / /mnt/with\\040space rw - cgroup cgroup rw,pids
garbage
"""

SHAPE = {"cgroup.max.depth": "1", "cgroup.max.descendants": "4096"}
RESOURCES = specs.Resources(cpu=0.5, memory_mib=256, disk_mib=64, pids=100)


def test_every_tree_is_found() -> None:
    """Both generations are found, whatever stands before the separator, with escaped paths decoded."""
    found = {(mount.version, mount.path) for mount in cgroups.parse_mounts(HYBRID)}
    assert {
        (2, "/sys/fs/cgroup/unified"),
        (1, "/sys/fs/cgroup/cpu,cpuacct"),
        (1, "/sys/fs/cgroup/memory"),
        (1, "/mnt/with space"),
    } == found


def test_limits_of_v2() -> None:
    """v2 has one file for quota and period, memory without swap, and room for the init among the processes."""
    tree = cgroups.Hierarchy(2, "/x", frozenset(cgroups.CONTROLLERS), "memory.swap.max")
    assert {
        **SHAPE,
        "cpu.max": "50000 100000",
        "memory.max": str(256 << 20),
        "memory.swap.max": "0",
        "pids.max": "101",
    } == cgroups.settings(tree, RESOURCES)


def test_limits_of_v1() -> None:
    """v1 bounds memory and swap together; the kernel wants the memory limit written first. It counts what network
    buffers take apart.
    """
    files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"]
    tree = cgroups.Hierarchy(1, "/x", frozenset({"memory"}), *files[1:])
    wanted = cgroups.settings(tree, RESOURCES)
    assert list(wanted) == files
    assert [str(256 << 20), str(256 << 20), str(64 << 20)] == list(wanted.values())


def test_a_tree_without_controllers_limits_no_resource() -> None:
    """The bare v2 tree of a hybrid host is for finding processes only; what is made in it is bounded."""
    bare = cgroups.Hierarchy(2, "/x", frozenset())
    assert cgroups.settings(bare, RESOURCES) == SHAPE
    assert cgroups.oom_file(bare) == ""


@pytest.mark.parametrize("cpu", [0.001, 0.01])
def test_the_smallest_share_is_one_the_kernel_takes(cpu: float) -> None:
    """The kernel refuses quotas below a millisecond."""
    tree = cgroups.Hierarchy(2, "/x", frozenset({"cpu"}))
    share = specs.Resources(cpu=cpu, memory_mib=64, disk_mib=16, pids=10)
    assert cgroups.settings(tree, share) == {**SHAPE, "cpu.max": "1000 100000"}


@pytest.mark.parametrize("text", ["oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "low 0\noom 9\noom_kill 3\n"])
def test_oom_kills_are_read_from_both_generations(tmp_path: Path, text: str) -> None:
    """`oom_kill_disable` and `oom` are other numbers."""
    (tmp_path / "events").write_text(text)
    assert cgroups.read_oom_kills(str(tmp_path), "events") == 3


def test_an_unreadable_count_is_no_kill(tmp_path: Path) -> None:
    """A sandbox that is gone has killed nothing."""
    assert cgroups.read_oom_kills(str(tmp_path), "memory.events") == 0


def test_sweeping_leaves_what_is_kept(tmp_path: Path) -> None:
    """Only directories of sandboxes that nobody keeps go, with those of their execs, and what was made ahead."""
    for name in ("sbx_gone/e1", "sbx_gone/e2", "sbx_kept/e1", "ahead.7", "other"):
        (tmp_path / name).mkdir(parents=True)
    layout = cgroups.Layout((cgroups.Hierarchy(2, str(tmp_path), frozenset()),))
    cgroups.sweep(layout, frozenset({"sbx_kept"}))
    assert {"sbx_kept", "other"} == {path.name for path in tmp_path.iterdir()}


def test_all_sandboxes_together_leave_something_of_the_host(tmp_path: Path) -> None:
    """Ceilings add up: numbers of processes and network buffers are bounded like memory, where a tree can."""
    proc, group = tmp_path / "proc", tmp_path / "group"
    for name, text in (
        ("kernel/pid_max", "4000"),
        ("kernel/threads-max", "90000"),
        ("net/ipv4/tcp_mem", "100 200 300"),
    ):
        (proc / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / "sys" / name).write_text(f"{text}\n")
    group.mkdir()
    tree = cgroups.Hierarchy(1, str(group), frozenset({"memory", "pids"}), None, "memory.kmem.tcp.limit_in_bytes")
    cgroups.limit_total(cgroups.Layout((tree,), frozenset()), 1 << 30, proc)
    assert {path.name: int(path.read_text()) for path in group.iterdir()} == {
        "memory.limit_in_bytes": 1 << 30,
        "memory.kmem.tcp.limit_in_bytes": 50 * os.sysconf("SC_PAGE_SIZE"),
        "pids.max": 3000,
    }
    (proc / "sys/net/ipv4/tcp_mem").unlink()
    cgroups.limit_total(cgroups.Layout((tree,), frozenset()), 1 << 20, proc)
    assert int((group / "memory.kmem.tcp.limit_in_bytes").read_text()) == 1 << 20

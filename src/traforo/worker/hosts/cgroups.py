"""Control groups of the host: which hierarchies there are, and what to write into them for a sandbox's limits.

Three kinds of hosts exist: v2 alone, v1 alone, and hybrid ones with v1 controllers beside a bare v2 tree. Limits go
where the controllers are; where in a v2 tree we may put them, `delegations` finds out. Finding and killing whole
process trees always goes through v2, bare or not: its `cgroup.kill` misses nobody and every kernel we run on has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traforo.domain import specs
from traforo.worker.hosts import delegations

CONTROLLERS = ("cpu", "memory", "pids")
CPU_PERIOD_US = 100_000
_V1_UNLIMITED = 1 << 62
_EXECS_MAX = 4096
_PROCESS_PERCENT = 75
"""Of the processes that a host may have: what all sandboxes together get."""
_SOCKET_BYTES = 64 * 1024 * 1024
"""What network buffers of all sandboxes get where it is not known what the host has."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of control groups."""

    version: int
    path: str
    """Where our cgroup in it is; sandboxes get directories below."""
    controllers: frozenset[str]
    """Those of ours that limit something here; empty for a bare v2 tree."""
    swap_file: str | None = None
    """File that bounds swap (or memory and swap together) here, if the kernel has one."""
    socket_file: str | None = None
    """File that bounds what network buffers take here; v1 counts them apart, and does not limit them by itself."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All hierarchies that a sandbox joins. `missing` names controllers that no hierarchy offers."""

    hierarchies: Sequence[Hierarchy] = field(default_factory=tuple)
    missing: frozenset[str] = frozenset(CONTROLLERS)

    @property
    def v2(self) -> Hierarchy | None:
        """The v2 tree, through which process trees are killed."""
        return next((found for found in self.hierarchies if found.version == 2), None)


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo that is a cgroup tree."""

    version: int
    path: str
    options: frozenset[str]
    root: str = "/"
    """Which part of the tree is mounted there."""


_ESCAPE = re.compile(r"\\([0-7]{3})")


def parse_mounts(mountinfo: str) -> list[Mount]:
    """Find cgroup trees in the text of /proc/self/mountinfo. Pure."""
    found = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        parts, tail = left.split(), right.split()
        if not separator or len(parts) < 5 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:
            continue
        root, path = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), part) for part in parts[3:5])
        found.append(Mount(2 if tail[0] == "cgroup2" else 1, path, frozenset(tail[2].split(",")), root))
    return found


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _prepare_v2(mount: Mount, name: str, membership: str) -> Hierarchy | None:
    """Make our cgroup in a v2 tree, where it gets the most controllers; None where we may not."""
    best: Hierarchy | None = None
    for place in delegations.places(mount.path, mount.root, membership):
        offered = delegations.offered(place, CONTROLLERS)
        if not delegations.is_ours(place) or (best is not None and len(offered) <= len(best.controllers)):
            continue
        found = _prepare_place(place, name, offered)
        if found is not None and best is not None:
            worse = found if len(found.controllers) <= len(best.controllers) else best
            remove(Path(worse.path))
            best = best if worse is found else found
        else:
            best = best or found
    return best


def _prepare_place(place: Path, name: str, offered: frozenset[str]) -> Hierarchy | None:
    group = place / name
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    enabled = delegations.pass_on(place, offered, name + delegations.LEAF)
    enabled = delegations.pass_on(group, enabled, name + delegations.LEAF)
    swap = "memory.swap.max" if (group / "memory.swap.max").exists() else None
    return Hierarchy(2, str(group), enabled, swap)


def _prepare_v1(mount: Mount, name: str) -> Hierarchy | None:
    controllers = mount.options & set(CONTROLLERS)
    group = Path(mount.path, name)
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    swap = "memory.memsw.limit_in_bytes" if (group / "memory.memsw.limit_in_bytes").exists() else None
    sockets = "memory.kmem.tcp.limit_in_bytes" if (group / "memory.kmem.tcp.limit_in_bytes").exists() else None
    return Hierarchy(1, str(group), frozenset(controllers), swap, sockets)


def prepare(name: str, mountinfo: str, membership: str = "") -> Layout:
    """Make our cgroup `name` in every tree that can limit or track sandboxes. Blocks; called once at start.

    The texts are those of /proc/self/mountinfo and, for trees where only our own cgroup is ours, /proc/self/cgroup.
    """
    hierarchies: list[Hierarchy] = []
    missing = set(CONTROLLERS)
    mounts = parse_mounts(mountinfo)
    for mount in sorted(mounts, key=lambda found: -found.version):
        if mount.version == 2:
            if any(found.version == 2 for found in hierarchies):
                continue
            prepared = _prepare_v2(mount, name, membership)
        elif mount.options & missing:
            prepared = _prepare_v1(mount, name)
        else:
            continue
        if prepared is not None and os.access(prepared.path, os.W_OK):
            hierarchies.append(prepared)
            missing -= prepared.controllers
    return Layout(tuple(hierarchies), frozenset(missing))


def limit_total(layout: Layout, memory_bytes: int, proc: Path = Path("/proc")) -> None:
    """Bound all sandboxes together, so that their ceilings, added up, cannot take all that the host has. Blocks.

    That is memory, processes, and where it is counted apart what network buffers take: the kernel has one allowance of
    those for all networks of a host, and none when that is used up.
    """
    for hierarchy in layout.hierarchies:
        if "memory" in hierarchy.controllers:
            name = "memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"
            _write(Path(hierarchy.path, name), str(memory_bytes))
            if hierarchy.socket_file:
                _write(Path(hierarchy.path, hierarchy.socket_file), str(min(memory_bytes, _socket_bytes(proc))))
        if "pids" in hierarchy.controllers:
            _write(Path(hierarchy.path, "pids.max"), str(_processes(proc)))


def _processes(proc: Path) -> int:
    """Return how many processes all sandboxes may have: most of what this host has numbers, and memory, for."""
    limits = [int((proc / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max")]
    return max(1, min(limits) * _PROCESS_PERCENT // 100)


def _socket_bytes(proc: Path) -> int:
    """Return what network buffers of all sandboxes may take: half of what makes the kernel save them everywhere."""
    try:
        pages = int((proc / "sys/net/ipv4/tcp_mem").read_text().split()[0])
    except OSError:  # only the host's own network namespace shows it
        return _SOCKET_BYTES
    return pages * os.sysconf("SC_PAGE_SIZE") // 2


def sweep(layout: Layout, keep: frozenset[str]) -> None:
    """Remove directories of sandboxes that are gone, and those that a spawner made ahead. Blocks.

    Nothing is killed: a directory with a process in it stays, since rmdir refuses it.
    """
    for hierarchy in layout.hierarchies:
        for directory in (*Path(hierarchy.path).glob("sbx_*/"), *Path(hierarchy.path).glob("ahead.*/")):
            if directory.name not in keep:
                remove(directory)


def remove(directory: Path) -> None:
    """Remove the empty cgroup of a dead sandbox with those of its execs; one in use or gone is left alone."""
    for group in (*directory.glob("e*/"), directory):
        try:
            group.rmdir()
        except OSError:
            continue


def settings(hierarchy: Hierarchy, resources: specs.Resources) -> Mapping[str, str]:
    """Return file → value for one sandbox in one hierarchy. The order matters: memory before memory and swap. Pure."""
    quota = max(1000, round(resources.cpu * CPU_PERIOD_US))
    memory = resources.memory_mib << 20
    pids = str(resources.pids + 1)  # the init is one
    wanted: dict[str, str] = {}
    if hierarchy.version == 2:
        # The init owns this one and makes a cgroup per exec below it, no more and no deeper.
        wanted["cgroup.max.depth"] = "1"
        wanted["cgroup.max.descendants"] = str(_EXECS_MAX)
        if "cpu" in hierarchy.controllers:
            wanted["cpu.max"] = f"{quota} {CPU_PERIOD_US}"
        if "memory" in hierarchy.controllers:
            wanted["memory.max"] = str(memory)
            if hierarchy.swap_file:
                wanted[hierarchy.swap_file] = "0"
    else:
        if "cpu" in hierarchy.controllers:
            wanted["cpu.cfs_quota_us"] = str(quota)
        if "memory" in hierarchy.controllers:
            wanted["memory.limit_in_bytes"] = str(memory)
            if hierarchy.swap_file:
                wanted[hierarchy.swap_file] = str(memory)
            if hierarchy.socket_file:
                wanted[hierarchy.socket_file] = str(memory // 4)
    if "pids" in hierarchy.controllers:
        wanted["pids.max"] = pids
    return wanted


def oom_file(hierarchy: Hierarchy) -> str:
    """Return the file that counts processes killed by the memory limit, or "" where there is none."""
    if "memory" not in hierarchy.controllers:
        return ""
    return "memory.events" if hierarchy.version == 2 else "memory.oom_control"


def read_oom_kills(directory: str, file: str) -> int:
    """Return how many processes of one sandbox its memory limit has killed; 0 if that cannot be read."""
    try:
        descriptor = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(descriptor, 4096)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    match = re.search(rb"(?m)^oom_kill (\d+)$", text)
    return int(match[1]) if match else 0

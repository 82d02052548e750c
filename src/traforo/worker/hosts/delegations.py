"""Where in the v2 tree this process may make control groups, and how it gets controllers there.

Root of the host may do so at the root of the tree. An ordinary user, or root in a container, has at best the cgroup it
runs in, if that was delegated to it. The kernel passes controllers on only from a cgroup without processes, so whoever
runs in that cgroup is moved into a leaf below it: nobody else's processes are in a cgroup that was delegated to us.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

LEAF = "-worker"
"""End of the name of the leaf for processes that had to make room."""
_OURS = "traforo-"
_ROUNDS = 16


def own(path: str, root: str, membership: str) -> Path | None:
    """Return the directory of this process's own cgroup. Pure.

    `path` is where the tree is mounted, `root` which part of it is mounted there (both from /proc/self/mountinfo),
    `membership` the text of /proc/self/cgroup. None where that directory cannot be seen from here.
    """
    for line in membership.splitlines():
        inside = line.removeprefix("0::")
        if inside == line or ".." in (*inside.split("/"), *root.split("/")):
            continue
        if root != "/":
            if inside != root and not inside.startswith(root + "/"):
                continue
            inside = inside[len(root) :]
        found = Path(path, inside.lstrip("/"))
        # An earlier worker moved us, or our parents, out of the way.
        return found.parent if found.name.startswith(_OURS) and found.name.endswith(LEAF) else found
    return None


def places(path: str, root: str, membership: str) -> list[Path]:
    """Return the directories below which groups may be made, in the order in which to try. Pure.

    The root of the tree; the own cgroup; and the one above, for a service manager that starts us in a leaf already.
    """
    found = [Path(path)]
    mine = own(path, root, membership)
    if mine is not None:
        found += [place for place in (mine, mine.parent) if place not in found and found[0] in place.parents]
    return found


def offered(place: Path, wanted: Collection[str]) -> frozenset[str]:
    """Return which of the wanted controllers a cgroup has; none where that cannot be read."""
    try:
        return frozenset((place / "cgroup.controllers").read_text().split()) & frozenset(wanted)
    except OSError:
        return frozenset()


def is_ours(place: Path) -> bool:
    """Tell whether we may make groups there and start processes in them: the kernel asks for both."""
    return os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK)


def pass_on(place: Path, wanted: Collection[str], leaf: str) -> frozenset[str]:
    """Pass controllers on to the groups below, and return those that are. Blocks.

    Where our own process stands in the way, it and its neighbours move into the group `leaf` below.
    """
    missing = sorted(frozenset(wanted) - _passed_on(place))
    if missing and _make_room(place, leaf):
        for controller in missing:
            with contextlib.suppress(OSError):  # the others may work
                _enable(place, controller)
    return _passed_on(place) & frozenset(wanted)


def _passed_on(place: Path) -> frozenset[str]:
    try:
        return frozenset((place / "cgroup.subtree_control").read_text().split())
    except OSError:
        return frozenset()


def _enable(place: Path, controller: str) -> None:
    (place / "cgroup.subtree_control").write_text(f"+{controller}")


def _make_room(place: Path, leaf: str) -> bool:
    """Move everything that runs in a cgroup into a leaf below it, if we are among it. They may fork meanwhile.

    It has to be done before the first controller: the kernel would take cpu and pids with processes in place, but turn
    the group into one for threads by that, below which no process can start.
    """
    if not (place / "cgroup.type").exists():  # the root of all may hold both
        return True
    try:
        pids = (place / "cgroup.procs").read_text().split()
        if pids and str(os.getpid()) not in pids:
            return False
        for _ in range(_ROUNDS):
            if not pids:
                return True
            (place / leaf).mkdir(exist_ok=True)
            for pid in pids:
                _move(place / leaf, pid)
            pids = (place / "cgroup.procs").read_text().split()
    except OSError:
        return False
    return False


def _move(group: Path, pid: str) -> None:
    try:
        (group / "cgroup.procs").write_text(pid)
    except ProcessLookupError:
        return

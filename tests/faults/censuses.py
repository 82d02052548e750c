"""What a worker holds of its host, counted: to compare before and after, and find what was left behind.

Only what can be told to be this worker's is counted, since others may run on the same machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from tests.faults import planes

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Census:
    """Each field is a multiset of names; two censuses are compared field by field."""

    processes: Counter[str]
    """In the control groups of the worker."""
    groups: Counter[str]
    """Directories of control groups, in every hierarchy."""
    host: Counter[str]
    """Mount points and loop devices that this process can see."""
    spawner_mounts: Counter[str]
    """Mount points in the spawner's namespace."""
    files: Counter[str]
    """In the state and run directories, but for the journal, which is bounded otherwise, and empty files made ahead."""
    worker_descriptors: Counter[str]
    """What they are, without numbers."""
    spawner_descriptors: Counter[str]


def take(fleet: planes.Fleet) -> Census:
    """Count."""
    spawner = fleet.spawner()
    return Census(
        processes=Counter(_comm(pid) for pid in fleet.processes()),
        groups=Counter(str(path) for path in fleet.groups() if not path.name.startswith("ahead.")),
        host=Counter(host(fleet)),
        spawner_mounts=Counter(_mounts(str(spawner)) if spawner else ()),
        files=Counter(_files(fleet)),
        worker_descriptors=Counter(_descriptors(fleet.worker.pid, fleet.control.url)),
        spawner_descriptors=Counter(_descriptors(spawner, fleet.control.url) if spawner else ()),
    )


def host(fleet: planes.Fleet) -> list[str]:
    """Return mount points and loop devices that this process can see of the fleet."""
    return [path for path in _mounts("self") if path.startswith(f"{fleet.home}/")] + _loops(fleet.home)


def left(before: Census, after: Census) -> dict[str, dict[str, int]]:
    """Return what there is more of than before, by field; empty where nothing was left behind."""
    found = {}
    for field in fields(Census):
        more: Counter[str] = getattr(after, field.name) - getattr(before, field.name)
        if more:
            found[field.name] = dict(more.most_common(10))
    return found


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def charged_bytes(fleet: planes.Fleet) -> int:
    """Return the memory that is charged to all sandboxes together, dead ones included: their tmpfs, if it lives on."""
    for path in ("unified", "memory", ""):
        for name in ("memory.usage_in_bytes", "memory.current"):
            with contextlib.suppress(OSError):
                return int((Path("/sys/fs/cgroup") / path / fleet.group / name).read_text())
    return 0


def journaled(fleet: planes.Fleet) -> dict[str, int]:
    """Return how many rows the journal has, by table."""
    with contextlib.closing(sqlite3.connect(f"file:{fleet.state}/journal.sqlite3?mode=ro", uri=True)) as journal:
        return {
            table: journal.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sandboxes", "execs", "tokens")
        }


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _mounts(pid: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return []


def _loops(home: Path) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(file.read_text().strip())
    return [path for path in found if path.startswith(f"{home}/")]


def _files(fleet: planes.Fleet) -> list[str]:
    found = []
    for top in (fleet.state, fleet.run):
        for directory, names, files in os.walk(top):
            found += [f"{directory}/{name}" for name in (*names, *files)]
    return [path for path in found if "/journal.sqlite3" not in path and "/execs/blank-" not in path]


def _descriptors(pid: int, control: str) -> list[str]:
    connections = _connections()
    port = control.rpartition(":")[2]
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            name = str(path.readlink())
            found.append(connections.get(name) or _NUMBER.sub("N", name))
    # Files for logs and network namespaces are made ahead, up to a number; a heartbeat comes when it is due.
    ahead = ("/execs/blank-", "net:[")
    return [name for name in found if not name.endswith(f" to port {port}") and not any(one in name for one in ahead)]


def _connections() -> dict[str, str]:
    """Return the TCP connections of this machine: what their descriptors' links say, and what they are."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(row[9], _port(row[1]), _port(row[2])) for row in rows]
    listening = {here for _, here, there in ends if not there}
    return {
        f"socket:[{inode}]": "listener" if not there else f"connection {_side(here, there, listening)}"
        for inode, here, there in ends
    }


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _side(here: int, there: int, listening: set[int]) -> str:
    return f"from a client of port {here}" if here in listening else f"to port {there}"

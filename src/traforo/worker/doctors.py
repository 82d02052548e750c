"""What `traforo doctor` says: what this host can do for sandboxes, what is missing, and what that costs.

It asks the same probes that the runtime plans by, so it cannot promise what the runtime would not do.
It changes nothing.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors
from traforo.worker.hosts import cgroups, claims, delegations, disks, features
from traforo.worker.runtimes.container import drivers

_FILES_WANTED = 20_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `cost` says what its absence means, and is empty when nothing is lost."""

    name: str
    ok: bool
    detail: str = ""
    cost: str = ""


def report() -> list[Finding]:
    """Look at everything. Blocks for some milliseconds and forks; needs no privilege."""
    found = features.probe("/usr")
    binary = _binary()
    proc = Path("/proc/self")
    can_run = binary.ok and found.namespaces.ok and found.overlay.ok
    return [
        Finding("runtime container", can_run, cost="" if can_run else "no sandbox can be made here"),
        Finding("kernel", ok=True, detail=f"Linux {platform.release()} on {platform.machine()}"),
        binary,
        _root(found),
        _finding("namespaces", found.namespaces, "no isolation: the container runtime does not start"),
        _finding(
            "overlay", found.overlay, "no writable layer over a shared image: the container runtime does not start"
        ),
        _replacing(found),
        _finding("idmapped layers", found.idmap, "files of the image belong to nobody: package managers fail inside"),
        *_cgroups(cgroups.parse_mounts((proc / "mountinfo").read_text()), (proc / "cgroup").read_text()),
        _uids(claims.claimed()),
        _disks(),
        _descriptors(),
        *_interpreters(),
    ]


def _replacing(found: features.Features) -> Finding:
    """Say how directories of an image are replaced: from inside, else with the help of the host's root."""
    name = "overlay on tmpfs"
    if found.overlay_xattr.ok:
        return Finding(name, ok=True)
    if found.overlay_trusted.ok:
        return Finding(name, ok=True, detail="mounted from outside: tmpfs keeps no user attributes (Linux before 6.6)")
    cost = "a directory of the image cannot be replaced by a new one: package managers fail inside"
    return Finding(name, ok=False, detail=found.overlay_xattr.detail, cost=cost)


def _finding(name: str, probe: features.Probe, cost: str) -> Finding:
    return Finding(name, probe.ok, probe.detail, "" if probe.ok else cost)


def _binary() -> Finding:
    try:
        return Finding("program traforo-init", ok=True, detail=str(drivers.find_binary()))
    except errors.StartFailed as error:
        return Finding("program traforo-init", ok=False, detail=error.message, cost="no sandbox can be made here")


def _root(found: features.Features) -> Finding:
    cost = "one user inside, no disks on disk, limits only where control groups were delegated"
    return Finding("root", found.root, "" if found.root else f"uid {os.geteuid()}", "" if found.root else cost)


def _cgroups(mounts: Sequence[cgroups.Mount], membership: str) -> list[Finding]:
    """Say which controllers there are, and whether whole trees of processes can be killed."""
    findings = []
    unified = [mount for mount in mounts if mount.version == 2]
    offered = {Path(mount.path): mount.options for mount in mounts if mount.version == 1}
    ours = {place: os.access(place, os.W_OK) for place in offered}
    for mount in unified:
        for place in delegations.places(mount.path, mount.root, membership):
            offered[place] = delegations.offered(place, cgroups.CONTROLLERS)
            ours[place] = delegations.is_ours(place)
    for controller in cgroups.CONTROLLERS:
        places = [place for place, controllers in offered.items() if controller in controllers]
        usable = [place for place in places if ours[place]]
        detail = str((usable or places)[0]) if places else "no such controller"
        cost = "" if usable else f"the {controller} limit of a sandbox is not enforced"
        findings.append(Finding(f"cgroup {controller}", bool(usable), detail, cost))
    trees = [place for mount in unified for place in delegations.places(mount.path, mount.root, membership)]
    usable = [place for place in trees if ours[place]]
    cost = "" if usable else "a process that leaves its session may outlive the deadline of its command"
    detail = str((usable or trees)[0]) if trees else "not mounted"
    findings.append(Finding("cgroup v2 tree", bool(usable), detail, cost))
    return findings


def _uids(claimed: Sequence[claims.Range]) -> Finding:
    """Say whether the workers that run here keep the user ids of their sandboxes apart."""
    shared = [one.owner for one in claimed if any(one.overlaps(other) for other in claimed)]
    cost = "their sandboxes may have the same user ids: set TRAFORO_WORKER_UID_BASE" if shared else ""
    return Finding("user ids", not shared, ", ".join(sorted(shared)), cost)


def _disks() -> Finding:
    lacking = disks.missing()
    return Finding("disks on disk", not lacking, lacking, "no `disk_kind: disk`" if lacking else "")


def _descriptors() -> Finding:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # what a worker gets
    enough = limit >= _FILES_WANTED
    cost = "" if enough else f"about {max(0, (limit - 200) // 4)} sandboxes at once"
    return Finding("open files", enough, str(limit), cost)


def _interpreters() -> list[Finding]:
    """Say which languages of `exec/code` the image `host` has."""
    findings = []
    for language, program in (("python", "python3"), ("node", "node"), ("bash", "bash")):
        path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
        cost = "" if path else f"no {language} code in the image `host`"
        findings.append(Finding(f"image host: {language}", path is not None, path or "not installed", cost))
    return findings

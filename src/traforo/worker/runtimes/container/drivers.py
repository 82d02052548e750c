"""How a worker gets this runtime: the host is looked at once, and what it lacks is refused here in words."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from traforo.domain import errors
from traforo.settings import worker as settings_worker
from traforo.worker.hosts import cgroups, features
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import plans, runtimes

BINARY_VARIABLE = "TRAFORO_INIT_BINARY"
_PACKAGED = Path(__file__).parents[2] / "bin" / "traforo-init"


def find_binary() -> Path:
    """Return the `traforo-init` program. Raises `StartFailed` when it was not built."""
    path = Path(os.environ.get(BINARY_VARIABLE) or _PACKAGED)
    if not os.access(path, os.X_OK):
        raise errors.StartFailed(
            f"there is no program at {str(path)!r}", stage="binary", hint="build it with `make build`"
        )
    return path


def cgroup_name(run_dir: Path) -> str:
    """Name the worker's control group: the same after a restart, another for another worker on this host."""
    return "traforo-" + hashlib.sha256(str(run_dir).encode()).hexdigest()[:12]


def look(run_dir: Path, memory_mib: int) -> plans.Host:
    """Find out what plans need to know of this host, and make the worker's control groups. Blocks."""
    proc = Path("/proc/self")
    layout = cgroups.prepare(cgroup_name(run_dir), (proc / "mountinfo").read_text(), (proc / "cgroup").read_text())
    cgroups.limit_total(layout, memory_mib << 20)
    masked, read_only = plans.look_at_proc()
    return plans.Host(features.probe("/usr"), layout, str(run_dir / "devices"), masked, read_only)


def make(settings: settings_worker.WorkerSettings) -> contract.Runtime:
    """Make the runtime of a worker. Raises `StartFailed` if this host cannot isolate anything."""
    binary = find_binary()
    run_dir = Path(settings.run_dir)
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = look(run_dir, settings.total_memory_mib)
    for name in ("namespaces", "overlay"):
        probe: features.Probe = getattr(host.features, name)
        if not probe.ok:
            raise errors.StartFailed(
                f"this host cannot isolate sandboxes: {name}: {probe.detail}", stage="host", hint="see `traforo doctor`"
            )
    places = runtimes.Places(binary, run_dir, Path(settings.state_dir) / "disks")
    return runtimes.ContainerRuntime(places, host, settings.uid_base)

"""Settings of a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from traforo.settings import addresses, groups, places, quantities

MIB = 1024 * 1024


def _own_url(data: dict[str, Any]) -> str:
    hostname = data.get("hostname", "localhost")
    return addresses.url(addresses.parse(data.get("listen", "localhost:0")), hostname)


def _optional_url(text: str) -> str:
    return groups._base_url(text) if text else text  # noqa: SLF001 - the same package


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("a path here is absolute")
    return path


class PrePullSettings(groups.Group):
    """Images that are made ready before anybody asks for them."""

    images: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """References of images to fetch and unpack at start, so that the first sandbox of one is no slower than the
    second."""
    warmup_script: str = ""
    """Shell script that is run once in a sandbox of each such image; status 0 says that the image works. Empty:
    none."""
    warmup_timeout_seconds: Annotated[quantities.Seconds, Field(gt=0, le=86400)] = 120.0
    """Seconds that the script may take before the image counts as not working."""


class WorkerSettings(groups.ProcessSettings):
    """How a worker runs."""

    env_prefix: ClassVar[str] = "TRAFORO_WORKER_"

    listen: groups.Listen = "127.0.0.1:8081"
    """Address to listen on, `host:port`. This machine only, until an operator says otherwise: `dev` mode asks for no
    credential. Port 0 lets the kernel choose."""
    hostname: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")] = "localhost"
    """Name of this host; its md5 is part of every sandbox id and routes to this worker. Unique in a cluster, and kept
    for as long as its sandboxes live."""
    base_url: groups.BaseUrl = Field(default_factory=_own_url)
    """URL by which clients reach it, without a path. Default: `http://` and the address of `listen`, with `hostname`
    in place of a wildcard."""
    control_url: Annotated[str, AfterValidator(_optional_url)] = ""
    """URL of the control plane to register with. Empty: the worker stands alone."""
    worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "worker_local"
    """Name of this worker in registrations, metrics and logs: 1 to 64 letters, digits, `_`, `-`. Unique in a
    cluster."""
    hardware_sku: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:/+-]{0,127})?$")] = ""
    """Kind of machine, for callers that ask for one. Empty: none."""
    virtualization: groups.Name = "container"
    """Runtime of a create that names none."""
    total_cores: Annotated[float, Field(ge=0, le=65536)] = 0.0
    """Processors to give away. 0: all that this process may use."""
    total_memory_mib: Annotated[int, Field(ge=0)] = 0
    """MiB of memory to give away. 0: what the machine, or the cgroup of this process, has."""
    total_disk_mib: Annotated[int, Field(ge=0)] = 0
    """MiB of disk to give away. 0: what is free where `state_dir` is."""
    max_live_sandboxes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Most sandboxes that live at once. 0: 1024, which idle costs less than half a GiB."""
    cpu_overcommit: Annotated[float, Field(ge=1, le=10_000)] = 128.0
    """By how much the cpu ceilings of all sandboxes may exceed `total_cores`: admission counts a ceiling divided by
    this. Sandboxes wait most of their life, so the default lets ceilings add up; 1 reserves every ceiling in full."""
    memory_overcommit: Annotated[float, Field(ge=1, le=10_000)] = 128.0
    """The same for memory. An idle sandbox uses a fraction of a MiB of its ceiling; 1 reserves every ceiling in
    full."""
    disk_overcommit: Annotated[float, Field(ge=1, le=10_000)] = 16.0
    """The same for disk, lower because what is written stays."""
    default_ttl: Annotated[quantities.Seconds, Field(gt=0)] = 1800.0
    """Seconds until a sandbox expires whose create names no limit: half an hour, long enough for a task, and short
    enough that what is forgotten does not pile up."""
    max_ttl: Annotated[quantities.Seconds, Field(gt=0, le=366 * 86400)] = 7 * 86400.0
    """Longest time limit in seconds that a create or a renewal may ask for: seven days."""
    default_pids: Annotated[int, Field(ge=2, le=4_194_304)] = 512
    """Processes and threads that a sandbox may have at once when its create names no number."""
    warm_sandboxes: Annotated[int, Field(ge=0, le=1000)] = 4
    """Most sandboxes that wait ahead of demand with interpreters that are ready, for creates with `prepare` like those
    of the last hour; each takes the memory of its interpreters. 0: none. They yield to other creates."""
    prepare_modules: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$")], ...], Field(max_length=100)
    ] = ("numpy",)
    """Modules that a prepared Python imports while nobody waits for it, where the image has them."""
    max_body_bytes: Annotated[quantities.Bytes, Field(ge=1024)] = MIB
    """Largest request body in bytes, where a route has no limit of its own."""
    max_code_body_bytes: Annotated[quantities.Bytes, Field(ge=1024)] = 2 * MIB
    """Largest body of `exec/code`: 1 MiB of code, which JSON may spell longer."""
    max_file_body_bytes: Annotated[quantities.Bytes, Field(ge=1024)] = 14 * MIB
    """Largest JSON body of a file: 10 MiB of content, which base64 makes a third longer. Raw bodies have no such
    limit."""
    registration_heartbeat: Annotated[quantities.Seconds, Field(ge=1, le=3600)] = 30.0
    """Seconds between two heartbeats; the lease lasts four of them."""
    registration_jitter_percent: Annotated[int, Field(ge=0, le=95)] = 20
    """By how much a heartbeat may come early or late, in percent, so that workers do not beat in step."""
    state_dir: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=lambda: places.state_dir("worker", os.environ, os.geteuid())
    )
    """Directory of the journal, images and exec logs. Default: `/var/lib/traforo/worker` for root, else
    `traforo/worker` below `$XDG_STATE_HOME` (`~/.local/state`)."""
    run_dir: Annotated[Path, AfterValidator(_absolute)] = Field(
        default_factory=lambda: places.run_dir("worker", os.environ, os.geteuid())
    )
    """Directory of sockets. Default: `/run/traforo/worker` for root, else `traforo/worker` below `$XDG_RUNTIME_DIR`,
    else `run` in the state directory."""
    uid_base: Annotated[int, Field(ge=65536, le=0xFFFF_0000)] = 0x3000_0000
    """First user id (0x30000000) of the ranges that sandboxes get when the worker runs as root, far above those that
    systems and other container engines give out."""
    require_limits: bool | None = None
    """Whether a worker refuses to start on a host that cannot enforce every limit of a sandbox (cpu, memory, pids,
    disk), and does not merely warn and say so of each sandbox. Default: true in `prod` mode, false in `dev`."""
    exec_log_max_bytes: Annotated[quantities.Bytes, Field(ge=65536)] = 256 * MIB
    """Bytes of output that are kept of one exec; beyond it the oldest is dropped, and counted."""
    exec_log_segment_bytes: Annotated[quantities.Bytes, Field(ge=4096)] = 16 * MIB
    """Bytes of one file of that log: what is dropped at once."""
    result_max_bytes: Annotated[quantities.Bytes, Field(ge=1024, le=64 * MIB)] = 8 * MIB
    """Bytes of each stream that an exec's result carries; frames give the rest."""
    ended_retention_seconds: Annotated[quantities.Seconds, Field(ge=0)] = 3600.0
    """Seconds that an ended sandbox and its execs can still be read."""
    stop_policy: Literal["drain", "keep"] = "drain"
    """What a stopping worker does with its sandboxes: `drain` ends them; `keep` leaves them running for the next
    worker process to adopt, which an upgrade wants."""
    image_roots: tuple[Annotated[Path, AfterValidator(_absolute)], ...] = ()
    """Directories below which `dir:` images and image archives may lie. Empty: anywhere in `dev` mode, nowhere in
    `prod`, where callers must not name paths of the host."""
    ports_domain: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,188}[a-z0-9])?$")] = "localhost"
    """Domain of the host names by which ports of sandboxes are reached: `{port}-{dns_id}.` and this. Its wildcard has
    to lead to this worker; browsers look below `localhost` for this machine by themselves."""
    ports_response_seconds: Annotated[quantities.Seconds, Field(gt=0, le=3600)] = 30.0
    """Seconds that a server in a sandbox may take to begin its answer, once it has the request."""
    ports_isolate_pages: bool = True
    """Whether browsers give pages below `/sandboxes/{id}/proxy/{port}` an origin that nobody else has: those of all
    sandboxes and the API have one host there. Such pages cannot use cookies or storage; host names do without."""
    pre_pull: PrePullSettings = PrePullSettings()
    """Images made ready at start."""

    @model_validator(mode="after")
    def _agree(self) -> WorkerSettings:
        """Refuse settings that contradict each other."""
        if self.default_ttl > self.max_ttl:
            raise ValueError("'default-ttl' is longer than 'max-ttl'")
        if self.exec_log_segment_bytes > self.exec_log_max_bytes:
            raise ValueError("'exec-log-segment-bytes' is more than 'exec-log-max-bytes'")
        return self

    @classmethod
    def places(cls, environ: Mapping[str, str], uid: int) -> dict[str, object]:
        """Return the defaults that depend on who runs the process, by field name."""
        return {
            "state_dir": places.state_dir("worker", environ, uid),
            "run_dir": places.run_dir("worker", environ, uid),
        }

    def url_at(self, port: int) -> str:
        """Return the base URL for the port that was really bound: as configured, or made from `listen`."""
        if "base_url" in self.model_fields_set:
            return self.base_url
        return addresses.url(addresses.Address(addresses.parse(self.listen).host, port), self.hostname)

    @property
    def limits_required(self) -> bool:
        """`require_limits` with its default filled in."""
        return self.auth.mode == "prod" if self.require_limits is None else self.require_limits

    @property
    def live_limit(self) -> int:
        """`max_live_sandboxes` with its default filled in."""
        return self.max_live_sandboxes or 1024

    @property
    def any_image_path(self) -> bool:
        """Whether images may be taken from any path of the host."""
        return not self.image_roots and self.auth.mode == "dev"

"""The set-up of one sandbox as data: what the spawner and the new child will do, decided before any of it runs.

A plan can be printed (`describe`) and compared; `encode` turns it into the fields of one M_CREATE message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traforo.domain import specs, states
from traforo.wire import init_messages as wire
from traforo.worker.hosts import cgroups, features
from traforo.worker.runtimes import contract

UIDS_PER_SANDBOX = 65536
TERMINALS = 128
"""Most terminals of a sandbox; the host has 3,072 for all of them."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8

NAMESPACES = (
    features.CLONE_NEWUSER
    | features.CLONE_NEWNS
    | features.CLONE_NEWPID
    | features.CLONE_NEWNET
    | features.CLONE_NEWIPC
    | features.CLONE_NEWUTS
    | features.CLONE_NEWCGROUP
)

_CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "sys_chroot": 18,
    "setfcap": 31,
}
CAPABILITY_MASK = sum(1 << bit for bit in _CAPABILITIES.values())
"""What root inside may ever have: a container engine's default without mknod, net_raw and audit_write."""

MASKED = (
    "acpi", "asound", "interrupts", "kallsyms", "kcore", "keys", "key-users", "kmsg", "kpagecgroup", "kpagecount",
    "kpageflags", "latency_stats", "mtrr", "pressure", "sched_debug", "schedstat", "scsi", "slabinfo", "sysrq-trigger",
    "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
"""Names in /proc that tell about the host or act on it: replaced by nothing."""
READ_ONLY = ("bus", "driver", "fs", "irq", "sys", "tty")
"""Directories in /proc that can be looked at only."""


@dataclass(frozen=True, slots=True)
class Step:
    """One T_OP. Which attributes matter depends on the opcode; see `init/src/setup.h`."""

    opcode: wire.Opcode
    path: str = ""
    source: str = ""
    fstype: str = ""
    options: str = ""
    value: str | None = None
    flags: int = 0
    mode: int = 0
    index: int = 0

    def describe(self) -> str:
        """Return one line for people."""
        parts = [self.opcode.name.lower(), self.source, self.path, self.fstype, self.options]
        if self.value is not None:
            parts.append(repr(self.value))
        if self.opcode == wire.Opcode.MOVE:
            parts.append(f"layer {self.index}")
        return " ".join(part for part in parts if part) + (f" flags={self.flags:#x}" if self.flags else "")

    def encode(self) -> bytes:
        """Return the T_OP field."""
        fields = [wire.number(wire.Tag.OPCODE, self.opcode)]
        for tag, text in (
            (wire.Tag.PATH, self.path),
            (wire.Tag.SOURCE, self.source),
            (wire.Tag.FSTYPE, self.fstype),
            (wire.Tag.OPTIONS, self.options),
        ):
            if text:
                fields.append(wire.string(tag, text))
        if self.value is not None:
            fields.append(wire.string(wire.Tag.VALUE, self.value))
        for tag, value in ((wire.Tag.FLAGS, self.flags), (wire.Tag.MODE, self.mode), (wire.Tag.INDEX, self.index)):
            if value:
                fields.append(wire.number(tag, value))
        return wire.nested(wire.Tag.OP, *fields)


@dataclass(frozen=True, slots=True)
class Layer:
    """A mount that the spawner makes and hands to the child.

    A clone of a host mount (`path`), a disk image (`fstype`, `source`), a tmpfs (`options`), or an overlay whose lower
    directory is `path` and whose upper one is in the tmpfs that is layer `index`.
    """

    path: str = ""
    fstype: str = ""
    source: str = ""
    options: str = ""
    index: int = 0
    flags: int = 0
    idmap: bool = False
    recursive: bool = False

    def encode(self) -> bytes:
        """Return the T_LAYER field."""
        fields = []
        for tag, text in (
            (wire.Tag.PATH, self.path),
            (wire.Tag.FSTYPE, self.fstype),
            (wire.Tag.SOURCE, self.source),
            (wire.Tag.OPTIONS, self.options),
        ):
            if text:
                fields.append(wire.string(tag, text))
        if self.index:
            fields.append(wire.number(wire.Tag.INDEX, self.index))
        fields.append(wire.number(wire.Tag.FLAGS, self.flags))
        fields.append(wire.number(wire.Tag.IDMAP, self.idmap))
        fields.append(wire.number(wire.Tag.RECURSIVE, self.recursive))
        return wire.nested(wire.Tag.LAYER, *fields)


@dataclass(frozen=True, slots=True)
class Group:
    """A control group to make for the sandbox."""

    kind: wire.CgroupKind
    path: str
    settings: Mapping[str, str]
    oom_file: str

    def encode(self) -> bytes:
        """Return the T_CGROUP field."""
        fields = [wire.string(wire.Tag.PATH, self.path), wire.number(wire.Tag.KIND, self.kind)]
        if self.oom_file:
            fields.append(wire.string(wire.Tag.NAME, self.oom_file))
        fields.extend(
            wire.nested(wire.Tag.SETTING, wire.string(wire.Tag.NAME, name), wire.string(wire.Tag.VALUE, value))
            for name, value in self.settings.items()
        )
        return wire.nested(wire.Tag.CGROUP, *fields)


class Part:
    """Layers and steps that stand together in plans. Many plans share one, so it is encoded once."""

    __slots__ = ("encoded", "layers", "steps")

    def __init__(self, layers: Sequence[Layer], steps: Sequence[Step]) -> None:
        self.layers = tuple(layers)
        self.steps = tuple(steps)
        self.encoded = b"".join([layer.encode() for layer in layers] + [step.encode() for step in steps])


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be done for one sandbox."""

    uid_base: int | None
    """First host uid of its range; None where its users cannot be mapped (rootless: only root inside is)."""
    groups: Sequence[Group]
    parts: Sequence[Part]
    namespaces: int = NAMESPACES
    capabilities: int = CAPABILITY_MASK
    uid_map: str = ""
    gid_map: str = ""
    seccomp: bool = True

    @property
    def layers(self) -> Sequence[Layer]:
        """All layers, in the order that steps count them."""
        return [layer for part in self.parts for layer in part.layers]

    @property
    def steps(self) -> Sequence[Step]:
        """All steps, in order."""
        return [step for part in self.parts for step in part.steps]

    def describe(self) -> str:
        """Return the plan for people, one line a step."""
        lines = [f"uid map {self.uid_map}", f"capabilities {self.capabilities:#x}"]
        lines.extend(f"cgroup {group.path} {dict(group.settings)}" for group in self.groups)
        for number, layer in enumerate(self.layers):
            what = " ".join(part for part in (layer.fstype, layer.path, layer.source, layer.options) if part)
            lines.append(f"layer {number} {what} idmap={layer.idmap} flags={layer.flags:#x}")
        lines.extend(step.describe() for step in self.steps)
        return "\n".join(lines)

    def encode(self) -> bytes:
        """Return the fields that the plan adds to M_CREATE."""
        fields = [
            wire.number(wire.Tag.CLONE_FLAGS, self.namespaces),
            wire.string(wire.Tag.UID_MAP, self.uid_map),
            wire.string(wire.Tag.GID_MAP, self.gid_map),
            wire.number(wire.Tag.CAPS, self.capabilities),
            wire.number(wire.Tag.SECCOMP, self.seccomp),
        ]
        if self.uid_base is not None:
            fields.append(wire.number(wire.Tag.OWNER, self.uid_base))
        fields.extend(group.encode() for group in self.groups)
        fields.extend(part.encoded for part in self.parts)
        return b"".join(fields)


@dataclass(frozen=True, slots=True)
class Host:
    """What plans need to know of the host; found once."""

    features: features.Features
    layout: cgroups.Layout
    devices: str
    """Directory of the shared device files."""
    masked: Sequence[tuple[str, bool]]
    """Names of MASKED that this kernel has, and whether each is a directory."""
    read_only: Sequence[str]
    """Names of READ_ONLY that this kernel has."""


def look_at_proc(proc: str = "/proc") -> tuple[list[tuple[str, bool]], list[str]]:
    """Find which names of MASKED and READ_ONLY there are. Blocks; called once at start."""
    masked = [(name, Path(proc, name).is_dir()) for name in MASKED if os.path.lexists(f"{proc}/{name}")]
    return masked, [name for name in READ_ONLY if Path(proc, name).is_dir()]


def groups_for(layout: cgroups.Layout, name: str, resources: specs.Resources) -> list[Group]:
    """Return the control groups of a sandbox called `name`."""
    return [
        Group(
            kind=wire.CgroupKind(hierarchy.version),
            path=f"{hierarchy.path}/{name}",
            settings=cgroups.settings(hierarchy, resources),
            oom_file=cgroups.oom_file(hierarchy),
        )
        for hierarchy in layout.hierarchies
    ]


_Op = wire.Opcode
_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC


@dataclass(slots=True)
class _Builder:
    """Collects layers and steps; layers are counted over the whole plan."""

    layers: list[Layer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    counted: int = 0

    def add(self, opcode: wire.Opcode, path: str = "", **rest: str | int) -> None:
        self.steps.append(Step(opcode, path, **rest))  # type: ignore[arg-type]  # each opcode takes its own attributes

    def layer(self, layer: Layer) -> int:
        """Add a layer and return its number."""
        self.layers.append(layer)
        self.counted += 1
        return self.counted - 1

    def cut(self) -> Part:
        """Return what was collected since the last cut."""
        part = Part(self.layers, self.steps)
        self.layers, self.steps = [], []
        return part


def _outside(host: Host, disk: str | None) -> bool:
    """Tell whether overlays have to be mounted from outside: see `init/src/overlays.h`."""
    return disk is None and not host.features.overlay_xattr.ok and host.features.overlay_trusted.ok


def _writable(builder: _Builder, disk_mib: int, disk: str | None, *, outside: bool) -> None:
    """Put the writable layer over the stage: a tmpfs with a size, or a disk image that has one by itself."""
    flags = ATTR_NOSUID | ATTR_NODEV
    if disk is None:
        options = f"source=traforo,size={disk_mib}m,nr_inodes={max(16384, disk_mib * 256)},mode=755"
        if outside:
            tmpfs = Layer(fstype="tmpfs", options=options, flags=flags)
            builder.add(_Op.ENTER, index=builder.layer(tmpfs))
        else:
            builder.add(_Op.ENTER, flags=flags, options=options)
    else:
        builder.add(_Op.ENTER, index=builder.layer(Layer(fstype="ext4", source=disk, flags=flags)))


def _lower(builder: _Builder, host: Host, number: int, lower: contract.Lower) -> None:
    """Attach one lower directory of the image, and make the directories that its overlay needs."""
    for prefix, mode in (("l", 0o755), ("u", 0o755), ("w", 0o700)):
        builder.add(_Op.MKDIR, f"{prefix}{number}", mode=mode)
    layer = Layer(path=lower.source, flags=ATTR_NODEV | ATTR_RDONLY, idmap=host.features.idmap.ok)
    builder.add(_Op.MOVE, f"l{number}", index=builder.layer(layer))


def _overlay(builder: _Builder, number: int, lower: contract.Lower) -> None:
    options = f"lowerdir=l{number},upperdir=u{number},workdir=w{number},userxattr"
    target = "m" + lower.target.rstrip("/")
    builder.add(_Op.MOUNT, target, source="overlay", fstype="overlay", flags=MS_NODEV, options=options)


def _overlay_from_outside(builder: _Builder, host: Host, lower: contract.Lower) -> None:
    """Have the spawner make the overlay, its directories included; the tmpfs for them is layer 0."""
    layer = Layer(path=lower.source, fstype="overlay", flags=ATTR_NODEV, idmap=host.features.idmap.ok)
    builder.add(_Op.MOVE, "m" + lower.target.rstrip("/"), index=builder.layer(layer))


def _devices(builder: _Builder, host: Host) -> None:
    """Make the mount points that an image may lack, and bind the shared device files, which nobody can change."""
    for name in ("proc", "sys", "dev", "tmp"):
        builder.add(_Op.MKDIR, f"m/{name}", mode=0o1777 if name == "tmp" else 0o755)
    attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NOEXEC
    devices = Layer(path=host.devices, flags=attributes, recursive=not host.features.root)
    builder.add(_Op.MOVE, "m/dev", index=builder.layer(devices))
    options = f"newinstance,ptmxmode=0666,max={TERMINALS}" + (",mode=0620,gid=5" if host.features.root else "")
    flags = MS_NOSUID | MS_NOEXEC
    builder.add(_Op.MOUNT, "m/dev/pts", source="devpts", fstype="devpts", flags=flags, options=options)
    builder.add(_Op.MKDIR, "shm", mode=0o1777)
    builder.add(_Op.BIND, "m/dev/shm", source="shm", flags=ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)


def _proc(builder: _Builder, host: Host) -> None:
    builder.add(_Op.MOUNT, "m/proc", source="proc", fstype="proc", flags=_QUIET)
    # No user namespace below this one, however it is asked for: see init/src/seccomp.c.
    builder.add(_Op.WRITE, "m/proc/sys/user/max_user_namespaces", value="0")
    builder.add(_Op.MKDIR, "empty", mode=0o555)
    for name, is_directory in host.masked:
        source = "empty" if is_directory else "m/dev/null"
        builder.add(_Op.MASK, f"m/proc/{name}", source=source, flags=ATTR_RDONLY | ATTR_NOSUID | ATTR_NOEXEC)
    attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC
    for name in host.read_only:
        builder.add(_Op.BIND, f"m/proc/{name}", source=f"m/proc/{name}", flags=attributes)


def _shape(host: Host, lowers: Sequence[contract.Lower], disk_mib: int, disk: str | None) -> tuple[Part, Part]:
    """Return what plans of one image and disk share: what comes before the names are written, and what comes after."""
    builder = _Builder()
    outside = _outside(host, disk)
    _writable(builder, disk_mib, disk, outside=outside)
    builder.add(_Op.MKDIR, "m", mode=0o755)
    if not outside:
        for number, lower in enumerate(lowers):
            _lower(builder, host, number, lower)
    before = builder.cut()
    for number, lower in enumerate(lowers):
        if outside:
            _overlay_from_outside(builder, host, lower)
        else:
            _overlay(builder, number, lower)
    _devices(builder, host)
    _proc(builder, host)
    builder.add(_Op.LOOPBACK)
    builder.add(_Op.PIVOT, "m")
    return before, builder.cut()


def _names(hostname: str) -> Part:
    """Write what differs from sandbox to sandbox straight into the upper directory: no copy-up."""
    builder = _Builder()
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n"
    flags = os.O_CREAT | os.O_TRUNC
    builder.add(_Op.MKDIR, "u0/etc", mode=0o755)
    builder.add(_Op.WRITE, "u0/etc/hostname", value=hostname + "\n", flags=flags, mode=0o644)
    builder.add(_Op.WRITE, "u0/etc/hosts", value=hosts, flags=flags, mode=0o644)
    builder.add(_Op.HOSTNAME, value=hostname)
    return builder.cut()


class Planner:
    """Makes plans for one host, and remembers what plans of the same image and disk size share."""

    _REMEMBERED = 256

    def __init__(self, host: Host) -> None:
        self.host = host
        self._shapes: dict[tuple[Sequence[contract.Lower], int], tuple[Part, Part]] = {}

    def plan(self, request: contract.CreateRequest, *, uid_base: int | None, disk: str | None) -> Plan:
        """Decide everything about one sandbox. `disk` is the block device of its disk, for `disk_kind: disk`."""
        resources = request.resources
        if (resources.disk_kind is states.DiskKind.DISK) != (disk is not None):
            raise ValueError("a disk goes with disk_kind 'disk', and only with it")
        before, after = self._shape(request.rootfs.lowers, resources.disk_mib, disk)
        # Rootless, the spawner's own namespace knows one user, its root, and so does each sandbox.
        mapping = f"0 {uid_base} {UIDS_PER_SANDBOX}" if uid_base is not None else "0 0 1"
        return Plan(
            uid_base=uid_base,
            groups=groups_for(self.host.layout, request.sandbox_id, resources),
            parts=(before, _names(request.hostname), after),
            uid_map=mapping,
            gid_map=mapping,
        )

    def _shape(self, lowers: Sequence[contract.Lower], disk_mib: int, disk: str | None) -> tuple[Part, Part]:
        if disk is not None:
            return _shape(self.host, lowers, disk_mib, disk)
        found = self._shapes.get((lowers, disk_mib))
        if found is None:
            if len(self._shapes) >= self._REMEMBERED:
                self._shapes.clear()
            found = self._shapes[lowers, disk_mib] = _shape(self.host, lowers, disk_mib, None)
        return found

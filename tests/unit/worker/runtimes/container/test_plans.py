"""Plans: what is done for a sandbox is decided in full before any of it runs, and each protection is in it."""

from __future__ import annotations

import dataclasses

import pytest

from traforo.domain import specs, states
from traforo.wire import init_messages as wire
from traforo.worker.hosts import cgroups, features
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import plans

YES = features.Probe(ok=True)
HOST = plans.Host(
    features=features.Features(root=True, overlay=YES, overlay_xattr=YES, idmap=YES, namespaces=YES),
    layout=cgroups.Layout((cgroups.Hierarchy(2, "/cg", frozenset(cgroups.CONTROLLERS)),), frozenset()),
    devices="/run/devices",
    masked=[("kcore", False), ("acpi", True)],
    read_only=["sys"],
)
REQUEST = contract.CreateRequest(
    sandbox_id="sbx_1",
    hostname="box",
    resources=specs.Resources(1, 256, 64, 100),
    rootfs=contract.Rootfs("host", (contract.Lower("/skeleton", "/"), contract.Lower("/usr", "/usr"))),
    label=b"",
    deadline=None,
)


def build(**changes: object) -> plans.Plan:
    """Plan the request on the host, with some of the request changed."""
    request = dataclasses.replace(REQUEST, **changes)  # type: ignore[arg-type]  # each test knows its field
    return plans.Planner(HOST).plan(request, uid_base=655360, disk=None)


def steps(plan: plans.Plan, opcode: wire.Opcode) -> list[plans.Step]:
    """Return the steps of one kind."""
    return [step for step in plan.steps if step.opcode == opcode]


def test_every_namespace_is_new() -> None:
    """A sandbox shares no namespace with the host."""
    assert build().namespaces.bit_count() == 7


def test_no_capability_reaches_outside() -> None:
    """Nothing that mounts, makes devices, traces, administers the network or the machine is ever held."""
    forbidden = {"net_admin": 12, "net_raw": 13, "sys_module": 16, "sys_ptrace": 19, "sys_admin": 21, "mknod": 27}
    assert not [name for name, bit in forbidden.items() if plans.CAPABILITY_MASK >> bit & 1]


def test_the_uid_range_is_mapped_and_owns_the_tree() -> None:
    """Root inside is the first uid of the sandbox's own range."""
    plan = build()
    assert plan.uid_map == plan.gid_map == "0 655360 65536"
    assert plan.uid_base == 655360


def test_layers_of_the_image_are_mapped_and_carry_no_devices() -> None:
    """Every lower directory comes through an owner-mapped clone without device files."""
    lowers = [layer for layer in build().layers if layer.path != HOST.devices]
    assert [layer.path for layer in lowers] == ["/skeleton", "/usr"]
    assert all(layer.idmap and layer.flags & plans.ATTR_NODEV for layer in lowers)


def test_the_writable_layer_has_its_size() -> None:
    """The tmpfs under everything is bounded in bytes and in files."""
    [enter] = steps(build(), wire.Opcode.ENTER)
    assert "size=64m" in enter.options
    assert "nr_inodes=16384" in enter.options


def test_proc_is_masked_and_read_only_where_it_reaches_the_host() -> None:
    """Files are covered by an empty file, directories by an empty directory, and settings cannot be written."""
    plan = build()
    assert {("m/proc/kcore", "m/dev/null"), ("m/proc/acpi", "empty")} == {
        (step.path, step.source) for step in steps(plan, wire.Opcode.MASK)
    }
    [read_only] = [step for step in steps(plan, wire.Opcode.BIND) if step.path == "m/proc/sys"]
    assert read_only.flags & plans.ATTR_RDONLY


def test_no_user_namespace_can_be_made_below() -> None:
    """The limit is written before /proc/sys becomes read-only."""
    plan = build()
    order = [step.path for step in plan.steps]
    assert order.index("m/proc/sys/user/max_user_namespaces") < order.index("m/proc/sys")


def test_the_old_root_goes_last() -> None:
    """Nothing runs after the pivot: nothing of the host can be named any more."""
    assert build().steps[-1].opcode == wire.Opcode.PIVOT


def test_shared_devices_cannot_be_changed() -> None:
    """All sandboxes see the same device files, read-only."""
    [devices] = [layer for layer in build().layers if layer.path == HOST.devices]
    assert devices.flags & plans.ATTR_RDONLY
    assert not devices.flags & plans.ATTR_NODEV


def test_a_disk_goes_with_its_kind() -> None:
    """A disk that was not asked for, or one that is missing, is a defect of the caller."""
    on_disk = dataclasses.replace(REQUEST.resources, disk_kind=states.DiskKind.DISK)
    with pytest.raises(ValueError, match="disk"):
        build(resources=on_disk)
    plan = plans.Planner(HOST).plan(dataclasses.replace(REQUEST, resources=on_disk), uid_base=655360, disk="/dev/loop9")
    assert (plan.layers[0].fstype, plan.layers[0].source) == ("ext4", "/dev/loop9")


def test_plans_of_one_image_share_their_parts() -> None:
    """What does not differ between sandboxes is encoded once, and the encoding is the same as of a fresh plan."""
    planner = plans.Planner(HOST)
    first = planner.plan(REQUEST, uid_base=655360, disk=None)
    second = planner.plan(dataclasses.replace(REQUEST, hostname="other"), uid_base=655360, disk=None)
    assert first.parts[0] is second.parts[0]
    assert build(hostname="other").encode() == second.encode()
    bigger = dataclasses.replace(REQUEST.resources, disk_mib=128)
    assert "size=128m" in planner.plan(dataclasses.replace(REQUEST, resources=bigger), uid_base=1, disk=None).describe()


def test_a_plan_can_be_read() -> None:
    """Each step is a line for people."""
    text = build().describe()
    assert "mount overlay m overlay lowerdir=l0" in text
    assert "cgroup /cg/sbx_1" in text


def test_a_plan_fits_in_a_message() -> None:
    """The largest label and a plan with many layers leave room."""
    lowers = tuple(contract.Lower("/" + "x" * 200, f"/{number}") for number in range(8))
    plan = build(rootfs=contract.Rootfs("big", (contract.Lower("/skeleton", "/"), *lowers)))
    assert len(plan.encode()) + contract.MAX_LABEL_BYTES < wire.MSG_MAX
    assert len(plan.steps) < 96


@pytest.mark.parametrize("disk", [None, "/dev/loop3"])
def test_overlays_come_from_outside_where_tmpfs_needs_it(disk: str | None) -> None:
    """Where tmpfs keeps no user attributes the spawner mounts them; a disk image keeps all, on every kernel."""
    found = dataclasses.replace(HOST.features, overlay_xattr=features.Probe(ok=False), overlay_trusted=YES)
    kind = states.DiskKind.TMPFS if disk is None else states.DiskKind.DISK
    request = dataclasses.replace(REQUEST, resources=dataclasses.replace(REQUEST.resources, disk_kind=kind))
    planner = plans.Planner(dataclasses.replace(HOST, features=found))
    plan = planner.plan(request, uid_base=655360, disk=disk)
    mounted = [step.path for step in steps(plan, wire.Opcode.MOUNT) if step.fstype == "overlay"]
    outside = [layer for layer in plan.layers if layer.fstype == "overlay"]
    assert mounted == (["m", "m/usr"] if disk else [])
    assert [(layer.path, layer.index) for layer in outside] == ([] if disk else [("/skeleton", 0), ("/usr", 0)])
    if not disk:
        assert plan.layers[0] == plans.Layer(
            fstype="tmpfs",
            options="source=traforo,size=64m,nr_inodes=16384,mode=755",
            flags=plans.ATTR_NOSUID | plans.ATTR_NODEV,
        )
        assert steps(plan, wire.Opcode.ENTER) == [plans.Step(wire.Opcode.ENTER)]


def test_a_host_without_attributes_mounts_inside_as_well_as_it_can() -> None:
    """Rootless before Linux 6.6: nobody could mount it from outside."""
    found = dataclasses.replace(HOST.features, root=False, overlay_xattr=features.Probe(ok=False))
    plan = plans.Planner(dataclasses.replace(HOST, features=found)).plan(REQUEST, uid_base=None, disk=None)
    assert [step.path for step in steps(plan, wire.Opcode.MOUNT) if step.fstype == "overlay"] == ["m", "m/usr"]

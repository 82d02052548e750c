"""The tree of a sandbox: made of what the image names and of nothing else, and nothing in it leads back to the host."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import uids
from tests.security import ablations, labs
from traforo.domain import errors, states
from traforo.worker.hosts import disks
from traforo.worker.images import skeletons
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import plans

TOP = {"bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc", "root", "run"}
TOP |= {"sbin", "srv", "sys", "tmp", "usr", "var"}


@pytest.fixture(params=["inside", "outside", "disk"])
async def lab(site: labs.Site, request: pytest.FixtureRequest) -> AsyncIterator[labs.Lab]:
    """Runtimes whose overlays are mounted by the sandbox itself, by its spawner, and over a disk image."""
    if request.param == "outside" and not site.features.overlay_trusted.ok:
        pytest.skip(f"this host cannot mount overlays from outside: {site.features.overlay_trusted.detail}")
    if request.param == "disk" and disks.missing():
        pytest.skip(f"this host cannot make disks: {disks.missing()}")
    async with site.lab(outside=request.param == "outside") as lab:
        if request.param == "disk":
            lab.disk_kind = states.DiskKind.DISK
        yield lab


@pytest.fixture
def shelf(site: labs.Site) -> Iterator[Path]:
    """A directory of the host that an image may show."""
    directory = site.directory / f"shelf-{uuid.uuid4().hex}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def showing(rootfs: contract.Rootfs, directory: Path, target: str = "/srv") -> contract.Rootfs:
    """Return the image with a directory of the host at `target`."""
    return dataclasses.replace(rootfs, lowers=(*rootfs.lowers, contract.Lower(str(directory), target)))


async def test_nothing_but_the_image_is_there(sandbox: labs.Sandbox) -> None:
    """The root holds what the skeleton made, and the places where hosts keep what is theirs are empty."""
    done = await labs.run(sandbox, "ls -A /")
    assert set(done.lines) <= TOP
    done = await labs.run(sandbox, "cd /; ls -A sys mnt media run/lock var/lib var/log var/cache var/spool srv home")
    assert "".join(done.lines) == "home:usermedia:mnt:run/lock:srv:sys:var/cache:var/lib:var/log:var/spool:"


async def test_files_of_the_host_are_not_there(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Neither its accounts, nor what is in the directories of its users, nor the runtime's own."""
    paths = ["/etc/ssh", "/etc/sudoers", "/root/.ssh", "/boot", "/lost+found", str(lab.probe), "/sys/kernel"]
    done = await labs.run(sandbox, f"for path in {' '.join(paths)}; do test -e $path && echo $path; done")
    assert done.lines == []
    done = await labs.run(sandbox, "cut -d: -f1 /etc/passwd; cat /etc/shadow 2>/dev/null")
    made = {line.split(":")[0] for line in skeletons.texts("/bin/sh")["etc/passwd"].content.splitlines()}
    assert {line.split(":")[0] for line in done.lines} <= made


async def test_no_mount_names_a_path_of_the_host(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """What the kernel tells of mounts and control groups is what the sandbox may know: its own."""
    done = await labs.run(sandbox, "cat /proc/self/mountinfo /proc/1/mountinfo /proc/self/mounts")
    text = done.stdout.decode()
    sources = [lower.source for lower in lab.rootfs.lowers if lower.source != "/usr"]
    assert [source for source in (*sources, "/sys/fs/cgroup", "trf-", "/var/lib") if source in text] == []


async def test_control_groups_name_nothing_of_the_host(sandbox: labs.Sandbox) -> None:
    """The sandbox sees itself at the root of every hierarchy, and neither its id nor where its worker keeps others."""
    done = await labs.run(sandbox, "cat /proc/self/cgroup")
    assert [line for line in done.lines if "sbx_" in line or "traforo" in line or ".." in line] == []


async def test_every_tree_of_the_host_is_handed_over_read_only(lab: labs.Lab) -> None:
    """Also below the overlay, which never writes there itself: whatever else goes wrong, the host is not written to."""
    seen: list[plans.Plan] = []

    def see(plan: plans.Plan) -> plans.Plan:
        seen.append(plan)
        return plan

    await lab.create(see)
    layers = [layer for layer in seen[0].layers if layer.path and not layer.fstype]
    assert layers
    assert [layer.path for layer in layers if not layer.flags & plans.ATTR_RDONLY] == []


async def test_writes_stay_in_the_sandbox(lab: labs.Lab, shelf: Path) -> None:
    """Files of the image can be changed, replaced and removed, and the host's are what they were."""
    (shelf / "changed").write_text("host")
    (shelf / "removed").write_text("host")
    (shelf / "removed").chmod(0o600)
    attack = "echo x >> /srv/changed; rm /srv/removed; echo x > /srv/made; chmod 777 /srv; cat /srv/changed"
    sandbox = await lab.create(rootfs=showing(lab.rootfs, shelf))
    assert (await labs.run(sandbox, attack)).stdout == b"hostx\n"
    assert {path.name: path.read_text() for path in shelf.iterdir()} == {"changed": "host", "removed": "host"}
    assert stat.S_IMODE(shelf.stat().st_mode) == 0o755


async def test_without_an_overlay_writes_reach_the_host(site: labs.Site, shelf: Path) -> None:
    """Proves the test above: the tree itself, with its owners mapped, is root's to change."""
    (shelf / "changed").write_text("host")
    (shelf / "removed").write_text("host")
    async with site.lab() as lab:
        weak = await lab.create(ablations.direct("/srv"), rootfs=showing(lab.rootfs, shelf))
        await labs.run(weak, "echo x >> /srv/changed; rm /srv/removed; echo x > /srv/made")
    assert {path.name: path.read_text() for path in shelf.iterdir()} == {"changed": "hostx\n", "made": "x\n"}


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
async def test_device_files_of_an_image_are_dead(lab: labs.Lab, shelf: Path, kind: int) -> None:
    """An image may hold any; nobody can open them, though on the host they work."""
    number = os.makedev(1, 5) if kind == stat.S_IFCHR else os.stat(_block_device()).st_rdev
    os.mknod(shelf / "device", kind | 0o666, number)
    os.close(os.open(shelf / "device", os.O_RDONLY))
    sandbox = await lab.create(rootfs=showing(lab.rootfs, shelf))
    found = await labs.calls(sandbox, "openat -100 s:/srv/device 0", "openat -100 s:/srv/device 2")
    assert found == ["EACCES", "EACCES"]


def _block_device() -> str:
    devices = [f"/dev/{path.name}" for path in sorted(Path("/sys/block").iterdir())]
    for device in devices:
        try:
            os.close(os.open(device, os.O_RDONLY))
        except OSError:
            continue
        return device
    pytest.skip("this host has no block device that can be opened")


async def test_shared_devices_cannot_be_changed(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Sandboxes share the files of /dev: nobody can replace, remove or give them away."""
    attacks = ["unlinkat -100 s:/dev/null 0", "fchmodat -100 s:/dev/null 0", "fchownat -100 s:/dev/null 0 0 0"]
    attacks += ["openat -100 s:/dev/traforo 0x42 0600", "linkat -100 s:/dev/null -100 s:/dev/shm/null 0"]
    found = await labs.calls(sandbox, *attacks)
    assert found == ["EROFS", "EROFS", "EROFS", "EROFS", "EXDEV"]
    done = await labs.run(sandbox, "find /dev ! -type d ! -type l | sort")
    nodes = ["full", "null", "pts/ptmx", "random", "tty", "urandom", "zero"]
    assert done.lines == [f"/dev/{name}" for name in nodes]


async def test_owners_inside_are_nobody_outside(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """A file that root inside makes belongs to a host uid of this sandbox alone, as does whatever runs in it."""
    other = await lab.create()
    owners = set()
    for box in (sandbox, other):
        assert (await labs.run(box, "touch /tmp/root && chown 65534 /tmp/nobody 2>/dev/null; true")).exit.code == 0
        owner = Path(f"/proc/{box.pid}/root/tmp/root").stat().st_uid
        assert owner >= uids.LABS
        assert Path(f"/proc/{box.pid}/uid_map").read_text().split() == ["0", str(owner), "65536"]
        owners.add(owner)
    assert len(owners) == 2


async def test_a_set_id_file_made_inside_gives_nothing_outside(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Root inside makes a set-id program; a user of the host who reaches it does not become anybody by it."""
    await labs.run(sandbox, f"cp {labs.PROBE} /tmp/suid && chmod 6755 /tmp/suid")
    inside = await labs.run(sandbox, ["/tmp/suid", "ids"], user="user")
    assert inside.stdout == b"1000 0\n"
    path = f"/proc/{sandbox.pid}/root/tmp/suid"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o6755
    descriptor = os.open(path, os.O_RDONLY)
    try:
        done = subprocess.run(
            [f"/proc/self/fd/{descriptor}", "ids"], pass_fds=[descriptor], user=65534, group=65534, extra_groups=[],
            capture_output=True, check=False,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert done.stdout == b"65534 65534\n"


async def test_a_set_id_file_on_the_host_shows_that_the_test_can_fail(lab: labs.Lab, shelf: Path) -> None:
    """Proves the test above: the same file on the host's own tree does change the user."""
    program = shelf / "suid"
    shutil.copy(lab.probe, program)
    program.chmod(0o4755)
    done = subprocess.run([program, "ids"], user=65534, group=65534, extra_groups=[], capture_output=True, check=True)
    assert done.stdout == b"65534 0\n"


async def test_file_capabilities_are_those_of_the_sandbox(sandbox: labs.Sandbox) -> None:
    """A program may be given capabilities inside; nobody gets one by it that root inside does not have."""
    await labs.run(sandbox, "cp /bin/grep /tmp/strong && chmod 755 /tmp/strong")
    for revision in ("01000002", "00000002"):  # with and without the flag that makes them effective at once
        call = f"setxattr s:/tmp/strong s:security.capability h:{revision}{'ffffffff' * 4} 20 0"
        assert await labs.calls(sandbox, call) == ["ok"]
        try:
            done = await labs.run(sandbox, ["/tmp/strong", "-h", "^Cap[PE]", "/proc/self/status"], user="user")
        except errors.StartFailed:
            continue
        assert [line for line in done.lines if int(line.split("\t")[1], 16) & ~plans.CAPABILITY_MASK] == []


async def test_chroot_leads_to_the_sandboxs_own_root_at_most(sandbox: labs.Sandbox) -> None:
    """Who may call chroot may leave one; what is there then is the sandbox."""
    assert await labs.probe(sandbox, "climb") == [labs.HOSTNAME]


async def test_an_image_whose_directories_are_links_reaches_nothing(
    lab: labs.Lab, shelf: Path, site: labs.Site
) -> None:
    """An image may have links where mount points belong; what is mounted through them stays in the sandbox's own tree.

    Nothing on the host changes, and where a sandbox comes to life it sees nothing of the host.
    """
    victim = site.directory / f"victim-{uuid.uuid4().hex}"
    victim.mkdir()
    (victim / "canary").write_text("host")
    before = Path("/proc/self/mountinfo").read_text()
    for name in ("proc", "dev", "sys", "tmp", "etc"):
        (shelf / name).symlink_to(victim)
    os.mkdir(shelf / "usr")
    for name in ("bin", "lib", "lib64"):
        (shelf / name).symlink_to(f"usr/{name}")
    usr = next(lower for lower in lab.rootfs.lowers if lower.target == "/usr")
    rootfs = contract.Rootfs("dir", (contract.Lower(str(shelf), "/"), usr))
    try:
        sandbox = await lab.create(rootfs=rootfs)
        done = await labs.run(sandbox, f"cat {victim}/canary; ls -A {victim}")
        assert b"host" not in done.stdout
    except Exception as error:  # noqa: BLE001 - refusing such an image is as good
        assert "canary" not in str(error)
    assert [path.name for path in victim.iterdir()] == ["canary"]
    assert Path("/proc/self/mountinfo").read_text() == before

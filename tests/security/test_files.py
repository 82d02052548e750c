"""Files of a sandbox through its init, while somebody inside changes what the paths mean."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.security import labs
from traforo.domain import errors, states
from traforo.worker.files import trees
from traforo.worker.runtimes import contract

ROUNDS = 150
REFUSED = (errors.NotFound, errors.Forbidden, errors.InvalidRequest, errors.Conflict)

Act = Callable[[contract.Files, str], Awaitable[object]]


async def _read(files: contract.Files, path: str) -> bytes:
    with os.fdopen(await files.open(path, os.O_RDONLY, user="root"), "rb") as file:
        return file.read(1 << 16)


async def _write(files: contract.Files, path: str) -> None:
    with os.fdopen(await files.open(path, os.O_WRONLY | os.O_CREAT, user="root"), "wb") as file:
        file.write(b"written")


ACTS: dict[str, Act] = {
    "read": _read,
    "write": _write,
    "stat": lambda files, path: files.stat(path, user="root"),
    "list": lambda files, path: files.list(path, user="root", recursive=False, limit=1000),
    "mkdir": lambda files, path: files.mkdir(f"{path}/made", user="root", parents=True),
    "remove": lambda files, path: files.remove(f"{path}/x", user="root", recursive=True),
    "rename": lambda files, path: files.rename(f"{path}/x", f"{path}/y", user="root"),
}

MAGIC = [
    "/proc/self/root",
    "/proc/1/root",
    "/proc/self/cwd",
    "/proc/1/cwd",
    "/proc/thread-self/root",
    "/proc/1/task/1/root",
]
MAGIC += [f"/proc/self/fd/{number}" for number in range(8)] + [f"/dev/fd/{number}" for number in range(8)]
MAGIC += ["/dev/stdin", "/dev/stdout", "/proc/self/exe", "/proc/self/ns/mnt", "/proc/1/ns/user"]


@contextlib.asynccontextmanager
async def swapping(sandbox: contract.RunningSandbox, a: str, b: str) -> AsyncIterator[None]:
    """Let what is at two paths change places for ever, as fast as the sandbox can."""
    swapper = await labs.begin(sandbox, "swap", a, b)
    try:
        yield
    finally:
        await labs.end(swapper)


@pytest.mark.parametrize("act", ACTS)
async def test_links_of_proc_lead_nowhere(sandbox: labs.Sandbox, act: str) -> None:
    """They would be those of the init: its root, its directory, its descriptors. Links to them are no better."""
    await labs.run(sandbox, "ln -s /proc/self/root /tmp/root; ln -s /proc/1/fd /tmp/fd; ln -s /proc/self/exe /tmp/exe")
    for path in [*MAGIC, "/tmp/root", "/tmp/root/etc/passwd", "/tmp/fd/4/..", "/tmp/exe", "/proc/self/root/etc/passwd"]:
        with pytest.raises(REFUSED):
            await ACTS[act](sandbox.files, path)


async def test_links_of_proc_would_lead_to_the_host(site: labs.Site) -> None:
    """Proves the test above: an init that follows them shows what lies above its control group."""
    async with site.lab("magical") as lab:
        weak = await lab.create()
        found = []
        for number in range(8):
            with contextlib.suppress(*REFUSED):
                listing = await weak.files.list(f"/proc/self/fd/{number}", user="root", recursive=False, limit=1000)
                found += [entry.path.rpartition("/")[2] for entry in listing.entries]
        assert "cgroup.procs" in found


@pytest.mark.parametrize("user", ["root", "user"])
async def test_files_of_processes_are_for_commands(sandbox: labs.Sandbox, user: str) -> None:
    """What the kernel tells of a process depends on who asks, and here it would be the init."""
    names = ["environ", "mem", "maps", "auxv", "cmdline", "oom_score_adj", "uid_map", "stack", "io", "status", "limits"]
    for process in ("self", "1", "thread-self"):
        for name in names:
            for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT):
                with pytest.raises(REFUSED):
                    await sandbox.files.open(f"/proc/{process}/{name}", flags, user=user)
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/net/ipv4/ip_forward",
    ):
        with pytest.raises(REFUSED):
            await sandbox.files.open(path, os.O_WRONLY, user=user)


async def test_what_waits_is_not_waited_for(sandbox: labs.Sandbox) -> None:
    """FIFOs, sockets, devices and directories are refused at once, for reading and for writing."""
    await labs.run(sandbox, "mkfifo /tmp/fifo; ln -s fifo /tmp/link; mkdir /tmp/dir")
    for path in (
        "/tmp/fifo",
        "/tmp/link",
        "/dev/zero",
        "/dev/null",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/pts/ptmx",
        "/tmp/dir",
        "/",
    ):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            with pytest.raises(errors.InvalidRequest):
                await sandbox.files.open(path, flags, user="root")


async def test_a_file_that_turns_into_a_fifo_is_not_waited_for(sandbox: labs.Sandbox) -> None:
    """Whatever stands there at the moment: it is a regular file that comes back, or an error."""
    await labs.run(sandbox, "echo inside > /tmp/a; mkfifo /tmp/b")
    kinds = set()
    async with swapping(sandbox, "/tmp/a", "/tmp/b"):
        for _ in range(ROUNDS):
            try:
                descriptor = await sandbox.files.open("/tmp/a", os.O_RDWR, user="root")
            except errors.InvalidRequest:
                continue
            kinds.add(stat.S_IFMT(os.fstat(descriptor).st_mode))
            os.close(descriptor)
    assert kinds <= {stat.S_IFREG}


@pytest.mark.parametrize(
    "target", ["/", "/proc/self/root", "/proc/1/cwd", "/proc/self/fd/4", "/proc/self/fd/4/../../../.."]
)
async def test_a_directory_that_turns_into_a_link_leads_nowhere(site: labs.Site, lab: labs.Lab, target: str) -> None:
    """Reads, writes, lists and removals go on while a directory and a link change places: the host is never touched."""
    victim = site.directory / f"victim-{uuid.uuid4().hex}"
    victim.mkdir(mode=0o777)
    victim.chmod(0o777)
    (victim / "canary").write_text("host")
    (victim / "canary").chmod(0o666)
    inner = f"/tmp/d{victim}"
    sandbox = await lab.create(disk_mib=64)
    await labs.run(sandbox, f"mkdir -p {inner}; echo inside > {inner}/canary; ln -s {target} /tmp/l")
    found: set[object] = set()
    async with swapping(sandbox, "/tmp/d", "/tmp/l"):
        for _ in range(ROUNDS):
            for act in (_read, _write, ACTS["list"], ACTS["mkdir"], ACTS["remove"], ACTS["rename"]):
                path = f"{inner}/canary" if act in (_read, _write) else inner
                with contextlib.suppress(*REFUSED):
                    answer = await act(sandbox.files, path)
                    found.add(answer if isinstance(answer, bytes) else None)
    assert found - {None} <= {b"inside\n", b"written", b"written\n"}
    assert {path.name: path.read_text() for path in victim.iterdir()} == {"canary": "host"}
    assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"


async def test_removing_a_tree_never_leaves_it(sandbox: labs.Sandbox) -> None:
    """A directory in the tree changes places with a link to another: what that leads to stays."""
    await labs.run(sandbox, "mkdir /srv/keep; touch /srv/keep/canary")
    for number in range(ROUNDS // 5):
        tree = f"/tmp/t{number}"
        make = f"mkdir -p {tree}/d/e; touch {tree}/d/canary {tree}/d/e/canary; ln -s /srv/keep {tree}/l"
        await labs.run(sandbox, make)
        async with swapping(sandbox, f"{tree}/d", f"{tree}/l"):
            with contextlib.suppress(*REFUSED):
                await sandbox.files.remove(tree, user="root", recursive=True)
    assert (await labs.run(sandbox, "ls /srv/keep")).lines == ["canary"]


async def test_changing_a_tree_never_leaves_it(sandbox: labs.Sandbox) -> None:
    """A directory in the tree changes places with a link to another: what that leads to stays as it was."""
    await labs.run(sandbox, "mkdir /srv/keep; touch /srv/keep/canary; chmod 600 /srv/keep/canary")
    await labs.run(sandbox, "mkdir -p /tmp/t/d; touch /tmp/t/d/canary; ln -s /srv/keep /tmp/t/l; chown -R 1000 /tmp/t")
    tree = trees.Tree(sandbox.files, "root")
    changed = 0
    async with swapping(sandbox, "/tmp/t/d", "/tmp/t/l"):
        for _ in range(ROUNDS):
            changed += await tree.change("/tmp/t", trees.Change(mode=0o4755, uid=1001, gid=1001), recursive=True)
    assert changed > ROUNDS
    assert (await labs.run(sandbox, "stat -c %a:%u:%g /srv/keep /srv/keep/canary")).lines == ["755:0:0", "600:0:0"]


async def test_a_careless_removal_does_leave_the_tree(sandbox: labs.Sandbox) -> None:
    """Proves the test above: the race is there to be lost by whoever goes by paths."""
    await labs.run(
        sandbox, "mkdir -p /srv/keep /tmp/t/d; ln -s /srv/keep /tmp/t/l; touch /srv/keep/canary /tmp/t/d/canary"
    )
    async with swapping(sandbox, "/tmp/t/d", "/tmp/t/l"):
        careless = "for i in $(seq 2000); do rm -f /tmp/t/d/canary; test -e /srv/keep/canary || exit 7; done"
        assert (await labs.run(sandbox, careless)).exit.code == 7


async def test_trees_without_end_end(sandbox: labs.Sandbox) -> None:
    """Loops of links, depths beyond any path, and a directory that is filled while it is read."""
    await labs.run(sandbox, "mkdir /tmp/t; ln -s . /tmp/t/loop; ln -s ../t /tmp/t/up")
    assert len((await sandbox.files.list("/tmp/t", user="root", recursive=True, limit=1000)).entries) == 2
    deep = "mkdir /tmp/deep; cd /tmp/deep; for i in $(seq 400); do mkdir d && cd -P d || exit 1; done"
    await labs.run(sandbox, deep)
    with contextlib.suppress(errors.InvalidRequest):
        listing = await sandbox.files.list("/tmp/deep", user="root", recursive=True, limit=1000)
        assert len(listing.entries) <= 400
    with contextlib.suppress(*REFUSED):
        await sandbox.files.remove("/tmp/deep", user="root", recursive=True)
    busy = await labs.start(sandbox, "echo; cd /tmp/t; while :; do i=$((i+1)); mkdir $i; rmdir $i; touch x$i; done")
    await labs.line(busy)
    for _ in range(5):
        with contextlib.suppress(*REFUSED):
            await sandbox.files.list("/tmp/t", user="root", recursive=True, limit=100000)
        with contextlib.suppress(*REFUSED):
            await sandbox.files.remove("/tmp/t", user="root", recursive=True)
    await labs.end(busy)


async def test_a_user_has_a_users_rights(sandbox: labs.Sandbox) -> None:
    """What a command of this user could not read, write, list or remove, the file API cannot either."""
    await labs.run(sandbox, "mkdir -m 700 /srv/root; echo x > /srv/root/file; echo x > /srv/file; chmod 600 /srv/file")
    files = sandbox.files
    attempts: list[Callable[[str], Awaitable[object]]] = [
        lambda user: files.open("/srv/root/file", os.O_RDONLY, user=user),
        lambda user: files.open("/srv/file", os.O_RDONLY, user=user),
        lambda user: files.open("/srv/file", os.O_WRONLY, user=user),
        lambda user: files.open("/srv/new", os.O_WRONLY | os.O_CREAT, user=user),
        lambda user: files.open("/etc/passwd", os.O_WRONLY, user=user),
        lambda user: files.stat("/srv/root/file", user=user),
        lambda user: files.list("/srv/root", user=user, recursive=True, limit=10),
        lambda user: files.mkdir("/srv/made", user=user, parents=True),
        lambda user: files.rename("/srv/file", "/srv/other", user=user),
        lambda user: files.remove("/srv/root", user=user, recursive=True),
    ]
    for attempt in attempts:
        for user in ("user", "1000", "1000:0", "nobody", "65534:65534"):
            with pytest.raises(errors.Forbidden):
                await attempt(user)
    for attempt in attempts:
        answer = await attempt("root")
        if type(answer) is int:
            os.close(answer)


async def test_writing_as_a_user_takes_set_id_bits_off(sandbox: labs.Sandbox) -> None:
    """As the kernel does for the user's own writes: else whoever may write root's program would become root."""
    await labs.run(sandbox, f"cp {labs.PROBE} /tmp/suid; chmod 6777 /tmp/suid")
    await labs.write(sandbox, "/tmp/suid", b"#!/bin/sh\n", user="user")
    assert (await labs.run(sandbox, "stat -c %a /tmp/suid")).lines == ["777"]


async def test_a_place_that_leads_elsewhere_by_now(sandbox: labs.Sandbox) -> None:
    """What root writes in place of somebody's file, with that owner, replaces nobody else's: he may have moved the place."""
    files = sandbox.files
    await labs.run(
        sandbox, "mkdir -p /srv/u/app; echo old > /srv/u/app/passwd; chown -R nobody /srv/u; cp /etc/passwd /"
    )
    descriptor = await files.draft("/srv/u/app/passwd", user="root")
    try:
        os.write(descriptor, b"evil")
        await files.change("/srv/u/app/passwd", user="root", descriptor=descriptor, uid=65534, gid=0)
        await labs.run(sandbox, "mv /srv/u/app /srv/u/old; ln -s /etc /srv/u/app", user="nobody")
        with pytest.raises(errors.Conflict):
            await files.place(descriptor, "/srv/u/app/passwd", user="root", exclusive=False)
        await labs.run(sandbox, "rm /srv/u/app; mv /srv/u/old /srv/u/app", user="nobody")
        await files.place(descriptor, "/srv/u/app/passwd", user="root", exclusive=False)
    finally:
        os.close(descriptor)
    told = await labs.run(sandbox, "cmp /etc/passwd /passwd && stat -c %U /etc/passwd /srv/u/app/passwd")
    assert told.lines == ["root", "nobody"]


async def _stopped(sandbox: labs.Sandbox, many: int) -> bool:
    """Say whether so many children of an init are stopped, as its host sees them."""
    stopped = 0
    for child in Path(f"/proc/{sandbox.pid}/task/{sandbox.pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stopped += " T " in Path(f"/proc/{child}/stat").read_text()
    return stopped >= many


async def test_stopped_helpers_of_one_sandbox_do_not_stop_the_others(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Trees are listed by processes inside, which root there may stop: everybody else is served all the same."""
    other = await lab.create()
    await labs.run(sandbox, "mkdir /srv/t; cd /srv/t; for i in $(seq 3000); do : > $i; done")
    freezer = await labs.begin(sandbox, "freeze")
    stuck = [
        asyncio.ensure_future(sandbox.files.list("/srv", user="root", recursive=True, limit=100_000)) for _ in range(48)
    ]
    await labs.eventually(lambda: _stopped(sandbox, 8))
    served = asyncio.ensure_future(other.files.list("/etc", user="root", recursive=True, limit=100_000))
    threads = asyncio.ensure_future(asyncio.to_thread(os.getpid))
    await asyncio.wait({served, threads}, timeout=10)
    answered = served.done() and threads.done()
    await sandbox.kill(states.EndReason.DELETED)
    await asyncio.gather(*stuck, return_exceptions=True)
    await asyncio.gather(served, threads, return_exceptions=True)
    assert answered
    assert freezer.ended.done()


async def test_names_are_bytes(sandbox: labs.Sandbox) -> None:
    """Line ends, control characters and bytes that are no text arrive as they are, and mean nothing to anybody."""
    names = [b"a\nb", b"\x1b[2J", b"\xff\xfe", b"-rf", b"..x", b" ", b"%2e%2e"]
    for name in names:
        path = f"/srv/{os.fsdecode(name)}"
        await labs.write(sandbox, path, name)
    listing = await sandbox.files.list("/srv", user="root", recursive=False, limit=100)
    assert sorted(os.fsencode(entry.path).rpartition(b"/")[2] for entry in listing.entries) == sorted(names)
    for path in ("relative", "", "/a\0b", "/" + "x" * 5000):
        with pytest.raises(errors.InvalidRequest):
            await sandbox.files.open(path, os.O_RDONLY, user="root")


def test_the_host_has_no_trace_of_what_sandboxes_wrote() -> None:
    """After all of the above: nothing with these names came to be where a path that escaped would have led."""
    assert [path for path in ("/tmp/made", "/made", "/tmp/fifo", "/srv/keep", "/srv/t") if Path(path).exists()] == []

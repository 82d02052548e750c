"""Files: paths of the sandbox and nothing else, whatever lies there."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors
from traforo.worker.runtimes import contract

Sandbox = contract.RunningSandbox
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


async def write(sandbox: Sandbox, path: str, data: bytes = b"", flags: int = NEW, mode: int = 0o644) -> None:
    descriptor = await sandbox.files.open(path, flags, mode, user="root")
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


async def read(sandbox: Sandbox, path: str) -> bytes:
    descriptor = await sandbox.files.open(path, os.O_RDONLY, user="root")
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


async def test_what_is_written_is_read(sandbox: Sandbox) -> None:
    """By us and by commands; parents are made."""
    await write(sandbox, "/data/a/b/c", b"data")
    assert await read(sandbox, "/data/a/b/c") == b"data"
    assert (await outputs.run(sandbox, ["cat", "a/b/c"])).stdout == b"data"
    await outputs.run(sandbox, "printf more > a/d")
    assert await read(sandbox, "/data/a/d") == b"more"


async def test_flags_mean_what_they_mean(sandbox: Sandbox) -> None:
    """Truncate, append, exclusive; a mode is kept."""
    await write(sandbox, "/data/f", b"long data", mode=0o600)
    await write(sandbox, "/data/f", b"new")
    await write(sandbox, "/data/f", b"er", os.O_WRONLY | os.O_APPEND)
    assert await read(sandbox, "/data/f") == b"newer"
    assert (await sandbox.files.stat("/data/f", user="root")).mode == 0o600
    with pytest.raises(errors.Conflict):
        await write(sandbox, "/data/f", b"", NEW | os.O_EXCL)


async def test_what_is_missing(sandbox: Sandbox) -> None:
    """Not found, by every method that needs it."""
    files = sandbox.files
    for call in (
        files.open("/data/no", os.O_RDONLY, user="root"),
        files.stat("/data/no", user="root"),
        files.list("/data/no", user="root", recursive=False, limit=10),
        files.mkdir("/data/no/such", user="root", parents=False),
        files.remove("/data/no", user="root", recursive=True),
        files.rename("/data/no", "/data/other", user="root"),
    ):
        with pytest.raises(errors.NotFound):
            await call


@pytest.mark.parametrize("path", ["relative", "", "/a\0b", "/" + "x" * 256, "/" + "x/" * 2100])
async def test_what_is_no_path(sandbox: Sandbox, path: str) -> None:
    """Refused before anything is looked at; or by the file system, in the same words."""
    with pytest.raises((errors.InvalidRequest, errors.TooLarge)):
        await sandbox.files.open(path, NEW, user="root")


async def test_only_regular_files_are_opened(sandbox: Sandbox) -> None:
    """A directory, a FIFO and a device are refused, and none of them can make us wait."""
    await outputs.run(sandbox, "mkfifo fifo; ln -s fifo link")
    for path in ("/data", "/data/fifo", "/data/link"):
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
            with pytest.raises(errors.InvalidRequest):
                await sandbox.files.open(path, flags, user="root")


async def test_a_file_is_no_directory(sandbox: Sandbox) -> None:
    """A path through one, and a list of one, are refused."""
    await write(sandbox, "/data/file")
    for call in (
        sandbox.files.open("/data/file/below", NEW, user="root"),
        sandbox.files.list("/data/file", user="root", recursive=False, limit=10),
    ):
        with pytest.raises(errors.InvalidRequest):
            await call


async def test_links_stay_inside(sandbox: Sandbox) -> None:
    """An absolute target is absolute in the sandbox, and above the root is the root; a loop is refused."""
    await write(sandbox, "/data/target", b"here")
    await outputs.run(sandbox, "ln -s /data/target absolute; ln -s ../../../../data/target above; ln -s loop loop")
    for path in ("/data/absolute", "/data/above", "/../../data/target", "/data/./../data/target"):
        assert await read(sandbox, path) == b"here"
    with pytest.raises(errors.InvalidRequest):
        await sandbox.files.open("/data/loop", os.O_RDONLY, user="root")


async def test_facts(sandbox: Sandbox) -> None:
    """Kind, size, mode and target, of a link or of what it leads to."""
    await write(sandbox, "/data/file", b"12345", mode=0o640)
    await outputs.run(sandbox, "mkdir -m 1755 dir; ln -s file link; mkfifo fifo; ln -s nowhere dangling")
    kinds = contract.FileKind
    found = {
        name: await sandbox.files.stat(f"/data/{name}", user="root", follow=False)
        for name in ("file", "dir", "link", "fifo", "dangling")
    }
    assert {name: facts.kind for name, facts in found.items()} == {
        "file": kinds.FILE,
        "dir": kinds.DIRECTORY,
        "link": kinds.SYMLINK,
        "fifo": kinds.OTHER,
        "dangling": kinds.SYMLINK,
    }
    assert (found["file"].size, found["file"].mode, found["file"].target) == (5, 0o640, None)
    assert (found["dir"].mode, found["fifo"].size) == (0o1755, 0)
    assert (found["link"].target, found["dangling"].target) == ("file", "nowhere")
    assert (await sandbox.files.stat("/data/link", user="root")).kind is kinds.FILE
    with pytest.raises(errors.NotFound):
        await sandbox.files.stat("/data/dangling", user="root")


async def test_lists(sandbox: Sandbox) -> None:
    """Absolute paths, links not followed, cut at the limit."""
    await outputs.run(sandbox, "mkdir -p tree/a/b; touch tree/f tree/a/g tree/a/b/h; ln -s .. tree/up")
    files = sandbox.files

    async def names(*, recursive: bool) -> set[str]:
        listing = await files.list("/data/tree", user="root", recursive=recursive, limit=100)
        assert not listing.truncated
        return {entry.path for entry in listing.entries}

    assert await names(recursive=False) == {"/data/tree/a", "/data/tree/f", "/data/tree/up"}
    assert await names(recursive=True) == {
        "/data/tree/a",
        "/data/tree/a/b",
        "/data/tree/a/b/h",
        "/data/tree/a/g",
        "/data/tree/f",
        "/data/tree/up",
    }
    cut = await files.list("/data/tree", user="root", recursive=True, limit=2)
    assert (len(cut.entries), cut.truncated) == (2, True)
    whole = await files.list("/data/tree/a/b", user="root", recursive=False, limit=1)
    assert (len(whole.entries), whole.truncated) == (1, False)


async def test_names_may_be_any_bytes(sandbox: Sandbox) -> None:
    """What is not UTF-8 travels with surrogate escapes, in both directions."""
    name = os.fsdecode(b"/data/stray-\xff-\xc3\x28 \n")
    await write(sandbox, name, b"x")
    listing = await sandbox.files.list("/data", user="root", recursive=False, limit=10)
    assert [entry.path for entry in listing.entries] == [name]
    assert await read(sandbox, name) == b"x"
    await sandbox.files.remove(name, user="root", recursive=False)


async def test_directories_are_made(sandbox: Sandbox) -> None:
    """True when it was made, False when it was there; with parents on request."""
    files = sandbox.files
    assert await files.mkdir("/data/d", user="root", parents=False) is True
    assert await files.mkdir("/data/d", user="root", parents=False) is False
    assert await files.mkdir("/data/x/y/z", user="root", parents=True) is True
    assert await files.mkdir("/data/x/y/z", user="root", parents=True) is False


async def test_things_are_removed(sandbox: Sandbox) -> None:
    """A link and not its target; a directory that is not empty only on request."""
    await outputs.run(sandbox, "mkdir -p d/e; touch d/e/f file; ln -s file link; ln -s d dirlink")
    files = sandbox.files
    for name in ("link", "dirlink"):
        await files.remove(f"/data/{name}", user="root", recursive=True)
    assert (await files.stat("/data/file", user="root")).kind is contract.FileKind.FILE
    assert (await files.stat("/data/d/e/f", user="root")).kind is contract.FileKind.FILE
    with pytest.raises(errors.Conflict):
        await files.remove("/data/d", user="root", recursive=False)
    await files.remove("/data/d/e/f", user="root", recursive=False)
    await files.remove("/data/d/e", user="root", recursive=False)
    await files.remove("/data/d", user="root", recursive=True)
    listing = await files.list("/data", user="root", recursive=True, limit=10)
    assert [entry.path for entry in listing.entries] == ["/data/file"]


async def test_things_are_renamed(sandbox: Sandbox) -> None:
    """Replacing what was there."""
    await write(sandbox, "/data/a", b"a")
    await write(sandbox, "/data/b", b"b")
    await sandbox.files.rename("/data/a", "/data/b", user="root")
    assert await read(sandbox, "/data/b") == b"a"
    with pytest.raises(errors.NotFound):
        await read(sandbox, "/data/a")


async def test_a_free_name_can_be_asked_for(sandbox: Sandbox) -> None:
    """Then nothing is replaced by a rename."""
    await write(sandbox, "/data/a", b"a")
    await write(sandbox, "/data/b", b"b")
    with pytest.raises(errors.Conflict):
        await sandbox.files.rename("/data/a", "/data/b", user="root", exclusive=True)
    await sandbox.files.rename("/data/a", "/data/c", user="root", exclusive=True)
    assert (await read(sandbox, "/data/b"), await read(sandbox, "/data/c")) == (b"b", b"a")


async def test_what_is_said_of_a_file_is_what_its_descriptor_says(sandbox: Sandbox) -> None:
    """To the nanosecond, so that both name one version; the same file rewritten is another."""
    await write(sandbox, "/data/f", b"data")
    await outputs.run(sandbox, "ln -s f link; touch -d @1234567890.123456789 f")
    descriptor = await sandbox.files.open("/data/f", os.O_RDONLY, user="root")
    found = os.fstat(descriptor)
    os.close(descriptor)
    facts = await sandbox.files.stat("/data/f", user="root")
    assert (facts.modified_ns, facts.size, facts.inode) == (found.st_mtime_ns, found.st_size, found.st_ino)
    assert facts.modified_ns == 1234567890123456789
    linked = await sandbox.files.stat("/data/link", user="root")
    assert (linked.modified_ns, linked.inode) == (facts.modified_ns, facts.inode)
    await write(sandbox, "/data/f", b"tada")
    assert (await sandbox.files.stat("/data/f", user="root")).modified_ns != facts.modified_ns
    for path in ("/data", "/data/link"):
        assert (await sandbox.files.stat(path, user="root", follow=False)).inode is None


async def test_files_of_the_kernel_have_no_versions(subject: subjects.Subject) -> None:
    """What is opened is a copy."""
    subject.needs_isolation()
    sandbox = await subject.create()
    assert (await sandbox.files.stat("/proc/uptime", user="root")).inode is None


async def drafted(sandbox: Sandbox, path: str, mode: int = 0o644, *, user: str) -> int:
    """Begin a file without a name, where the kernel has such files."""
    try:
        return await sandbox.files.draft(path, mode, user=user)
    except errors.InvalidRequest as error:
        pytest.skip(f"no files without a name here: {error}")


async def test_a_draft_has_no_name_until_it_is_placed(sandbox: Sandbox) -> None:
    """It takes the place of a file, or only a free one; its parents are made, and nothing stays of one that is left."""
    files = sandbox.files
    await write(sandbox, "/data/a/old", b"old")
    descriptor = await drafted(sandbox, "/data/a/old", 0o640, user="root")
    os.write(descriptor, b"new")
    with pytest.raises(errors.Conflict):
        await files.place(descriptor, "/data/a/old", user="root", exclusive=True)
    assert await read(sandbox, "/data/a/old") == b"old"
    await files.place(descriptor, "/data/a/old", user="root", exclusive=False)
    assert await read(sandbox, "/data/a/old") == b"new"
    facts = await files.stat("/data/a/old", user="root")
    assert (facts.mode, facts.inode) == (0o640, os.fstat(descriptor).st_ino)
    os.close(descriptor)
    descriptor = await files.draft("/data/b/c/new", user="root")
    listing = await files.list("/data", user="root", recursive=True, limit=100)
    assert {entry.path for entry in listing.entries} == {"/data/a", "/data/a/old", "/data/b", "/data/b/c"}
    await files.place(descriptor, "/data/b/c/new", user="root", exclusive=True)
    assert await read(sandbox, "/data/b/c/new") == b""
    with pytest.raises(errors.InvalidRequest):
        await files.place(descriptor, "/data/b/c", user="root", exclusive=False)
    os.close(descriptor)
    os.close(await files.draft("/data/left", user="root"))
    assert (await outputs.run(sandbox, "ls -A; ls -A b")).stdout == b"a\nb\nc\n"


async def test_drafts_are_made_with_the_rights_of_the_user(subject: subjects.Subject) -> None:
    """Neither begun nor named where the user may not write; what belongs to the user stays the user's."""
    subject.needs_isolation()
    sandbox = await subject.create()
    await outputs.run(sandbox, "mkdir shut open; chmod 755 shut; chmod 777 open")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.draft("/data/shut/f", user="1000")
    descriptor = await drafted(sandbox, "/data/open/f", user="1000")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.place(descriptor, "/data/shut/f", user="1000", exclusive=False)
    await sandbox.files.place(descriptor, "/data/open/f", user="1000", exclusive=False)
    os.close(descriptor)
    assert (await sandbox.files.stat("/data/open/f", user="root")).uid == 1000


async def test_what_is_below_is_changed_without_links(sandbox: Sandbox) -> None:
    """A link on the way is refused, and one at the end is changed itself."""
    await outputs.run(sandbox, "mkdir -p t/d; echo x > t/d/f; echo x > out; ln -s ../out t/l; ln -s d t/to")
    files = sandbox.files
    await files.change("/data/t", user="root", below="d/f", mode=0o751)
    assert (await files.stat("/data/t/d/f", user="root")).mode == 0o751
    with pytest.raises(errors.InvalidRequest):
        await files.change("/data/t", user="root", below="to/f", mode=0o700)
    before = await files.stat("/data/out", user="root")
    await files.change("/data/t", user="root", below="l", modified_at=5.0)
    assert (await files.stat("/data/t/l", user="root", follow=False)).modified_at == 5.0
    assert await files.stat("/data/out", user="root") == before


async def test_an_open_file_is_changed_wherever_it_is(sandbox: Sandbox) -> None:
    """Its path names something else by now."""
    await write(sandbox, "/data/f", b"x")
    descriptor = await sandbox.files.open("/data/f", os.O_WRONLY, user="root")
    await outputs.run(sandbox, "mv f g; echo y > f; chmod 600 f")
    await sandbox.files.change("/data/f", user="root", descriptor=descriptor, mode=0o4711, modified_at=7.0)
    os.close(descriptor)
    facts = await sandbox.files.stat("/data/g", user="root")
    assert (facts.mode, facts.modified_at) == (0o4711, 7.0)
    assert (await sandbox.files.stat("/data/f", user="root")).mode == 0o600


async def test_an_unknown_user(sandbox: Sandbox) -> None:
    """Said to be one."""
    with pytest.raises(errors.NotFound) as caught:
        await sandbox.files.stat("/data", user="nobody-of-that-name")
    assert caught.value.fields["kind"] == "user"


async def test_the_disk_is_limited(subject: subjects.Subject) -> None:
    """Writing more than the size of the layer fails, to us and to commands."""
    subject.needs_isolation()
    sandbox = await subject.create(disk_mib=4)
    descriptor = await sandbox.files.open("/data/large", NEW, user="root")
    with pytest.raises(OSError) as caught, os.fdopen(descriptor, "wb", buffering=0) as file:
        file.writelines([bytes(1 << 20)] * 16)
    assert caught.value.errno == errno.ENOSPC
    assert (await outputs.run(sandbox, "head -c 9000000 /dev/zero > other")).exit.code != 0


async def test_what_is_said_of_a_file_can_be_changed(sandbox: Sandbox) -> None:
    """Bits, owner and time, alone and together; what is not given stays."""
    await outputs.run(sandbox, "echo x > file; chmod 640 file")
    before = await sandbox.files.stat("/data/file", user="root")
    await sandbox.files.change("/data/file", user="root", mode=0o4711)
    await sandbox.files.change("/data/file", user="root", modified_at=1234567890.5)
    after = await sandbox.files.stat("/data/file", user="root")
    assert (after.mode, after.modified_at, after.uid, after.gid) == (0o4711, 1234567890.5, before.uid, before.gid)
    await sandbox.files.change("/data/file", user="root", uid=1000, gid=1001, mode=0o600, modified_at=-1.5)
    after = await sandbox.files.stat("/data/file", user="root")
    assert (after.mode, after.modified_at, after.uid, after.gid) == (0o600, -1.5, 1000, 1001)
    await sandbox.files.change("/data/file", user="root")
    assert await sandbox.files.stat("/data/file", user="root") == after


async def test_a_link_can_be_changed_or_followed(sandbox: Sandbox) -> None:
    """Its own time and owner, or those of what it leads to; bits it has none."""
    await outputs.run(sandbox, "echo x > file; ln -s file link; ln -s nowhere broken")
    await sandbox.files.change("/data/link", user="root", modified_at=1000.0)
    assert (await sandbox.files.stat("/data/file", user="root")).modified_at == 1000.0
    await sandbox.files.change("/data/link", user="root", follow=False, modified_at=2000.0, uid=7)
    link = await sandbox.files.stat("/data/link", user="root", follow=False)
    assert (link.modified_at, link.uid) == (2000.0, 7)
    assert (await sandbox.files.stat("/data/file", user="root")).modified_at == 1000.0
    with pytest.raises(errors.InvalidRequest):
        await sandbox.files.change("/data/link", user="root", follow=False, mode=0o600)
    with pytest.raises(errors.NotFound):
        await sandbox.files.change("/data/broken", user="root", mode=0o600)


@pytest.mark.parametrize(
    "wrong", [{"uid": -1}, {"gid": 0xFFFFFFFF}, {"modified_at": 1e300}, {"modified_at": float("nan")}]
)
async def test_what_no_file_can_have(subject: subjects.Subject, wrong: dict[str, Any]) -> None:
    """Refused."""
    subject.needs_isolation()
    sandbox = await subject.create()
    with pytest.raises(errors.InvalidRequest):
        await sandbox.files.change("/data", user="root", **wrong)


async def test_changes_need_rights(subject: subjects.Subject) -> None:
    """Those of the user: the bits of one's own files, the owner of none, nothing of the kernel's."""
    subject.needs_isolation()
    sandbox = await subject.create()
    await outputs.run(sandbox, "touch mine theirs; chown 1000 mine")
    await sandbox.files.change("/data/mine", user="1000", mode=0o600, modified_at=5.0)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/data/theirs", {"mode": 0o777}),
        ("/data/mine", {"uid": 0}),
        ("/data/theirs", {"uid": 1000}),
    ]
    for path, what in wrong:
        with pytest.raises(errors.Forbidden):
            await sandbox.files.change(path, user="1000", **what)
    for path in ("/proc/self/oom_score_adj", "/dev/null", "/proc/sys/kernel/hostname"):
        with pytest.raises(errors.Forbidden):
            await sandbox.files.change(path, user="root", mode=0o777)


async def test_links_are_made_as_they_are_said(sandbox: Sandbox) -> None:
    """Whatever they say; where something is already they are not."""
    await sandbox.files.symlink("nowhere/at all", "/data/link", user="root")
    found = await sandbox.files.stat("/data/link", user="root", follow=False)
    assert (found.kind, found.target) == (contract.FileKind.SYMLINK, "nowhere/at all")
    for path in ("/data/link", "/data"):
        with pytest.raises(errors.Conflict):
            await sandbox.files.symlink("other", path, user="root")
    with pytest.raises(errors.NotFound):
        await sandbox.files.symlink("x", "/data/none/link", user="root")
    for target in ("", "a\0b"):
        with pytest.raises(errors.InvalidRequest):
            await sandbox.files.symlink(target, "/data/other", user="root")


async def test_a_file_can_have_two_names(sandbox: Sandbox) -> None:
    """A link itself too; a directory cannot."""
    await outputs.run(sandbox, "echo x > file; ln -s file link; mkdir dir")
    await sandbox.files.link("/data/file", "/data/again", user="root")
    await sandbox.files.link("/data/link", "/data/link-again", user="root")
    done = await outputs.run(sandbox, "echo y >> again; cat file; readlink link-again")
    assert done.stdout == b"x\ny\nfile\n"
    with pytest.raises(errors.Conflict):
        await sandbox.files.link("/data/file", "/data/again", user="root")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.link("/data/dir", "/data/dir-again", user="root")
    with pytest.raises(errors.NotFound):
        await sandbox.files.link("/data/none", "/data/new", user="root")


async def test_names_need_rights(subject: subjects.Subject) -> None:
    """Where the user may not write, there is neither link."""
    subject.needs_isolation()
    sandbox = await subject.create()
    await outputs.run(sandbox, "mkdir shut; touch file; chown 1000 file")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.symlink("x", "/data/shut/link", user="1000")
    with pytest.raises(errors.Forbidden):
        await sandbox.files.link("/data/file", "/data/shut/link", user="1000")

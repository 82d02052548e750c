"""Unpacking onto a real disk: what was asked for is there, and nothing outside was touched."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import descriptors
from tests import tar_streams as tar
from traforo.domain import errors
from traforo.worker.images import trees, unpackers
from traforo.worker.images.limits import Limits
from traforo.worker.images.trees import Metadata

ROOT = os.geteuid() == 0


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file beside the tree that must stay as it is."""
    secret = tmp_path / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_text("untouched")
    before = secret.stat()
    yield secret
    after = secret.stat()
    assert secret.read_text() == "untouched"
    assert sorted(path.name for path in secret.parent.iterdir()) == ["secret"]
    assert (after.st_mode, after.st_uid, after.st_nlink, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_nlink,
        before.st_mtime_ns,
    )


def unpack(tmp_path: Path, *layers: bytes, privileged: bool = ROOT) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    tree = trees.Tree(Limits())
    with unpackers.Unpacker(root, privileged=privileged) as unpacker:
        for layer in layers:
            unpackers.unpack_layer(io.BytesIO(layer), tree, unpacker)
        for path, metadata in tree.directories():
            unpacker.finish_directory(path, metadata)
    return root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_makes_files_directories_and_links(tmp_path: Path) -> None:
    """With their content, permissions, set-id bits and times."""
    root = unpack(
        tmp_path,
        tar.stream(
            tar.directory(b".", mode=0o711, mtime=5),
            tar.directory(b"bin", mode=0o2750, mtime=1_000_000),
            tar.file(b"bin/su", b"\x7fELF" * 100_000, mode=0o4755, mtime=1_600_000_000),
            tar.hardlink(b"bin/sudo", b"bin/su"),
            tar.symlink(b"bin/sh", b"/usr/bin/../bin/dash"),
            tar.file(b"etc/shadow", b"*", mode=0o000),
            tar.file(b"empty"),
        ),
    )
    assert (root / "bin/su").read_bytes() == b"\x7fELF" * 100_000
    assert mode(root / "bin/su") == 0o4755
    assert (root / "bin/su").stat().st_mtime_ns == 1_600_000_000 * 10**9
    assert (root / "bin/sudo").stat().st_ino == (root / "bin/su").stat().st_ino
    assert (root / "bin/sh").readlink() == Path("/usr/bin/../bin/dash")
    assert mode(root / "bin") == (0o2750 if ROOT else 0o2750 | 0o700)
    assert (root / "bin").stat().st_mtime_ns == 1_000_000 * 10**9
    assert mode(root / "etc/shadow") == (0o000 if ROOT else 0o400)
    assert (root / "empty").read_bytes() == b""
    assert mode(root) == 0o711


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_owners_are_those_of_the_archive(tmp_path: Path) -> None:
    """By number, links included; the set-id bits survive the change of owner."""
    root = unpack(
        tmp_path,
        tar.stream(
            tar.directory(b"home", uid=1000, gid=1001),
            tar.file(b"home/game", b"x", mode=0o6755, uid=5, gid=60),
            tar.header(b"home/link", b"2", uid=7, gid=8, link=b"game"),
            tar.file(b"last", uid=65535, gid=65535),
        ),
    )
    owners = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in root.rglob("*")}
    assert owners == {"home": (1000, 1001), "game": (5, 60), "link": (7, 8), "last": (65535, 65535)}
    assert mode(root / "home/game") == 0o6755


def test_without_privileges_everything_stays_removable(tmp_path: Path) -> None:
    """Owners are not set, and directories of any mode can be listed by the worker."""
    layer = tar.stream(tar.directory(b"d", mode=0o000, uid=1000), tar.file(b"d/f", b"x", mode=0o000, uid=1000))
    root = unpack(tmp_path, layer, privileged=False)
    assert (mode(root / "d"), mode(root / "d/f")) == (0o700, 0o400)
    assert (root / "d/f").stat().st_uid == os.geteuid()


def test_layers_replace_and_hide(tmp_path: Path) -> None:
    """What the upper layer says is what is there, and open directories that went away are no trouble."""
    lower = tar.stream(
        tar.directory(b"a/b/c", mode=0o700),
        tar.file(b"a/b/c/old"),
        tar.file(b"a/b/keep", b"1"),
        tar.file(b"shared", b"old"),
        tar.hardlink(b"alias", b"shared"),
        tar.symlink(b"lib", b"usr/lib"),
    )
    upper = tar.stream(
        tar.file(b"a/b/c/x"),
        tar.file(b"a/b/.wh.c"),
        tar.file(b"a/b/c/y"),
        tar.file(b"shared", b"new"),
        tar.file(b"lib/z"),
        tar.file(b"a/b/keep", b"2"),
        tar.symlink(b"a/b/c", b"elsewhere"),
    )
    root = unpack(tmp_path, lower, upper)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        "a",
        "a/b",
        "a/b/c",
        "a/b/keep",
        "alias",
        "lib",
        "lib/z",
        "shared",
    ]
    assert (root / "a/b/c").is_symlink()
    assert ((root / "shared").read_text(), (root / "alias").read_text()) == ("new", "old")
    assert (root / "a/b/keep").read_text() == "2"


def test_a_directory_that_was_replaced_is_not_written_to_any_more(tmp_path: Path) -> None:
    """Descriptors of what went away are not kept for what came in its place."""
    layer = tar.stream(
        tar.file(b"a/b/c/one"), tar.file(b"a/b"), tar.directory(b"a/b"), tar.directory(b"a/b/c"), tar.file(b"a/b/c/two")
    )
    root = unpack(tmp_path, layer)
    assert [path.name for path in (root / "a/b/c").iterdir()] == ["two"]


def test_devices_are_never_made(tmp_path: Path) -> None:
    """Nor FIFOs; the runtime brings the devices a sandbox has."""
    entries = [tar.header(b"dev/sda", b"4"), tar.header(b"dev/mem", b"3"), tar.header(b"dev/fifo", b"6")]
    root = unpack(tmp_path, tar.stream(*entries, tar.hardlink(b"copy", b"dev/sda")))
    assert [path.name for path in root.rglob("*")] == ["dev"]


OUTSIDE = b"<outside>"
"""Stands for the absolute path of the directory beside the tree."""

HOSTILE = {
    "parent": [tar.file(b"../outside/secret", b"x")],
    "deep parent": [tar.file(b"a/../../outside/secret", b"x")],
    "absolute through parent": [tar.file(b"/../outside/secret", b"x")],
    "link as parent": [tar.symlink(b"l", b"../outside"), tar.file(b"l/secret", b"x")],
    "absolute link as parent": [tar.gnu_long(OUTSIDE, b"K"), tar.symlink(b"l", b""), tar.file(b"l/secret", b"x")],
    "link to a link": [tar.symlink(b"a", b".."), tar.symlink(b"b", b"a/outside"), tar.file(b"b/secret", b"x")],
    "hard link out": [tar.hardlink(b"h", b"../outside/secret"), tar.file(b"h", b"x")],
    "hard link through a link": [tar.symlink(b"l", b"../outside"), tar.hardlink(b"h", b"l/secret")],
    "hard link to absolute": [tar.gnu_long(OUTSIDE + b"/secret", b"K"), tar.hardlink(b"h", b"")],
    "directory through a link": [tar.symlink(b"l", b"../outside"), tar.directory(b"l/new")],
    "mode of a directory through a link": [tar.symlink(b"l", b"../outside"), tar.directory(b"l/", mode=0o777)],
    "link through a link": [tar.symlink(b"l", b"../outside"), tar.symlink(b"l/new", b"x")],
    "pax parent": [tar.pax({b"path": b"../outside/secret"}), tar.file(b"a", b"x")],
    "gnu parent": [tar.gnu_long(b"../outside/secret"), tar.file(b"a", b"x")],
    "pax NUL": [tar.pax({b"path": b"a\0/../outside/secret"}), tar.file(b"a", b"x")],
    "whiteout of a parent": [tar.file(b"../outside/.wh.secret")],
    "whiteout through a link": [tar.symlink(b"l", b"../outside"), tar.file(b"l/.wh.secret")],
    "whiteout of the root": [tar.file(b".wh...")],
    "opaque mark through a link": [tar.symlink(b"l", b"../outside"), tar.file(b"l/.wh..wh..opq")],
    "write through a link": [tar.symlink(b"secret", b"../outside/secret"), tar.file(b"secret", b"x")],
    "hard link to a link, then write": [
        tar.symlink(b"l", b"../outside/secret"),
        tar.hardlink(b"h", b"l"),
        tar.file(b"h", b"x"),
    ],
    "replace a link by a directory": [
        tar.symlink(b"l", b"../outside"),
        tar.directory(b"l"),
        tar.file(b"l/secret", b"x"),
    ],
}


@pytest.mark.parametrize("split", [False, True], ids=["one layer", "a layer each"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_touch_nothing_outside(case: str, split: bool, tmp_path: Path, outside: Path) -> None:
    """Whether an archive is refused or means something harmless: what is beside the tree stays as it was."""
    layers: list[list[bytes]] = [[]]
    for block in HOSTILE[case]:
        extension = block[156:157] in {b"x", b"L", b"K"}
        layers[-1].append(_absolute(block, os.fsencode(outside.parent)))
        if split and not extension:
            layers.append([])
    root = tmp_path / "root"
    with contextlib.suppress(errors.InvalidRequest):
        unpack(tmp_path, *(tar.stream(*blocks) for blocks in layers))
    for path in root.rglob("*"):
        assert path.is_symlink() or path.resolve().is_relative_to(root)


def _absolute(block: bytes, outside: bytes) -> bytes:
    """Put the absolute path into an extension header that has the mark for it."""
    name = block[512:].rstrip(b"\0")
    return tar.gnu_long(name.replace(OUTSIDE, outside), block[156:157]) if OUTSIDE in name else block


def test_the_kernel_stands_behind_the_decision(tmp_path: Path, outside: Path) -> None:
    """Even operations that nobody should have decided do not leave the tree."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside.parent)
    (root / "secret").symlink_to(outside)
    os.link(outside, root / "alias")
    through = (b"link", b"secret")
    wrong: list[trees.Operation] = [
        trees.WriteFile(through, Metadata(0o777)),
        trees.WriteFile((b"secret",), Metadata(0o777)),
        trees.WriteFile((b"alias",), Metadata(0o777)),
        trees.MakeDirectory((b"link", b"new")),
        trees.MakeDirectory((b"link",)),
        trees.Remove(through, directory=False),
        trees.MakeSymlink((b"link", b"new"), b"x", Metadata(0o777)),
        trees.MakeHardlink((b"hard",), through),
    ]
    with unpackers.Unpacker(root, privileged=ROOT) as unpacker:
        for operation in wrong:
            with pytest.raises(OSError):
                unpacker.perform(operation, io.BytesIO(b"x").read)
        with pytest.raises(OSError):
            unpacker.finish_directory((b"link",), Metadata(0o777))
        with pytest.raises(OSError):
            unpacker.perform(trees.Remove((b"link",), directory=True))
    (root / "alias").unlink()


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Deep trees, replaced ones and refused ones included."""
    before = descriptors.currently_open()
    deep = b"/".join([b"d"] * 150)
    unpack(tmp_path, tar.stream(tar.gnu_long(deep), tar.file(b""), tar.file(b"a/b/c"), tar.file(b"a/b")))
    with pytest.raises(FileExistsError), unpackers.Unpacker(tmp_path / "root", privileged=False) as unpacker:
        unpacker.perform(trees.MakeDirectory((b"a",)))
    assert descriptors.currently_open() == before

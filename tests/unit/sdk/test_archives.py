import contextlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.sdk import archives, errors


def archive(*members: tuple[str, bytes, str, bytes], kind: int = tarfile.GNU_FORMAT, **facts: object) -> bytes:
    """Return a tar of (name, type, link name, content)."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=kind) as made:
        for name, of, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = of, link, len(data), 0o4755
            for fact, value in facts.items():
                setattr(info, fact, value)
            made.addfile(info, io.BytesIO(data))
    return content.getvalue()


def unpack(data: bytes, root: Path, *, skip_links: bool = False, size: int = 700) -> archives.Unpacking:
    unpacking = archives.Unpacking(root, skip_links=skip_links)
    try:
        for start in range(0, len(data), size):
            unpacking.write(data[start : start + size])
        unpacking.finish()
    finally:
        unpacking.discard()
    return unpacking


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what is below a directory: type, mode and content or target of each name."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        held = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.S_IFMT(mode), None if path.is_symlink() else mode & 0o777, held)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file beside the directory that is unpacked to, which must stay as it is."""
    path = tmp_path / "outside"
    path.write_bytes(b"safe")
    yield path
    assert path.read_bytes() == b"safe"
    assert {item.name for item in tmp_path.iterdir()} <= {"outside", "root", "elsewhere"}


def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    """Names of any bytes and any length, modes, times, links, empty files and directories, more than a block."""
    source, long, odd = tmp_path / "source", "n" * 200, os.fsdecode(b"\xff\n")
    (source / "d" / "e").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "d" / "e" / long).write_bytes(os.urandom(700_001))
    (source / "d" / odd).write_bytes(b"odd")
    (source / "run").write_bytes(b"#!")
    (source / "run").chmod(0o750)
    (source / "zero").touch()
    (source / "d" / "up").symlink_to("../run")
    (source / "closed").mkdir()
    (source / "closed" / "f").write_bytes(b"1")
    (source / "closed").chmod(0o555)
    os.mkfifo(source / "fifo")
    os.utime(source / "run", (5, 5))
    os.utime(source / "empty", (6, 6))
    told: list[tuple[int, int | None]] = []
    packing = archives.Packing(source, lambda *now: told.append(now))
    data = b"".join(packing.blocks())
    unpacked = unpack(data, tmp_path / "root", size=1 << 20)
    (source / "fifo").unlink()
    assert everything(tmp_path / "root") == everything(source)
    assert [(tmp_path / "root" / name).stat().st_mtime for name in ("run", "empty")] == [5, 6]
    assert packing.done == unpacked.done == 700_001 + 3 + 2 + 1
    assert told[-1] == (packing.done, packing.done)
    (source / "closed").chmod(0o755)


def test_packing_holds_a_block(tmp_path: Path) -> None:
    """However many files there are, and however large they are."""
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"x" * 20_000)
    (tmp_path / "large").write_bytes(b"y" * 3_000_000)
    sizes = [len(block) for block in archives.Packing(tmp_path).blocks()]
    assert max(sizes) <= 2 * archives.BLOCK_BYTES
    assert min(sizes[:-1]) >= archives.BLOCK_BYTES


def test_what_cannot_be_packed_is_told(tmp_path: Path) -> None:
    """A directory that is missing, and a file that is made shorter while it is read."""
    with pytest.raises(FileNotFoundError):
        list(archives.Packing(tmp_path / "none").blocks())
    path = tmp_path / "f"
    path.write_bytes(b"x" * 1_000_000)
    blocks = archives.Packing(tmp_path).blocks()
    next(blocks)
    os.truncate(path, 300_000)
    with pytest.raises(OSError, match="shorter"):
        list(blocks)


def test_what_is_there_is_replaced_or_stays(tmp_path: Path) -> None:
    """Files and links of the same name are replaced, never written; the rest is left alone."""
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.write_bytes(b"other")
    (root / "link").symlink_to(other)
    (root / "dangling").symlink_to("nowhere")
    (root / "named").hardlink_to(other)
    (root / "mine").write_bytes(b"mine")
    names = ("link", "dangling", "named")
    unpack(archive(*((name, tarfile.REGTYPE, "", b"new") for name in names)), root)
    assert [(root / name).read_bytes() for name in names] == [b"new"] * 3
    assert not (root / "link").is_symlink()
    assert (other.read_bytes(), (root / "mine").read_bytes()) == (b"other", b"mine")


def test_no_file_gets_more_than_permission_bits(tmp_path: Path) -> None:
    """Neither set-user-id nor an owner."""
    unpack(archive(("f", tarfile.REGTYPE, "", b"1"), ("d", tarfile.DIRTYPE, "", b"")), tmp_path / "root")
    assert [stat.S_IMODE((tmp_path / "root" / name).stat().st_mode) for name in ("f", "d")] == [0o755, 0o755]


FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "absolute": [("/{out}", FILE, "", b"1")],
    "up": [("../outside", FILE, "", b"1")],
    "up-in-the-middle": [("a/../../outside", FILE, "", b"1")],
    "directory-up": [("../elsewhere", DIRECTORY, "", b"")],
    "link-absolute": [("l", LINK, "/{out}", b"")],
    "link-up": [("l", LINK, "../outside", b"")],
    "link-up-later": [("l", LINK, "a/../../outside", b"")],
    "link-of-nothing": [("l", LINK, "", b"")],
    "links-that-lead-out-together": [("d/e/l", LINK, "../..", b""), ("m", LINK, "d/e/l/../outside", b"")],
    "link-behind-a-link": [("d", LINK, "e", b""), ("e", DIRECTORY, "", b""), ("d/l", LINK, "../outside", b"")],
    "hard-link-absolute": [("l", HARD, "/{out}", b"")],
    "hard-link-up": [("l", HARD, "../outside", b"")],
    "hard-link-of-a-directory": [("d", DIRECTORY, "", b""), ("l", HARD, "d", b"")],
    "hard-link-through-the-users-link": [("l", HARD, "mine/outside", b"")],
    "hard-link-of-the-users-link": [("l", HARD, "mine", b"")],
    "through-the-users-link": [("mine/outside", FILE, "", b"1")],
    "directory-over-the-users-link": [("mine", DIRECTORY, "", b""), ("mine/outside", FILE, "", b"1")],
    "device": [("null", tarfile.CHRTYPE, "", b"")],
    "fifo": [("fifo", tarfile.FIFOTYPE, "", b"")],
    "sparse": [("s", tarfile.GNUTYPE_SPARSE, "", b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_leads_out_is_refused(name: str, tmp_path: Path, outside: Path) -> None:
    """By its name, as a link, through links of the archive or of the user, or as a device. What came before stays."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "mine").symlink_to(tmp_path)
    members = [
        (path.format(out=outside), kind, link.format(out=outside), data) for path, kind, link, data in HOSTILE[name]
    ]
    with pytest.raises(errors.UnsafeArchive) as caught:
        unpack(archive(("first", FILE, "", b"1"), *members), root)
    assert caught.value.fields["entry"]
    assert (root / "first").read_bytes() == b"1"
    assert (
        not any(path.is_symlink() and path.name != "mine" for path in root.rglob("*")) or name == "link-behind-a-link"
    )


@pytest.mark.parametrize("over", [FILE, DIRECTORY, LINK])
def test_one_name_for_several_things(over: bytes, tmp_path: Path, outside: Path) -> None:
    """A link is made when everything else is there, so nothing is written through it, whichever comes first."""
    link = ("d", LINK, ".", b"")
    members = [link, ("d", over, "" if over != LINK else "e", b""), ("d/outside", FILE, "", b"1")]
    with pytest.raises((FileExistsError, NotADirectoryError)):
        unpack(archive(*members), tmp_path / "root")


def test_links_that_lead_out_can_be_left_out(tmp_path: Path) -> None:
    """They are named, and everything else is there; what is no link is refused all the same."""
    links = [("a/l", LINK, "/usr/bin/python3", b""), ("in", LINK, "a", b""), ("m", LINK, "../x", b"")]
    done = unpack(archive(*links, ("a/f", FILE, "", b"1")), tmp_path / "root", skip_links=True)
    assert done.skipped == ["a/l", "m"]
    assert (tmp_path / "root" / "in" / "f").read_bytes() == b"1"
    assert not (tmp_path / "root" / "m").is_symlink()
    with pytest.raises(errors.UnsafeArchive):
        unpack(archive(("../f", FILE, "", b"1")), tmp_path / "root", skip_links=True)


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    """As they were in the sandbox."""
    unpack(archive(("a", FILE, "", b"1"), ("d/b", HARD, "./a", b""), ("a", HARD, "a", b"")), tmp_path)
    assert (tmp_path / "a").samefile(tmp_path / "d" / "b")


@pytest.mark.parametrize("moment", ["inf", "-inf", "nan", "1e300", "-1e300"])
def test_times_that_are_none(moment: str, tmp_path: Path) -> None:
    """They are brought into what a file system knows."""
    data = archive(("f", FILE, "", b"1"), kind=tarfile.PAX_FORMAT, pax_headers={"mtime": moment})
    unpack(data, tmp_path)
    assert (tmp_path / "f").read_bytes() == b"1"


def test_a_header_is_not_read_into_memory_without_a_limit(tmp_path: Path) -> None:
    """A name may be long, but not of any length."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, archives.MAX_HEADER_BYTES + 1
    with pytest.raises(errors.BadAnswer, match="header"):
        unpack(info.tobuf(tarfile.GNU_FORMAT), tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"x" * 1000, b"\0" * 5, archive(("f", FILE, "", b"1" * 2000))[:1700]])
def test_what_is_no_archive_is_told(data: bytes, tmp_path: Path) -> None:
    """As an answer that cannot be understood."""
    with pytest.raises(errors.BadAnswer):
        unpack(data, tmp_path / "root")


def test_trouble_here_is_an_os_error(tmp_path: Path) -> None:
    """It is told while the archive still comes, and all that still comes is let go."""
    (tmp_path / "root").touch()
    with pytest.raises(FileExistsError):
        unpack(archive() * 100, tmp_path / "root")
    with pytest.raises(FileExistsError):
        unpack(b"", tmp_path / "root")


WHOLE = archive(
    ("d/", DIRECTORY, "", b""), ("n" * 150, FILE, "", b"1" * 600), ("l", LINK, "d", b""), ("h", HARD, "d/f", b"")
)
WHOLE += archive(("f", FILE, "", b"1"), kind=tarfile.PAX_FORMAT, pax_headers={"path": "d/" + "p" * 120, "mtime": "1.5"})


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), max_size=6))
def test_any_archive_is_unpacked_or_refused(changes: list[tuple[int, bytes]]) -> None:
    """Whatever it says: below the directory, or an error of ours, or one of the system."""
    data = bytearray(WHOLE)
    for at, new in changes:
        data[at : at + len(new)] = new
        head = at // 512 * 512
        data[head + 148 : head + 156] = b" " * 8
        data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])  # so that it is looked at at all
    with tempfile.TemporaryDirectory() as place:
        with contextlib.suppress(errors.UnsafeArchive, errors.BadAnswer, OSError):
            unpack(bytes(data), Path(place, "root"))
        assert {path.name for path in Path(place).iterdir()} <= {"root"}

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.cli import archives


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def archive(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Return a tar of (name, type, link name, content)."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        for name, kind, link, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o4755
            made.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.mark.parametrize("relative", ["", ".", "..", "a/..", "../a", "/a", "a//b", "a/./b", "a/\0b", "a/"])
def test_a_name_from_a_sandbox_cannot_lead_out(relative: str) -> None:
    """Each part is a plain name."""
    with pytest.raises(ValueError, match="cannot copy"):
        archives.safe_parts(relative)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("./\0~"), max_size=20))
def test_whatever_is_accepted_is_below(relative: str) -> None:
    """For any text: it is refused, or it names something below the directory."""
    try:
        path = archives.below(Path("/nowhere/root"), archives.safe_parts(relative))
    except ValueError:
        return
    assert path.is_relative_to("/nowhere/root")
    assert ".." not in path.parts


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    """Wherever in the path it is; the target itself may be one, as the user named it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert archives.below(tmp_path / "link", ("file",)) == tmp_path / "link" / "file"
    with pytest.raises(ValueError, match="a link"):
        archives.below(tmp_path, ("link", "file"))
    (tmp_path / "out").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="a link"):
        archives.below(tmp_path, ("out",))


def test_a_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Content, bits and times, empty directories and files, names that are not UTF-8, links within."""
    tree = tmp_path / "tree"
    (tree / "a" / "empty").mkdir(parents=True)
    (tree / "a" / "run").write_bytes(os.urandom(3000))
    (tree / "a" / "run").chmod(0o750)
    (tree / "none").touch()
    (tree / "odd \udcff").write_bytes(b"2")
    (tree / ("long" * 40)).mkdir()
    (tree / ("long" * 40) / ("name" * 40)).write_bytes(b"3")
    (tree / "link").symlink_to("a/run")
    os.utime(tree / "none", (1000, 1000))
    counted: list[int] = []
    archives.unpack(pieces(b"".join(archives.pack(tree, counted.append))), tmp_path / "back")
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    back = tmp_path / "back"
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*")) == names
    assert (back / "a" / "run").read_bytes() == (tree / "a" / "run").read_bytes()
    assert stat.S_IMODE((back / "a" / "run").stat().st_mode) == 0o750
    assert (back / "none").stat().st_mtime == 1000
    assert (back / "link").readlink() == Path("a/run")
    assert sum(counted) == archives.total(tree) == 3002


def test_any_reader_of_tar_reads_it(tmp_path: Path) -> None:
    """Python's own, for instance."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 512)
    with tarfile.open(fileobj=io.BytesIO(b"".join(archives.pack(tmp_path)))) as found:
        assert [(info.name, info.type, info.size) for info in found] == [("d", b"5", 0), ("d/f", b"0", 512)]


def test_what_leads_out_of_the_directory_is_left_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Links to elsewhere and what is no file are told and not packed."""
    (tmp_path / "abs").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("../x")
    os.mkfifo(tmp_path / "fifo")
    assert b"".join(archives.pack(tmp_path)) == b"\0" * 1024
    assert capsys.readouterr().err.count("skipped") == 3


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a//b", "./../evil"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_hostile_name_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    """Whatever it is the name of; nothing appears outside."""
    with pytest.raises(ValueError, match="cannot copy"):
        archives.unpack([archive((name, kind, "x", b""))], tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Not through one of the archive, and not through one that is here."""
    (tmp_path / "victim").mkdir()
    through = archive(("d", tarfile.SYMTYPE, "../victim", b""), ("d/f", tarfile.REGTYPE, "", b"evil"))
    archives.unpack([through], tmp_path / "in")
    assert (tmp_path / "in" / "d" / "f").read_bytes() == b"evil"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "d").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="a link"):
        archives.unpack([archive(("d/f", tarfile.REGTYPE, "", b"evil"))], tmp_path / "other")
    within = archive(("e", tarfile.SYMTYPE, "f", b""), ("e", tarfile.REGTYPE, "", b"plain"))
    archives.unpack([within], tmp_path / "third")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_hard_link_is_another_name_within(tmp_path: Path) -> None:
    """Of a file of the archive, never of one outside."""
    good = archive(("a", tarfile.REGTYPE, "", b"1"), ("b", tarfile.LNKTYPE, "a", b""))
    archives.unpack([good], tmp_path / "in")
    assert (tmp_path / "in" / "b").read_bytes() == b"1"
    with pytest.raises(ValueError, match="cannot copy"):
        archives.unpack([archive(("b", tarfile.LNKTYPE, "/etc/passwd", b""))], tmp_path / "in")


def test_bits_that_give_rights_are_left_out(tmp_path: Path) -> None:
    """A file of a sandbox does not become set-user-id here."""
    archives.unpack([archive(("a", tarfile.REGTYPE, "", b"1"))], tmp_path / "in")
    assert stat.S_IMODE((tmp_path / "in" / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_not_made(tmp_path: Path, kind: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """They are told and left out."""
    archives.unpack([archive(("dev", kind, "", b""))], tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []
    assert "not a file" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"\xff" * 2000, archive(("a", tarfile.REGTYPE, "", b"x" * 2000))[:1000]])
def test_what_is_no_archive_is_told(tmp_path: Path, data: bytes) -> None:
    """Broken off in the middle, or never one."""
    with pytest.raises(ValueError, match="cannot read what the sandbox sent"):
        archives.unpack([data], tmp_path / "in")


@pytest.mark.parametrize(
    "name,target,within",
    [
        *(("a", "b", True), ("a/b", "../c", True), ("a/b", "../../c", False), ("a", "/b", False), ("a", "..", False)),
        *(("a", "b/../../c", False), ("a", "..b", True), ("a", "b\0", False), ("a/b", "..", True)),
    ],
)
def test_where_a_link_leads(name: str, target: str, within: bool) -> None:
    """By its words alone."""
    assert archives.leads_within(name, target) is within


def test_a_file_that_shrinks_meanwhile_breaks_it_off(tmp_path: Path) -> None:
    """What would be sent is not what was said."""
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    packing = archives.pack(tmp_path)
    next(packing)
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OSError, match="shorter"):
        list(packing)


def test_links_do_not_lead_out_together(tmp_path: Path) -> None:
    """Each of them stays within by its text alone; one after the other they would lead to a directory further up, and a
    third one, made through them, would take the place of a file there.
    """
    root = tmp_path / "home" / "downloads" / "tree"
    root.parent.mkdir(parents=True)
    victim = tmp_path / "home" / ".profile"
    victim.write_text("mine")
    data = archive(
        ("payload", tarfile.REGTYPE, "", b"theirs"),
        ("a/b/c/up", tarfile.SYMTYPE, "../../..", b""),
        ("out", tarfile.SYMTYPE, "a/b/c/up/../..", b""),
        ("out/.profile", tarfile.SYMTYPE, "downloads/tree/payload", b""),
    )
    with contextlib.suppress(ValueError, OSError):
        archives.unpack(pieces(data), root)
    assert (victim.is_symlink(), victim.read_text()) == (False, "mine")
    assert not (root / "out").is_symlink() or (root / "out").resolve().is_relative_to(root)


def test_nothing_is_made_through_a_link_of_the_same_archive(tmp_path: Path) -> None:
    """Links come last, and the way to each is looked at once more then."""
    data = archive(
        ("real/x", tarfile.REGTYPE, "", b""),
        ("link", tarfile.SYMTYPE, "real", b""),
        ("link/y", tarfile.SYMTYPE, "x", b""),
    )
    with pytest.raises(ValueError, match="a link"):
        archives.unpack(pieces(data), tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree" / "real").iterdir()] == ["x"]

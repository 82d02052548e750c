import os
from pathlib import Path

import pytest

from traforo.sdk import disks


def test_a_target_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Until then the old content is there, and afterwards nothing but the new."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    target = disks.target(path)
    target.file.write(b"new")
    assert path.read_bytes() == b"old"
    target.commit()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_is_given_up_leaves_no_trace(tmp_path: Path) -> None:
    """Neither a half file nor a temporary one."""
    target = disks.target(tmp_path / "file")
    target.file.write(b"half")
    target.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_target_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    """As the umask says, not as a secret."""
    (tmp_path / "other").touch()
    target = disks.target(tmp_path / "file")
    target.commit()
    assert (tmp_path / "other").stat().st_mode == (tmp_path / "file").stat().st_mode


def test_a_target_follows_a_link(tmp_path: Path) -> None:
    """The file that the user's link names is written; the link stays."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    target = disks.target(tmp_path / "link")
    target.file.write(b"x")
    target.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_a_device_is_written_directly() -> None:
    """There is no file beside a device to write first."""
    target = disks.target("/dev/null")
    target.file.write(b"x")
    target.commit()
    assert Path("/dev/null").is_char_device()


def test_a_long_name_is_no_problem(tmp_path: Path) -> None:
    """The temporary name stays within what a name may have."""
    path = tmp_path / ("n" * 255)
    target = disks.target(path)
    target.commit()
    assert path.exists()


def test_a_source_knows_its_size(tmp_path: Path) -> None:
    """A regular file does, a pipe does not."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    source = disks.source(path)
    source.file.close()
    assert source.size == 5
    reader, writer = os.pipe()
    try:
        piped = disks.source(f"/dev/fd/{reader}")
        piped.file.close()
        assert piped.size is None
    finally:
        os.close(reader)
        os.close(writer)


def test_a_source_that_is_missing_is_told_by_the_system(tmp_path: Path) -> None:
    """Local trouble is OSError, not an error of the server."""
    with pytest.raises(FileNotFoundError):
        disks.source(tmp_path / "none")

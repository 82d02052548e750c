import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.commands import FakeSandbox
from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done

Run = Callable[..., Done]
BIG = os.urandom(1000) * 1500


@pytest.fixture
def sandbox(worker: FakeServer) -> FakeSandbox:
    return worker.create({})


def test_a_file_goes_in_and_comes_out(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """Unchanged, whatever is in it."""
    (tmp_path / "in").write_bytes(BIG)
    assert traforo("cp", str(tmp_path / "in"), f"{sandbox.sandbox_id}:/a/b") == Done(0, b"", b"")
    assert (sandbox.root / "a" / "b").read_bytes() == BIG
    assert traforo("cp", f"{sandbox.sandbox_id}:/a/b", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out").read_bytes() == BIG


def test_a_directory_as_target_keeps_the_name(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """On both sides, whether it is there or named with a slash."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "out").mkdir()
    (sandbox.root / "d").mkdir()
    for target in ("/d", "/e/"):
        assert traforo("cp", str(tmp_path / "file"), f"{sandbox.sandbox_id}:{target}").code == 0
    assert [path.is_file() for path in (sandbox.root / "d/file", sandbox.root / "e/file")] == [True, True]
    assert traforo("cp", f"{sandbox.sandbox_id}:/d/file", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out" / "file").read_text() == "x"


def test_trees_go_both_ways(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """Every directory and file, empty ones too; links that lead elsewhere are left out on the way back."""
    tree = tmp_path / "tree"
    (tree / "a" / "empty").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"1")
    (tree / "odd \udcff").write_bytes(b"2")
    (tree / "link").symlink_to("/etc/passwd")
    assert traforo("cp", str(tree), f"{sandbox.sandbox_id}:/t") == Done(0, b"", b"")
    assert (sandbox.root / "t" / "link").readlink() == Path("/etc/passwd")
    done = traforo("cp", f"{sandbox.sandbox_id}:/t", str(tmp_path / "back"))
    assert (done.code, done.said) == (0, "note: skipped 'link': a link that leads out of the directory\n")
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")}
    assert found == {"a", "a/empty", "a/file", "odd \udcff"}
    assert (tmp_path / "back" / "odd \udcff").read_bytes() == b"2"


def test_links_of_a_sandbox_lead_nowhere_else(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """One that points out of the directory is not made here; one within it is."""
    (sandbox.root / "t").mkdir()
    (sandbox.root / "t" / "evil").symlink_to("/etc")
    done = traforo("cp", f"{sandbox.sandbox_id}:/t", str(tmp_path / "out"))
    assert (done.code, "a link that leads out" in done.said) == (0, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_links_that_are_here_are_not_followed(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """A tree is written below its target: what is a link there is replaced, and not written through."""
    (sandbox.root / "t").mkdir()
    (sandbox.root / "t" / "file").write_text("from the sandbox")
    (tmp_path / "out" / "t").mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out" / "t" / "file").symlink_to(tmp_path / "mine")
    done = traforo("cp", f"{sandbox.sandbox_id}:/t", str(tmp_path / "out"))
    assert done.code == 0
    assert (tmp_path / "out" / "t" / "file").read_text() == "from the sandbox"
    assert (tmp_path / "mine").read_text() == "mine"


def test_stdin_and_stdout(sandbox: FakeSandbox, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` stands for them."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BIG)))
    assert traforo("cp", "-", f"{sandbox.sandbox_id}:/f").code == 0
    assert traforo("cp", f"{sandbox.sandbox_id}:/f", "-").out == BIG


def test_what_a_link_leads_to_is_private(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """The bits of a link say nothing of who may read what it leads to."""
    (sandbox.root / "secret").write_bytes(b"x")
    (sandbox.root / "link").symlink_to("secret")
    assert traforo("cp", f"{sandbox.sandbox_id}:/link", str(tmp_path / "here")).code == 0
    assert ((tmp_path / "here").read_bytes(), (tmp_path / "here").stat().st_mode & 0o777) == (b"x", 0o600)


def test_what_is_missing_is_told(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """On either side, by its name, and no file is left."""
    done = traforo("cp", str(tmp_path / "none"), f"{sandbox.sandbox_id}:/f")
    assert (done.code, "no such file or directory" in done.said) == (1, True)
    done = traforo("cp", f"{sandbox.sandbox_id}:/none", str(tmp_path / "out"))
    assert (done.code, "no file '/none'" in done.said) == (1, True)
    assert list(tmp_path.iterdir()) == []

# Written by tools/async_to_sync.py. Change _async/test_files.py instead.
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import Asked
from tests.fakes.cutters import Cutter
from tests.fakes.servers import FakeServer
from traforo.sdk import errors, requests
from traforo.sdk._sync import files
from traforo.sdk._sync.sandboxes import Sandbox


def everything_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


BIG = os.urandom(1024) * 2000


def test_a_file_is_written_and_read(worker: FakeServer) -> None:
    """As text or as bytes; parents are made."""
    with Sandbox.create(url=worker.url) as sandbox:
        assert sandbox.files.write("/a/b.txt", "grüß") == 6
        assert sandbox.files.read_text("/a/b.txt") == "grüß"
        assert sandbox.files.write("/a/c", BIG) == len(BIG)
        assert sandbox.files.read("/a/c") == BIG


def test_a_file_is_written_from_pieces(worker: FakeServer) -> None:
    """Content need not be in memory as a whole."""

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    with Sandbox.create(url=worker.url) as sandbox:
        assert sandbox.files.write("/f", pieces()) == 3
        assert b"".join(list(sandbox.files.stream("/f"))) == b"012"
    assert worker.requests[1].headers["transfer-encoding"] == "chunked"


def test_read_has_a_limit(worker: FakeServer) -> None:
    """The sandbox decides how large its files are, the caller how much memory they get."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", b"12345")
        assert sandbox.files.read("/f", limit=5) == b"12345"
        with pytest.raises(errors.TooLarge) as caught:
            sandbox.files.read("/f", limit=4)
    assert caught.value.fields == {"limit": 4}


def test_upload_and_download(worker: FakeServer, tmp_path: Path) -> None:
    """Files of any size go in and come out unchanged."""
    (tmp_path / "in").write_bytes(BIG)
    with Sandbox.create(url=worker.url) as sandbox:
        assert sandbox.files.upload(tmp_path / "in", "/f") == len(BIG)
        assert sandbox.files.download("/f", tmp_path / "out") == len(BIG)
    assert (tmp_path / "out").read_bytes() == BIG
    assert worker.requests[1].headers["content-length"] == str(len(BIG))


def test_a_download_that_fails_leaves_what_was_there(worker: FakeServer, tmp_path: Path) -> None:
    """Missing, or cut off in the middle: no half file appears."""
    (tmp_path / "out").write_bytes(b"before")
    with Sandbox.create(url=worker.url) as sandbox:
        with pytest.raises(errors.NotFound):
            sandbox.files.download("/none", tmp_path / "out")
        sandbox.files.write("/f", BIG)
        worker.fault = lambda asked: "truncate" if asked.method == "GET" else None
        worker.sandboxes[sandbox.id].etags = False  # so that nobody can tell whether it is still the same file
        with pytest.raises(errors.ConnectionFailed):
            sandbox.files.download("/f", tmp_path / "out")
    assert [path.read_bytes() for path in everything_in(tmp_path)] == [b"before"]


def test_a_directory_is_listed_to_its_end(worker: FakeServer) -> None:
    """Page by page, sorted; below it too if asked for."""
    with Sandbox.create(url=worker.url) as sandbox:
        for name in "edcba":
            sandbox.files.write(f"/d/{name}", name)
        sandbox.files.mkdir("/d/f")
        assert [entry.name for entry in sandbox.files.list("/d")] == list("abcdef")
        everything = sandbox.files.list("/", recursive=True)
        assert [entry.path for entry in everything] == ["/d", *(f"/d/{name}" for name in "abcdef")]
        assert [entry.type for entry in everything] == ["directory", *["file"] * 5, "directory"]


def test_names_that_are_not_utf8(worker: FakeServer) -> None:
    """They can be written, listed and read by what was listed."""
    name = os.fsdecode(b"/odd \xff\n")
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write(b"/odd \xff\n", "content")
        listed = sandbox.files.list("/")
        assert [entry.path for entry in listed] == [name]
        assert sandbox.files.read_text(listed[0].path) == "content"


def test_facts_about_a_path(worker: FakeServer) -> None:
    """A missing path is a fact, not an error."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", "12345")
        facts = sandbox.files.stat("/f")
        assert (facts.exists, facts.type, facts.size, facts.path) == (True, "file", 5, "/f")
        assert not (sandbox.files.stat("/none")).exists
        assert [sandbox.files.exists(path) for path in ("/f", "/none")] == [True, False]


def test_directories_are_made_and_removed(worker: FakeServer) -> None:
    """Each refusal has its error, and each can be waived."""
    with Sandbox.create(url=worker.url) as sandbox:
        files = sandbox.files
        assert [files.mkdir("/a/b"), files.mkdir("/a/b")] == [True, False]
        files.write("/a/b/c", "")
        with pytest.raises(errors.Conflict):
            files.remove("/a")
        files.remove("/a", recursive=True)
        with pytest.raises(errors.NotFound):
            files.remove("/a")
        files.remove("/a", missing_ok=True)


def test_a_user_goes_with_every_call(worker: FakeServer, tmp_path: Path) -> None:
    """Whose rights count is told each time."""
    with Sandbox.create(url=worker.url) as sandbox:
        files = sandbox.files
        files.write("/d/f", "", user="u")
        files.read("/d/f", user="u")
        files.list("/d", user="u")
        files.stat("/d", user="u")
        files.mkdir("/e", user="u")
        files.upload(__file__, "/g", user="u")
        files.download("/g", tmp_path / "g", user="u")
        files.remove("/g", user="u")
        files.upload(tmp_path, "/h", user="u")
        files.download("/h", tmp_path / "h", user="u")
    asked = worker.requests[1:-1]
    assert {item.query.get("user") or item.json.get("user") for item in asked} == {"u"}


@pytest.mark.parametrize("seed", range(4))
def test_a_download_goes_on_where_a_connection_was_cut(worker: FakeServer, tmp_path: Path, seed: int) -> None:
    """Byte for byte, as long as the file is the same."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", BIG)
        with Cutter(worker.url, seed, least=1, most=700_000, cuts=6) as cutter:
            place = requests.Place(sandbox._place.url.replace(worker.url, cutter.url), None)
            inside = files.Files(sandbox._client, place)
            size: int | None = None
            for _ in range(9):  # a connection that is cut before the head of the answer is told
                try:
                    size = inside.download("/f", tmp_path / "out")
                    break
                except errors.ConnectionFailed:
                    continue
            assert cutter.cuts > 0
    assert size == len(BIG)
    assert (tmp_path / "out").read_bytes() == BIG


def test_a_file_that_changes_meanwhile_is_told(worker: FakeServer) -> None:
    """Halves of two versions are never put together."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", BIG)
        reads = 0

        def changed(asked: Asked) -> str | None:
            nonlocal reads
            reads += asked.method == "GET"
            if reads == 2:
                (worker.sandboxes[sandbox.id].root / "f").write_bytes(BIG[::-1])
            return "truncate" if reads == 1 else None

        worker.fault = changed
        with pytest.raises(errors.ConnectionFailed, match="was changed"):
            sandbox.files.read("/f")


def test_a_part_of_a_file(worker: FakeServer) -> None:
    """From a byte to a byte; behind the end there is nothing."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", b"0123456789")
        for start, end, expected in ((3, 6, b"345"), (7, None, b"789"), (0, 2, b"01"), (8, 99, b"89")):
            assert b"".join(list(sandbox.files.stream("/f", start=start, end=end))) == expected
        with pytest.raises(errors.RangeNotSatisfiable):
            for _ in sandbox.files.stream("/f", start=10):
                pass


def test_progress_is_told(worker: FakeServer, tmp_path: Path) -> None:
    """In both directions, up to the end."""
    (tmp_path / "in").write_bytes(BIG)
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.upload(tmp_path / "in", "/f", progress=lambda *told: up.append(told))
        sandbox.files.download("/f", tmp_path / "out", progress=lambda *told: down.append(told))
    for told in (up, down):
        assert told == sorted(told)
        assert told[-1] == (len(BIG), len(BIG))


def test_a_write_that_depends(worker: FakeServer) -> None:
    """On nothing being there, for instance; and bits go along."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/f", "1", new=True, mode=0o755)
        assert worker.requests[-1].query["mode"] == "0755"
        with pytest.raises(errors.PreconditionFailed):
            sandbox.files.write("/f", "2", new=True)
        sandbox.files.write("/f", "3", if_match='"a"')
        assert worker.requests[-1].headers["if-match"] == '"a"'
        with pytest.raises(errors.InvalidRequest):
            sandbox.files.write("/f", "4", mode=-1)


def test_files_are_moved_copied_and_changed(worker: FakeServer) -> None:
    """Within the sandbox; what is in the way stays unless told otherwise."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/a", "1")
        sandbox.files.copy("/a", "/b")
        with pytest.raises(errors.Conflict):
            sandbox.files.move("/a", "/b")
        sandbox.files.move("/a", "/b", overwrite=True)
        assert [entry.path for entry in sandbox.files.list("/")] == ["/b"]
        sandbox.files.change("/b", mode=0o700)
        assert (sandbox.files.stat("/b")).mode == 0o700


def test_files_are_found_and_searched(worker: FakeServer) -> None:
    """By name, and by what is in them."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/d/a.py", "x = 1\ny = 2\n")
        sandbox.files.write("/d/b.txt", "y = 3\n")
        assert [entry.path for entry in sandbox.files.find("/d", "**/*.py")] == ["/d/a.py"]
        found = sandbox.files.search("/d", "y =")
        assert [(m.path, m.line, m.column) for m in found] == [("/d/a.py", 2, 1), ("/d/b.txt", 1, 1)]
        assert found.truncated is False


def test_a_tree_goes_out_and_in(worker: FakeServer) -> None:
    """As one stream."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/d/e/f", BIG)
        whole = b"".join(list(sandbox.files.tar("/d")))
        sandbox.files.untar("/back", whole)
        assert sandbox.files.read("/back/e/f") == BIG


def test_a_directory_is_uploaded_and_downloaded(worker: FakeServer, tmp_path: Path) -> None:
    """With all that is below it; how far it is is told, and how much it was."""
    local = tmp_path / "local"
    (local / "d" / "empty").mkdir(parents=True)
    (local / "d" / "f").write_bytes(BIG)
    (local / "run").write_bytes(b"#!/bin/sh\n")
    (local / "run").chmod(0o755)
    (local / "out").symlink_to("/usr/bin/env")
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []
    size = len(BIG) + 10
    with Sandbox.create(url=worker.url) as sandbox:
        assert sandbox.files.upload(local, "/copy", progress=lambda *told: up.append(told)) == size
        assert worker.requests[-1].query == {"path": "/copy", "links": "keep"}
        assert sandbox.files.read("/copy/d/f") == BIG
        with pytest.raises(errors.UnsafeArchive) as caught:
            sandbox.files.download("/copy", tmp_path / "refused")
        assert caught.value.fields == {"entry": "out"}
        left_out: list[str] = []
        again = tmp_path / "again"
        told = sandbox.files.download("/copy", again, progress=lambda *told: down.append(told), skipped=left_out.append)
        with pytest.raises(errors.InvalidRequest):
            sandbox.files.upload(local, "/copy", mode=0o700)
    assert (told, left_out) == (size, ["out"])
    assert (again / "d" / "f").read_bytes() == BIG
    assert (again / "run").stat().st_mode & 0o777 == 0o755
    assert {path.name for path in again.rglob("*")} == {"d", "empty", "f", "run"}
    assert (up[-1], down == sorted(down)) == ((size, size), True)


def test_a_directory_that_breaks_off_is_told(worker: FakeServer, tmp_path: Path) -> None:
    """Whichever way it went: an answer that is cut, and a local file that cannot be read to its end."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/d/f", BIG)
        worker.fault = lambda asked: "truncate" if asked.path.endswith("/tar") else None
        with pytest.raises(errors.ConnectionFailed):
            sandbox.files.download("/d", tmp_path / "d")
        worker.fault = lambda _: None
        (tmp_path / "large").mkdir()
        (tmp_path / "large" / "a").write_bytes(BIG)

        def shrink(done: int, size: int | None) -> None:
            os.truncate(tmp_path / "large" / "a", 1000)

        with pytest.raises(OSError, match="shorter"):
            sandbox.files.upload(tmp_path / "large", "/large", progress=shrink)


def test_a_directory_here_is_in_the_way_of_a_file(worker: FakeServer, tmp_path: Path) -> None:
    """And the other way round: a target is the thing itself, not what to put it into."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.write("/d/f", "1")
        (tmp_path / "f").write_bytes(b"2")
        with pytest.raises(IsADirectoryError):
            sandbox.files.download("/d/f", tmp_path)
        with pytest.raises(FileExistsError):
            sandbox.files.download("/d", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"2"


def test_changes_are_given_out(worker: FakeServer) -> None:
    """In order, also when connections break; the watch ends with the loop."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.mkdir("/d")
        faults = iter(["drop", None, "drop-after", "drop"])

        def started(asked: Asked) -> str | None:
            """Let the command begin once somebody watches, and break connections."""
            if asked.method != "GET":
                return None
            (worker.sandboxes[sandbox.id].root / "d" / "go").touch()
            return next(faults, None)

        seen: list[tuple[str, str]] = []
        sandbox.start("until [ -e go ]; do sleep 0.01; done; for n in 1 2 3; do echo > $n; done", cwd="/d")
        worker.fault = started
        with contextlib.closing(sandbox.files.watch("/d")) as changes:
            for change in changes:
                seen.append((change.kind, change.path))
                if change.path == "/d/3":
                    break
        assert worker.sandboxes[sandbox.id].watches == {}
    assert [path for kind, path in seen if kind == "created" and path != "/d/go"] == ["/d/1", "/d/2", "/d/3"]


def test_a_watch_goes_on_after_a_restart_of_the_worker(worker: FakeServer) -> None:
    """The directory is watched again once the worker is back, and what may have been missed is told."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.mkdir("/d")
        served = worker.sandboxes[sandbox.id]
        asked_for = iter(["before", "meanwhile", "after"])
        starting = iter([None, "drop", "unavailable"])

        def restarted(asked: Asked) -> str | None:
            if asked.method != "GET":
                return next(starting, None)
            name = next(asked_for)
            if name == "meanwhile":
                served.watches.clear()
            (served.root / "d" / name).touch()
            return None

        worker.fault = restarted
        seen: list[tuple[str, str]] = []
        with contextlib.closing(sandbox.files.watch("/d", recursive=True)) as changes:
            for change in changes:
                seen.append((change.kind, change.path))
                if change.path == "/d/after":
                    break
        assert served.watches == {}
    assert seen == [("created", "/d/before"), ("overflow", "/d"), ("created", "/d/after")]
    assert worker.requests[-4].json == {"path": "/d", "recursive": True}


def test_a_watch_ends_with_a_directory_that_went_meanwhile(worker: FakeServer) -> None:
    """Not without a word: whatever was in it is gone too."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.files.mkdir("/d")
        served = worker.sandboxes[sandbox.id]

        def restarted(asked: Asked) -> None:
            if asked.method == "GET":
                served.watches.clear()
                (served.root / "d").rmdir()

        worker.fault = restarted
        assert [change.kind for change in sandbox.files.watch("/d")] == ["overflow"]
        worker.fault = lambda _: None
        with pytest.raises(errors.NotFound):
            for _ in sandbox.files.watch("/d"):
                pass


def test_a_url_is_signed(worker: FakeServer) -> None:
    """For one path and one method."""
    with Sandbox.create(url=worker.url) as sandbox:
        signed = sandbox.files.signed_url("/f", method="PUT", max_bytes=5)
        assert signed.url == "http://signed.example/PUT/f?signature=abc"
        assert signed.expires_at is not None
    assert worker.requests[1].json == {"path": "/f", "method": "PUT", "expires_in_seconds": 3600, "max_bytes": 5}

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.servers import FakeServer
from traforo.sdk import errors
from traforo.sdk._async.sandboxes import AsyncSandbox


def everything_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


BIG = os.urandom(1024) * 2000


async def test_a_file_is_written_and_read(worker: FakeServer) -> None:
    """As text or as bytes; parents are made."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert await sandbox.files.write("/a/b.txt", "grüß") == 6
        assert await sandbox.files.read_text("/a/b.txt") == "grüß"
        assert await sandbox.files.write("/a/c", BIG) == len(BIG)
        assert await sandbox.files.read("/a/c") == BIG


async def test_a_file_is_written_from_pieces(worker: FakeServer) -> None:
    """Content need not be in memory as a whole."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert await sandbox.files.write("/f", pieces()) == 3
        assert b"".join([block async for block in sandbox.files.stream("/f")]) == b"012"
    assert worker.requests[1].headers["transfer-encoding"] == "chunked"


async def test_read_has_a_limit(worker: FakeServer) -> None:
    """The sandbox decides how large its files are, the caller how much memory they get."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        await sandbox.files.write("/f", b"12345")
        assert await sandbox.files.read("/f", limit=5) == b"12345"
        with pytest.raises(errors.TooLarge) as caught:
            await sandbox.files.read("/f", limit=4)
    assert caught.value.fields == {"limit": 4}


async def test_upload_and_download(worker: FakeServer, tmp_path: Path) -> None:
    """Files of any size go in and come out unchanged."""
    (tmp_path / "in").write_bytes(BIG)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert await sandbox.files.upload(tmp_path / "in", "/f") == len(BIG)
        assert await sandbox.files.download("/f", tmp_path / "out") == len(BIG)
    assert (tmp_path / "out").read_bytes() == BIG
    assert worker.requests[1].headers["content-length"] == str(len(BIG))


async def test_a_download_that_fails_leaves_what_was_there(worker: FakeServer, tmp_path: Path) -> None:
    """Missing, or cut off in the middle: no half file appears."""
    (tmp_path / "out").write_bytes(b"before")
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        with pytest.raises(errors.NotFound):
            await sandbox.files.download("/none", tmp_path / "out")
        await sandbox.files.write("/f", BIG)
        worker.fault = lambda asked: "truncate" if asked.method == "GET" else None
        with pytest.raises(errors.ConnectionFailed):
            await sandbox.files.download("/f", tmp_path / "out")
    assert [path.read_bytes() for path in everything_in(tmp_path)] == [b"before"]


async def test_a_directory_is_listed_to_its_end(worker: FakeServer) -> None:
    """Page by page, sorted; below it too if asked for."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        for name in "edcba":
            await sandbox.files.write(f"/d/{name}", name)
        await sandbox.files.mkdir("/d/f")
        assert [entry.name for entry in await sandbox.files.list("/d")] == list("abcdef")
        everything = await sandbox.files.list("/", recursive=True)
        assert [entry.path for entry in everything] == ["/d", *(f"/d/{name}" for name in "abcdef")]
        assert [entry.type for entry in everything] == ["directory", *["file"] * 5, "directory"]


async def test_names_that_are_not_utf8(worker: FakeServer) -> None:
    """They can be written, listed and read by what was listed."""
    name = os.fsdecode(b"/odd \xff\n")
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        await sandbox.files.write(b"/odd \xff\n", "content")
        listed = await sandbox.files.list("/")
        assert [entry.path for entry in listed] == [name]
        assert await sandbox.files.read_text(listed[0].path) == "content"


async def test_facts_about_a_path(worker: FakeServer) -> None:
    """A missing path is a fact, not an error."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        await sandbox.files.write("/f", "12345")
        facts = await sandbox.files.stat("/f")
        assert (facts.exists, facts.type, facts.size, facts.path) == (True, "file", 5, "/f")
        assert not (await sandbox.files.stat("/none")).exists
        assert [await sandbox.files.exists(path) for path in ("/f", "/none")] == [True, False]


async def test_directories_are_made_and_removed(worker: FakeServer) -> None:
    """Each refusal has its error, and each can be waived."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        files = sandbox.files
        assert [await files.mkdir("/a/b"), await files.mkdir("/a/b")] == [True, False]
        await files.write("/a/b/c", "")
        with pytest.raises(errors.Conflict):
            await files.remove("/a")
        await files.remove("/a", recursive=True)
        with pytest.raises(errors.NotFound):
            await files.remove("/a")
        await files.remove("/a", missing_ok=True)


async def test_a_user_goes_with_every_call(worker: FakeServer, tmp_path: Path) -> None:
    """Whose rights count is told each time."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        files = sandbox.files
        await files.write("/d/f", "", user="u")
        await files.read("/d/f", user="u")
        await files.list("/d", user="u")
        await files.stat("/d", user="u")
        await files.mkdir("/e", user="u")
        await files.upload(__file__, "/g", user="u")
        await files.download("/g", tmp_path / "g", user="u")
        await files.remove("/g", user="u")
    asked = worker.requests[1:-1]
    assert [item.query.get("user") or item.json.get("user") for item in asked] == ["u"] * 8

"""Reading and writing one file over HTTP: parts, versions, conditions, and the moment at which a file is replaced."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fakes import benches
from tests.integration.worker import test_routes_execs as shared
from traforo.api import downloads, schemas
from traforo.domain import errors
from traforo.worker.files import replacements
from traforo.worker.runtimes import contract

bench = shared.bench
client = shared.client
read = shared.read
problem = shared.problem
DATA = bytes(range(256)) * 1000


@pytest.fixture
def file(bench: benches.Bench) -> Path:
    path = bench.root / "tmp" / "f"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize(
    "asked, first, last",
    [("0-0", 0, 0), ("100-", 100, 255_999), ("-1000", 255_000, 255_999), ("70000-200000", 70_000, 200_000)],
)
async def test_ranges(client: httpx2.AsyncClient, file: Path, asked: str, first: int, last: int) -> None:
    """A part of a file comes with its place in the whole."""
    answer = await client.get("/files?path=/tmp/f", headers={"range": f"bytes={asked}"})
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes {first}-{last}/256000")
    assert answer.content == DATA[first : last + 1]


async def test_range_of_nothing(client: httpx2.AsyncClient, file: Path) -> None:
    """A range behind the end is refused with the size."""
    answer = await client.get("/files?path=/tmp/f", headers={"range": "bytes=256000-"})
    assert problem(answer, 416)["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"] == "bytes */256000"


async def test_versions(client: httpx2.AsyncClient, file: Path) -> None:
    """Who has a version already gets no bytes; who has another gets all of them, even if only a part was asked for."""
    before = benches.descriptors()
    first = await client.get("/files?path=/tmp/f")
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"if-none-match": tag}, {"if-modified-since": date}):
        same = await client.get("/files?path=/tmp/f", headers=headers)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    part = await client.get("/files?path=/tmp/f", headers={"range": "bytes=1-2", "if-range": tag})
    assert part.status_code == 206
    file.write_bytes(DATA + b"more")
    whole = await client.get(
        "/files?path=/tmp/f", headers={"range": "bytes=1-2", "if-range": tag, "if-none-match": tag}
    )
    assert (whole.status_code, whole.content) == (200, DATA + b"more")
    stale = await client.get("/files?path=/tmp/f", headers={"if-match": tag})
    assert problem(stale, 412)["code"] == "precondition_failed"
    assert benches.descriptors() <= before


async def test_head(client: httpx2.AsyncClient, file: Path) -> None:
    """The headers are those of a read, without the bytes."""
    before = benches.descriptors()
    got = await client.get("/files?path=/tmp/f")
    head = await client.head("/files?path=/tmp/f")
    names = ("content-length", "etag", "last-modified", "accept-ranges", "content-type")
    assert [head.headers[name] for name in names] == [got.headers[name] for name in names]
    assert (head.status_code, head.content) == (200, b"")
    part = await client.head("/files?path=/tmp/f", headers={"range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")
    assert (await client.head("/files?path=/none")).status_code == 404
    assert benches.descriptors() <= before


async def test_writing_on_conditions(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A file is only made, or only that version replaced which the caller knows."""
    url = "/files?path=/tmp/d/f"
    missing = await client.put(url, content=b"x", headers={"if-match": '"x"'})
    assert problem(missing, 412)["code"] == "precondition_failed"
    made = await client.put(url, content=b"one", headers={"if-none-match": "*"})
    tag = read(made, 200, schemas.FileWritten)["etag"]
    assert (await client.get(url)).headers["etag"] == tag
    again = await client.put(url, content=b"two", headers={"if-none-match": "*"})
    assert problem(again, 412)["code"] == "precondition_failed"
    second = await client.put(url, content=b"three", headers={"if-match": tag})
    assert second.status_code == 200
    assert (await client.put(url, content=b"four", headers={"if-match": tag})).status_code == 412
    assert (bench.root / "tmp/d/f").read_bytes() == b"three"
    assert [path.name for path in (bench.root / "tmp/d").iterdir()] == ["f"]
    appended = await client.put(url, json={"content": "", "append": True}, headers={"if-match": tag})
    assert problem(appended, 400)["field"] == "append"


async def test_two_who_make_the_same(bench: benches.Bench, client: httpx2.AsyncClient) -> None:
    """Of those who make a new file at once one succeeds, and its content is whole."""
    assert list((bench.root / "tmp").iterdir()) == []  # the fake makes its root when it is first asked for
    answers = await asyncio.gather(
        *(
            client.put("/files?path=/tmp/f", content=bytes([n]) * 300_000, headers={"if-none-match": "*"})
            for n in range(8)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    content = (bench.root / "tmp" / "f").read_bytes()
    assert content == content[:1] * 300_000
    assert [path.name for path in (bench.root / "tmp").iterdir()] == ["f"]


async def test_readers_see_whole_files(client: httpx2.AsyncClient, bench: benches.Bench, file: Path) -> None:
    """While a file is being written the old one is read, also by who has it open."""
    half, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"new" * 100_000
        half.set()
        await goes_on.wait()
        yield b"end"

    with file.open("rb") as held:
        writing = asyncio.create_task(bench.files.write(bench.entry, "/tmp/f", slowly(), user=None))
        await half.wait()
        assert (await client.get("/files?path=/tmp/f")).content == DATA
        assert bench.entry.activity.holds == 1
        goes_on.set()
        await writing
        assert held.read() == DATA
    assert file.read_bytes() == b"new" * 100_000 + b"end"
    assert bench.entry.activity.holds == 0


async def test_modes(client: httpx2.AsyncClient, bench: benches.Bench, file: Path) -> None:
    """A new file has the mode that was asked for, one that is replaced keeps its own."""
    for query, mode in (("new", 0o644), ("exec&mode=0755", 0o755), ("set&mode=4711", 0o4711)):
        assert (await client.put(f"/files?path=/tmp/{query}", content=b"x")).status_code == 200
        assert stat.S_IMODE((bench.root / "tmp" / query.partition("&")[0]).stat().st_mode) == mode
    file.chmod(0o751)
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    assert stat.S_IMODE(file.stat().st_mode) == 0o751
    assert (await client.put("/files?path=/tmp/f&mode=600", content=b"x")).status_code == 200
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert problem(await client.put("/files?path=/tmp/f&mode=9", content=b"x"), 400)["field"] == "mode"


async def test_what_is_not_replaced(client: httpx2.AsyncClient, bench: benches.Bench, file: Path) -> None:
    """A link stays a link, a file with several names keeps them, and a read-only one is written as it is."""
    (file.parent / "l").symlink_to("f")
    assert (await client.put("/files?path=/tmp/l", content=b"1")).status_code == 200
    assert (file.parent / "l").is_symlink()
    assert file.read_bytes() == b"1"
    (file.parent / "h").hardlink_to(file)
    assert (await client.put("/files?path=/tmp/h", content=b"2")).status_code == 200
    assert file.read_bytes() == b"2"
    alone = file.parent / "alone"
    alone.write_bytes(b"old")
    alone.chmod(0o444)
    inode = alone.stat().st_ino
    assert (await client.put("/files?path=/tmp/alone", content=b"3")).status_code == 200
    assert (alone.stat().st_ino, alone.read_bytes()) == (inode, b"3")


async def refuse_drafts(path: str, *_: Any, **__: Any) -> int:
    """Play a file system that has no files without names."""
    raise errors.InvalidRequest(f"not {path}") from OSError(errno.EOPNOTSUPP, "not supported")


async def test_what_is_not_whole_has_no_name(bench: benches.Bench, file: Path) -> None:
    """So nobody can put something else in its place, and nothing of it stays when the worker dies."""
    running = bench.entry.running
    assert running is not None
    for path in ("/tmp/f", "/tmp/new"):
        writing = await replacements.begin(running.files, path, user="root")
        os.write(writing.fd, b"half")
        assert [found.name for found in file.parent.iterdir()] == ["f"]
        await writing.abandon()
    assert ([found.name for found in file.parent.iterdir()], file.read_bytes()) == (["f"], DATA)


async def test_where_every_file_has_a_name(
    bench: benches.Bench, client: httpx2.AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has one of its own until it is whole; the file that was written takes its place, whatever has that name."""
    running = bench.entry.running
    assert running is not None
    monkeypatch.setattr(running.files, "draft", refuse_drafts)
    inode = file.stat().st_ino
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    assert (file.stat().st_ino == inode, file.read_bytes()) == (False, b"x")
    new = await client.put("/files?path=/tmp/new&mode=4755", content=b"y", headers={"if-none-match": "*"})
    assert (new.status_code, (file.parent / "new").stat().st_mode & 0o7777) == (200, 0o4755)
    (file.parent / "new").unlink()
    assert [path.name for path in file.parent.iterdir()] == ["f"]
    writing = await replacements.begin(running.files, "/tmp/f", user="root", mode=0o4750)
    os.write(writing.fd, b"written")
    (name,) = file.parent.glob(replacements.PREFIX + "*")
    name.rename(file.parent / "away")
    (file.parent / "victim").write_bytes(b"untouched")
    name.symlink_to("victim")
    await writing.commit()
    victim = file.parent / "victim"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"written", 0o4750)
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode) == 0o4750) == (b"untouched", False)


@pytest.mark.parametrize("named", [False, True])
async def test_where_it_cannot_be_replaced(
    bench: benches.Bench, client: httpx2.AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Where the directory forbids a file beside it, the file itself is written."""
    running = bench.entry.running
    assert running is not None
    real = running.files.open

    async def guarded(path: str, *arguments: Any, **options: Any) -> int:
        if replacements.PREFIX in path:
            raise errors.Forbidden("not here")
        return await real(path, *arguments, **options)

    async def forbidden(*_: object, **__: object) -> int:
        raise errors.Forbidden("not here")

    monkeypatch.setattr(running.files, "open", guarded)
    monkeypatch.setattr(running.files, "draft", refuse_drafts if named else forbidden)
    inode = file.stat().st_ino
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    assert (file.stat().st_ino, file.read_bytes()) == (inode, b"x")
    assert [path.name for path in file.parent.iterdir()] == ["f"]


async def test_a_refusal_names_what_was_asked_for(
    bench: benches.Bench, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the name under which the file would have been written."""
    running = bench.entry.running
    assert running is not None

    async def refused(path: str, *_: Any, **__: Any) -> int:
        raise errors.Forbidden(f"not {path}")

    monkeypatch.setattr(running.files, "open", refused)
    monkeypatch.setattr(running.files, "draft", refused)
    assert problem(await client.put("/files?path=/tmp/new", content=b"x"), 403)["message"] == "not /tmp/new"
    monkeypatch.setattr(running.files, "draft", refuse_drafts)
    assert problem(await client.put("/files?path=/tmp/new", content=b"x"), 403)["message"] == "not /tmp/new"


async def test_owners_that_cannot_be_kept(
    bench: benches.Bench, client: httpx2.AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a new file could not have the owner of the old one, the old one itself is written."""
    real = os.fstat

    def others(fd: int) -> os.stat_result:
        found = real(fd)
        if found.st_size:
            return found
        values = [*found[:4], 999, 999, *found[6:10]]
        return os.stat_result([*values, *[0.0] * 3, *[0] * 3])

    async def refuse(*_: object, **__: object) -> None:
        raise errors.Forbidden("not yours")

    running = bench.entry.running
    assert running is not None
    monkeypatch.setattr(os, "fstat", others)
    monkeypatch.setattr(running.files, "change", refuse)
    inode = file.stat().st_ino
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    assert (file.stat().st_ino, file.read_bytes()) == (inode, b"x")
    assert [path.name for path in file.parent.iterdir()] == ["f"]


async def test_owners_are_kept(bench: benches.Bench, client: httpx2.AsyncClient, file: Path) -> None:
    """Who owned a file owns it after it was replaced."""
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(file, 1234, 2345)
    inode = file.stat().st_ino
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_ino == inode) == (1234, 2345, False)


async def test_a_full_disk_keeps_the_old_file(
    bench: benches.Bench, client: httpx2.AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that fails changes nothing and leaves nothing."""

    async def full(*_: object, **__: object) -> None:
        raise errors.DiskFull("full")

    running = bench.entry.running
    assert running is not None
    monkeypatch.setattr(running.files, "place", full)
    assert problem(await client.put("/files?path=/tmp/f", content=b"x"), 507)["code"] == "disk_full"
    assert file.read_bytes() == DATA
    assert [path.name for path in file.parent.iterdir()] == ["f"]


async def test_a_fifo_in_the_way(bench: benches.Bench, client: httpx2.AsyncClient) -> None:
    """What is no file is refused at once in both directions, and nobody waits for its other end."""
    os.mkfifo(bench.root / "tmp" / "p")
    assert problem(await client.get("/files?path=/tmp/p"), 400)["field"] == "path"
    assert problem(await client.put("/files?path=/tmp/p", content=b"x"), 400)["field"] == "path"


async def test_becomes_a_link_meanwhile(
    bench: benches.Bench, client: httpx2.AsyncClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that becomes a link while it is looked at is at worst replaced itself; nothing else is touched."""
    victim = file.parent / "victim"
    victim.write_bytes(b"untouched")
    running = bench.entry.running
    assert running is not None
    real = running.files.stat

    async def switching(path: str, *, user: str, follow: bool = True) -> contract.FileStat:
        found = await real(path, user=user, follow=follow)
        if path == "/tmp/f":
            file.unlink()
            file.symlink_to("victim")
        return found

    monkeypatch.setattr(running.files, "stat", switching)
    assert (await client.put("/files?path=/tmp/f", content=b"x")).status_code == 200
    assert victim.read_bytes() == b"untouched"


async def test_a_client_that_stops_reading(bench: benches.Bench, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read is cut off, and does not keep the sandbox from being idle."""
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.01)
    opened = await bench.files.open(bench.entry, "/tmp/f", user=None)

    async def send(message: Any) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(errors.RateLimited):
        await downloads.Download(opened, opened.size)({"method": "GET"}, receive, send)
    assert bench.entry.activity.holds == 0

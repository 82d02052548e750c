"""Files of a sandbox: whole, exact, of any size, and nothing left open whatever happens."""

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import benches
from traforo.domain import errors
from traforo.worker.files import descriptors, files
from traforo.worker.runtimes import contract


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


async def blocks(count: int, size: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


@pytest.mark.parametrize("count, size", [(0, 1), (1, 5), (300, 1000), (20, 300_000)])
async def test_round_trip(bench: benches.Bench, count: int, size: int) -> None:
    """What was written is read, byte for byte."""
    written = await bench.files.write(bench.entry, "/tmp/a/b/file", blocks(count, size), user=None)
    assert (written.bytes_written, written.size) == (count * size, count * size)
    file = await bench.files.open(bench.entry, "/tmp/a/b/file", user=None)
    got = await file.read(count * size + 1)
    file.close()
    assert got == b"".join([block async for block in blocks(count, size)])


async def test_append_and_replace(bench: benches.Bench) -> None:
    """Appending adds to the end; writing replaces everything."""
    await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"long long"), user=None)
    await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"one "), user=None)
    written = await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"two"), user=None, append=True)
    assert (written.bytes_written, written.size) == (3, 7)
    assert await bench.files.content(bench.entry, "/tmp/f", user=None) == b"one two"


async def test_upload_that_breaks_off(bench: benches.Bench) -> None:
    """The old file is still there, nothing is left beside it, and nothing stays open."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (descriptors.BLOCK_BYTES + 1)
        yield b"y"
        raise ConnectionResetError

    await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"old"), user=None)
    before = benches.descriptors()
    for path in ("/tmp/f", "/tmp/new"):
        with pytest.raises(ConnectionResetError):
            await bench.files.write(bench.entry, path, broken(), user=None)
    assert [(path.name, path.read_bytes()) for path in (bench.root / "tmp").iterdir()] == [("f", b"old")]
    assert benches.descriptors() == before
    assert bench.entry.activity.holds == 0


async def test_full_disk(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not fit says so, and nothing stays open."""

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    before = benches.descriptors()
    monkeypatch.setattr(descriptors, "write", full)
    for content in (files.pieces(b"small"), blocks(3, descriptors.BLOCK_BYTES)):
        with pytest.raises(errors.DiskFull):
            await bench.files.write(bench.entry, "/tmp/f", content, user=None)
    assert benches.descriptors() == before


async def test_runtime_that_hands_out_something_else(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor is checked whatever the runtime says it is, and closed when it is not a file to be touched."""
    running = bench.entry.running
    assert running is not None
    given: list[int] = []
    for path in ("/tmp", "/dev/null", "/proc/self/oom_score_adj", "/sys/kernel/mm/transparent_hugepage/enabled"):

        async def other(*_args: object, path: str = path, **_options: object) -> int:
            given.append(os.open(path, os.O_RDONLY))
            return given[-1]

        monkeypatch.setattr(running.files, "open", other)
        monkeypatch.setattr(running.files, "draft", other)
        with pytest.raises(errors.InvalidRequest):
            await bench.files.open(bench.entry, "/f", user=None)
        with pytest.raises(errors.InvalidRequest):
            await bench.files.write(bench.entry, "/f", files.pieces(b"1"), user=None)
    for fd in given:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


async def test_content_is_bounded(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is taken into memory as a whole only up to a size, even if it grows meanwhile."""
    monkeypatch.setattr(files, "MAX_CONTENT_BYTES", 10)
    await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"x" * 10), user=None)
    assert len(await bench.files.content(bench.entry, "/tmp/f", user=None)) == 10
    await bench.files.write(bench.entry, "/tmp/f", files.pieces(b"x" * 11), user=None)
    with pytest.raises(errors.TooLarge):
        await bench.files.content(bench.entry, "/tmp/f", user=None)


async def test_list_is_sorted_and_paged(bench: benches.Bench) -> None:
    """Entries come sorted by the bytes of their paths, page by page, and a directory that is too large is refused."""
    names = [b"b", b"a.txt", b"a", b"\xff", "é".encode(), b"Z"]
    place = bench.root / "tmp" / "d"
    (place / "a").mkdir(parents=True)
    for name in names:
        if name != b"a":
            (place / os.fsdecode(name)).write_bytes(b"")
    (place / "a" / "x").write_bytes(b"123")
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await bench.files.list(bench.entry, "/tmp/d", user=None, recursive=True, limit=2, cursor=cursor)
        found += [stat.path for stat in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = sorted([b"/tmp/d/" + name for name in names] + [b"/tmp/d/a/x"])
    assert [os.fsencode(path) for path in found] == expected
    for bad in ("-1", "x", "1e3", "999999999999", "٣"):
        with pytest.raises(errors.InvalidRequest):
            await bench.files.list(bench.entry, "/tmp/d", user=None, recursive=True, limit=2, cursor=bad)


async def test_list_is_bounded(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is too large is refused; the largest that is not is listed."""
    running = bench.entry.running
    assert running is not None
    one = contract.FileStat("/d/f", contract.FileKind.FILE, 0, 0, 0, 0, 0.0)
    sizes: list[int] = []

    async def given(path: str, *, user: str, recursive: bool, limit: int) -> contract.Listing:
        return contract.Listing([one] * min(limit, sizes[0]), truncated=sizes[0] > limit)

    monkeypatch.setattr(running.files, "list", given)
    for size, wanted in ((files.MAX_ENTRIES, 2), (files.MAX_ENTRIES + 1, None), (files.MAX_ENTRIES + 2, None)):
        sizes[:] = [size]
        listing = bench.files.list(bench.entry, "/d", user=None, recursive=False, limit=2, cursor=None)
        if wanted is None:
            with pytest.raises(errors.TooLarge):
                await listing
        else:
            assert len((await listing).entries) == wanted


async def test_remove(bench: benches.Bench) -> None:
    """Removing asks for `recursive` where there is more, forgives a missing path with `force`, and spares the root."""
    await bench.files.write(bench.entry, "/tmp/d/f", files.pieces(b""), user=None)
    with pytest.raises(errors.Conflict):
        await bench.files.remove(bench.entry, "/tmp/d", user=None, recursive=False, force=False)
    await bench.files.remove(bench.entry, "/tmp/d", user=None, recursive=True, force=False)
    assert await bench.files.stat(bench.entry, "/tmp/d", user=None) is None
    with pytest.raises(errors.NotFound):
        await bench.files.remove(bench.entry, "/tmp/d", user=None, recursive=False, force=False)
    await bench.files.remove(bench.entry, "/tmp/d", user=None, recursive=False, force=True)
    with pytest.raises(errors.NotFound):
        await bench.files.remove(bench.entry, "/tmp/d", user="nobody-here", recursive=False, force=True)
    for root in ("/", "//", "/.", "/..", "/tmp/..", "/tmp/../..//"):
        with pytest.raises(errors.InvalidRequest):
            await bench.files.remove(bench.entry, root, user=None, recursive=True, force=True)
    assert (bench.root / "tmp").is_dir()


async def test_mkdir(bench: benches.Bench) -> None:
    """A directory is made once; parents when asked for."""
    with pytest.raises(errors.NotFound):
        await bench.files.mkdir(bench.entry, "/tmp/a/b", user=None, recursive=False)
    assert await bench.files.mkdir(bench.entry, "/tmp/a/b", user=None, recursive=True)
    assert not await bench.files.mkdir(bench.entry, "/tmp/a/b", user=None, recursive=True)


async def test_dead_sandbox(bench: benches.Bench) -> None:
    """A sandbox that has just ended is a conflict, not a defect."""
    await bench.die()
    with pytest.raises(errors.Conflict):
        await bench.files.stat(bench.entry, "/tmp", user=None)

"""Trees of files over HTTP: moved, copied, changed, found, searched, and as archives in both directions."""

import asyncio
import base64
import errno
import gzip
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import tar_streams
from tests.fakes import benches
from tests.integration.worker import test_routes_execs as shared
from traforo.api import schemas
from traforo.domain import errors
from traforo.worker.files import searches, walks

bench = shared.bench
client = shared.client
read = shared.read
problem = shared.problem


@pytest.fixture
def top(bench: benches.Bench) -> Path:
    """Return a directory with a bit of everything: `/tmp/t` of the sandbox."""
    top = bench.root / "tmp" / "t"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "a.txt").write_bytes(b"alpha\nbeta\n")
    (top / "sub" / "b.txt").write_bytes(b"beta gamma\n")
    (top / "sub" / "b.txt").chmod(0o755)
    (top / "sub" / "deep" / "c.bin").write_bytes(b"\0" + os.urandom(300_000))
    (top / "link").symlink_to("sub/b.txt")
    (top / os.fsdecode(b"caf\xe9")).write_bytes(b"beta")
    return top


def tree(top: Path) -> dict[bytes, Any]:
    """Return all that is below a directory."""
    found: dict[bytes, Any] = {}
    for path in sorted(top.rglob("*")):
        name = os.fsencode(path.relative_to(top))
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = ("directory", mode)
        else:
            found[name] = (path.read_bytes() if path.is_file() else None, mode)
    return found


# -------------------------------------------------------------------------------------------- move and copy


async def test_move(client: httpx2.AsyncClient, top: Path) -> None:
    """A file, a link or a tree is moved; what is in the way stays, unless it may be replaced."""
    answer = await client.post("/files/move", json={"from": "/tmp/t/a.txt", "to": "/tmp/t/z.txt"})
    assert read(answer, 200, schemas.FileMoved)["path"] == "/tmp/t/z.txt"
    blocked = await client.post("/files/move", json={"from": "/tmp/t/z.txt", "to": "/tmp/t/link"})
    assert problem(blocked, 409)["code"] == "conflict"
    moved = await client.post("/files/move", json={"from": "/tmp/t/z.txt", "to": "/tmp/t/link", "overwrite": True})
    assert moved.status_code == 200
    assert ((top / "link").read_bytes(), (top / "link").is_symlink()) == (b"alpha\nbeta\n", False)
    assert (await client.post("/files/move", json={"from": "/tmp/t", "to": "/tmp/u"})).status_code == 200
    assert not top.exists()
    name = base64.b64encode(b"/tmp/u/caf\xe9").decode()
    assert (await client.post("/files/move", json={"from_b64": name, "to": "/tmp/x"})).status_code == 200
    assert problem(await client.post("/files/move", json={"from": "/tmp/none", "to": "/tmp/y"}), 404)["kind"] == "file"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["a.txt", "sub"])
async def test_move_onto_a_directory(client: httpx2.AsyncClient, top: Path, name: str, overwrite: bool) -> None:
    """Nothing but an empty directory gives way, and the answer says where in it there is a place."""
    (top / "full" / "of").mkdir(parents=True)
    body = {"from": f"/tmp/t/{name}/", "to": "/tmp/t/full", "overwrite": overwrite}
    found = problem(await client.post("/files/move", json=body), 409)
    assert found["message"] == "cannot use '/tmp/t/full': it is a directory"
    assert found["hint"] == f"name the place in it: '/tmp/t/full/{name}'"
    assert (top / name).exists()


async def test_copy_of_a_file_onto_a_directory(client: httpx2.AsyncClient, top: Path) -> None:
    """It would not be replaced, so the answer does not offer that."""
    found = problem(await client.post("/files/copy", json={"from": "/tmp/t/a.txt", "to": "/tmp/t/sub"}), 409)
    assert found["hint"] == "name the place in it: '/tmp/t/sub/a.txt'"


async def test_move_to_another_file_system(
    bench: benches.Bench, client: httpx2.AsyncClient, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel cannot rename, the copy takes its place when it is whole, and then the old one goes."""
    running = bench.entry.running
    assert running is not None
    real = running.files.rename

    async def rename(path: str, to: str, **options: Any) -> None:
        if path == "/tmp/t":
            raise errors.InvalidRequest("other file system") from OSError(errno.EXDEV, "cross-device")
        await real(path, to, **options)

    monkeypatch.setattr(running.files, "rename", rename)
    before = tree(top)
    os.mkfifo(top / "fifo")
    refused = await client.post("/files/move", json={"from": "/tmp/t", "to": "/tmp/u"})
    assert problem(refused, 400)["field"] == "from"
    assert [path.name for path in top.parent.iterdir()] == ["t"]
    (top / "fifo").unlink()
    assert (await client.post("/files/move", json={"from": "/tmp/t", "to": "/tmp/u"})).status_code == 200
    assert tree(top.parent / "u") == before
    assert [path.name for path in top.parent.iterdir()] == ["u"]


async def test_copy(client: httpx2.AsyncClient, top: Path, bench: benches.Bench) -> None:
    """Everything that can be copied is, with its mode, links as links; the rest is counted."""
    before = benches.descriptors()
    os.mkfifo(top / "fifo")
    answer = await client.post("/files/copy", json={"from": "/tmp/t", "to": "/tmp/n/u", "recursive": True})
    done = read(answer, 200, schemas.FileCopied)
    assert (done["entries"], done["skipped"], done["path"]) == (8, 1, "/tmp/n/u")
    (top / "fifo").unlink()
    assert tree(bench.root / "tmp" / "n" / "u") == tree(top)
    one = await client.post("/files/copy", json={"from": "/tmp/t/link", "to": "/tmp/one"})
    assert read(one, 200, schemas.FileCopied)["bytes"] == len(b"beta gamma\n")
    assert stat.S_IMODE((bench.root / "tmp" / "one").lstat().st_mode) == 0o755
    assert benches.descriptors() <= before
    assert bench.entry.activity.holds == 0


async def test_copy_over(client: httpx2.AsyncClient, top: Path, bench: benches.Bench) -> None:
    """What is there is kept, or replaced file by file when that was asked for."""
    target = bench.root / "tmp" / "u"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "own").write_bytes(b"own")
    (target / "link").write_bytes(b"in the way")
    body = {"from": "/tmp/t", "to": "/tmp/u", "recursive": True}
    assert problem(await client.post("/files/copy", json=body), 409)["code"] == "conflict"
    assert (await client.post("/files/copy", json=body | {"overwrite": True})).status_code == 200
    assert tree(target) == tree(top) | {b"sub/own": (b"own", 0o644)}


@pytest.mark.parametrize("verb", ["move", "copy"])
@pytest.mark.parametrize(
    "body, field",
    [
        ({"from": "/tmp/t", "to": "/tmp/t/sub/x", "recursive": True}, "to"),
        ({"from": "/tmp/t/", "to": "/tmp/./t"}, "to"),
        ({"from": "/", "to": "/tmp/x"}, "from"),
        ({"from": "/tmp/t", "to": "/"}, "to"),
        ({"from": "tmp", "to": "/tmp/x"}, "from"),
        ({"to": "/tmp/x"}, "from"),
        ({"from": "/tmp/t"}, "to"),
        ({"from": "/tmp/t", "to": "/x", "to_b64": "L3g="}, "to"),
    ],
)
async def test_what_cannot_be_moved(
    client: httpx2.AsyncClient, top: Path, verb: str, body: dict[str, Any], field: str
) -> None:
    """Nonsense is refused before anything is done."""
    if verb == "move":
        body = {key: value for key, value in body.items() if key != "recursive"}
    assert problem(await client.post(f"/files/{verb}", json=body), 400)["field"] == field
    assert (top / "a.txt").exists()


async def test_copy_without_recursive(client: httpx2.AsyncClient, top: Path) -> None:
    """A directory is only copied when that was said."""
    answer = await client.post("/files/copy", json={"from": "/tmp/t", "to": "/tmp/u"})
    assert problem(answer, 400)["field"] == "recursive"


async def test_a_file_that_grows_while_it_is_copied(
    bench: benches.Bench, client: httpx2.AsyncClient, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is as long as the file was at the beginning, and ends."""
    from traforo.worker.files import descriptors

    real = descriptors.copy

    def growing(source: int, to: int, limit: int) -> int:
        with (top / "a.txt").open("ab") as file:
            file.write(b"more" * 100)
        return real(source, to, min(limit, 2))

    monkeypatch.setattr(descriptors, "copy", growing)
    answer = await client.post("/files/copy", json={"from": "/tmp/t/a.txt", "to": "/tmp/u"})
    assert read(answer, 200, schemas.FileCopied)["bytes"] == 11
    assert (bench.root / "tmp" / "u").read_bytes() == b"alpha\nbeta\n"


# ---------------------------------------------------------------------------------------------------- change


async def test_change(client: httpx2.AsyncClient, top: Path) -> None:
    """Mode and time are set, in one file or in all of a tree."""
    answer = await client.patch(
        "/files", json={"path": "/tmp/t/a.txt", "mode": "0600", "modified_at": "2001-09-09T01:46:40Z"}
    )
    assert read(answer, 200, schemas.FileChanged)["changed"] == 1
    assert (stat.S_IMODE((top / "a.txt").stat().st_mode), (top / "a.txt").stat().st_mtime) == (0o600, 1e9)
    many = await client.patch("/files", json={"path": "/tmp/t", "mode": 0o750, "recursive": True})
    assert read(many, 200, schemas.FileChanged)["changed"] == 8
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [top, *top.rglob("*")]}
    assert modes == {0o750}


async def test_owners(client: httpx2.AsyncClient, bench: benches.Bench, top: Path) -> None:
    """Users and groups go by the names that the sandbox itself gives them, or by number."""
    if os.geteuid():
        pytest.skip("only root gives files away")
    (bench.root / "etc").mkdir(exist_ok=True)
    (bench.root / "etc" / "passwd").write_text("root:x:0:0::/:\nann:x:1234:5::/:\n")
    (bench.root / "etc" / "group").write_text("root:x:0:\nteam:x:2345:\n")
    body = {"path": "/tmp/t", "owner": "ann", "group": "team", "recursive": True}
    assert (await client.patch("/files", json=body)).status_code == 200
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in [top, *top.rglob("*")]} == {(1234, 2345)}
    assert (await client.patch("/files", json={"path": "/tmp/t", "owner": 7, "group": "8"})).status_code == 200
    assert (top.stat().st_uid, top.stat().st_gid) == (7, 8)
    missing = await client.patch("/files", json={"path": "/tmp/t", "owner": "nobody-here"})
    assert problem(missing, 404)["kind"] == "user"


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, None),
        ({"mode": "0999"}, "mode"),
        ({"mode": 0o10000}, "mode"),
        ({"owner": -1}, "owner"),
        ({"modified_at": "yesterday"}, "modified_at"),
        ({"modified_at": "2001-09-09T01:46:40"}, "modified_at"),
    ],
)
async def test_bad_changes(client: httpx2.AsyncClient, top: Path, body: dict[str, Any], field: str | None) -> None:
    """What cannot be set is refused in words of the API."""
    assert problem(await client.patch("/files", json={"path": "/tmp/t", **body}), 400).get("field") == field


# ------------------------------------------------------------------------------------------- find and search


async def test_find(client: httpx2.AsyncClient, top: Path) -> None:
    """Names are matched wherever they are, page by page, also those that are not text."""

    async def found(**query: Any) -> list[str]:
        answer = await client.get("/files/find", params={"path": "/tmp/t", **query})
        return [entry["path"] for entry in read(answer, 200, schemas.FileListing)["entries"]]

    assert await found(pattern="*.txt") == ["/tmp/t/a.txt", "/tmp/t/sub/b.txt"]
    assert await found(pattern="sub/*.txt") == ["/tmp/t/sub/b.txt"]
    assert await found(pattern="caf?") == ["/tmp/t/caf%E9"]
    assert await found(type="directory") == ["/tmp/t/sub", "/tmp/t/sub/deep"]
    assert await found(type="symlink", pattern="l*") == ["/tmp/t/link"]
    everything: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(20):
        page = (await client.get("/files/find", params={"path": "/tmp/t", "limit": 2, **cursor})).json()
        everything += [entry["path"] for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert everything == await found()
    assert len(everything) == 7
    for bad in ("?", "eA=="):
        answer = await client.get("/files/find", params={"path": "/tmp/t", "cursor": bad})
        assert problem(answer, 400)["field"] == "cursor"


async def test_search(client: httpx2.AsyncClient, top: Path, bench: benches.Bench) -> None:
    """Lines with a text are told with their places; what is not text is passed over, and so is what is no file."""
    before = benches.descriptors()
    os.mkfifo(top / "fifo")
    (top / "sub" / "deep" / "c.bin").write_bytes(b"\0beta\n")

    async def found(**query: Any) -> tuple[list[tuple[str, int, int]], bool]:
        answer = await client.get("/files/search", params={"path": "/tmp/t", **query})
        page = read(answer, 200, schemas.FileMatches)
        return [(m["path"], m["line"], m["column"]) for m in page["matches"]], page["truncated"]

    expected = [("/tmp/t/a.txt", 2, 1), ("/tmp/t/caf%E9", 1, 1), ("/tmp/t/sub/b.txt", 1, 1)]
    assert await found(text="beta") == (expected, False)
    assert await found(text="BETA", ignore_case="true") == (expected, False)
    assert await found(text="BETA") == ([], False)
    assert await found(text="beta", pattern="*.txt", limit=1) == (expected[:1], True)
    assert await found(text="beta", path="/tmp/t/a.txt") == (expected[:1], False)
    assert benches.descriptors() <= before


async def test_search_is_bounded(
    client: httpx2.AsyncClient, top: Path, bench: benches.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search ends after some bytes and after some time, and says so."""
    monkeypatch.setattr(searches, "MAX_BYTES", 5)
    page = (await client.get("/files/search", params={"path": "/tmp/t", "text": "zzz"})).json()
    assert (page["matches"], page["truncated"]) == ([], True)
    monkeypatch.undo()
    monkeypatch.setattr(searches, "MAX_SECONDS", 0.01)
    running = bench.entry.running
    assert running is not None

    async def never(*_: object, **__: object) -> int:
        await asyncio.Event().wait()
        return -1

    monkeypatch.setattr(running.files, "open", never)
    page = (await client.get("/files/search", params={"path": "/tmp/t", "text": "zzz"})).json()
    assert page["truncated"] is True


@pytest.mark.parametrize(
    "url", ["/files/find?pattern=*&path=/tmp", "/files/search?text=x&path=/tmp", "/files/tar?path=/tmp"]
)
async def test_walks_are_limited(
    client: httpx2.AsyncClient, bench: benches.Bench, top: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A tree that is too large is refused, and so is one walk too many at a time."""
    with monkeypatch.context() as patch:
        patch.setattr(walks, "MAX_ENTRIES", 3)
        assert problem(await client.get(url), 413)["limit"] == 3
    with bench.files.turns.turn(bench.entry), monkeypatch.context() as patch:
        patch.setattr(walks, "PER_SANDBOX", 1)
        assert problem(await client.get(url), 429)["code"] == "rate_limited"
    assert (await client.get(url)).status_code == 200
    assert bench.entry.activity.holds == 0


async def test_single_files_need_no_turn(
    client: httpx2.AsyncClient, bench: benches.Bench, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who walks a tree waits for others who do."""
    monkeypatch.setattr(walks, "PER_SANDBOX", 0)
    for verb, body in (
        ("copy", {"from": "/tmp/t/a.txt", "to": "/tmp/b"}),
        ("move", {"from": "/tmp/b", "to": "/tmp/c"}),
    ):
        assert (await client.post(f"/files/{verb}", json=body)).status_code == 200
    assert (await client.patch("/files", json={"path": "/tmp/c", "mode": "0600", "recursive": True})).status_code == 200
    for request in (
        client.post("/files/copy", json={"from": "/tmp/t", "to": "/tmp/d", "recursive": True}),
        client.patch("/files", json={"path": "/tmp/t", "mode": "0700", "recursive": True}),
    ):
        assert problem(await request, 429)["code"] == "rate_limited"


# ---------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_there_and_back(client: httpx2.AsyncClient, bench: benches.Bench, top: Path, compression: str) -> None:
    """A tree that is packed and extracted again is the same: names, content, modes, links, times."""
    before = benches.descriptors()
    os.link(top / "a.txt", top / "z.txt")
    os.utime(top / "sub" / "b.txt", (5, 123456789.25))
    (top / "sub").chmod(0o700)
    os.mkfifo(top / "fifo")
    archive = await client.get("/files/tar", params={"path": "/tmp/t", "compression": compression})
    assert (archive.status_code, "content-length" in archive.headers) == (200, False)
    (top / "fifo").unlink()
    with tarfile.open(fileobj=io.BytesIO(archive.content), errors="surrogateescape") as opened:
        assert [os.fsencode(name) for name in opened.getnames()] == sorted(tree(top))
        assert opened.getmember("z.txt").type == tarfile.LNKTYPE
    answer = await client.put("/files/tar?path=/tmp/new/u", content=archive.content)
    done = read(answer, 200, schemas.TarExtracted)
    assert done["entries"] == len(tree(top))
    again = bench.root / "tmp" / "new" / "u"
    assert tree(again) == tree(top)
    assert (again / "sub" / "b.txt").stat().st_mtime == 123456789.25
    assert (again / "a.txt").stat().st_ino == (again / "z.txt").stat().st_ino
    assert benches.descriptors() <= before
    assert bench.entry.activity.holds == 0


async def test_one_file(client: httpx2.AsyncClient, top: Path) -> None:
    """A file is an archive of one."""
    archive = await client.get("/files/tar?path=/tmp/t/sub/b.txt")
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as opened:
        assert opened.getnames() == ["b.txt"]
    assert problem(await client.get("/files/tar?path=/tmp/none"), 404)["kind"] == "file"


async def test_extracting_over(client: httpx2.AsyncClient, bench: benches.Bench, top: Path) -> None:
    """Files are replaced, and never written through: a link that is in the way is replaced itself."""
    outside = bench.root / "tmp" / "outside"
    outside.write_bytes(b"untouched")
    (top / "a.txt").unlink()
    (top / "a.txt").symlink_to("../outside")
    data = tar_streams.file(b"a.txt", b"new") + tar_streams.file(b"sub/b.txt", b"new") + tar_streams.END
    assert (await client.put("/files/tar?path=/tmp/t", content=data)).status_code == 200
    assert (outside.read_bytes(), (top / "a.txt").read_bytes()) == (b"untouched", b"new")
    assert (top / "sub" / "b.txt").read_bytes() == b"new"


END = tar_streams.END
LINK = tar_streams.header(b"l", b"2", link=b"sub")


@pytest.mark.parametrize(
    "data",
    [
        tar_streams.file(b"../evil", b"x"),
        tar_streams.file(b"/tmp/evil", b"x"),
        tar_streams.file(b"sub/../../evil", b"x"),
        tar_streams.header(b"l", b"2", link=b"/tmp"),
        tar_streams.header(b"l", b"2", link=b".."),
        tar_streams.header(b"s", b"2", link=b".") + tar_streams.header(b"l", b"2", link=b"s/.."),
        tar_streams.header(b"h", b"1", link=b"../evil"),
        tar_streams.header(b"h", b"1", link=b"out"),
        LINK + tar_streams.file(b"l/evil", b"x"),
        tar_streams.file(b"out/evil", b"x"),
        tar_streams.header(b"out/evil", b"5"),
        tar_streams.file(b"sub/b.txt/evil", b"x"),
        tar_streams.header(b"d", b"5") + tar_streams.file(b"d", b"x"),
        tar_streams.header(b"c", b"3"),
        tar_streams.header(b"p", b"6"),
        tar_streams.file(b".", b"x"),
        tar_streams.file(b"f", b"x" * 600)[:700],
        b"no archive",
    ],
)
async def test_hostile_archives(client: httpx2.AsyncClient, bench: benches.Bench, top: Path, data: bytes) -> None:
    """Nothing is made outside of the directory, whatever names and links say; devices are never made."""
    before = benches.descriptors()
    outside = bench.root / "tmp" / "outside"
    outside.mkdir()
    (top / "out").symlink_to("../outside")
    for body in (data + END, gzip.compress(data + END)):
        assert problem(await client.put("/files/tar?path=/tmp/t", content=body), 400)["code"] == "invalid_request"
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in (bench.root / "tmp").iterdir()) == ["outside", "t"]
    assert not list(top.rglob("evil"))
    assert benches.descriptors() <= before


async def test_bombs(
    client: httpx2.AsyncClient, bench: benches.Bench, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content is limited by the sandbox's disk, however small it came, and entries by their number."""
    size = 40 * 1024 * 1024
    bomb = tar_streams.header(b"f", size=size) + bytes(size) + END
    assert (
        problem(await client.put("/files/tar?path=/tmp/t", content=gzip.compress(bomb, 1)), 507)["code"] == "disk_full"
    )
    again = b"".join(tar_streams.file(b"f", bytes(2**20)) for _ in range(40))
    assert problem(await client.put("/files/tar?path=/tmp/t", content=again + END), 507)["code"] == "disk_full"
    monkeypatch.setattr(walks, "MAX_ENTRIES", 10)
    many = b"".join(tar_streams.file(b"f%d" % number) for number in range(11))
    assert problem(await client.put("/files/tar?path=/tmp/t", content=many + END), 413)["limit"] == 10
    deep = tar_streams.file(b"a/b/c/d/e/f/g/h/i/j/k/l/m", b"x")
    assert problem(await client.put("/files/tar?path=/tmp/t", content=deep + END), 413)["limit"] == 10


async def test_an_upload_in_small_pieces(client: httpx2.AsyncClient, top: Path) -> None:
    """An archive is extracted however it is cut."""
    data = gzip.compress(tar_streams.file(b"x", b"abc" * 1000) + tar_streams.header(b"e", b"5") + END)

    async def bytewise() -> AsyncIterator[bytes]:
        for at in range(len(data)):
            yield data[at : at + 1]

    answer = await client.put("/files/tar?path=/tmp/t", content=bytewise())
    assert read(answer, 200, schemas.TarExtracted)["entries"] == 2
    assert (top / "x").read_bytes() == b"abc" * 1000


async def test_a_tree_that_changes(
    bench: benches.Bench, client: httpx2.AsyncClient, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has gone, or is no file any more, is left out of an archive; what became a FIFO blocks nobody."""
    running = bench.entry.running
    assert running is not None
    real = running.files.list

    async def listing(*arguments: Any, **options: Any) -> Any:
        found = await real(*arguments, **options)
        (top / "a.txt").unlink()
        os.mkfifo(top / "a.txt")
        (top / "sub" / "b.txt").unlink()
        return found

    monkeypatch.setattr(running.files, "list", listing)
    archive = await client.get("/files/tar?path=/tmp/t")
    with tarfile.open(fileobj=io.BytesIO(archive.content), errors="surrogateescape") as opened:
        names = opened.getnames()
    assert [name for name in names if name.endswith(".txt")] == []
    assert "sub/deep/c.bin" in names


async def test_what_may_not_be_read(
    bench: benches.Bench, client: httpx2.AsyncClient, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the user may not read breaks an archive off, or is left out if that was asked for."""
    running = bench.entry.running
    assert running is not None
    real = running.files.open

    async def guarded(path: str, *arguments: Any, **options: Any) -> int:
        if path.endswith("a.txt"):
            raise errors.Forbidden("not yours")
        return await real(path, *arguments, **options)

    monkeypatch.setattr(running.files, "open", guarded)
    assert problem(await client.get("/files/tar?path=/tmp/t"), 403)["code"] == "forbidden"
    archive = await client.get("/files/tar?path=/tmp/t&skip_unreadable=true")
    with tarfile.open(fileobj=io.BytesIO(archive.content), errors="surrogateescape") as opened:
        assert "a.txt" not in opened.getnames()
    page = (await client.get("/files/search", params={"path": "/tmp/t", "text": "beta"})).json()
    assert len(page["matches"]) == 2

"""Routes of files over HTTP: raw and JSON, names that are not text, and what cannot be done."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.fakes import benches
from tests.integration.worker import test_routes_execs as shared
from traforo.api import bodies, downloads, schemas
from traforo.domain import errors
from traforo.worker.files import files
from traforo.worker.routes import paths as routes_paths

RAW = {"content-type": "application/octet-stream"}
bench = shared.bench
client = shared.client
read = shared.read
problem = shared.problem


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_001])
async def test_raw(client: httpx2.AsyncClient, bench: benches.Bench, size: int) -> None:
    """Raw bytes of any number go in and come out, and nothing stays open."""
    data = os.urandom(size)
    before = benches.descriptors()
    written = read(await client.put("/files?path=/tmp/a/b", content=data, headers=RAW), 200, schemas.FileWritten)
    assert (written["path"], written["bytes_written"], written["bytes"]) == ("/tmp/a/b", size, size)
    got = await client.get("/files?path=/tmp/a/b")
    assert (got.status_code, got.headers["content-length"], got.headers["content-type"]) == (
        200,
        str(size),
        "application/octet-stream",
    )
    assert got.content == data
    assert (bench.root / "tmp" / "a" / "b").read_bytes() == data
    assert benches.descriptors() <= before


async def test_chunked(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A body without a length is written as it comes."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    written = read(await client.put("/files?path=/tmp/f", content=pieces()), 200, schemas.FileWritten)
    assert written["bytes"] == 1_000_000


async def test_json(client: httpx2.AsyncClient) -> None:
    """Small content goes as text or base64, both ways, and can be appended."""
    await client.put("/files?path=/tmp/f", json={"content": "caf\u00e9\n", "encoding": "utf8"})
    answer = await client.put("/files?path=/tmp/f", json={"content": "/w==", "append": True})
    written = read(answer, 200, schemas.FileWritten)
    assert answer.headers["etag"] == written["etag"]
    assert written | {"sandbox_id": "", "etag": ""} == {
        "etag": "",
        "sandbox_id": "",
        "path": "/tmp/f",
        "bytes_written": 1,
        "bytes": 7,
    }
    text = read(await client.get("/files?path=/tmp/f&encoding=utf8"), 200, schemas.FileContent)
    assert (text["content"], text["bytes"]) == ("caf\u00e9\n\ufffd", 7)
    exact = read(await client.get("/files?path=/tmp/f&encoding=base64"), 200, schemas.FileContent)
    assert base64.b64decode(exact["content"]) == "caf\u00e9\n".encode() + b"\xff"


async def test_json_limits(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON content has a limit in both directions; broken content is told."""
    monkeypatch.setattr(files, "MAX_CONTENT_BYTES", 100)
    body = {"content": "x" * 101, "encoding": "utf8"}
    assert problem(await client.put("/files?path=/tmp/f", json=body), 413)["limit"] == 100
    assert problem(await client.put("/files?path=/tmp/f", json={"content": "?"}), 400)["field"] == "content"
    await client.put("/files?path=/tmp/f", content=b"x" * 101)
    assert problem(await client.get("/files?path=/tmp/f&encoding=utf8"), 413)["limit"] == 100


async def test_stat_names_the_version_that_is_read(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """So what was looked at can be asked for, or replaced, if it is still that; only files have versions."""
    seen = set()
    for content in (b"one", b"two"):
        (bench.root / "tmp" / "f").write_bytes(content)
        told = read(await client.get("/files/stat?path=/tmp/f"), 200, schemas.FileStat)["etag"]
        assert told == (await client.get("/files?path=/tmp/f")).headers["etag"]
        assert (await client.get("/files?path=/tmp/f", headers={"if-match": told})).status_code == 200
        seen.add(told)
    assert len(seen) == 2
    (bench.root / "tmp" / "l").symlink_to("f")
    for path in ("/tmp", "/tmp/l"):
        assert read(await client.get(f"/files/stat?path={path}"), 200, schemas.FileStat)["etag"] is None


async def test_stat(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Facts are told of the thing itself; nothing there is an answer too."""
    (bench.root / "tmp" / "f").write_bytes(b"123")
    (bench.root / "tmp" / "f").chmod(0o640)
    (bench.root / "tmp" / "l").symlink_to("f")
    file = read(await client.get("/files/stat?path=/tmp/f"), 200, schemas.FileStat)
    assert (file["exists"], file["type"], file["size"], file["mode"]) == (True, "file", 3, 0o640)
    link = read(await client.get("/files/stat?path=/tmp/l"), 200, schemas.FileStat)
    assert (link["type"], link["target"]) == ("symlink", "f")
    assert read(await client.get("/files/stat?path=/tmp"), 200, schemas.FileStat)["type"] == "directory"
    missing = read(await client.get("/files/stat?path=/tmp/none"), 200, schemas.FileStat)
    assert missing == {"sandbox_id": bench.entry.text_id, "path": "/tmp/none", "exists": False}
    assert read(await client.get("/files/stat?path=/tmp/f/below"), 200, schemas.FileStat)["exists"] is False


async def test_a_file_is_no_directory(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """One cannot be made where something else is."""
    (bench.root / "tmp" / "f").write_bytes(b"123")
    for recursive in (False, True):
        answer = await client.post("/files/mkdir", json={"path": "/tmp/f", "recursive": recursive})
        assert problem(answer, 400)["code"] == "invalid_request"


async def test_moments_of_any_year(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A file may claim any time; it is told as near as it can be written."""
    for name, moment in (("past", -(2**40)), ("future", 2**40)):
        (bench.root / "tmp" / name).write_bytes(b"")
        os.utime(bench.root / "tmp" / name, (moment, moment))
    listing = read(await client.get("/files/list?path=/tmp"), 200, schemas.FileListing)
    years = {entry["name"]: entry["modified_at"][:4] for entry in listing["entries"]}
    assert years["future"] > "2300"
    assert years["past"] < "1970"
    assert routes_paths.moment(1e300) == "9999-12-31T23:59:59.000Z"
    assert routes_paths.moment(-1e300) == "0001-01-01T00:00:00.000Z"


async def test_list(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A directory is listed by path, page by page."""
    for name in ("b", "a", "c"):
        (bench.root / "tmp" / name).mkdir()
        (bench.root / "tmp" / name / "x").write_bytes(b"")
    first = read(await client.get("/files/list?path=/tmp&recursive=true&limit=4"), 200, schemas.FileListing)
    rest = await client.get(f"/files/list?path=/tmp&recursive=true&limit=4&cursor={first['next_cursor']}")
    entries = first["entries"] + read(rest, 200, schemas.FileListing)["entries"]
    assert [entry["path"] for entry in entries] == ["/tmp/a", "/tmp/a/x", "/tmp/b", "/tmp/b/x", "/tmp/c", "/tmp/c/x"]
    assert [entry["name"] for entry in entries[:2]] == ["a", "x"]
    assert problem(await client.get("/files/list?path=/none"), 404)["kind"] == "file"


async def test_names_that_are_not_text(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A name of any bytes can be written, listed, read and removed, by base64."""
    name = b"/tmp/d/caf\xe9 %"
    exact = base64.b64encode(name).decode()
    written = read(await client.put(f"/files?path_b64={quote(exact)}", content=b"hi"), 200, schemas.FileWritten)
    assert (written["path"], written["path_b64"]) == ("/tmp/d/caf%E9 %", exact)
    assert [path.name for path in (bench.root / "tmp" / "d").iterdir()] == [os.fsdecode(b"caf\xe9 %")]
    (entry,) = read(await client.get("/files/list?path=/tmp/d"), 200, schemas.FileListing)["entries"]
    assert (entry["path"], entry["path_b64"], entry["name"], entry["name_b64"]) == (
        "/tmp/d/caf%E9 %",
        exact,
        "caf%E9 %",
        base64.b64encode(b"caf\xe9 %").decode(),
    )
    assert (await client.get(f"/files?path_b64={quote(exact)}")).content == b"hi"
    assert (await client.delete(f"/files?path_b64={quote(exact)}")).status_code == 204
    assert problem(await client.get("/files?path=/tmp/d/caf%E9"), 400)["field"] == "path"


async def test_directories(client: httpx2.AsyncClient) -> None:
    """Directories are made with their parents when asked, and removed with their content when asked."""
    assert problem(await client.post("/files/mkdir", json={"path": "/tmp/a/b"}), 404)["kind"] == "file"
    for created in (True, False):
        answer = await client.post("/files/mkdir", json={"path": "/tmp/a/b", "recursive": True})
        assert read(answer, 200, schemas.DirectoryMade)["created"] is created
    assert problem(await client.delete("/files?path=/tmp/a"), 409)["code"] == "conflict"
    assert (await client.delete("/files?path=/tmp/a&recursive=true")).status_code == 204
    assert problem(await client.delete("/files?path=/tmp/a"), 404)["kind"] == "file"
    assert (await client.delete("/files?path=/tmp/a&force=true")).status_code == 204


@pytest.mark.parametrize(
    "method, url, status, field",
    [
        ("GET", "/files", 400, "path"),
        ("GET", "/files?path=tmp", 400, "path"),
        ("GET", "/files?path=/a%00b", 400, "path"),
        ("GET", "/files?path=/" + "x" * 4095, 413, "path"),
        ("GET", "/files?path=/a&path_b64=L2E=", 400, "path"),
        ("GET", "/files?path_b64=?", 400, "path_b64"),
        ("GET", "/files?path_b64=dG1w", 400, "path"),
        ("GET", "/files?path=/tmp", 400, "path"),
        ("PUT", "/files?path=/tmp", 400, "path"),
        ("GET", "/files?path=/none", 404, None),
        ("GET", "/files?path=/tmp&user=nobody-here", 404, None),
        ("DELETE", "/files?path=/", 400, "path"),
        ("DELETE", "/files?path=/tmp/..&recursive=true", 400, "path"),
        ("GET", "/files/list?path=/tmp&cursor=x", 400, "cursor"),
        ("GET", "/files/list?path=/tmp&limit=1001", 400, "limit"),
    ],
)
async def test_bad_requests(client: httpx2.AsyncClient, method: str, url: str, status: int, field: str | None) -> None:
    """What cannot be done is refused in words of the API."""
    body: dict[str, Any] = {"content": b"x"} if method == "PUT" else {}
    assert problem(await client.request(method, url, **body), status).get("field") == field


async def test_file_that_shrinks_while_it_is_sent(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Nobody takes a part of a file for the whole: the answer breaks off, and nothing stays open."""
    before = benches.descriptors()
    path = bench.root / "tmp" / "f"
    path.write_bytes(b"x" * 1_000_000)
    opened = await bench.files.open(bench.entry, "/tmp/f", user=None)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        os.truncate(path, 300_000)

    async def receive() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(errors.InvalidRequest):
        await downloads.Download(opened, opened.size)({"method": "GET"}, receive, send)
    assert dict(sent[0]["headers"])[b"content-length"] == b"1000000"
    assert sum(len(message.get("body", b"")) for message in sent) < 1_000_000
    assert benches.descriptors() <= before


async def test_reader_who_goes_away(bench: benches.Bench) -> None:
    """A large file is not read to its end for somebody who is not there any more."""
    path = bench.root / "tmp" / "f"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    opened = await bench.files.open(bench.entry, "/tmp/f", user=None)
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(bodies.Disconnected):
        await downloads.Download(opened, opened.size)({"method": "GET"}, receive, send)
    assert sent < 1 << 24

"""Files sent by the kernel, over real sockets: exact, in parts, and never longer than anybody reads."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes import benches
from tests.integration.worker import test_processes as workers
from traforo.api import downloads, sendfiles

DATA = os.urandom(5_000_001)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[workers.Bench]:
    found = workers.Bench(tmp_path)
    yield found
    await found.spawner.close()


async def place(worker: workers.Bench, client: httpx2.AsyncClient) -> tuple[str, Path]:
    """Return the URL of a large file and where it is."""
    sandbox_id = (await workers.create(client))["sandbox_id"]
    path = worker.spawner.sandboxes[sandbox_id].root() / "tmp" / "f"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA)
    return f"/sandboxes/{sandbox_id}/files?path=/tmp/f", path


async def test_exact(worker: workers.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte arrives, of the whole and of a part, one answer after the other on one connection."""
    sent: list[int] = []
    real = os.sendfile

    def counting(to: int, fd: int, offset: int, count: int) -> int:
        sent.append(real(to, fd, offset, count))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", counting)
    async with worker.running() as client:
        url, _ = await place(worker, client)
        before = benches.descriptors()
        for _ in range(3):
            assert (await client.get(url)).content == DATA
            part = await client.get(url, headers={"range": "bytes=1000-4000000"})
            assert part.content == DATA[1000:4000001]
            assert (await client.get(url, headers={"range": "bytes=-10"})).content == DATA[-10:]
        assert sum(sent) == 3 * (len(DATA) + 3_999_001)
        assert benches.descriptors() <= before


async def test_where_the_kernel_cannot(worker: workers.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that it does not send go the usual way."""

    def refusing(*_: object) -> int:
        raise OSError(22, "invalid")

    monkeypatch.setattr(os, "sendfile", refusing)
    async with worker.running() as client:
        url, _ = await place(worker, client)
        assert (await client.get(url)).content == DATA


async def test_a_file_that_shrinks(worker: workers.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks off, so that nobody takes a part for the whole."""
    real = os.sendfile

    def shrinking(to: int, fd: int, offset: int, count: int) -> int:
        done = real(to, fd, offset, min(count, 100_000))
        os.truncate(path, 100_000)
        return done

    async with worker.running() as client:
        url, path = await place(worker, client)
        monkeypatch.setattr(os, "sendfile", shrinking)
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(url)
        monkeypatch.undo()
        path.write_bytes(DATA)
        assert (await client.get(url)).content == DATA


@pytest.mark.parametrize("goes", [True, False])
async def test_a_client_that_does_not_read(worker: workers.Bench, monkeypatch: pytest.MonkeyPatch, goes: bool) -> None:
    """Who goes away, or reads nothing for too long, holds neither a file nor a thread nor the sandbox."""
    monkeypatch.setattr(sendfiles, "_LOOK_SECONDS", 0.01)
    async with worker.running() as client:
        url, path = await place(worker, client)
        with path.open("r+b") as file:
            file.truncate(1 << 30)
        before = benches.descriptors()
        if not goes:
            monkeypatch.setattr(downloads, "STALL_SECONDS", 0.05)
        address = client.base_url
        with socket.create_connection((address.host, address.port or 80)) as connection:
            connection.setblocking(False)
            head = f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            await asyncio.get_running_loop().sock_sendall(connection, head)
            assert (await asyncio.get_running_loop().sock_recv(connection, 100)).startswith(b"HTTP/1.1 200")
            if not goes:
                await benches.until(lambda: benches.descriptors() <= before + 1)
        await benches.until(lambda: benches.descriptors() <= before)

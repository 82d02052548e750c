"""Clients that go away in the middle of a request: nothing of theirs is left open, and what was begun is finished."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from tests.faults import censuses, clients, planes

SMALL = {"memory_mib": 64}
TIMES = 20
MIB = 1 << 20


@pytest.fixture
async def client(fleet: planes.Fleet) -> AsyncIterator[clients.Client]:
    async with clients.client(fleet.worker.url) as opened:
        yield opened


@contextlib.asynccontextmanager
async def nothing_left(fleet: planes.Fleet, client: clients.Client) -> AsyncIterator[str]:
    """Give out a sandbox for a block, after which the worker holds what it held before, and the sandbox still works."""
    sandbox_id = (await client.create(**SMALL, disk_mib=48))["sandbox_id"]
    await client.run(sandbox_id, ["true"])
    before = censuses.take(fleet)
    yield sandbox_id

    async def no_more() -> bool:
        left = censuses.left(before, await asyncio.to_thread(censuses.take, fleet))
        return set(left) <= {"files"}  # logs stay; of descriptors there may be fewer, as of connections that were idle

    try:
        await clients.until(no_more, "descriptors and processes as before")
    except clients.Unexpected:
        pytest.fail(str(censuses.left(before, censuses.take(fleet))))
    assert (await client.run(sandbox_id, "echo still"))["output"] == "still\n"
    await client.delete(sandbox_id)


def leave(fleet: planes.Fleet, request: bytes, chance: random.Random, *, read: int = 0) -> None:
    """Send a request, or the beginning of one, read so much of the answer, and go, in one of the two ways."""
    host, port = fleet.worker.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        while read > 0:
            read -= len(connection.recv(min(read, 65536)))
        if chance.random() < 0.5:  # a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def request(method: str, path: str, body: bytes, *, length: int | None = None, headers: str = "") -> bytes:
    """Return a request; its `length` may promise more than there is."""
    size = len(body) if length is None else length
    kind = "application/octet-stream" if method == "PUT" else "application/json"
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n{headers}\r\n"
    return head.encode() + body


async def test_amid_a_create(fleet: planes.Fleet, client: clients.Client, seed: int) -> None:
    """The sandbox is made or it is not, and whoever sends the same request again gets that one."""
    chance = random.Random(seed)
    before = await client.live()
    body = json.dumps(SMALL).encode()
    keys = [f"gone-{seed}-{number}" for number in range(TIMES)]
    async with nothing_left(fleet, client):
        for key in keys:
            whole = request("POST", "/sandboxes", body, headers=f"idempotency-key: {key}\r\n")
            sent = whole if chance.random() < 0.7 else whole[: chance.randrange(1, len(whole))]
            await asyncio.to_thread(leave, fleet, sent, chance)
        made = set()
        for key in keys:
            answer = await client.call("POST", "/sandboxes", 201, json=SMALL, headers={"idempotency-key": key})
            made.add(answer.json()["sandbox_id"])
        assert len(made) == TIMES
        assert len(await client.live() - before - made) == 1  # the one of this block
        for sandbox_id in made:
            await client.delete(sandbox_id)


async def test_amid_an_upload(fleet: planes.Fleet, client: clients.Client, seed: int) -> None:
    """What came is in the file or nothing is, and the next upload replaces it."""
    chance = random.Random(seed)
    async with nothing_left(fleet, client) as sandbox_id:
        path, data = "/tmp/upload", chance.randbytes(2 * MIB)
        for number in range(TIMES):
            cut = chance.choice([0, 1, chance.randrange(len(data)), len(data) - 1])
            sent = request("PUT", f"/sandboxes/{sandbox_id}/files?path={path}-{number}", data[:cut], length=len(data))
            await asyncio.to_thread(leave, fleet, sent, chance)
        for number in range(TIMES):
            query = {"path": f"{path}-{number}"}
            stat = await client.call("GET", f"/sandboxes/{sandbox_id}/files/stat", 200, params=query)
            if stat.json()["exists"]:
                found = await client.read(sandbox_id, query["path"])
                assert found == data[: len(found)]
        await client.write(sandbox_id, f"{path}-0", data)
        assert await client.read(sandbox_id, f"{path}-0") == data


async def test_amid_a_download(fleet: planes.Fleet, client: clients.Client, seed: int) -> None:
    """The file is closed however little of it was read."""
    chance = random.Random(seed)
    async with nothing_left(fleet, client) as sandbox_id:
        await client.write(sandbox_id, "/tmp/large", bytes(24 * MIB))
        whole = request("GET", f"/sandboxes/{sandbox_id}/files?path=/tmp/large", b"")
        for _ in range(TIMES):
            await asyncio.to_thread(leave, fleet, whole, chance, read=chance.choice([0, 1, chance.randrange(20 * MIB)]))


async def test_amid_a_wait(fleet: planes.Fleet, client: clients.Client, seed: int) -> None:
    """A command goes on to its end when the one who waits for it is gone, and so do those who read its frames."""
    chance = random.Random(seed)
    async with nothing_left(fleet, client) as sandbox_id:
        for number in range(TIMES):
            body = json.dumps({"command": f"sleep 0.3; echo {number}; exit {number}", "wait": True}).encode()
            await asyncio.to_thread(leave, fleet, request("POST", f"/sandboxes/{sandbox_id}/exec", body), chance)

        async def ends() -> set[tuple[str, int]]:
            page = (await client.call("GET", f"/sandboxes/{sandbox_id}/exec", 200)).json()["execs"]
            return {(one["end"], one["exit_code"]) for one in page if one["end"]}

        async def all_ended() -> bool:
            return {("exited", number) for number in range(TIMES)} <= await ends()

        await clients.until(all_ended, "the end of every command")
        exec_id = await client.start(sandbox_id, "sleep 1; echo said")
        for _ in range(TIMES):
            path = f"/sandboxes/{sandbox_id}/exec/{exec_id}/frames?wait=30"
            await asyncio.to_thread(leave, fleet, request("GET", path, b""), chance)
        assert (await client.output(sandbox_id, exec_id)).stdout == b"said\n"

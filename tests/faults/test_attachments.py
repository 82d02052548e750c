"""Clients attached to execs of a real worker that is killed under them."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from typing import Any
from urllib.parse import urlsplit

from tests.fakes import peers
from tests.faults import clients, planes, storms
from traforo.worker.execs.packets import Down, Up


class Follower:
    """Follows an exec over WebSockets, from connection to connection."""

    def __init__(self, url: str, sandbox_id: str, exec_id: str) -> None:
        self.port = urlsplit(url).port or 0
        self.path = f"/sandboxes/{sandbox_id}/exec/{exec_id}/ws"
        self.cursor = 0
        self.stdout = bytearray()
        self.exit: Any = None

    async def follow(self, until: bytes = b"", say: bytes = b"") -> None:
        """Attach, say something, and take what comes until the end, some bytes, or the loss of the worker."""
        async with peers.connected(self.port) as peer:
            status, body = await peer.shake(f"{self.path}?cursor={self.cursor}")
            assert status == 101, body
            if say:
                await peer.send(peers.frame(peers.BINARY, bytes([Up.STDIN]) + say))
            while not until or until not in self.stdout:
                found = await peer.receive()
                if found.opcode == peers.CLOSE:
                    return
                if found.opcode == peers.BINARY:
                    self.take(found.payload)

    def take(self, payload: bytes) -> None:
        kind, self.cursor = struct.unpack_from(">BQ", payload)
        if kind == Down.STDOUT:
            self.stdout += payload[9:]
        elif kind == Down.EXIT:
            self.exit = json.loads(payload[9:])
        else:
            assert kind == Down.STDERR, payload

    async def whatever_happens(self) -> None:
        """Follow to the end over any number of lost connections, within a minute."""
        end = time.monotonic() + 60
        while self.exit is None:
            assert time.monotonic() < end, bytes(self.stdout[-200:])
            try:
                await self.follow()
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)


async def test_output_over_kills(fleet: planes.Fleet, seed: int) -> None:
    """Readers that come back with their cursor have every byte once, however often the worker is killed."""
    moments = random.Random(seed)
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(memory_mib=64))["sandbox_id"]
        command = storms.counting(400, 0.01, 21)
        exec_id = await client.start(sandbox_id, command.command)
        followers = [Follower(fleet.worker.url, sandbox_id, exec_id) for _ in range(5)]
        following = [asyncio.create_task(one.whatever_happens()) for one in followers]
        for _ in range(3):
            await asyncio.sleep(moments.uniform(0.2, 0.8))
            await asyncio.to_thread(fleet.worker.kill)
            await asyncio.to_thread(fleet.ensure)
        await asyncio.gather(*following)
        assert [bytes(one.stdout) for one in followers] == [command.stdout] * 5
        assert {one.exit["exit_code"] for one in followers} == {21}
        await client.delete(sandbox_id)


async def test_terminal_over_a_kill(fleet: planes.Fleet) -> None:
    """A terminal and the input of a command go on at the next worker: what was shown is shown again."""
    async with clients.client(fleet.worker.url) as client:
        sandbox_id = (await client.create(memory_mib=64))["sandbox_id"]
        command = "while read line; do echo got:$line; done"
        exec_id = await client.start(sandbox_id, command, tty={"rows": 20, "columns": 70}, tag="t")
        first = Follower(fleet.worker.url, sandbox_id, exec_id)
        await first.follow(until=b"got:one\r\n", say=b"one\n")
        await asyncio.to_thread(fleet.worker.kill)
        await asyncio.to_thread(fleet.ensure)
        await first.follow(until=b"got:two\r\n", say=b"two\n")
        late = Follower(fleet.worker.url, sandbox_id, exec_id)
        await late.follow(until=b"got:two\r\n")
        assert late.stdout == first.stdout == b"one\r\ngot:one\r\ntwo\r\ngot:two\r\n"
        await late.follow(say=b"\x04")
        assert late.exit == {"end": "exited", "exit_code": 0, "signal": None}
        await client.delete(sandbox_id)

"""A WebSocket client that can send what no library would: raw frames over a raw connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Frame:
    """A frame of the server."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int:
        """Of a close frame."""
        return int(struct.unpack_from(">H", self.payload)[0]) if self.payload else 1005


MASK = b"\x37\xfa\x21\x3d"
"""The same for every frame: frames are names of test cases too, and those must not change from run to run."""


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0, length: int | None = None
) -> bytes:
    """Return a frame of a client, right or wrong; `length` is a lie about the payload."""
    size = len(payload) if length is None else length
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    flag = 0x80 if masked else 0
    if size < 126:
        head = bytes([first, flag | size])
    elif size < 65_536:
        head = bytes([first, flag | 126]) + struct.pack(">H", size)
    else:
        head = bytes([first, flag | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    repeated = MASK * (len(payload) // 4 + 1)
    hidden = (int.from_bytes(payload) ^ int.from_bytes(repeated[: len(payload)])).to_bytes(len(payload))
    return head + MASK + hidden


def close(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame."""
    return frame(CLOSE, struct.pack(">H", code) + reason)


class Peer:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.headers: dict[str, str] = {}

    async def send(self, *data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def send_until_stuck(self, piece: bytes, most: int) -> int:
        """Send a piece again and again until the server takes no more; return how often it was sent."""
        for sent in range(1, most + 1):
            self.writer.write(piece)
            try:
                async with asyncio.timeout(0.5):
                    await self.writer.drain()
            except TimeoutError:
                return sent
        return most

    async def shake(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Ask for an upgrade; return status and JSON body of a refusal. A header of "" is left out."""
        wanted = {
            "Host": "here",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        } | dict(headers or {})
        lines = [f"GET {path} HTTP/1.1"] + [f"{name}: {value}" for name, value in wanted.items() if value]
        await self.send("\r\n".join([*lines, "", ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await self.reader.readexactly(int(self.headers.get("content-length", "0")))
        return int(head[0].split()[1]), json.loads(body) if body else None

    async def receive(self) -> Frame:
        """Return the next frame. Raises IncompleteReadError when there is none."""
        first, second = await self.reader.readexactly(2)
        assert second < 128, "a server does not mask"
        size = second
        if size == 126:
            size = struct.unpack(">H", await self.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self.reader.readexactly(8))[0]
        return Frame(first & 15, await self.reader.readexactly(size), bool(first & 128))

    async def until_close(self) -> Frame:
        """Return the close frame, whatever comes before."""
        while (found := await self.receive()).opcode != CLOSE:
            pass
        return found

    async def over(self) -> bool:
        """Tell whether the server ends the connection without another byte."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """Connect to a server of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

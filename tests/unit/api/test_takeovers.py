"""Connections whose requests are partly somebody else's: each answered by whom it is for, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from traforo.api import protocols, servers


class Answer:
    """Answers at once, with what it has taken."""

    def __init__(self, connection: protocols.Protocol) -> None:
        self.connection = connection
        self.response_complete = False
        self.keep_alive = True
        self.waiting_for_100_continue = False
        self.endless = False
        self.known = None
        self.body = b""
        self.names = list(connection.names)
        self.url = connection.url
        self.started = self.ended = False

    def start(self) -> None:
        self.started = True
        self._answer()

    def feed(self, data: bytes) -> None:
        self.body += data

    def trailer(self, name: bytes, value: bytes) -> None:
        self.body += name + value

    def end(self) -> None:
        self.ended = True
        self._answer()

    def _answer(self) -> None:
        if self.started and self.ended:
            body = self.url + b" " + b",".join(self.names) + b" " + self.body
            self.connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            self.response_complete = True
            self.connection.done(self)

    def flush(self) -> None:
        pass

    def fail(self) -> None:
        self.connection.transport.close()

    def cancel(self) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


class Takeover:
    """Takes what begins with `/mine`; `/mine/broken` is a defect."""

    def concerns(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        del headers
        return target.startswith(b"/mine")

    def take(self, connection: protocols.Protocol) -> Answer:
        if connection.url.endswith(b"broken"):
            raise RuntimeError("a defect")
        return Answer(connection)

    def again(self, connection: protocols.Protocol, target: bytes, known: object) -> None:
        """Have everything read."""


async def app(scope: dict[str, object], receive: object, send: object) -> None:
    """Answer slowly, with the path."""
    del receive
    await asyncio.sleep(0.01)
    body = str(scope["path"]).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


async def told(*pieces: bytes) -> bytes:
    """Return what a server answers to these pieces, the last of which asks for the end."""
    async with servers.serve(app, "127.0.0.1:0", takeover=Takeover()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        found = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return found


HEAD = b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n"


@pytest.mark.parametrize("size", [1, 10, 10_000])
async def test_in_order(size: int) -> None:
    """Whatever is sent ahead, in pieces of any size, is answered in its turn, by whom it is for."""
    data = b"".join(
        (
            HEAD % (b"GET", b"/mine/1", b"X-Case: y\r\n"),
            HEAD % (b"GET", b"/2", b""),
            HEAD % (b"POST", b"/mine/3", b"Content-Length: 3\r\n") + b"abc",
            HEAD % (b"POST", b"/4", b"Content-Length: 3\r\n") + b"abc",
            HEAD % (b"POST", b"/mine/5", b"Transfer-Encoding: chunked\r\n") + b"1\r\nx\r\n0\r\nT: v\r\n\r\n",
            HEAD % (b"GET", b"/6", b"Connection: close\r\n"),
        )
    )
    answer = await told(*[data[at : at + size] for at in range(0, len(data), size)])
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [
        b"/mine/1 Host,X-Case ",
        b"/2",
        b"/mine/3 Host,Content-Length abc",
        b"/4",
        b"/mine/5 Host,Transfer-Encoding xTv",
        b"/6",
    ]


async def test_a_defect_is_told_and_ends_the_connection() -> None:
    """It is no fault of the caller's."""
    answer = await told(HEAD % (b"GET", b"/mine/broken", b""))
    assert answer.startswith(b"HTTP/1.1 500 ")

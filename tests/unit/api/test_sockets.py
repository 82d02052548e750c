"""WebSockets as routes see them: messages, credentials, and the codes of their ends."""

from typing import Any

import pytest

from traforo.api import bodies, problems, sockets
from traforo.domain import errors

TOKEN = "s3cret.token"


def scope(query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, *protocols: str) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": "/",
        "query_string": query,
        "headers": headers or [],
        "subprotocols": list(protocols),
    }


def authorization(found: dict[str, Any]) -> list[bytes]:
    return [value for name, value in sockets.credentialed(found)["headers"] if name == b"authorization"]


def test_where_a_token_may_be() -> None:
    """The header wins, then a subprotocol, then the query; without any there is none."""
    assert authorization(scope(b"access_token=" + TOKEN.encode())) == [b"Bearer " + TOKEN.encode()]
    assert authorization(scope(b"access_token=a", None, "x", "traforo.token." + TOKEN)) == [b"Bearer " + TOKEN.encode()]
    assert authorization(scope(b"access_token=a", [(b"authorization", b"Basic x")], "traforo.token.b")) == [b"Basic x"]
    assert authorization(scope(b"other=1&access=2", None, "traforo")) == []
    assert authorization(scope(b"access_token=")) == []


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InvalidRequest("x"), 1008),
        (errors.MalformedId("x"), 1008),
        (errors.TooLarge("x"), 1009),
        (errors.Internal("x"), 1011),
        (errors.WorkerUnavailable("x"), 1012),
        (errors.Unauthenticated("x"), 4401),
        (errors.Forbidden("x"), 4403),
        (errors.NotFound("x"), 4404),
        (errors.Conflict("x"), 4409),
        (errors.RateLimited("x"), 4429),
    ],
)
def test_codes(error: errors.TraforoError, code: int) -> None:
    """Errors end a socket with the code that the documentation promises."""
    assert sockets.close_code(error) == code


def test_every_error_has_a_code() -> None:
    """Every code may be sent: those of the protocol, or those for private use."""
    codes = {sockets.close_code(kind("x")) for kind in problems.STATUS}
    assert codes <= {1008, 1009, 1011, 1012} | set(range(4400, 4600))


async def test_messages() -> None:
    """Text and bytes come as they are, also when empty; the end is None."""
    incoming: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "bytes": None, "text": "a"},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    outgoing: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        outgoing.append(message)

    socket = sockets.Socket(scope(), receive, send)
    await socket.accept()
    assert [await socket.receive() for _ in range(4)] == ["", b"", "a", None]
    await socket.send("text")
    await socket.send(b"bytes")
    await socket.close(4000, "why")
    assert outgoing == [
        {"type": "websocket.accept", "subprotocol": None},
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"bytes"},
        {"type": "websocket.close", "code": 4000, "reason": "why"},
    ]


async def test_peer_that_is_gone() -> None:
    """Sending to nobody is a disconnect; closing then is no error."""

    async def receive() -> Any:
        return {"type": "websocket.disconnect"}

    async def send(_: Any) -> None:
        raise ConnectionResetError

    socket = sockets.Socket(scope(), receive, send)
    with pytest.raises(bodies.Disconnected):
        await socket.accept()
    with pytest.raises(bodies.Disconnected):
        await socket.send(b"x")
    await socket.close()

import asyncio
import contextlib
import socket
import types

import pytest

from traforo.cli import forwards, printers
from traforo.sdk import errors


@pytest.mark.parametrize("text,expected", [("80", (80, 80)), ("8080:80", (8080, 80)), ("0:80", (0, 80))])
def test_ports_are_read(text: str, expected: tuple[int, int]) -> None:
    """One for both sides, or one for each; 0 here is any that is free."""
    assert forwards.pair(text) == expected


@pytest.mark.parametrize("text", ["", ":", "0", "80:0", "x", "80:", ":80", "1:2:3", "65536", "-1"])
def test_what_is_no_port(text: str) -> None:
    """It is wrong usage."""
    with pytest.raises(printers.UsageError):
        forwards.pair(text)


@pytest.mark.parametrize(
    "said,told",
    [
        ("cannot reach port 7777: nothing listens there", "cannot reach port 7777: nothing listens there"),
        ("cannot use the sandbox: it is stopped", "port 7777: cannot use the sandbox: it is stopped"),
    ],
)
async def test_a_port_that_cannot_be_reached(said: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named once."""

    class Ports:
        async def connect(self, port: int) -> None:
            raise errors.PortUnreachable(said)

    forward = forwards._Forward(types.SimpleNamespace(ports=Ports()), 7777)  # type: ignore[arg-type]  # it stands for one
    server = await asyncio.start_server(forward.connected, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    server.close()
    await forward.close()
    assert capsys.readouterr().err == f"error: {told}\n"


async def test_a_port_that_is_taken() -> None:
    """It is told with its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: address already in use"):
            await forwards.serve(None, [(taken, 80)], "127.0.0.1")  # type: ignore[arg-type]  # it is not reached

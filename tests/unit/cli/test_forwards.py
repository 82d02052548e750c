import socket

import pytest

from traforo.cli import forwards, printers


@pytest.mark.parametrize("text,expected", [("80", (80, 80)), ("8080:80", (8080, 80)), ("0:80", (0, 80))])
def test_ports_are_read(text: str, expected: tuple[int, int]) -> None:
    """One for both sides, or one for each; 0 here is any that is free."""
    assert forwards.pair(text) == expected


@pytest.mark.parametrize("text", ["", ":", "0", "80:0", "x", "80:", ":80", "1:2:3", "65536", "-1"])
def test_what_is_no_port(text: str) -> None:
    """It is wrong usage."""
    with pytest.raises(printers.UsageError):
        forwards.pair(text)


async def test_a_port_that_is_taken() -> None:
    """It is told with its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: address already in use"):
            await forwards.serve(None, [(taken, 80)], "127.0.0.1")  # type: ignore[arg-type]  # it is not reached

import pytest

from traforo.sdk import errors, tunnels


def test_the_request_asks_for_the_upgrade() -> None:
    """With the credential, and nothing that HTTP could take for a body."""
    target = tunnels.target("http://worker:81/sandboxes/s/proxy/80")
    assert (target.host, target.port, target.tls) == ("worker", 81, False)
    head = tunnels.request(target, {"Authorization": "Bearer t"}).decode().split("\r\n")
    assert head[0] == "GET /sandboxes/s/proxy/80 HTTP/1.1"
    assert {"Host: worker:81", "Connection: Upgrade", "Upgrade: traforo-tcp", "Authorization: Bearer t"} <= set(head)
    assert head[-2:] == ["", ""]
    assert tunnels.target("https://worker/x").port == 443


def test_an_answer_that_opens_it() -> None:
    """Only 101 does."""
    assert tunnels.refused_bytes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: traforo-tcp\r\n\r\n") is None
    assert tunnels.refused_bytes(b"HTTP/1.1 502 Bad\r\nContent-Length: 12\r\n\r\n") == 12
    assert tunnels.refused_bytes(b"HTTP/1.1 502 Bad\r\nContent-Length: 99999999\r\n\r\n") == 65536
    assert tunnels.refused_bytes(b"HTTP/1.1 502 Bad\r\nContent-Length: -\r\n\r\n") == 0


def test_a_refusal_is_the_error_of_the_server() -> None:
    """With its code and request id."""
    head = b"HTTP/1.1 502 Bad Gateway\r\nX-Request-Id: r\r\n\r\n"
    with pytest.raises(errors.PortUnreachable, match="nothing") as caught:
        tunnels.refuse(head, b'{"error":{"code":"port_unreachable","message":"nothing there"}}')
    assert caught.value.request_id == "r"


@pytest.mark.parametrize("head", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 ok\r\n\r\n"])
def test_what_is_no_answer_is_told(head: bytes) -> None:
    """Another server, on that port."""
    with pytest.raises(errors.BadAnswer):
        tunnels.refused_bytes(head)


def test_the_head_has_an_end() -> None:
    """A server that never comes to it, and one that hangs up before it."""
    assert tunnels.checked(b"x", b"") == b"x"
    with pytest.raises(EOFError):
        tunnels.checked(b"", b"HTTP")
    with pytest.raises(errors.BadAnswer):
        tunnels.checked(b"x", b"x" * 20_000)

import pytest

from traforo.settings import addresses


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        (":8081", "0.0.0.0", 8081),
        ("[::1]:80", "::1", 80),
        ("[::]:0", "::", 0),
        ("worker-1.example:65535", "worker-1.example", 65535),
    ],
)
def test_address_is_read_and_written(text: str, host: str, port: int) -> None:
    """An address survives being written and read again."""
    address = addresses.parse(text)
    assert address == addresses.Address(host, port)
    assert addresses.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[host]:80",
        "a b:80",
        "a/b:80",
        "u@h:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """The error shows what was written."""
    with pytest.raises(ValueError, match="cannot read address"):
        addresses.parse(text)


def test_long_host_is_refused() -> None:
    """No name of a host is longer than DNS allows."""
    with pytest.raises(ValueError, match="cannot read address"):
        addresses.parse("h" * 254 + ":80")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        (":80", "http://here:80"),
        ("[::]:80", "http://here:80"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_url_never_names_a_wildcard(text: str, expected: str) -> None:
    """Nobody can connect to "every interface": the host's name stands in."""
    assert addresses.url(addresses.parse(text), "here") == expected

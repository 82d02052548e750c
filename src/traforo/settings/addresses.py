"""Where a process listens, and the URL by which others reach it."""

from __future__ import annotations

from dataclasses import dataclass

_WILDCARDS = frozenset({"0.0.0.0", "::"})
_MAX_PORT = 65535
_MAX_HOST = 253


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address."""

    host: str
    """Name or IP address, IPv6 without brackets; `0.0.0.0` and `::` are every interface."""
    port: int
    """0 lets the kernel choose."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether it means every interface, so that it names no place to connect to."""
        return self.host in _WILDCARDS


def parse(text: str) -> Address:
    """Read `host:port`, `[v6]:port` or `:port` (every interface). Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"cannot read address {text[:80]!r}: brackets are for IPv6")
    elif ":" in host:
        raise ValueError(f"cannot read address {text[:80]!r}: write IPv6 as '[::1]:8080'")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT or len(host) > _MAX_HOST:
        raise ValueError(f"cannot read address {text[:80]!r}: expected 'host:port' with a port of at most {_MAX_PORT}")
    if not host.isascii() or any(character <= " " or character in "/@?#" for character in host):
        raise ValueError(f"cannot read address {text[:80]!r}: not a host name")
    return Address(host or "0.0.0.0", int(port))


def url(address: Address, hostname: str) -> str:
    """Return the `http://` URL of an address; `hostname` stands in for a wildcard."""
    return f"http://{Address(hostname, address.port) if address.wildcard else address}"

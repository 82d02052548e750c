"""Which TCP ports are listened on in a sandbox, from the kernel's own tables of its network namespace."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LISTENERS = 4096
"""Most of them that are told."""

_LISTEN = "0A"
_MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A socket that waits for connections."""

    port: int
    address: str
    """`127.0.0.1`, `0.0.0.0`, `::1`, `::` …"""


def find(pid: int) -> list[Listener]:
    """Return the listeners in the network namespace of a process, by port. Blocks; none when the process is gone."""
    found: set[Listener] = set()
    for name in ("tcp", "tcp6"):
        try:
            with Path(f"/proc/{pid}/net/{name}").open(encoding="ascii") as file:
                found.update(parse(file.read(_MAX_BYTES).splitlines()[1:]))
        except OSError:
            continue
    return sorted(found)[:MAX_LISTENERS]


def parse(lines: Iterable[str]) -> Iterator[Listener]:
    """Read lines of `/proc/net/tcp` or `tcp6`, without their heading."""
    for line in lines:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, _, port = fields[1].rpartition(":")
            yield Listener(int(port, 16), _address(address))


def _address(text: str) -> str:
    """Read an address as the kernel writes it: words of 32 bits in the byte order of the machine, here little."""
    packed = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(packed))

"""HTTP/1.1 without a socket: bytes out for a request, bytes in for a response.

It exists so that the client is not what is measured: a general client costs about as much processor time for a small
request as the server under test. This one knows what the benchmark needs and refuses the rest: no trailers, no
compression, no upgrades, no bodies that end with the connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST_HEADER_BYTES = 64 * 1024
_END = b"\r\n\r\n"


class ProtocolError(Exception):
    """The peer said something that this client does not speak."""


@dataclass(frozen=True, slots=True)
class Response:
    """One complete response; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


def request_bytes(method: str, target: str, authority: str, *, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a whole request. `authority` is `host:port`."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT", "PATCH"}:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + _END + body


class ResponseReader:
    """Collects the bytes of one response after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, dict[str, str]] | None = None
        self._chunks = bytearray()

    def feed(self, data: bytes) -> Response | None:
        """Take bytes; return the response once it is complete, and be ready for the next one."""
        self._buffer += data
        if self._head is None and not self._read_head():
            return None
        assert self._head is not None
        status, headers = self._head
        body = self._read_body(status, headers)
        if body is None:
            return None
        self._head = None
        return Response(status=status, headers=headers, body=body)

    def _read_head(self) -> bool:
        end = self._buffer.find(_END)
        if end < 0:
            if len(self._buffer) > _MOST_HEADER_BYTES:
                raise ProtocolError("the header is too large")
            return False
        first, *rest = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + len(_END)]
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise ProtocolError(f"not a response: {first[:80]!r}")
        pairs = (line.partition(":") for line in rest)
        self._head = (int(status[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs})
        return True

    def _read_body(self, status: int, headers: Mapping[str, str]) -> bytes | None:
        if status in {204, 304}:
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        if "content-length" not in headers:
            raise ProtocolError("a response without a length")
        length = int(headers["content-length"])
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _read_chunks(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            after = end + 2 + size
            if len(self._buffer) < after + 2:
                return None
            self._chunks += self._buffer[end + 2 : after]
            del self._buffer[: after + 2]
            if size == 0:
                body = bytes(self._chunks)
                self._chunks.clear()
                return body
        return None

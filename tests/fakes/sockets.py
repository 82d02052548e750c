"""The server's side of a WebSocket (RFC 6455) over a connection that somebody else accepted, for fakes of servers."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from collections.abc import Mapping
from typing import IO

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def is_upgrade(headers: Mapping[str, str]) -> bool:
    """Return whether a request asks for a WebSocket."""
    return headers.get("upgrade", "").lower() == "websocket"


def accepted(headers: Mapping[str, str]) -> bytes:
    """Return the answer that opens one."""
    key = headers["sec-websocket-key"].encode()
    token = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {token}", "", ""]).encode()


class Peer:
    """One open connection."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, data: bytes | str) -> None:
        """Send a message. Raises OSError."""
        if isinstance(data, str):
            self._frame(TEXT, data.encode())
        else:
            self._frame(BINARY, data)

    def close(self, code: int, reason: str = "") -> None:
        """Send the end of the connection."""
        self._frame(CLOSE, struct.pack(">H", code) + reason.encode())

    def receive(self) -> bytes | None:
        """Return the next message, None at the end of the connection."""
        message = b""
        while True:
            head = self._reader.read(2)
            if len(head) < 2:
                return None
            size = head[1] & 127
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(self._reader.read(width), "big")
            mask = self._reader.read(4)
            data = self._reader.read(size)
            if len(data) < size:
                return None
            plain = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
            kind = head[0] & 15
            if kind == CLOSE:
                return None
            if kind == PING:
                self._frame(PONG, plain)
            elif kind != PONG:
                message += plain
                if head[0] & 128:
                    return message

    def _frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        head = bytes([128 | kind])
        if size < 126:
            head += bytes([size])
        elif size < 65536:
            head += struct.pack(">BH", 126, size)
        else:
            head += struct.pack(">BQ", 127, size)
        with self._lock:
            self._writer.write(head + data)
            self._writer.flush()

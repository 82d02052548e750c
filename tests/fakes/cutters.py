"""A TCP proxy that cuts connections: after so many bytes from the server, or from the client, and never politely."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from typing import Self
from urllib.parse import urlsplit


class Cutter:
    """A proxy in front of a server. Each connection lives for a random number of bytes; `patience` bounds the cuts."""

    def __init__(self, url: str, seed: int, *, least: int = 1, most: int = 4096, cuts: int = 40) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._random = random.Random(seed)
        self._least, self._most, self._left = least, most, cuts
        self.cuts = 0
        """Connections that were cut so far."""
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                budget = None
                if self._left > 0:
                    self._left -= 1
                    budget = self._random.randint(self._least, self._most)
            threading.Thread(target=self._serve, args=(client, budget), daemon=True).start()

    def _serve(self, client: socket.socket, budget: int | None) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        threading.Thread(target=self._forward, args=(client, server, None), daemon=True).start()
        self._forward(server, client, budget)

    def _forward(self, source: socket.socket, target: socket.socket, budget: int | None) -> None:
        try:
            while data := source.recv(65536 if budget is None else min(65536, budget)):
                target.sendall(data)
                if budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        self.cuts += 1
                        break
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                # A reset: what was not read yet is lost, as when a machine goes away.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

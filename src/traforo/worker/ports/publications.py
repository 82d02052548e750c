"""Which ports of which sandboxes are public, kept in one file so that a worker's restart changes nothing.

A set of a few small numbers by sandbox: read at start, written whole and atomically at each change, which are rare. A
file that cannot be read is as good as none: then ports are private, which is the safe side.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from traforo.domain import errors
from traforo.telemetry import logs

MAX_PORTS = 64
"""Most public ports of one sandbox."""


class Publications:
    """The public ports of one worker."""

    def __init__(self, path: Path, alive: Callable[[str], bool]) -> None:
        """Begin with none. `alive` tells whether a sandbox can still be reached; the others are forgotten."""
        self._path = path
        self._alive = alive
        self._ports: dict[str, set[int]] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Read what an earlier worker wrote."""
        self._ports = await asyncio.to_thread(_read, self._path)

    def public(self, sandbox_id: str, port: int) -> bool:
        """Tell whether a port needs no credential."""
        ports = self._ports.get(sandbox_id)
        return ports is not None and port in ports

    async def set(self, sandbox_id: str, port: int, *, public: bool) -> bool:
        """Make a port public or private, and tell whether that is a change. When it returns, it would survive.

        Raises `TooLarge`: a sandbox has too many public ports.
        """
        async with self._writing:
            ports = self._ports.get(sandbox_id, set())
            if (port in ports) == public:
                return False
            if public and len(ports) >= MAX_PORTS:
                message = f"cannot publish port {port}: {MAX_PORTS} ports of the sandbox are public"
                raise errors.TooLarge(message, limit=MAX_PORTS)
            changed = {name: kept for name, kept in self._ports.items() if self._alive(name)}
            changed[sandbox_id] = ports | {port} if public else ports - {port}
            await asyncio.to_thread(_write, self._path, changed)
            self._ports = changed
            return True


def _read(path: Path) -> dict[str, set[int]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, set[int]])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        logs.get(__name__).error("publications_unreadable", error=str(error), effect="every port is private")
        return {}


def _write(path: Path, ports: dict[str, set[int]]) -> None:
    try:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode({name: sorted(found) for name, found in ports.items() if found}))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise errors.Internal(f"cannot write '{path}': {error.strerror}") from error

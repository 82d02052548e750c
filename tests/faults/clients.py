"""Callers of the HTTP API as faults need them: what was acknowledged is told apart from what nobody knows.

An answer is an acknowledgement. A connection that broke leaves it open whether the request was carried out; a 503 says
that it was not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

PATIENCE_SECONDS = 45.0
"""How long an outage may last."""
PAUSE_SECONDS = 0.05


async def until(true: Callable[[], Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    """Ask again and again until it is so; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if await true():
            return
        if time.monotonic() > deadline:
            raise Unexpected(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Output:
    """Everything an exec wrote, as its frames tell it, and how it ended."""

    stdout: bytes
    stderr: bytes
    dropped: int
    exec: Mapping[str, Any]
    """The exec itself, read after its end."""

    @property
    def ended(self) -> tuple[str, int | None]:
        """How, and with which exit code."""
        return self.exec["end"], self.exec["exit_code"]


class Unexpected(AssertionError):
    """An answer that no fault explains."""


class Client:
    """Talks to one plane. `headers` go with each request."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def once(self, method: str, path: str, **more: Any) -> httpx2.Response | None:
        """Make one request; None when the connection broke or there was none."""
        try:
            return await self.http.request(method, path, **more)
        except httpx2.TransportError:
            return None

    async def call(self, method: str, path: str, expected: int | tuple[int, ...], **more: Any) -> httpx2.Response:
        """Make a request that can be repeated, again until an answer comes that is no 503, and return it."""
        wanted = expected if isinstance(expected, tuple) else (expected,)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = await self.once(method, path, **more)
            if answer is not None and answer.status_code in wanted:
                return answer
            if answer is not None and answer.status_code != 503:
                raise Unexpected(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
            if time.monotonic() > deadline:
                seen = "no answer" if answer is None else answer.text[:500]
                raise Unexpected(f"{method} {path} came to nothing within {PATIENCE_SECONDS:g} s: {seen}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def create(self, **wanted: Any) -> dict[str, Any]:
        """Make a sandbox and return it."""
        made: dict[str, Any] = (await self.call("POST", "/sandboxes", 201, json=wanted)).json()
        return made

    async def sandbox(self, sandbox_id: str) -> dict[str, Any]:
        """Return a sandbox."""
        found: dict[str, Any] = (await self.call("GET", f"/sandboxes/{sandbox_id}", 200)).json()
        return found

    async def end(self, sandbox_id: str) -> tuple[str, str | None]:
        """Return state and reason of a sandbox."""
        found = await self.sandbox(sandbox_id)
        return found["state"], found["reason"]

    async def delete(self, sandbox_id: str) -> None:
        """End a sandbox."""
        await self.call("DELETE", f"/sandboxes/{sandbox_id}", 204)

    async def live(self) -> set[str]:
        """Return the ids of all live sandboxes."""
        found: set[str] = set()
        cursor = None
        while True:
            query = {"limit": 1000, "state": "running"} | ({"cursor": cursor} if cursor else {})
            page = (await self.call("GET", "/sandboxes", 200, params=query)).json()
            found |= {one["sandbox_id"] for one in page["sandboxes"]}
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def start(self, sandbox_id: str, command: str | list[str], **more: Any) -> str:
        """Start a command and return its exec id. Not repeated."""
        body = {"command": command, **more}
        answer = await self.http.post(f"/sandboxes/{sandbox_id}/exec", json=body)
        if answer.status_code != 202:
            raise Unexpected(f"exec was answered with {answer.status_code}: {answer.text[:500]}")
        exec_id: str = answer.json()["exec_id"]
        return exec_id

    async def run(self, sandbox_id: str, command: str | list[str], **more: Any) -> dict[str, Any]:
        """Run a command and return its exec. Not repeated."""
        body = {"command": command, "wait": True, **more}
        answer = await self.http.post(f"/sandboxes/{sandbox_id}/exec", json=body)
        if answer.status_code != 200:
            raise Unexpected(f"exec was answered with {answer.status_code}: {answer.text[:500]}")
        result: dict[str, Any] = answer.json()
        return result

    async def exec(self, sandbox_id: str, exec_id: str) -> dict[str, Any]:
        """Return an exec."""
        found: dict[str, Any] = (await self.call("GET", f"/sandboxes/{sandbox_id}/exec/{exec_id}", 200)).json()
        return found

    async def output(self, sandbox_id: str, exec_id: str) -> Output:
        """Read an exec from its first frame to its exit. Cursors must count up without a gap."""
        streams = {"stdout": bytearray(), "stderr": bytearray()}
        cursor = dropped = 0
        path = f"/sandboxes/{sandbox_id}/exec/{exec_id}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            query = {"cursor": cursor, "wait": 2, "limit": 200, "encoding": "base64"}
            page = (await self.call("GET", f"{path}/frames", 200, params=query)).json()
            dropped += page["dropped"]
            for frame in page["frames"]:
                if not page["dropped"] and frame["cursor"] != cursor:
                    raise Unexpected(f"{exec_id}: after frame {cursor - 1} came {frame['cursor']}")
                cursor = frame["cursor"] + 1
                if frame["type"] in streams:
                    streams[frame["type"]] += base64.b64decode(frame["data"])
            if not page["has_more"]:
                found = await self.exec(sandbox_id, exec_id)
                return Output(bytes(streams["stdout"]), bytes(streams["stderr"]), dropped, found)
            if time.monotonic() > deadline:
                raise Unexpected(f"{exec_id} did not end: {await self.exec(sandbox_id, exec_id)}")

    async def write(self, sandbox_id: str, path: str, data: bytes) -> None:
        """Write a file."""
        await self.call("PUT", f"/sandboxes/{sandbox_id}/files", 200, params={"path": path}, content=data)

    async def read(self, sandbox_id: str, path: str) -> bytes:
        """Return a file."""
        return (await self.call("GET", f"/sandboxes/{sandbox_id}/files", 200, params={"path": path})).content


@contextlib.asynccontextmanager
async def client(url: str, token: str | None = None, *, connections: int = 32) -> AsyncIterator[Client]:
    """Open a client for a block. It follows redirects of the control plane."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=30,
        follow_redirects=True,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
    ) as http:
        yield Client(http)

"""Keeps the control plane told that this worker is there, and forgets about the control plane otherwise.

One task registers, and registers again with every heartbeat: the same request does both, so a control plane that has
forgotten everything learns it from the next one. Serving sandboxes never waits for any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import msgspec

from traforo.api import tokens
from traforo.telemetry import logs

TIMEOUT_SECONDS = 10.0
"""How long one call to the control plane may take."""
FIRST_RETRY_SECONDS = 1.0
"""Wait after the first failure; doubled by each further one."""
MIN_HEARTBEAT_SECONDS = 1.0
"""Shortest interval that a control plane can ask for."""
LAST_RETRY_SECONDS = 30.0
"""Longest wait between attempts."""


def retry_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, 1 and up."""
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 16), LAST_RETRY_SECONDS))


def beat_after(heartbeat: float, jitter_percent: int, chance: float) -> float:
    """Return the seconds until the next heartbeat; `chance` is from 0 to 1, and 0.5 means no jitter."""
    return heartbeat * (1 + jitter_percent / 100 * (2 * chance - 1))


class Registration:
    """This worker's place in the registry of a control plane. `facts` says what is true now."""

    def __init__(
        self,
        *,
        client: httpx2.AsyncClient,
        control_url: str,
        worker_id: str,
        authority: tokens.Authority,
        facts: Callable[[], Mapping[str, Any]],
        heartbeat: float,
        jitter_percent: int,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._url = f"{control_url}/internal/workers/{worker_id}/registration"
        self._worker_id = worker_id
        self._authority = authority
        self._facts = facts
        self._heartbeat = heartbeat
        self._jitter = jitter_percent
        self._chance = chance
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._log = logs.get(__name__)
        self._base_url = ""
        """What the control plane knows us by, once it does; another worker may have taken our id meanwhile."""
        self.registered = False
        """Whether the control plane accepted the last heartbeat."""

    def start(self) -> None:
        """Begin to register, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="registration")

    async def stop(self) -> None:
        """Stop, and tell the control plane to send nobody here any more. Idempotent; never raises for its sake."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.registered = False
        if self._base_url:  # also after a heartbeat that failed: a control plane that was away may know us still
            try:
                await self._call("DELETE", None, {"base_url": self._base_url})
            except _FailedError as error:
                self._log.warning("deregistration_failed", error=str(error))

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                facts = self._facts()
                answer = await self._call("PUT", facts)
            except _FailedError as error:
                failures += 1
                if self.registered or failures == 1:
                    self._log.warning("registration_failed", error=str(error), control_url=self._url)
                self.registered = False
                await self._sleep(retry_after(failures))
                continue
            if not self.registered:
                self._log.info("registered", control_url=self._url)
            failures, self.registered = 0, True
            self._base_url = str(facts["base_url"])
            heartbeat = min(self._heartbeat, asked_interval(answer) or self._heartbeat)
            await self._sleep(beat_after(heartbeat, self._jitter, self._chance()))

    async def _call(self, method: str, body: Mapping[str, Any] | None, query: Mapping[str, str] | None = None) -> bytes:
        """Make one call and return the answer's body. Raises `_FailedError`."""
        token = self._authority.sign_internal(self._worker_id)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            answer = await self._client.request(
                method,
                self._url,
                params=query,
                json=body,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                follow_redirects=False,
            )
        except httpx2.HTTPError as error:
            raise _FailedError(f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise _FailedError(f"status {answer.status_code}: {answer.text[:200]}")
        return answer.content


class _FailedError(Exception):
    """A call that came to nothing, and why."""


def asked_interval(answer: bytes) -> float | None:
    """Return how often the control plane wants to hear from us, in seconds; None where it does not say sensibly."""
    try:
        interval = msgspec.json.decode(answer, type=_Registered).heartbeat_interval_seconds
    except msgspec.MsgspecError:
        return None
    return interval if interval is not None and interval >= MIN_HEARTBEAT_SECONDS else None


class _Registered(msgspec.Struct):
    heartbeat_interval_seconds: float | None = None

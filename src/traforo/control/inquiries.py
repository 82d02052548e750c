"""Questions to workers: the control plane keeps no record of sandboxes, so a list is asked for and put together.

A worker that does not answer in time, or not with a page, is left out and named: a partial answer says that it is one.
Each worker is told on whose behalf it is asked, and decides by itself what that client may see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec

from traforo.api import principals, tokens
from traforo.control import listings
from traforo.domain import clocks, errors, workers
from traforo.telemetry import logs

TIMEOUT = 3.0
"""Seconds that one worker has for its answer, connecting and waiting for a connection included."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Longest page that is read: 1000 sandboxes with all the metadata they may have come to half of it."""
_CONNECTIONS = 256


class _Answer(msgspec.Struct):
    sandboxes: list[dict[str, Any]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """What every worker is asked."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    client_id: str | None = None
    """On whose behalf; None in `dev` mode."""
    authorization: str | None = None
    """The client's own credential."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was learnt, and from whom nothing was."""

    pages: Sequence[listings.Page]
    missing: Sequence[str]
    """Ids of the workers that gave no page, sorted."""


def new_client() -> httpx2.AsyncClient:
    """Make the client for all questions. Proxies of the environment are for the outside, and redirects for clients."""
    limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    headers = {"accept-encoding": "identity"}  # what is counted is then what is kept
    return httpx2.AsyncClient(timeout=TIMEOUT, limits=limits, headers=headers, follow_redirects=False, trust_env=False)


class Inquiries:
    """Asks many workers at once."""

    def __init__(
        self, client: httpx2.AsyncClient, authority: tokens.Authority, clock: clocks.Clock, *, timeout: float = TIMEOUT
    ) -> None:
        self._client = client
        self._authority = authority
        self._clock = clock
        self._timeout = timeout
        self._log = logs.get("traforo.control.inquiries")
        self._decoder = msgspec.json.Decoder(_Answer)

    async def sandboxes(self, members: Sequence[workers.Member], question: Question) -> Answers:
        """Ask each worker for a page. Those whose lease has ended are not asked, and count as missing."""
        now = self._clock.now()
        live = [member.worker for member in members if member.live(now)]
        missing = [member.worker.worker_id for member in members if not member.live(now)]
        found = await asyncio.gather(*(self._page(worker, question) for worker in live))
        missing += [worker.worker_id for worker, page in zip(live, found, strict=True) if page is None]
        return Answers([page for page in found if page is not None], sorted(missing))

    async def _page(self, worker: workers.Worker, question: Question) -> listings.Page | None:
        headers = {**question.headers, **self._credential(worker, question)}
        try:
            async with asyncio.timeout(self._timeout):
                answer = self._decoder.decode(await self._get(f"{worker.base_url}/sandboxes", question.query, headers))
            return listings.page(answer.sandboxes, answer.next_cursor)
        except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.MsgspecError, errors.TraforoError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            self._log.warning("no answer from a worker", worker_id=worker.worker_id, reason=reason)
            return None

    def _credential(self, worker: workers.Worker, question: Question) -> dict[str, str]:
        if question.client_id is None:
            return {}
        if not question.client_id.isascii():  # no header can name this client, but its own token can
            return {"authorization": question.authorization or ""}
        token = self._authority.sign_internal(worker.worker_id)
        return {"authorization": f"Bearer {token}", principals.ON_BEHALF: question.client_id}

    async def _get(self, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", url, params=query, headers=headers) as response:
            if response.status_code != httpx2.codes.OK:
                raise errors.WorkerUnavailable(f"cannot list: the worker answered {response.status_code}")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise errors.TooLarge("cannot list: the answer is too long", limit=MAX_ANSWER_BYTES)
        return bytes(body)

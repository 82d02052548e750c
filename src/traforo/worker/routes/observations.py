"""HTTP routes to look at a sandbox: what it uses, what happened to it, everything that was printed in it.

Looking is not using: none of it counts against an idle limit. It goes on for as long as an ended sandbox can be read.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from traforo.api import answers, bodies, downloads, operations, schemas
from traforo.domain import clocks, errors
from traforo.worker.capacity import samples
from traforo.worker.outputs import chronicles, merges
from traforo.worker.routes import contexts
from traforo.worker.sandboxes import entries

LINES = "application/x-ndjson"
"""One JSON value a line."""
_HEARTBEAT = b'{"type":"heartbeat"}\n'
_FAILURES = [errors.Forbidden, errors.NotFound]
_MIB = 1 << 20


def build(context: contexts.Context) -> APIRouter:
    """Make the routes over these services."""
    router = operations.router(tags=["observations"])

    @router.get(
        "/sandboxes/{sandbox_id}/metrics",
        **operations.describe(
            summary="Measure what a sandbox uses",
            query=schemas.MetricsQuery,
            answers={200: schemas.Metrics},
            failures=_FAILURES,
        ),
    )
    async def read_metrics(request: Request, sandbox_id: str) -> Response:
        """After the first question it is measured every ten seconds, for five minutes after the last one."""
        entry = context.entry(request, sandbox_id, live=False, touch=False)
        query = bodies.query(request, schemas.MetricsQuery)
        now = await context.usages.now(entry)
        series = context.usages.series(entry, query.since or 0.0) if query.series else []
        enforced = frozenset(context.supervisor.limits_enforced(entry.spec.virtualization))
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                "now": None if now is None else _sample(now, entry, enforced),
                "series": [_sample(one, entry, enforced) for one in series],
            }
        )

    @router.get(
        "/sandboxes/{sandbox_id}/events",
        **operations.describe(
            summary="Read what happened to a sandbox",
            query=schemas.EventQuery,
            answers={200: schemas.EventPage},
            failures=_FAILURES,
        ),
    )
    async def read_events(request: Request, sandbox_id: str) -> Response:
        """With `wait` the answer is held back until there is an event. The last 1000 of a sandbox are kept."""
        entry = context.entry(request, sandbox_id, live=False, touch=False)
        query = bodies.query(request, schemas.EventQuery)
        told = entry.happenings
        if query.wait:
            await told.wait(query.cursor, query.wait)
        page = told.page(query.cursor, query.limit)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                "events": [event.shown() for event in page.events],
                "next_cursor": page.next_cursor,
                "has_more": page.next_cursor < told.next or not told.over,
                "dropped": page.dropped,
            }
        )

    @router.get(
        "/sandboxes/{sandbox_id}/logs",
        **operations.describe(
            summary="Read the output of everything in a sandbox, with its events, in order of time",
            query=schemas.LogQuery,
            answers={200: (schemas.LogPage, LINES)},
            failures=_FAILURES,
        ),
    )
    async def read_logs(request: Request, sandbox_id: str) -> Response | _Following:
        """With `follow` there is one entry a line as it comes, and `{"type":"heartbeat"}` in every 15 s of silence."""
        entry = context.entry(request, sandbox_id, live=False, touch=False)
        query = bodies.query(request, schemas.LogQuery)
        after = merges.parse(query.cursor)
        wanted = chronicles.Wanted(query.stream, query.encoding)
        if query.follow:
            return _Following(context.chronicles.follow(entry, after, wanted))
        page = await context.chronicles.page(entry, after, query.limit, wanted)
        return answers.json(
            {
                "sandbox_id": entry.text_id,
                "entries": page.entries,
                "next_cursor": "" if page.last == merges.START else str(page.last),
                "has_more": page.more,
            }
        )

    return router


class _Following:
    """An answer that begins at once and goes on while there is something to tell and somebody listens."""

    def __init__(self, pieces: AsyncGenerator[list[chronicles.LogEntry], None]) -> None:
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers.endless(scope)
        headers = [(b"content-type", LINES.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await downloads.unless_gone(receive, self._tell(send))

    async def _tell(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            async for found in pieces:
                piece = b"".join(answers.encode(one) + b"\n" for one in found) or _HEARTBEAT
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


def _sample(sample: samples.Sample, entry: entries.Entry, enforced: frozenset[str]) -> dict[str, Any]:
    """Return what `schemas.Sample` describes. A limit that this host does not enforce is none."""
    has = entry.spec.resources
    return {
        "ts": clocks.rfc3339(sample.at),
        "cpu_seconds": sample.cpu_seconds,
        "cpu_percent": sample.cpu_percent,
        "memory_bytes": sample.memory_bytes,
        "memory_limit_bytes": has.memory_mib * _MIB if "memory" in enforced else None,
        "memory_peak_bytes": sample.memory_peak_bytes,
        "disk_bytes": sample.disk_bytes,
        "disk_limit_bytes": sample.disk_limit_bytes,
        "pids": sample.pids,
        "pids_limit": has.pids if "pids" in enforced else None,
        "network_received_bytes": sample.network_received_bytes,
        "network_sent_bytes": sample.network_sent_bytes,
    }

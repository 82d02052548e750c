"""Routes to look at a sandbox: metrics and events over HTTP, for whom they are, and that looking is not using."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.fakes import workers
from traforo.api import schemas
from traforo.domain import ids
from traforo.domain.states import EndReason


@pytest.fixture
async def http(worker: workers.FakeWorker) -> AsyncIterator[httpx2.AsyncClient]:
    async with worker.client() as client:
        yield client


async def test_metrics(worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
    """What it uses, its limits, and what it used; of an ended one only that."""
    entry = await worker.create()
    url = f"/sandboxes/{entry.text_id}/metrics"
    first = schemas.Metrics.model_validate_json((await http.get(url)).content)
    assert first.now is not None
    assert (first.now.memory_limit_bytes, first.now.pids_limit) == (64 << 20, 64)
    assert first.series == []
    worker.clock.move(10)
    await worker.usages.sample()
    found = schemas.Metrics.model_validate_json((await http.get(f"{url}?series=true")).content)
    assert len(found.series) == 2
    since = worker.clock.now() - 5
    assert len((await http.get(f"{url}?series=true&since={since}")).json()["series"]) == 1
    await worker.supervisor.stop(entry, EndReason.DELETED)
    over = schemas.Metrics.model_validate_json((await http.get(f"{url}?series=true")).content)
    assert (over.now, over.series) == (None, found.series)


async def test_events(worker: workers.FakeWorker, http: httpx2.AsyncClient) -> None:
    """Page by page, held back while there is none, and done when the sandbox is."""
    entry = await worker.create()
    url = f"/sandboxes/{entry.text_id}/events"
    page = schemas.EventPage.model_validate_json((await http.get(f"{url}?limit=1")).content)
    assert ([event.type for event in page.events], page.next_cursor, page.has_more) == (["created"], 1, True)
    waiting = asyncio.ensure_future(http.get(f"{url}?cursor=2&wait=60"))
    await workers.until(lambda: bool(entry.happenings._waiters))
    await worker.supervisor.stop(entry, EndReason.DELETED)
    page = schemas.EventPage.model_validate_json((await waiting).content)
    assert [event.type for event in page.events][:1] == ["stopping"]
    last = schemas.EventPage.model_validate_json((await http.get(f"{url}?cursor=2&wait=60")).content)
    assert [(event.type, event.facts) for event in last.events] == [
        ("stopping", {"reason": "deleted"}),
        ("stopped", {"reason": "deleted"}),
    ]
    assert (last.next_cursor, last.has_more, last.dropped) == (4, False, 0)


@pytest.mark.parametrize(
    "query, field",
    [
        ("events?cursor=-1", "cursor"),
        ("events?cursor=x", "cursor"),
        ("events?wait=61", "wait"),
        ("events?limit=0", "limit"),
        ("events?limit=1001", "limit"),
        ("metrics?since=-1", "since"),
        ("metrics?series=perhaps", "series"),
        ("logs?cursor=1.1.x.1", "cursor"),
        ("logs?stream=stdin", "stream"),
        ("logs?encoding=latin1", "encoding"),
        ("logs?follow=maybe", "follow"),
    ],
)
async def test_what_cannot_be_asked(
    worker: workers.FakeWorker, http: httpx2.AsyncClient, query: str, field: str
) -> None:
    """400, and the field is named."""
    entry = await worker.create()
    answer = await http.get(f"/sandboxes/{entry.text_id}/{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


@pytest.mark.parametrize("what", ["", "/metrics", "/events"])
async def test_looking_is_not_using(worker: workers.FakeWorker, http: httpx2.AsyncClient, what: str) -> None:
    """Who watches a sandbox does not keep it alive."""
    entry = await worker.create(idle_seconds=30.0, ttl_seconds=600)
    worker.clock.move(20)
    assert (await http.get(f"/sandboxes/{entry.text_id}{what}")).status_code == 200
    assert (await http.get("/sandboxes")).status_code == 200
    assert entry.activity.idle() == 20


@pytest.mark.parametrize("what", ["metrics", "events", "logs"])
async def test_whose_it_is(prod: workers.FakeWorker, what: str) -> None:
    """403 to another client, 401 to nobody, 404 where there is none."""
    async with prod.client() as http:
        entry = await prod.create(owner="alice")
        url = f"/sandboxes/{entry.text_id}/{what}"
        assert (await http.get(url)).status_code == 401
        assert (await http.get(url, headers=prod.bearer("bob"))).status_code == 403
        unknown = ids.SandboxId(ids.worker_hash("here"), "0" * 26)
        answer = await http.get(f"/sandboxes/{unknown}/{what}", headers=prod.bearer("alice"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")

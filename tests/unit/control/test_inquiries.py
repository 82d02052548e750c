import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from tests.fakes import clocks
from tests.unit.control import planes
from traforo.api import tokens
from traforo.control import inquiries, listings
from traforo.domain import workers
from traforo.settings import groups

QUESTION = inquiries.Question(query={"limit": "2"}, headers={"x-request-id": "r1"})
SANDBOX = {"sandbox_id": planes.SANDBOX, "state": "running"}


def member(name: str, *, expires_at: float = 2e9) -> workers.Member:
    worker = workers.Worker(worker_id=name, hostname=name, base_url=f"http://{name}")
    return workers.Member(worker, name, 0.0, workers.Lease(heartbeat_at=0.0, expires_at=expires_at))


def page(*sandboxes: dict[str, Any], cursor: str | None = None) -> httpx2.Response:
    return httpx2.Response(200, json={"sandboxes": sandboxes, "next_cursor": cursor})


async def ask(
    answer: Callable[[httpx2.Request], Any],
    members: list[workers.Member],
    question: inquiries.Question = QUESTION,
    mode: groups.Mode = "dev",
    timeout: float = 3.0,
) -> inquiries.Answers:
    clock = clocks.FakeClock()
    authority = tokens.Authority(planes.settings(mode).auth, clock)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        return await inquiries.Inquiries(client, authority, clock, timeout=timeout).sandboxes(members, question)


async def test_every_live_worker_is_asked_the_same() -> None:
    """The query and the caller's request id go to each worker; pages come back in the order of the workers."""
    asked: list[tuple[str, str | None]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append((str(request.url), request.headers.get("x-request-id")))
        return page(SANDBOX) if request.url.host == "b" else page()

    found = await ask(answer, [member("a"), member("b")])
    assert sorted(asked) == [("http://a/sandboxes?limit=2", "r1"), ("http://b/sandboxes?limit=2", "r1")]
    row = listings.Row(planes.SANDBOX[-26:], SANDBOX)
    assert found == inquiries.Answers([listings.Page([], None), listings.Page([row], None)], [])


async def test_worker_whose_lease_ended_is_missing_and_not_asked() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == "a"
        return page()

    found = await ask(answer, [member("b", expires_at=0.0), member("a")])
    assert found == inquiries.Answers([listings.Page([], None)], ["b"])


def broken(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadError("connection reset")


@pytest.mark.parametrize(
    "answer",
    [
        broken,
        lambda _: httpx2.Response(401, json={"error": {}}),
        lambda _: httpx2.Response(500),
        lambda _: httpx2.Response(307, headers={"location": "http://elsewhere/"}),
        lambda _: httpx2.Response(200, content=b"<html>"),
        lambda _: httpx2.Response(200, content=b"\xff" * 8),
        lambda _: httpx2.Response(200, json=[]),
        lambda _: httpx2.Response(200, json={"sandboxes": [{"sandbox_id": "x"}], "next_cursor": None}),
        lambda _: httpx2.Response(200, json={"sandboxes": [], "next_cursor": "x"}),
        lambda _: httpx2.Response(200, json={"sandboxes": [1], "next_cursor": None}),
    ],
)
async def test_worker_that_makes_no_sense_is_missing(answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """Whatever a worker does instead of giving a page, the others' pages are shown and it is named."""
    found = await ask(
        lambda request: answer(request) if request.url.host == "b" else page(), [member("a"), member("b")]
    )
    assert found == inquiries.Answers([listings.Page([], None)], ["b"])


async def test_worker_that_does_not_answer_in_time_is_missing() -> None:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    assert await ask(answer, [member("a")], timeout=0.0) == inquiries.Answers([], ["a"])


async def test_worker_that_drips_is_cut_off() -> None:
    """The limit is on the whole answer, so a worker that always sends a little more is missing too."""

    class Drip(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0)

    found = await ask(lambda _: httpx2.Response(200, stream=Drip()), [member("a")], timeout=0.05)
    assert found == inquiries.Answers([], ["a"])


async def test_answer_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "MAX_ANSWER_BYTES", len(page().content) - 1)
    assert await ask(lambda _: page(), [member("a")]) == inquiries.Answers([], ["a"])


async def test_internal_token_names_worker_and_client() -> None:
    """In `prod` mode each worker gets a token of its own, of one use, and is told on whose behalf it is asked."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return page()

    question = inquiries.Question(query={}, headers={}, client_id="alice", authorization="Bearer client")
    await ask(answer, [member("a"), member("b")], question, mode="prod")
    authority = tokens.Authority(planes.settings("prod").auth, clocks.FakeClock())
    seen = {authority.verify_internal(one.headers["authorization"], one.url.host).jti for one in asked}
    assert (len(seen), [one.headers["x-traforo-client-id"] for one in asked]) == (2, ["alice", "alice"])


async def test_client_that_no_header_can_name_uses_its_own_token() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer client"
        assert "x-traforo-client-id" not in request.headers
        return page()

    question = inquiries.Question(query={}, headers={}, client_id="Ærø", authorization="Bearer client")
    assert (await ask(answer, [member("a")], question, mode="prod")).missing == []


def test_client_of_the_process_keeps_out_of_the_environment() -> None:
    """No proxy of the environment sees internal tokens, and no worker can send them elsewhere."""
    client = inquiries.new_client()
    assert (client.trust_env, client.follow_redirects) == (False, False)
    assert client.headers["accept-encoding"] == "identity"
    asyncio.run(client.aclose())

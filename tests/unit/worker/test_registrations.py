"""Registration: told again and again, sooner after a failure, and taken back at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import clocks, workers
from traforo.api import tokens
from traforo.settings import groups
from traforo.worker import registrations

FACTS = {"hostname": "here", "base_url": "http://here:8081", "live_sandboxes": 3}


class FakeControl:
    """A control plane that answers what it was told to, and a worker that registers with it."""

    def __init__(self, secret: str = "") -> None:
        self.answers: list[httpx2.Response | Exception] = []
        self.requests: list[httpx2.Request] = []
        self.sleeps: list[float] = []
        self.clock = clocks.FakeClock()
        self.authority = tokens.Authority(groups.AuthSettings.model_validate({"jwt_secret": secret}), self.clock)
        self.woken = asyncio.Event()
        self.registration = registrations.Registration(
            client=httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle)),
            control_url="http://control",
            worker_id="worker_1",
            authority=self.authority,
            facts=lambda: FACTS,
            heartbeat=30.0,
            jitter_percent=20,
            chance=lambda: 0.5,
            sleep=self.sleep,
        )

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx2.Response(200, json={})
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.woken.clear()
        await self.woken.wait()

    async def rounds(self, number: int) -> None:
        """Let the worker come to its next sleep so many times."""
        for _ in range(number):
            seen = len(self.sleeps)
            self.woken.set()
            await workers.until(lambda seen=seen: len(self.sleeps) > seen)  # type: ignore[misc]  # binds the loop's value


Begin = Callable[..., Awaitable[FakeControl]]


@pytest.fixture
async def begin() -> Any:
    """Make a control plane, and a worker that has made its first attempt."""
    made: list[FakeControl] = []

    async def begin(*answers: httpx2.Response | Exception, secret: str = "") -> FakeControl:
        control = FakeControl(secret)
        made.append(control)
        control.answers += answers
        control.registration.start()
        await workers.until(lambda: control.sleeps)
        return control

    yield begin
    for control in made:
        await control.registration.stop()


async def test_a_heartbeat_says_what_is_true_now(begin: Begin) -> None:
    """The first and every further one are the same complete request, so a control plane may forget everything."""
    control = await begin()
    await control.rounds(2)
    assert [request.method for request in control.requests] == ["PUT"] * 3
    assert {str(request.url) for request in control.requests} == {
        "http://control/internal/workers/worker_1/registration"
    }
    assert [msgspec.json.decode(request.content) for request in control.requests] == [FACTS] * 3
    assert control.sleeps == [30.0] * 3
    assert control.registration.registered


async def test_failures_back_off_and_one_success_ends_that(begin: Begin) -> None:
    """Refused, broken or away: tried again after 1, 2, 4 … seconds, 30 at most; then heartbeats as ever."""
    failures = [httpx2.ConnectError("away"), httpx2.ReadTimeout("slow"), *(httpx2.Response(503) for _ in range(5))]
    control = await begin(*failures)
    await control.rounds(7)
    assert control.sleeps == [1, 2, 4, 8, 16, 30, 30, 30.0]
    assert control.registration.registered
    control.answers.append(httpx2.Response(404, text="who are you?"))
    await control.rounds(2)
    assert control.sleeps[-2:] == [1, 30.0]


async def test_redirects_are_not_followed(begin: Begin) -> None:
    """A token for the control plane goes nowhere else."""
    control = await begin(httpx2.Response(307, headers={"location": "http://elsewhere/"}))
    assert len(control.requests) == 1
    assert not control.registration.registered


@pytest.mark.parametrize("secret", ["", workers.SECRET])
async def test_prod_mode_signs_each_call_anew(begin: Begin, secret: str) -> None:
    """An internal token of this worker, of one use; none in dev mode."""
    control = await begin(secret=secret)
    await control.rounds(1)
    found = [request.headers.get("authorization") for request in control.requests]
    if not secret:
        assert found == [None, None]
        return
    ids = [control.authority.verify_internal(one, "worker_1").jti for one in found]
    assert len(set(ids)) == 2


async def test_the_end_is_told_once(begin: Begin) -> None:
    """To a control plane that knows us; and whatever it says, we stop."""
    control = await begin()
    control.answers.append(httpx2.Response(500))
    await control.registration.stop()
    await control.registration.stop()
    assert [request.method for request in control.requests] == ["PUT", "DELETE"]
    assert dict(control.requests[-1].url.params) == {"base_url": FACTS["base_url"]}  # another may have our id by now


async def test_the_end_is_told_after_a_failure_too(begin: Begin) -> None:
    """A control plane that was away for a while comes back with what it knew."""
    control = await begin(httpx2.Response(200, json={}), httpx2.ConnectError("refused"))
    await control.rounds(1)
    await control.registration.stop()
    assert [request.method for request in control.requests] == ["PUT", "PUT", "DELETE"]


async def test_nothing_is_taken_back_that_was_never_given(begin: Begin) -> None:
    """A worker that never got through says no good-bye."""
    control = await begin(httpx2.ConnectError("away"))
    await control.registration.stop()
    assert [request.method for request in control.requests] == ["PUT"]


async def test_the_control_plane_may_want_to_hear_more_often(begin: Begin) -> None:
    """Its interval counts where it is shorter than ours."""
    control = await begin(
        httpx2.Response(200, json={"heartbeat_interval_seconds": 10}),
        httpx2.Response(200, json={"heartbeat_interval_seconds": 60}),
    )
    await control.rounds(1)
    assert control.sleeps == [10.0, 30.0]


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"heartbeat_interval_seconds": 0.1}', b"\xff"])
def test_a_strange_answer_asks_for_nothing(answer: bytes) -> None:
    """Nobody can make a worker busy by a number."""
    assert registrations.asked_interval(answer) is None


@given(st.floats(1, 3600), st.integers(0, 95), st.floats(0, 1))
def test_jitter_stays_within_its_percentage(heartbeat: float, percent: int, chance: float) -> None:
    """Early or late by at most so much."""
    found = registrations.beat_after(heartbeat, percent, chance)
    assert heartbeat * (1 - percent / 100) - 1e-6 <= found <= heartbeat * (1 + percent / 100) + 1e-6


@given(st.integers(1, 10_000))
def test_retries_are_never_far_apart(failures: int) -> None:
    """Between one and thirty seconds, however often it failed."""
    assert 1 <= registrations.retry_after(failures) <= 30

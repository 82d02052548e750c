"""Background work: it ends by itself, and is waited for."""

from __future__ import annotations

import asyncio

import pytest

from traforo.domain import errors
from traforo.worker import tasks


async def test_a_caller_who_leaves_ends_nothing() -> None:
    """The work goes on to its end."""
    background, gate, done = tasks.Tasks(), asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(1)

    caller = asyncio.create_task(background.shielded(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(background) == 1
    gate.set()
    await background.drain()
    assert (done, len(background)) == ([1], 0)


async def test_draining_waits_for_what_is_begun_meanwhile() -> None:
    """Work that begins work."""
    background, order = tasks.Tasks(), []

    async def work(depth: int) -> None:
        await asyncio.sleep(0)
        order.append(depth)
        if depth < 3:
            background.spawn(work(depth + 1))

    background.spawn(work(0))
    await background.drain()
    assert order == [0, 1, 2, 3]


@pytest.mark.may_block("the traceback in the log is made from source files")
@pytest.mark.parametrize("error", [errors.Conflict("no"), ValueError("a defect")])
async def test_an_error_reaches_who_waits(error: Exception) -> None:
    """And nobody else: no warning of an exception that was never retrieved."""
    background = tasks.Tasks()

    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await background.shielded(work())
    background.spawn(work())
    await background.drain()

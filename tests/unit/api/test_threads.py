"""Blocking work that nobody abandons."""

import asyncio
import threading

import pytest

from traforo.api import threads


async def test_result_and_error() -> None:
    """What the function gives or raises comes back."""
    assert await threads.run(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")


async def test_who_is_cancelled_waits() -> None:
    """Whoever gives up, twice even, gives way when the thread is done with what it uses."""
    begun, goes_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        goes_on.wait(20)
        done.set()
        raise OSError

    task = asyncio.create_task(threads.run(work))
    while not begun.is_set():
        await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()

"""Waiting for a command is given up: by cancellation, and by a signal."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import Asked, FakeExec, wait_until
from tests.fakes.servers import FakeServer
from traforo.sdk import AsyncSandbox, Sandbox, errors
from traforo.sdk._async import calls as async_calls


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test runner has a use of its own for."""


def execs(worker: FakeServer) -> list[FakeExec]:
    return [item for sandbox in worker.sandboxes.values() for item in sandbox.execs.values()]


def ended(worker: FakeServer) -> bool:
    return all(item.ended for item in execs(worker))


CALLS: dict[str, Callable[[AsyncSandbox], Awaitable[object]]] = {
    "one-request": lambda sandbox: sandbox.exec("echo begun; sleep 60 & sleep 60"),
    "heard": lambda sandbox: sandbox.exec("echo begun; sleep 60", on_stdout=lambda _: None),
    "tagged": lambda sandbox: sandbox.exec("echo begun; sleep 60", tag="mine"),
    "fed": lambda sandbox: sandbox.exec("sleep 60", stdin=b"x" * 3_000_000),
    "starting": lambda sandbox: sandbox.start("sleep 60", stdin=b"x" * 3_000_000),
    "code": lambda sandbox: sandbox.run_code("import time; time.sleep(60)"),
}
KNOWN_WHEN = {"tagged": "/frames", "starting": "/stdin"}
"""What is asked for when its caller knows the id of what has no tag that no other has."""


@pytest.mark.parametrize("name", CALLS)
async def test_a_command_that_is_cancelled_is_killed(name: str, worker: FakeServer) -> None:
    """Whichever way it is waited for; and the cancellation is what its caller sees."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        task = asyncio.ensure_future(CALLS[name](sandbox))
        asked = KNOWN_WHEN.get(name, "/exec")
        await asyncio.to_thread(
            wait_until, lambda: bool(execs(worker)) and any(asked in path for path in worker.paths())
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await asyncio.to_thread(wait_until, lambda: ended(worker))


async def test_a_time_limit_of_asyncio_is_one_of_the_command(worker: FakeServer) -> None:
    """`wait_for` and `timeout` raise TimeoutError, and nothing runs on."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sandbox.exec("sleep 60"), 0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await sandbox.exec("sleep 60")
        await asyncio.to_thread(wait_until, lambda: ended(worker))


async def test_a_second_cancellation_is_not_held_up(worker: FakeServer) -> None:
    """The command is killed behind its back."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        task = asyncio.ensure_future(sandbox.exec("sleep 60"))
        await asyncio.to_thread(wait_until, lambda: bool(execs(worker)))
        asked: list[Asked] = []

        def slowly(request: Asked) -> str | None:
            asked.append(request)
            return "slow"

        worker.fault = slowly
        task.cancel()
        await asyncio.to_thread(wait_until, lambda: bool(asked))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended(worker)
        worker.slow.set()
        await asyncio.to_thread(wait_until, lambda: ended(worker))


async def test_a_command_that_was_started_goes_on(worker: FakeServer) -> None:
    """Its handle is not it: cancelling a wait leaves it alone."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        started = await sandbox.start("sleep 60")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(started.wait(), 0.2)
        assert (await started.result()).status == "running"


async def test_a_worker_that_does_not_answer_holds_nobody_up(
    worker: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves waits for a moment, and leaves."""
    monkeypatch.setattr(async_calls, "STOP_SECONDS", 0.1)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        task = asyncio.ensure_future(sandbox.exec("sleep 60"))
        await asyncio.to_thread(wait_until, lambda: bool(execs(worker)))
        worker.fault = lambda _: "stall"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        worker.fault = lambda _: None
        worker.stalled.set()


async def test_a_failure_of_the_server_kills_nothing(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command can be found again, as the error says."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        await sandbox.start("sleep 60", tag="mine")
        worker.fault = lambda asked: "drop-after" if asked.method == "POST" else None
        with pytest.raises(errors.ConnectionFailed):
            await sandbox.exec("sleep 60", tag="mine")
        assert [item.status for item in await sandbox.list_execs()] == ["running", "running"]


async def test_a_directory_that_is_no_longer_wanted(worker: FakeServer, tmp_path: Path) -> None:
    """Its download ends when it is cancelled, and so does the thread that unpacks it."""
    asked: list[Asked] = []

    def slowly(request: Asked) -> str | None:
        if request.path.endswith("/tar"):
            asked.append(request)
            return "slow"
        return None

    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        await sandbox.files.write("/d/f", "1")
        worker.fault = slowly
        task = asyncio.ensure_future(sandbox.files.download("/d", tmp_path / "d"))
        await asyncio.to_thread(wait_until, lambda: bool(asked))
        assert "traforo-unpacking" in {thread.name for thread in threading.enumerate()}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "traforo-unpacking" not in {thread.name for thread in threading.enumerate()}
        worker.slow.set()


@pytest.fixture
def interrupting() -> Iterator[int]:
    """A signal that raises, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


PLAIN_CALLS: dict[str, Callable[[Sandbox, threading.Event], object]] = {
    "one-request": lambda sandbox, _: sandbox.exec("echo begun; sleep 60"),
    "heard": lambda sandbox, heard: sandbox.exec("echo begun; sleep 60", on_stdout=lambda _: heard.set()),
    "code": lambda sandbox, _: sandbox.run_code("import time; time.sleep(60)"),
}


@pytest.mark.parametrize("name", PLAIN_CALLS)
def test_a_command_that_is_interrupted_is_killed(name: str, worker: FakeServer, interrupting: int) -> None:
    """In a plain thread, by Ctrl-C for instance, while it waits for the server."""
    heard = threading.Event()
    if name != "heard":
        heard.set()

    def interrupt() -> None:
        wait_until(lambda: bool(execs(worker)) and heard.is_set())
        time.sleep(0.1)  # what raises while a connection is being made leaves a socket to the collector
        os.kill(os.getpid(), interrupting)

    with Sandbox.create(url=worker.url) as sandbox:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupted):
            PLAIN_CALLS[name](sandbox, heard)
        thread.join()
        wait_until(lambda: ended(worker))

"""Pumps: output gets into the log as it comes, and nobody is held up by it."""

import asyncio
import errno
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from pathlib import Path

import pytest

from traforo.domain import clocks
from traforo.worker.execs import pumps
from traforo.worker.outputs import framelogs, frames, logmoves
from traforo.worker.outputs.frames import Kind


class Command:
    """The writing ends of a pump that has been started, and what it put into its log."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        out, self.stdout = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        err, self.stderr = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.log = framelogs.FrameLog(str(directory / "exec_x"), framelogs.Limits())
        self.executor = futures.ThreadPoolExecutor(1)
        self.told = 0
        self.closed = False
        self.pump = pumps.Pump(
            self.log, out, err, clock=clocks.SystemClock(), executor=self.executor, on_output=self._tell
        )

    def _tell(self) -> None:
        self.told += 1

    def read(self, kind: Kind = Kind.STDOUT) -> bytes:
        found = self.log.view().read(0, 1 << 20, 1 << 30)
        return b"".join(frame.payload for frame in found if frame.header.kind is kind)

    async def put(self, data: bytes) -> None:
        """Write all of it, as a command that waits for its pipe."""
        while data:
            try:
                data = data[os.write(self.stdout, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.0005)

    async def stop(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self.pump.stop(lambda: done.set_result(None))
        await done

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.stop()
            self.pump.close()
            self.log.close()
            self.executor.shutdown()
            os.close(self.stdout)
            os.close(self.stderr)


@pytest.fixture
async def command(tmp_path: Path) -> AsyncIterator[Command]:
    found = Command(tmp_path / "log")
    yield found
    await found.close()


async def until(condition: Callable[[], object]) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("it never came to pass")


async def test_output_comes_while_it_runs(command: Command) -> None:
    """What is written is in the log soon, in order, and those who wait are told."""
    command.pump.start()
    os.write(command.stdout, b"one")
    await until(lambda: command.read() == b"one")
    os.write(command.stderr, b"two")
    await until(lambda: command.read(Kind.STDERR) == b"two")
    os.write(command.stdout, b"three")
    await until(lambda: command.read() == b"onethree")
    assert command.told >= 3


async def test_nothing_before_it_is_started(command: Command) -> None:
    """A command that ends at once is drained in one go: one frame for each stream."""
    os.write(command.stdout, b"a")
    os.write(command.stderr, b"b")
    os.write(command.stdout, b"c")
    command.pump.start()
    await command.stop()
    command.pump.drain()
    found = [(frame.header.kind, frame.payload) for frame in command.log.view().read(0, 9, 999)]
    assert found == [(Kind.STDOUT, b"ac"), (Kind.STDERR, b"b")]


async def test_drain_takes_what_is_there(command: Command) -> None:
    """Draining ends though somebody goes on writing."""
    await command.stop()
    os.write(command.stdout, b"x" * 60_000)
    real = logmoves.Move.run
    calls = []

    def run(self: logmoves.Move, source: int, limit: int) -> int:
        calls.append(limit)
        moved = real(self, source, limit)
        os.write(command.stdout, b"y" * moved)
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logmoves.Move, "run", run)
        command.pump.drain()
    assert command.read() == b"x" * 60_000
    assert calls == [60_000]


async def test_loud_output_goes_through_threads(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a command has said a lot, large pieces of it are moved off the event loop; nothing is lost or mixed up."""
    threads = set()
    real = logmoves.Move.run

    def run(self: logmoves.Move, source: int, limit: int) -> int:
        threads.add(threading.current_thread() is threading.main_thread())
        return real(self, source, limit)

    monkeypatch.setattr(logmoves.Move, "run", run)
    command.pump.start()
    data = os.urandom(pumps.LOUD_BYTES * 4)
    await command.put(data)
    await until(lambda: command.log.held == len(data))
    assert command.read() == data
    assert threads == {True, False}


async def test_stop_waits_for_a_thread(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pump has stopped when its thread is done, and what that moved is in the log."""
    monkeypatch.setattr(pumps, "LOUD_BYTES", 0)
    started, go = threading.Event(), threading.Event()
    real = logmoves.Move.run

    def run(self: logmoves.Move, source: int, limit: int) -> int:
        started.set()
        go.wait(20)
        return real(self, source, limit)

    monkeypatch.setattr(logmoves.Move, "run", run)
    command.pump.start()
    os.write(command.stdout, b"x" * 50_000)
    await until(started.is_set)
    stopping = asyncio.ensure_future(command.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go.set()
    await stopping
    assert command.read() == b"x" * 50_000


async def test_full_disk_makes_the_command_wait(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full the output stays in the pipe; later it is all there."""
    monkeypatch.setattr(pumps, "RETRY_SECONDS", 0.001)
    refused = 0

    def full(*_args: object, **_options: object) -> int:
        nonlocal refused
        refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "splice", full)
        command.pump.start()
        os.write(command.stdout, b"waits")
        await until(lambda: refused >= 3)
        assert command.read() == b""
    await until(lambda: command.read() == b"waits")
    assert command.log.dropped.total == 0


async def test_full_disk_in_a_thread(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same when a thread meets the full disk."""
    monkeypatch.setattr(pumps, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(pumps, "LOUD_BYTES", 0)
    refused = 0

    def full(*_args: object, **_options: object) -> int:
        nonlocal refused
        refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "splice", full)
        command.pump.start()
        os.write(command.stdout, b"x" * 50_000)
        await until(lambda: refused >= 3)
    await until(lambda: command.read() == b"x" * 50_000)


@pytest.mark.may_block("a file that could not be begun is removed")
async def test_full_disk_at_the_end(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept when the command has ended is counted as lost."""
    await command.stop()
    os.write(command.stderr, b"123")

    def full(*_args: object, **_options: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "splice", full)
    command.pump.drain()
    assert command.log.dropped == frames.Amounts(stderr=3)


async def test_closed_pipe_is_left_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that closes its output and goes on does not keep the loop busy."""
    calls = 0
    real = pumps._pending

    def pending(fd: int) -> int:
        nonlocal calls
        calls += 1
        return real(fd)

    monkeypatch.setattr(pumps, "_pending", pending)
    os.close(command.stdout)
    command.stdout = os.open("/dev/null", os.O_WRONLY)
    command.pump.start()
    await until(lambda: calls)
    os.write(command.stderr, b"still here")
    await until(lambda: command.read(Kind.STDERR) == b"still here")
    assert calls < 10


async def test_drop_by_drop(command: Command) -> None:
    """A command that writes byte by byte costs few wake-ups and few frames."""
    command.pump.start()
    for number in range(2000):
        os.write(command.stdout, b"%d" % (number % 10))
        await asyncio.sleep(0)
    await until(lambda: len(command.read()) == 2000)
    assert command.read() == b"".join(b"%d" % (number % 10) for number in range(2000))
    assert command.told < 500


async def test_loud_neighbour(command: Command, tmp_path: Path) -> None:
    """While one command prints without end, another one's output arrives all the same."""
    loud = Command(tmp_path / "loud")
    loud.pump.start()
    command.pump.start()
    shouting = asyncio.ensure_future(loud.put(b"x" * 20_000_000))
    for number in range(20):
        os.write(command.stdout, b"%02d" % number)
        await until(functools.partial(lambda expected: command.log.held == expected, 2 * number + 2))
    quiet_first = not shouting.done()
    shouting.cancel()
    await asyncio.gather(shouting, return_exceptions=True)
    await loud.close()
    assert quiet_first

"""Content on its way into a file, where the sandbox writes it."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from traforo.domain import errors
from traforo.worker.files import fillings

pytestmark = pytest.mark.may_block("files and pipes of the test itself")


class Inside:
    """A sandbox that takes at most so many bytes from a pipe, and then raises what it was told to."""

    def __init__(self, room: int = 1 << 40, problem: Exception | None = None) -> None:
        self.room = room
        self.problem = problem

    def direct(self, count: int) -> bool:
        del count
        return False

    async def fill(self, descriptor: int, source: int, path: str, *, user: str) -> None:
        assert (path, user) == ("/f", "user")
        source = os.dup(source)  # as a message does
        try:
            while self.room and (data := await asyncio.to_thread(os.read, source, min(self.room, 1 << 16))):
                self.room -= os.write(descriptor, data)
        finally:
            os.close(source)
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


def filling(inside: Any, target: int) -> fillings.Filling:
    return fillings.Filling(inside, target, "/f", "user")


async def test_everything_arrives_in_order(target: int) -> None:
    """More of it than a pipe holds, piece after piece."""
    blocks = [bytes([number]) * 300_000 for number in range(5)]
    writing = filling(Inside(), target)
    for block in blocks:
        await writing.write(block)
    await writing.finish()
    assert os.pread(target, 1 << 22, 0) == b"".join(blocks)


async def test_why_it_stopped_is_told(target: int) -> None:
    """By whichever call meets it; a full disk for instance."""
    writing = filling(Inside(1000, errors.DiskFull("full")), target)
    with pytest.raises(errors.DiskFull):
        await writing.write(b"x" * 3_000_000)
    writing = filling(Inside(problem=errors.DiskFull("full")), target)
    await writing.write(b"x")
    with pytest.raises(errors.DiskFull):
        await writing.finish()


async def test_a_part_is_not_taken_for_the_whole(target: int) -> None:
    """Also where the sandbox says that all is well."""
    writing = filling(Inside(1000), target)
    with pytest.raises(errors.Conflict):
        await writing.write(b"x" * 3_000_000)


async def test_who_lets_go_leaves_nothing_open(target: int) -> None:
    """Neither a pipe nor a task."""
    before = set(os.listdir("/proc/self/fd"))
    writing = filling(Inside(), target)
    await writing.write(b"x" * 1000)
    await writing.abandon()
    await writing.abandon()
    for _ in range(200):
        if set(os.listdir("/proc/self/fd")) == before:
            break
        await asyncio.sleep(0.01)
    assert set(os.listdir("/proc/self/fd")) == before
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

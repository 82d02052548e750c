"""Files that are opened ahead of their use."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from traforo.domain import errors
from traforo.worker.files import files, openings
from traforo.worker.runtimes import contract

pytestmark = pytest.mark.may_block("files of the host stand for those of a sandbox")


class Files:
    """Opens files of the host, one that is not there when it is asked for `/none`."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.opened: list[int] = []
        self.stuck: set[str] = set()

    async def open(self, path: str, flags: int, *, user: str) -> int:
        await asyncio.sleep(0)
        if path in self.stuck:
            await asyncio.Event().wait()
        if "none" in path:
            raise errors.NotFound("gone", kind="file", id=path)
        self.opened.append(os.open(self._place, flags))
        return self.opened[-1]


@pytest.fixture
def inside(tmp_path: Path) -> Any:
    (tmp_path / "f").write_bytes(b"x")
    return Files(tmp_path / "f")


def stats(count: int) -> list[contract.FileStat]:
    """Return files, every fifth a directory and every seventh gone."""
    kinds = contract.FileKind
    return [
        contract.FileStat(
            f"/none{n}" if n % 7 == 6 else f"/f{n}", kinds.DIRECTORY if n % 5 == 4 else kinds.FILE, 0, 0, 0, 0, 0.0
        )
        for n in range(count)
    ]


def closed(fds: list[int]) -> bool:
    """Tell whether all of these are closed."""
    return not any(Path(f"/proc/self/fd/{fd}").exists() for fd in fds)


async def test_order(inside: Any) -> None:
    """Each entry comes once, in order, with its file, with why there is none, or without one."""
    found = stats(30)
    got = []
    async for facts, outcome in openings.each(inside, found, user="root"):
        got.append(facts)
        if facts.kind is contract.FileKind.DIRECTORY:
            assert outcome is None
        elif "none" in facts.path:
            assert isinstance(outcome, errors.NotFound)
        else:
            assert isinstance(outcome, files.OpenFile)
            outcome.close()
    assert got == found
    assert closed(inside.opened)


async def test_a_caller_who_leaves(inside: Any) -> None:
    """What was opened for nobody is closed."""
    entries = openings.each(inside, stats(30), user="root")
    _, outcome = await anext(entries)
    assert isinstance(outcome, files.OpenFile)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(inside.opened) > 1
    await entries.aclose()
    outcome.close()
    assert closed(inside.opened)


async def test_a_sandbox_that_does_not_answer(inside: Any) -> None:
    """Who is cancelled while one file is waited for leaves none open."""
    inside.stuck = {"/f3"}

    async def reading() -> None:
        async for _, outcome in openings.each(inside, stats(30), user="root"):
            if isinstance(outcome, files.OpenFile):
                outcome.close()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reading(), 0.05)
    assert closed(inside.opened)

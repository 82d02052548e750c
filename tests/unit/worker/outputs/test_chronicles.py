"""Reading the log of a sandbox while it is written: nothing is passed over, whatever is under way meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes import clocks
from traforo.domain import ids, specs, states
from traforo.worker.execs import outcomes, runs
from traforo.worker.outputs import chronicles, framelogs, frames, merges
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, happenings

T = TypeVar("T")
NAMES = [f"exec_01K6Z8Q4T3V7WXYZ012345678{digit}" for digit in range(3)]
DONE = outcomes.Outcome(states.ExecEnd.EXITED, 0, None)


class World:
    """A sandbox with some execs; what is in their logs came from nowhere."""

    def __init__(self, directory: Path, limits: framelogs.Limits | None = None) -> None:
        self.clock = clocks.FakeClock()
        self.directory = directory
        self.limits = limits or framelogs.Limits()
        self.runs: dict[str, runs.Exec] = {}
        self.written: dict[str, list[tuple[str, str]]] = {}
        self.told = 0
        self.entry = entries.Entry(
            id=ids.new_sandbox_id(ids.worker_hash("here")),
            spec=specs.SandboxSpec("host", "container", specs.Resources(1, 64, 32, 16), 60.0),
            owner=None,
            rootfs=contract.Rootfs("host", ()),
            state=states.SandboxState.RUNNING,
            created_at=self.clock.now(),
            expires_at=self.clock.now() + 60,
            happenings=happenings.Happenings(self.clock),
        )
        self.reader = chronicles.Chronicles(self, self.clock)

    def visible(self, entry: entries.Entry) -> list[runs.Exec]:
        return list(self.runs.values())

    async def log(self, run: runs.Exec) -> framelogs.FrameLog:
        assert run.log is not None
        return run.log

    async def read(self, log: framelogs.FrameLog, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return work()

    def ms(self) -> int:
        return int(self.clock.now() * 1000)

    def begin(self, name: str) -> None:
        if name not in self.runs:
            run = self.runs[name] = runs.Exec(name, self.entry.text_id, "true", self.clock.now())
            run.log = framelogs.FrameLog(f"{self.directory}/{name}", self.limits)
            run.pump = SimpleNamespace(moving_ms=None)  # type: ignore[assignment]  # all that is asked of it
            self.written[name] = []

    def write(self, name: str, kind: frames.Kind, ms: int | None = None) -> None:
        """Put a frame into a log, as of now or as of when it was begun to be moved."""
        self.begin(name)
        run = self.runs[name]
        if run.log is None or run.pump is None or (ms is None and run.pump.moving_ms is not None):
            return
        text = f"{name}/{len(self.written[name])};"
        run.log.append(kind, text.encode(), self.ms() if ms is None else ms)
        self.written[name].append((kind.name.lower(), text))

    def move(self, name: str) -> None:
        """Begin to move output in a thread, or be done with it."""
        self.begin(name)
        run = self.runs[name]
        if run.pump is None:
            return
        begun, run.pump.moving_ms = run.pump.moving_ms, None
        if begun is None:
            run.pump.moving_ms = self.ms()
        else:
            self.write(name, frames.Kind.STDOUT, begun)

    def end(self, name: str) -> None:
        run = self.runs.get(name)
        if run is None or run.outcome is not None or run.log is None:
            return
        if run.pump is not None and run.pump.moving_ms is not None:
            self.move(name)
        run.outcome, run.completed_at, run.pump = DONE, self.clock.now(), None
        run.written = runs.Written(1, 0, run.log.count)

    def close(self) -> None:
        for run in self.runs.values():
            if run.log is not None:
                run.log.close()


names = st.sampled_from(NAMES)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.sampled_from([frames.Kind.STDOUT, frames.Kind.STDERR])),
        st.tuples(st.just("move"), names),
        st.tuples(st.just("end"), names),
        st.tuples(st.just("tell")),
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.0004, 0.5])),
        st.tuples(st.just("read"), st.integers(1, 4)),
    ),
    max_size=60,
)


_OUT = frames.Kind.STDOUT


@given(steps)
@example(
    [("write", NAMES[1], _OUT), ("wait", 0.001), ("write", NAMES[1], _OUT), ("read", 4), ("write", NAMES[0], _OUT)]
)
def test_pages_pass_over_nothing(found: list[tuple[Any, ...]]) -> None:
    """A reader that keeps nothing but a cursor gets each entry once and in order, however late it was written."""

    async def play(world: World) -> None:
        read: list[chronicles.LogEntry] = []
        cursor = merges.START

        async def page(limit: int) -> chronicles.Page:
            nonlocal cursor
            taken = await world.reader.page(
                world.entry, merges.parse("" if cursor == merges.START else str(cursor)), limit
            )
            read.extend(taken.entries)
            cursor = taken.last
            return taken

        for step, *arguments in found:
            match step:
                case "write":
                    world.write(*arguments)
                case "move":
                    world.move(*arguments)
                case "end":
                    world.end(*arguments)
                case "tell":
                    world.entry.happenings.tell(states.Happening.PORT_PUBLISHED, port=world.told)
                    world.told += 1
                case "wait":
                    world.clock.move(*arguments)
                case "read":
                    await page(*arguments)
        for name in NAMES:
            world.end(name)
        world.entry.happenings.end()
        while (taken := await page(3)).more:
            assert taken.full
        keys = [merges.parse(one.cursor) for one in read]
        assert keys == sorted(set(keys))
        for name, expected in world.written.items():
            assert [(one.type, one.data) for one in read if one.exec_id == name] == expected
        assert len([one for one in read if one.type == "event"]) == world.told

    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            asyncio.run(play(world))
        finally:
            world.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_one_who_follows_misses_nothing_when_the_clock_is_set_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from where it was in each log, whatever the time is said to be."""
    monkeypatch.setattr(chronicles, "PAUSE_SECONDS", 0.001)
    read: list[chronicles.LogEntry] = []

    async def follow() -> None:
        async for some in world.reader.follow(world.entry, merges.START, chronicles.Wanted()):
            read.extend(some)

    async def seen(count: int) -> None:
        for run in world.runs.values():
            run.notify()
        async with asyncio.timeout(20):
            while len(read) < count:
                await asyncio.sleep(0.001)

    following = asyncio.ensure_future(follow())
    for name in NAMES[:2]:
        world.write(name, frames.Kind.STDOUT)
    world.entry.happenings.tell(states.Happening.READY)
    world.clock.move(1)
    await seen(3)
    world.clock.step(-3600)
    for name in NAMES[:2]:
        world.write(name, frames.Kind.STDOUT)
    world.entry.happenings.tell(states.Happening.ADOPTED)
    await seen(6)
    for name in NAMES[:2]:
        world.end(name)
    world.entry.happenings.end()
    await asyncio.wait_for(following, 20)
    assert len(read) == 6
    for name in NAMES[:2]:
        assert [(one.type, one.data) for one in read if one.exec_id == name] == world.written[name]
    world.close()


async def test_one_who_follows_is_told_what_it_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a log drops what was not read yet: exactly as many bytes."""
    monkeypatch.setattr(chronicles, "PAUSE_SECONDS", 0.001)
    world = World(tmp_path, framelogs.Limits(max_bytes=16_384, segment_bytes=8192))
    name = NAMES[0]
    world.write(name, frames.Kind.STDOUT)
    world.clock.move(1)
    lines = world.reader.follow(world.entry, merges.START, chronicles.Wanted("stdout"))
    read = list(await anext(lines))
    run = world.runs[name]
    assert run.log is not None
    log = run.log
    for _ in range(40):
        await asyncio.to_thread(log.append, frames.Kind.STDOUT, b"x" * 1000, world.ms())
    world.end(name)
    world.entry.happenings.end()
    async for some in lines:
        read.extend(some)
    gaps = [int(one.data) for one in read if one.type == "gap"]
    assert len(gaps) == 1
    assert gaps[0] + sum(len(one.data) for one in read if one.type == "stdout") == 40_000 + len(f"{name}/0;")
    world.close()

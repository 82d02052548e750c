"""Streams over HTTP: lines and events, from any cursor, at the pace of their readers, over restarts of the worker."""

import asyncio
import base64
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes import benches
from traforo.domain import specs
from traforo.worker.execs import execs, outcomes, pumps, runs, streams
from traforo.worker.outputs import framelogs, frames
from traforo.worker.routes import streams as routes_streams
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

GIBIBYTE = 1 << 30


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


@pytest.fixture
async def served(bench: benches.Bench) -> AsyncIterator[benches.Served]:
    async with bench.served() as found:
        yield found


async def lines(served: benches.Served, run: execs.Exec, **query: Any) -> list[dict[str, Any]]:
    """Return all lines of a stream."""
    async with served.client.stream("GET", f"/exec/{run.id}/stream", params=query) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        return [json.loads(line) async for line in answer.aiter_lines()]


def text(found: list[dict[str, Any]], kind: str = "stdout") -> str:
    return "".join(line["data"] for line in found if line["type"] == kind)


async def test_lines(bench: benches.Bench, served: benches.Served) -> None:
    """A stream gives the frames that the pages give, and ends behind the exit, while it runs and later alike."""
    run = await bench.run("printf 'a\\303'; sleep 0.05; printf '\\244b\\377' ; printf err >&2; exit 3")
    for encoding in ("utf8", "base64"):
        found = await lines(served, run, encoding=encoding)
        page = await bench.execs.frames(run, cursor=0, wait=0, limit=1000, encoding=encoding)
        shown = [{"cursor": one.cursor, "type": one.type, "data": one.data, "ts": one.ts} for one in page.frames]
        assert found == shown
    assert text(await lines(served, run)) == "aäb\ufffd"
    assert json.loads(text(await lines(served, run), "exit")) == {"end": "exited", "exit_code": 3, "signal": None}


@pytest.mark.parametrize("encoding", ["utf8", "base64"])
async def test_resume(bench: benches.Bench, served: benches.Served, encoding: str) -> None:
    """From every cursor on the rest is the same, also where a character was cut."""
    run = await bench.run("for i in 1 2 3 4; do printf '\\342\\202'; sleep 0.02; printf '\\254'; sleep 0.02; done")
    await bench.execs.wait(run)
    everything = await lines(served, run, encoding=encoding)
    assert len(everything) > 4
    for start in range(len(everything) + 2):
        assert await lines(served, run, cursor=start, encoding=encoding) == everything[start:]


async def test_without_following(bench: benches.Bench, served: benches.Served) -> None:
    """Without `follow` it ends with what is there."""
    run = await bench.run("echo there; sleep 100")
    await bench.execs.frames(run, cursor=0, wait=20, limit=1, encoding="utf8")
    assert text(await lines(served, run, follow="false")) == "there\n"
    assert await lines(served, run, follow="false", cursor=1) == []


async def test_heartbeats(bench: benches.Bench, served: benches.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is broken by heartbeats, and the sandbox counts as used for as long as somebody listens."""
    monkeypatch.setattr(routes_streams, "HEARTBEAT_SECONDS", 0.02)
    run = await bench.run("sleep 100", background=True)
    for accept, beat in (("", '{"type":"heartbeat"}'), ("text/event-stream", "event: heartbeat")):
        assert bench.entry.activity.holds == 0
        async with served.client.stream("GET", f"/exec/{run.id}/stream", headers={"accept": accept}) as answer:
            got = answer.aiter_lines()
            assert await anext(got) == beat
            assert bench.entry.activity.holds == 1
        await benches.until(lambda: bench.entry.activity.holds == 0 and not run.watchers)


async def test_events(bench: benches.Bench, served: benches.Served) -> None:
    """Events have the cursor to resume from as their id; to who comes back after the end there is nothing to say."""
    run = await bench.run("echo one; sleep 0.05; echo two")
    await bench.execs.wait(run)
    headers = {"accept": "text/event-stream"}
    whole = await served.client.get(f"/exec/{run.id}/stream", headers=headers)
    assert whole.headers["content-type"] == "text/event-stream"
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in whole.text.strip().split("\n\n")]
    assert [event["event"] for event in events] == ["stdout", "stdout", "exit"]
    assert [event["id"] for event in events] == ["1", "2", "3"]
    assert [json.loads(event["data"])["type"] for event in events] == ["stdout", "stdout", "exit"]
    rest = await served.client.get(f"/exec/{run.id}/stream", headers=headers | {"last-event-id": "1"})
    assert rest.text == whole.text.partition("\n\n")[2]
    last = await served.client.get(f"/exec/{run.id}/stream", headers=headers | {"last-event-id": "3"})
    assert (last.status_code, last.content) == (204, b"")
    for wrong in ("x", "-1", "9" * 30):
        refused = await served.client.get(f"/exec/{run.id}/stream", headers={"last-event-id": wrong})
        assert refused.json()["error"]["field"] == "last-event-id"


async def test_gap(tmp_path: Path) -> None:
    """What a log dropped is a line of its own, in both forms, and counts every byte."""
    async with benches.made(tmp_path / "x", execs.Limits(log=framelogs.Limits(400_000, 100_000))) as bench:
        run = await bench.run("head -c 3000000 /dev/zero")
        await bench.execs.wait(run)
        async with bench.served() as served:
            found = await lines(served, run)
            assert (found[0]["type"], found[0]["dropped"] + len(text(found))) == ("gap", 3_000_000)
            events = await served.client.get(f"/exec/{run.id}/stream", headers={"accept": "text/event-stream"})
            assert events.text.startswith(f"id: {found[1]['cursor']}\nevent: gap\n")


async def test_values(bench: benches.Bench, served: benches.Served) -> None:
    """Values of code are frames of type `result`."""
    run = bench.execs.record(bench.entry, command="2", runtime="python", context_id="ctx_1", timeout_ms=None)
    following = asyncio.create_task(lines(served, run))
    bench.execs.feed(run, frames.Kind.STDOUT, b"x")
    bench.execs.feed(run, frames.Kind.RESULT, '{"text/plain":"ä"}'.encode())
    await asyncio.sleep(0.01)
    bench.execs.conclude(run, outcomes.LOST)
    found = await following
    assert [line["type"] for line in found] == ["stdout", "result", "exit"]
    assert json.loads(found[1]["data"]) == {"text/plain": "ä"}


async def test_reader_that_goes(bench: benches.Bench, served: benches.Served) -> None:
    """A reader that goes away leaves nothing behind, and the command goes on."""
    run = await bench.run("sleep 100")
    for _ in range(5):
        async with served.client.stream("GET", f"/exec/{run.id}/stream"):
            await benches.until(lambda: len(run.watchers) == 1)
        await benches.until(lambda: not run.watchers)
    assert run.outcome is None


async def test_worker_that_stops(bench: benches.Bench) -> None:
    """A stream that is cut off by the end of its worker does not look complete, and goes on at the next."""
    run = await bench.run("echo one; read x; echo two", stdin_open=True)
    seen: list[dict[str, Any]] = []
    async with bench.served() as served, served.client.stream("GET", f"/exec/{run.id}/stream") as answer:
        following = answer.aiter_lines()
        seen.append(json.loads(await anext(following)))
        await bench.execs.close()
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(following)
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    assert again.input is not None
    await again.input.write(b"\n")
    async with bench.served() as served:
        seen += await lines(served, again, cursor=seen[-1]["cursor"] + 1)
    assert (text(seen), [line["cursor"] for line in seen]) == ("one\ntwo\n", [0, 1, 2])


@pytest.mark.timeout(600)
async def test_a_lot(tmp_path: Path) -> None:
    """Every byte of a large output arrives. 64 MiB, or `TRAFORO_TEST_STREAM_BYTES`: 1 GiB is what is promised."""
    size = int(os.environ.get("TRAFORO_TEST_STREAM_BYTES", GIBIBYTE // 16))
    command = f"dd if=/dev/zero bs=65536 count={size // 65536} 2>/dev/null | tr '\\0' 'x'"
    wanted = hashlib.sha256()
    for _ in range(size // 65536):
        wanted.update(b"x" * 65536)
    kept = execs.Limits(framelogs.Limits(2 * size, 16 * 1024 * 1024), sandbox_bytes=2 * size)
    async with benches.made(tmp_path / "x", kept) as bench, bench.served() as served:
        run = await bench.run(command)
        got = hashlib.sha256()
        async with served.client.stream("GET", f"/exec/{run.id}/stream", params={"encoding": "base64"}) as answer:
            async for line in answer.aiter_lines():
                frame = json.loads(line)
                assert frame["type"] != "gap"
                if frame["type"] == "stdout":
                    got.update(base64.b64decode(frame["data"]))
    assert got.hexdigest() == wanted.hexdigest()


def claimed(entry: entries.Entry, running: contract.RunningExec) -> bool:
    """Take over a command, whatever it is."""
    pumps.close(running)
    return entry.live


class Reader:
    """A client that reads as far as it is let, and remembers what it was told."""

    def __init__(self, cursor: int, start: int) -> None:
        self.cursor = cursor
        self.position = start
        """Bytes before it, seen or missed."""
        self.stream: streams.Stream | None = None
        self.ended = False


class Following(RuleBasedStateMachine):
    """Readers of any speed over crashes and drops: each gets what was written, in order, or is told what is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = tempfile.TemporaryDirectory(prefix="traforo-following-")
        self.written = bytearray()
        self.readers: list[Reader] = []
        self.over = False
        self.bench: benches.Bench
        self.run: runs.Exec

    @initialize(segments=st.sampled_from([2, 3, 1000]))
    def begin(self, segments: int) -> None:
        """Start an exec whose log keeps so many segments of 8 KiB."""
        self.runner.run(self._begin(segments))

    async def _begin(self, segments: int) -> None:
        kept = execs.Limits(framelogs.Limits(8192 * segments, 8192))
        self.bench = benches.Bench(Path(self.place.name), kept)
        await self.bench.start()
        kernel = specs.ExecSpec(("sleep", "1000"))
        await self.bench.execs.start(self.bench.entry, kernel, hidden=True)
        self.bench.claims = claimed
        self.run = self.bench.execs.record(
            self.bench.entry, command="x", runtime=None, context_id="ctx_1", timeout_ms=None
        )
        self.readers = [Reader(0, 0)]

    @precondition(lambda self: not self.over)
    @rule(size=st.integers(1, 9000), times=st.integers(1, 8))
    def write(self, size: int, times: int) -> None:
        """The command writes."""
        for _ in range(times):
            self.runner.run(self._write(bytes((len(self.written) + index) % 251 for index in range(size))))

    async def _write(self, data: bytes) -> None:
        self.bench.execs.feed(self.run, frames.Kind.STDOUT, data)
        self.written += data

    @rule()
    def come(self) -> None:
        """A new reader begins at the start."""
        if len(self.readers) < 4:
            self.readers.append(Reader(0, 0))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 3), steps=st.integers(1, 4))
    def read(self, which: int, steps: int) -> None:
        """A reader takes some batches."""
        self.runner.run(self._read(self.readers[which % len(self.readers)], steps))

    async def _read(self, reader: Reader, steps: int) -> None:
        if reader.stream is None:
            reader.stream = await self.bench.execs.stream(self.run, reader.cursor)
        for _ in range(steps):
            batch = await reader.stream.next(0)
            if batch is None:
                return
            assert not reader.ended, "nothing comes behind the end"
            if batch.at_most:  # a reader that remembers what it has seen knows more than the log
                assert self.run.log is not None
                first = self.run.log.position(batch.first)
                assert reader.position <= first <= reader.position + batch.dropped
                reader.position = first
            else:
                reader.position += batch.dropped
            for frame in batch.found:
                end = reader.position + len(frame.payload)
                assert frame.payload == bytes(self.written[reader.position : end])
                reader.position = end
            assert batch.next >= reader.cursor
            reader.cursor = batch.next
            if batch.exit is not None:
                reader.position += batch.lost
                assert reader.position == len(self.written)
                reader.ended = True

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 3))
    def leave(self, which: int) -> None:
        """A reader loses its connection, and comes back with its cursor."""
        self.readers[which % len(self.readers)].stream = None

    @precondition(lambda self: not self.over)
    @rule()
    def conclude(self) -> None:
        """The command ends."""
        self.over = True
        self.runner.run(self._conclude())

    async def _conclude(self) -> None:
        self.bench.execs.conclude(self.run, outcomes.Outcome(outcomes.LOST.end, None, None))

    @rule()
    def crash(self) -> None:
        """The worker is started again."""
        self.runner.run(self._crash())

    async def _crash(self) -> None:
        self.bench.journal.put_exec(self.run.record())
        await self.bench.crash()
        self.run = self.bench.execs.get(self.bench.entry, self.run.id)
        assert self.over == (self.run.outcome is not None)
        for reader in self.readers:
            reader.stream = None

    @invariant()
    def nobody_is_ahead(self) -> None:
        """No reader was told of more than was written."""
        assert all(reader.position <= len(self.written) for reader in self.readers)

    def teardown(self) -> None:
        """Let everybody read to the end."""
        try:
            if hasattr(self, "bench"):
                self.runner.run(self._finish())
        finally:
            self.runner.close()
            self.place.cleanup()

    async def _finish(self) -> None:
        try:
            if not self.over:
                await self._conclude()
            for reader in self.readers:
                await self._read(reader, 10_000)
                assert reader.ended
        finally:
            await self.bench.close()


Following.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFollowing = pytest.mark.timeout(300)(Following.TestCase)

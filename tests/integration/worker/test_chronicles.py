"""The log of a whole sandbox over real execs: everything once, in order, whatever the reader does in between."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import benches
from traforo.domain import clocks, errors, states
from traforo.worker.execs import execs
from traforo.worker.outputs import chronicles, framelogs, merges

HOST = clocks.SystemClock()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


def reader(bench: benches.Bench) -> chronicles.Chronicles:
    return chronicles.Chronicles(bench.execs, HOST)


async def everything(bench: benches.Bench, limit: int = 1000, **wanted: str) -> list[chronicles.LogEntry]:
    """Read page by page until nothing is held back; the cursor is all that goes from one page to the next."""
    found: list[chronicles.LogEntry] = []
    cursor: str | None = None
    for _ in range(10_000):
        page = await reader(bench).page(bench.entry, merges.parse(cursor), limit, chronicles.Wanted(**wanted))  # type: ignore[arg-type]  # text of the cases below
        found += page.entries
        cursor = str(page.last) if page.last != merges.START else None
        if page.held:
            await asyncio.sleep(0.001)
        elif not page.full:
            return found
    raise AssertionError("reading never came to an end")


def texts(found: list[chronicles.LogEntry], exec_id: str, kind: str = "stdout") -> str:
    return "".join(one.data for one in found if one.exec_id == exec_id and one.type == kind)


async def test_output_and_events_in_order(bench: benches.Bench) -> None:
    """Each exec begins before its output and ends after it; streams are told apart."""
    first = await bench.done("echo one; echo bad >&2; exit 3")
    second = await bench.done("echo two")
    found = await everything(bench)
    ids = [first["exec_id"], second["exec_id"]]
    kinds = [(one.type, one.exec_id) for one in found]
    for exec_id in ids:
        mine = [kind for kind, whose in kinds if whose == exec_id]
        assert (mine[0], mine[-1]) == ("event", "event")
    assert [kinds.index(("stdout", exec_id)) for exec_id in ids] == sorted(kinds.index(("stdout", one)) for one in ids)
    told = [json.loads(one.data) for one in found if one.type == "event"]
    assert [(one["type"], one["exec_id"]) for one in told] == [
        (kind, exec_id) for exec_id in ids for kind in ("exec_started", "exec_ended")
    ]
    assert told[1]["exit_code"] == 3
    assert (texts(found, ids[0]), texts(found, ids[0], "stderr"), texts(found, ids[1])) == ("one\n", "bad\n", "two\n")


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
async def test_pages_give_everything_once(bench: benches.Bench, limit: int) -> None:
    """Whatever the size of a page: each entry once, cursors in order, each stream as it was written."""
    script = "i=0; while [ $i -lt 40 ]; do echo $i; echo e$i >&2; i=$((i+1)); sleep 0.001; done"
    runs = [await bench.run(script) for _ in range(3)]
    for run in runs:
        await bench.execs.wait(run)
    found = await everything(bench, limit)
    keys = [merges.parse(one.cursor) for one in found]
    assert keys == sorted(set(keys))
    for run in runs:
        assert texts(found, run.id) == "".join(f"{i}\n" for i in range(40))
        assert texts(found, run.id, "stderr") == "".join(f"e{i}\n" for i in range(40))


@pytest.mark.parametrize("stream", ["stdout", "stderr", "events"])
async def test_one_stream(bench: benches.Bench, stream: str) -> None:
    """Only what was asked for, in full."""
    result = await bench.done("echo out; echo err >&2")
    found = await everything(bench, 1, stream=stream)
    wanted = {"events": {"event"}}.get(stream, {stream})
    assert {one.type for one in found} == wanted
    assert len(found) == (2 if stream == "events" else 1)
    assert all(one.exec_id == result["exec_id"] for one in found)


async def test_a_character_over_two_frames(bench: benches.Bench) -> None:
    """Text is whole however it is cut; base64 gives the bytes."""
    result = await bench.done("printf '\\303'; sleep 0.05; printf '\\251'; sleep 0.05; printf '\\377'")
    assert texts(await everything(bench, 1), result["exec_id"]) == "é\ufffd"
    exact = await everything(bench, 1, encoding="base64")
    assert [one.data for one in exact if one.type == "stdout"] == ["ww==", "qQ==", "/w=="]


async def test_following(bench: benches.Bench) -> None:
    """One who follows gets what is printed as it comes, of execs that start later too, and the end."""
    found: list[chronicles.LogEntry] = []

    async def follow() -> None:
        async for some in reader(bench).follow(bench.entry, merges.START, chronicles.Wanted()):
            found.extend(some)

    following = asyncio.ensure_future(follow())
    runs = [await bench.run("cat; echo bye"), await bench.run("for i in 1 2 3; do echo $i; sleep 0.01; done")]
    for run in runs:
        await bench.execs.wait(run)
    last = await bench.done("echo last")
    bench.entry.happenings.tell(states.Happening.STOPPED, reason="deleted")
    bench.entry.happenings.end()
    await asyncio.wait_for(following, 20)
    assert found == await everything(bench)
    assert (texts(found, runs[0].id), texts(found, runs[1].id)) == ("bye\n", "1\n2\n3\n")
    assert texts(found, last["exec_id"]) == "last\n"
    assert json.loads(found[-1].data)["type"] == "stopped"


async def test_a_sign_of_life(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In silence there is a heartbeat, and one who goes away leaves nothing behind."""
    monkeypatch.setattr(chronicles, "HEARTBEAT_SECONDS", 0.05)
    run = await bench.run(["sleep", "100"])
    lines = reader(bench).follow(bench.entry, merges.START, chronicles.Wanted("stdout"))
    assert [await anext(lines), await anext(lines)] == [[], []]
    await lines.aclose()
    assert run.watchers == []
    await bench.execs.signal(run, 9, tree=True)


async def test_after_a_crash(bench: benches.Bench) -> None:
    """Another worker gives the same entries under the same cursors."""
    result = await bench.done("for i in 1 2 3; do echo $i; sleep 0.01; done")
    before = await everything(bench)
    await bench.crash()
    kept = [one for one in await everything(bench) if one.type != "event"]
    assert kept == [one for one in before if one.type != "event"]
    assert texts(kept, result["exec_id"]) == "1\n2\n3\n"


async def test_what_was_dropped_is_told(tmp_path: Path) -> None:
    """A log that lost its beginning begins with a gap, of as many bytes as are missing."""
    kept = execs.Limits(log=framelogs.Limits(max_bytes=65_536, segment_bytes=16_384))
    async with benches.made(tmp_path, kept) as bench:
        result = await bench.done("i=0; while [ $i -lt 300 ]; do head -c 1000 /dev/zero; i=$((i+1)); done")
        found = [one for one in await everything(bench, 3) if one.type != "event"]
        assert [one.type for one in found][:2] == ["gap", "stdout"]
        assert {one.type for one in found[1:]} == {"stdout"}
        assert int(found[0].data) + len(texts(found, result["exec_id"])) == 300_000


async def test_a_malformed_cursor(bench: benches.Bench) -> None:
    """It is refused, whatever is wrong with it."""
    for text in ("x", "1.1", "1.3.-.0", "1.1.-.-1", "1.1.exec_x.1", "9" * 40 + ".1.-.1", " 1.1.-.1"):
        with pytest.raises(errors.InvalidRequest):
            merges.parse(text)


async def test_reading_much_takes_little(bench: benches.Bench) -> None:
    """A page holds about a MiB, however much there is."""
    run = await bench.run("head -c 30000000 /dev/zero")
    await bench.execs.wait(run)
    total, cursor = 0, merges.START
    tracemalloc.start()
    try:
        for _ in range(1000):
            page = await reader(bench).page(bench.entry, cursor, 1000)
            total += sum(len(one.data) for one in page.entries if one.type == "stdout")
            cursor = page.last
            if not page.full and not page.held:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 30_000_000
    assert peak < 12_000_000


async def test_many_execs_that_are_over_cost_nothing(bench: benches.Bench) -> None:
    """Behind a cursor, logs of execs that ended before it are not opened."""
    for _ in range(5):
        await bench.done("echo x")
    found = await everything(bench)
    opened: list[str] = []

    original = bench.execs.log

    async def log(run: execs.Exec) -> framelogs.FrameLog:
        opened.append(run.id)
        return await original(run)

    bench.execs.log = log  # type: ignore[method-assign]  # counted
    await asyncio.sleep(0.002)
    last = await bench.done("echo y")
    page = await reader(bench).page(bench.entry, merges.parse(found[-1].cursor), 100)
    while page.held:
        await asyncio.sleep(0.001)
        page = await reader(bench).page(bench.entry, merges.parse(found[-1].cursor), 100)
    assert set(opened) <= {last["exec_id"], found[-1].exec_id}
    assert [one.data for one in page.entries if one.type == "stdout"] == ["y\n"]

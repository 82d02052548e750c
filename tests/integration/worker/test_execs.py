"""Execs over real processes of the host: results, frames, signals, deadlines, crashes."""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import benches, runtimes
from traforo.domain import errors, states
from traforo.worker.execs import boxes, execs
from traforo.worker.outputs import blanks, framelogs
from traforo.worker.runtimes import contract


@pytest.fixture(autouse=True)
def no_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no files ahead, so that descriptors can be counted."""
    monkeypatch.setattr(blanks, "LOW", 0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


def logs(bench: benches.Bench) -> set[str]:
    """Return the ids of the execs that have a log on disk."""
    return {path.name.partition(".")[0] for path in bench.directory.glob("*.*")}


async def until_released(bench: benches.Bench) -> None:
    """Return when the runtime holds no exec any more."""
    await benches.until(lambda: not bench.spawner.sandboxes[bench.entry.text_id].execs)


async def test_result(bench: benches.Bench) -> None:
    """A command's output, code and times are what they are."""
    result = await bench.done("echo out; echo err >&2; exit 7")
    assert result | {"duration_ms": 0, "started_at": "", "completed_at": "", "exec_id": "", "pid": 1} == {
        "exec_id": "",
        "sandbox_id": bench.entry.text_id,
        "command": "echo out; echo err >&2; exit 7",
        "runtime": None,
        "status": "exited",
        "end": "exited",
        "exit_code": 7,
        "signal": None,
        "stdout": "out\n",
        "stderr": "err\n",
        "output": "out\nerr\n",
        "stdout_truncated": False,
        "stderr_truncated": False,
        "duration_ms": 0,
        "started_at": "",
        "completed_at": "",
        "tag": None,
        "pid": 1,
        "tty": False,
        "background": False,
        "context_id": None,
        "stdin_open": False,
    }
    assert result["started_at"] <= result["completed_at"]
    assert result["duration_ms"] > 0


async def test_silence_touches_no_disk(bench: benches.Bench) -> None:
    """A command without output makes no file, and holds nothing when it is over."""
    await bench.done(["true"])
    await until_released(bench)
    before = benches.descriptors()
    for _ in range(3):
        result = await bench.done(["true"])
        assert (result["exit_code"], result["output"]) == (0, "")
    await until_released(bench)
    assert (bench.directory.exists(), benches.descriptors()) == (False, before)


async def test_environment(bench: benches.Bench) -> None:
    """Image, sandbox and exec each add to the environment; the nearest wins. The image says where and as whom."""
    result = await bench.done("echo $IMAGE $SANDBOX $MINE $USER; pwd", env={"MINE": "yes", "SANDBOX": "no"})
    assert result["stdout"].splitlines()[0] == "yes no yes user"
    assert result["stdout"].splitlines()[1].endswith("/tmp")


async def test_start_failure(bench: benches.Bench) -> None:
    """What cannot be started is an error that names the stage, and is not remembered."""
    with pytest.raises(errors.StartFailed) as caught:
        await bench.run(["no-such-program"])
    assert caught.value.fields["stage"] == "exec"
    assert caught.value.fields["errno_name"] == "ENOENT"
    with pytest.raises(errors.NotFound):
        bench.execs.get(bench.entry, caught.value.fields["exec_id"])
    assert bench.execs.page(bench.entry, 10, None) == ([], None)
    assert (await bench.done("no-such-program"))["exit_code"] == 127


async def test_hundred_megabytes(bench: benches.Bench) -> None:
    """Output is complete to the byte, and the result carries its start."""
    count = 100_000_000
    run = await bench.run(["sh", "-c", f"seq 1 100000000 | head -c {count}"])
    got = await bench.output(run)
    process = await asyncio.create_subprocess_shell(
        f"seq 1 100000000 | head -c {count}", stdout=asyncio.subprocess.PIPE
    )
    expected, _ = await process.communicate()
    assert len(got["stdout"]) == count
    assert got["stdout"] == expected
    result = await bench.execs.result(run)
    assert (len(result["stdout"]), result["stdout_truncated"], result["stderr_truncated"]) == (8 * 2**20, True, False)
    assert result["stdout"].encode() == expected[: 8 * 2**20]


def _bytes_of(directory: Path) -> int:
    """Return the size of all logs."""
    total = 0
    for path in directory.rglob("*.*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


async def test_output_over_the_limit(tmp_path: Path) -> None:
    """The log keeps its limit while a command prints without end; readers are told what they missed."""
    limits = execs.Limits(framelogs.Limits(max_bytes=1 << 20, segment_bytes=1 << 18))
    async with benches.made(tmp_path, limits) as bench:
        run = await bench.run(["sh", "-c", "seq 1 1000000"])
        await bench.execs.wait(run)
        # What was dropped is removed soon, in a thread, and may go while it is looked at.
        await benches.until(lambda: _bytes_of(bench.directory) <= 1 << 20)
        page = await bench.execs.frames(run, cursor=0, wait=0, limit=1000, encoding="base64")
        assert page.frames[0].cursor > 0
        got = (await bench.output(run))["stdout"]
        whole = b"".join(b"%d\n" % number for number in range(1, 1_000_001))
        assert whole.endswith(got)
        assert page.dropped == len(whole) - len(got)
        result = await bench.execs.result(run)
        assert (result["stdout_truncated"], result["stderr_truncated"]) == (True, False)


async def test_slow_reader_slows_nobody(bench: benches.Bench) -> None:
    """A command prints as fast as it can while its reader sleeps, and the reader still gets everything."""
    run = await bench.run(["sh", "-c", "seq 1 200000; echo done >&2"])
    first = await bench.execs.frames(run, cursor=0, wait=10, limit=1, encoding="base64")
    await bench.execs.wait(run)
    rest = await bench.output(run, cursor=first.next_cursor, limit=3)
    got = base64.b64decode(first.frames[0].data) + rest["stdout"]
    assert got == b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert (rest["stderr"], json.loads(rest["exit"])) == (b"done\n", {"end": "exited", "exit_code": 0, "signal": None})


async def test_long_poll(bench: benches.Bench) -> None:
    """`wait` holds an answer back until there is something to tell, and no longer."""
    os.mkfifo(bench.root / "tmp" / "go")
    run = await bench.run("echo one; read line < go; echo $line; exit 3", cwd="/tmp")
    first = await bench.execs.frames(run, cursor=0, wait=20, limit=10, encoding="utf8")
    assert ([frame.data for frame in first.frames], first.next_cursor, first.has_more) == (["one\n"], 1, True)
    empty = await bench.execs.frames(run, cursor=1, wait=0.01, limit=10, encoding="utf8")
    assert (empty.frames, empty.next_cursor, empty.has_more) == ([], 1, True)
    assert empty.wait_applied >= 0.01
    waiting = asyncio.ensure_future(bench.execs.frames(run, cursor=1, wait=20, limit=10, encoding="utf8"))
    await asyncio.to_thread((bench.root / "tmp" / "go").write_text, "two\n")
    second = await waiting
    await bench.execs.wait(run)
    rest = await bench.execs.frames(run, cursor=second.next_cursor, wait=20, limit=10, encoding="utf8")
    told = [(frame.type, frame.data) for frame in second.frames + rest.frames]
    assert told == [("stdout", "two\n"), ("exit", '{"end":"exited","exit_code":3,"signal":null}')]
    assert not (rest if rest.frames else second).has_more
    after = await bench.execs.frames(run, cursor=99, wait=20, limit=10, encoding="utf8")
    assert (after.frames, after.next_cursor, after.has_more, after.wait_applied) == ([], 99, False, 0.0)


async def test_page_limit_counts_the_end(bench: benches.Bench) -> None:
    """The exit frame is a frame like any other for limits and cursors."""
    run = await bench.run("echo x")
    await bench.execs.wait(run)
    pages = [await bench.execs.frames(run, cursor=at, wait=0, limit=1, encoding="utf8") for at in (0, 1)]
    assert [(page.frames[0].cursor, page.frames[0].type, page.has_more) for page in pages] == [
        (0, "stdout", True),
        (1, "exit", False),
    ]


async def test_text_that_is_not_utf8(bench: benches.Bench) -> None:
    """Stray bytes become U+FFFD in text and are exact in base64; a result and its frames say the same."""
    run = await bench.run(r"printf 'caf\303'; printf '\251 \377 \360\237'")
    await bench.execs.wait(run)
    result = await bench.execs.result(run)
    texts = [frame.data async for frame in bench.frames(run) if frame.type == "stdout"]
    assert result["stdout"] == "".join(texts) == "café \ufffd \ufffd"
    assert (await bench.output(run))["stdout"] == b"caf\xc3\xa9 \xff \xf0\x9f"


async def test_signals(bench: benches.Bench) -> None:
    """A signal reaches the command, and how it ended is told as it was."""
    run = await bench.run("trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    await bench.execs.frames(run, cursor=0, wait=20, limit=1, encoding="utf8")
    await bench.execs.signal(run, 15, tree=False)
    await bench.execs.wait(run)
    result = await bench.execs.result(run)
    assert (result["end"], result["exit_code"], result["stdout"]) == ("exited", 9, "ready\ngot\n")
    with pytest.raises(errors.Conflict):
        await bench.execs.signal(run, 15, tree=True)
    run = await bench.run(["sleep", "100"])
    await bench.seen(run)
    await bench.execs.signal(run, 9, tree=True)
    await bench.execs.wait(run)
    result = await bench.execs.result(run)
    assert (result["end"], result["exit_code"], result["signal"]) == ("signalled", 137, 9)


async def test_deadline_kills_the_tree(bench: benches.Bench) -> None:
    """When the deadline passes, everything the command started is dead, and its output so far is kept."""
    command = "for i in 1 2 3 4 5; do (setsid sleep 1000 & sleep 1000) & done; echo started; wait"
    run = await bench.run(command, timeout_ms=300)
    await bench.execs.wait(run)
    result = await bench.execs.result(run)
    assert (result["end"], result["exit_code"], result["signal"]) == ("timed_out", 124, 9)
    assert result["stdout"] == "started\n"
    mark = bench.spawner.sandboxes[bench.entry.text_id].mark
    await benches.until(lambda: not runtimes._marked(mark))


async def test_deadline_that_is_not_reached(bench: benches.Bench) -> None:
    """A command that ends in time is not touched by its deadline."""
    result = await bench.done("exit 5", timeout_ms=60_000)
    assert (result["end"], result["exit_code"]) == ("exited", 5)


async def test_left_behind_processes(bench: benches.Bench) -> None:
    """A command ends when it ends, though a child of it holds its output open; what comes later is not recorded."""
    run = await bench.run("echo before; (while :; do echo after; sleep 0.01; done) & echo pid $!")
    await bench.execs.wait(run)
    await until_released(bench)
    result = await bench.execs.result(run)
    assert result["exit_code"] == 0
    lines = [line for line in result["stdout"].splitlines() if line != "after"]
    assert (lines[0], lines[1].split()[0]) == ("before", "pid")
    os.kill(int(lines[1].split()[1]), 0)
    assert result["stdout"] == (await bench.execs.result(run))["stdout"]


async def test_left_behind_flood(bench: benches.Bench) -> None:
    """A child that prints without end cannot keep its parent's end from being told."""
    run = await bench.run("yes & sleep 0.05")
    await bench.execs.wait(run)
    assert (await bench.execs.result(run))["exit_code"] == 0


async def test_waiter_that_goes_away(bench: benches.Bench) -> None:
    """A command goes on when the one who waits for it is cancelled."""
    os.mkfifo(bench.root / "tmp" / "go")
    run = await bench.run("read line < go; echo $line", cwd="/tmp")
    waiting = asyncio.ensure_future(bench.execs.wait(run))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread((bench.root / "tmp" / "go").write_text, "still here\n")
    await bench.execs.wait(run)
    assert (await bench.execs.result(run))["stdout"] == "still here\n"


async def test_many_at_once(bench: benches.Bench) -> None:
    """A hundred loud commands at once all get through, and nothing is left of them."""
    await bench.done("echo warm")
    await until_released(bench)
    before = benches.descriptors()
    results = await asyncio.gather(*(bench.done(f"seq {n} 20000; echo {n} >&2") for n in range(100)))
    for number, result in enumerate(results):
        assert result["stdout"] == "".join(f"{n}\n" for n in range(number, 20_001))
        assert result["stderr"] == f"{number}\n"
    await until_released(bench)
    assert benches.descriptors() <= before


async def test_list(bench: benches.Bench) -> None:
    """Execs are listed newest first, page by page."""
    started = [(await bench.run(["true"])).id for _ in range(5)]
    expected = sorted(started, reverse=True)
    first, cursor = bench.execs.page(bench.entry, 3, None)
    rest, end = bench.execs.page(bench.entry, 3, cursor)
    assert ([run.id for run in first + rest], end) == (expected, None)
    with pytest.raises(errors.InvalidRequest):
        bench.execs.page(bench.entry, 3, "7")


async def test_running_is_bounded(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than so many commands at once are refused, and room comes back when one ends."""
    monkeypatch.setattr(boxes, "MAX_RUNNING", 2)
    runs = [await bench.run(["sleep", "100"]) for _ in range(2)]
    with pytest.raises(errors.RateLimited):
        await bench.run(["true"])
    await bench.seen(runs[0])
    await bench.execs.signal(runs[0], 9, tree=True)
    await bench.execs.wait(runs[0])
    assert (await bench.done(["true"]))["exit_code"] == 0


async def test_memory_is_bounded(bench: benches.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exec that ended first is forgotten when there are too many: by the worker, the journal and the disk."""
    monkeypatch.setattr(boxes, "MAX_REMEMBERED", 2)
    runs = []
    for number in range(4):
        run = await bench.run(f"echo {number}")
        await bench.execs.wait(run)
        runs.append(run)
    kept = {run.id for run in runs[2:]}
    assert {run.id for run in bench.execs.page(bench.entry, 10, None)[0]} == kept == set(bench.journal.known)
    await benches.until(lambda: logs(bench) == kept)


# --------------------------------------------------------------------------------------------------- crashes


async def test_adoption_of_a_running_command(bench: benches.Bench) -> None:
    """A command outlives the worker that started it, and its output is whole."""
    os.mkfifo(bench.root / "tmp" / "go")
    run = await bench.run("echo before; read line < go; echo $line; exit 4", cwd="/tmp", timeout_ms=60_000)
    seen = await bench.execs.frames(run, cursor=0, wait=20, limit=10, encoding="utf8")
    await bench.crash()
    await asyncio.to_thread((bench.root / "tmp" / "go").write_text, "after\n")
    again = bench.execs.get(bench.entry, run.id)
    assert again is not run
    await bench.execs.wait(again)
    result = await bench.execs.result(again)
    assert (result["stdout"], result["exit_code"], result["command"]) == ("before\nafter\n", 4, run.command)
    rest = await bench.execs.frames(again, cursor=seen.next_cursor, wait=0, limit=10, encoding="utf8")
    assert next(frame.data for frame in rest.frames) == "after\n"
    await until_released(bench)


async def test_adoption_of_a_command_that_ended_unseen(bench: benches.Bench) -> None:
    """A command that ended while no worker was there has its own code and all its output."""
    os.mkfifo(bench.root / "tmp" / "go")
    run = await bench.run("read line < go; echo $line; exit 4", cwd="/tmp")
    await bench.execs.close()
    await asyncio.to_thread((bench.root / "tmp" / "go").write_text, "unseen\n")
    ended = bench.spawner.sandboxes[bench.entry.text_id].execs[1]
    await benches.until(lambda: ended.exit is not None)
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    await bench.execs.wait(again)
    result = await bench.execs.result(again)
    assert (result["stdout"], result["exit_code"], result["end"]) == ("unseen\n", 4, "exited")


async def test_deadline_outlives_the_worker(bench: benches.Bench) -> None:
    """The deadline of a command counts from its start, whichever worker watches."""
    run = await bench.run(["sleep", "100"], timeout_ms=200)
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    await bench.execs.wait(again)
    assert (await bench.execs.result(again))["end"] == "timed_out"


async def test_an_end_is_told_alike_over_a_crash(bench: benches.Bench) -> None:
    """Whoever asks the next worker hears what this one has told, though no journal had it."""
    bench.journal.held = True
    run = await bench.run("echo out; sleep 0.05; exit 4")
    await bench.execs.wait(run)
    told = await bench.execs.result(run)
    await bench.crash()
    assert await bench.execs.result(bench.execs.get(bench.entry, run.id)) == told


async def test_end_that_was_told_stays(bench: benches.Bench) -> None:
    """What a caller was told is true after a crash as well, though the journal had not written it yet."""
    bench.journal.held = True
    first = await bench.run(["sleep", "100"], timeout_ms=50)
    second = await bench.run("echo some; exit 6")
    await bench.execs.wait(first)
    await bench.execs.wait(second)
    told = [await bench.execs.result(first), await bench.execs.result(second)]
    assert [result["exit_code"] for result in told] == [124, 6]
    assert bench.journal.known == {}
    await bench.crash()
    again = [await bench.execs.result(bench.execs.get(bench.entry, run.id)) for run in (first, second)]
    for key in ("end", "exit_code", "signal", "stdout", "completed_at", "command"):
        assert [result[key] for result in again] == [result[key] for result in told]
    await until_released(bench)


async def test_runtime_forgets_after_the_journal(bench: benches.Bench) -> None:
    """Until an end is safe in the journal the runtime remembers it."""
    bench.journal.held = True
    await bench.done(["true"])
    held = bench.spawner.sandboxes[bench.entry.text_id].execs
    assert len(held) == 1
    for then in bench.journal.waiting:
        then()
    await until_released(bench)
    assert len(held) == 0


async def test_results_from_the_journal(bench: benches.Bench) -> None:
    """What ended before a restart can be read after it: result, frames, list."""
    run = await bench.run(r"printf 'a\303'; echo b >&2; exit 2", timeout_ms=60_000)
    await bench.execs.wait(run)
    told = await bench.execs.result(run)
    frames = [frame async for frame in bench.frames(run)]
    await until_released(bench)
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    assert await bench.execs.result(again) == told
    assert [frame async for frame in bench.frames(again)] == frames
    assert [run.id for run in bench.execs.page(bench.entry, 5, None)[0]] == [run.id]


async def test_unknown_logs_are_removed(bench: benches.Bench) -> None:
    """After a restart no log is left that belongs to nothing, and none that belongs to something is gone."""
    run = await bench.run("echo kept")
    await bench.execs.wait(run)
    stranger = bench.directory / "exec_01K6Z8Q4T3V7WXYZ0123456789.0"
    stranger.write_bytes(b"")
    left = bench.directory / f"{blanks.PREFIX}1-1"
    left.write_bytes(b"")
    await until_released(bench)
    await bench.crash()
    assert await bench.execs.sweep([bench.entry.text_id]) == 1
    assert (stranger.exists(), left.exists()) == (False, False)
    assert (await bench.execs.result(bench.execs.get(bench.entry, run.id)))["stdout"] == "kept\n"


async def test_logs_that_vanished(bench: benches.Bench) -> None:
    """Where the files of a log are gone after a restart, the result says so, and readers still get to the end."""
    run = await bench.run("echo some; echo more >&2")
    await bench.execs.wait(run)
    frames = [frame async for frame in bench.frames(run)]
    await until_released(bench)
    for path in bench.directory.iterdir():
        path.unlink()
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    result = await bench.execs.result(again)
    assert (result["exit_code"], result["stdout"], result["stdout_truncated"], result["stderr_truncated"]) == (
        0,
        "",
        True,
        True,
    )
    page = await bench.execs.frames(again, cursor=1, wait=0, limit=9, encoding="utf8")
    assert (page.frames, page.has_more, page.dropped) == (frames[-1:], False, len("some\nmore\n"))


async def test_sandbox_has_one_limit_for_all_logs(tmp_path: Path) -> None:
    """However many commands print, the logs of a sandbox keep to their limit, and what is left out is told."""
    log = framelogs.Limits(max_bytes=1 << 20, segment_bytes=1 << 16)
    async with benches.made(tmp_path, execs.Limits(log, sandbox_bytes=1 << 20)) as bench:
        results = [await bench.done("seq 1 50000") for _ in range(10)]
        await benches.until(lambda: _bytes_of(bench.directory) <= 1 << 20)  # files are dropped behind the answer's back
        assert not any(result["stdout_truncated"] for result in results)
        later = [await bench.execs.result(bench.execs.get(bench.entry, result["exec_id"])) for result in results]
        assert later[-1] == results[-1]
        assert (later[0]["stdout"], later[0]["stdout_truncated"]) == ("", True)


async def test_unreadable_label(bench: benches.Bench) -> None:
    """An exec that nobody can describe is let go, and the others are adopted."""
    broken = await bench.run(["sleep", "100"])
    good = await bench.run(["sleep", "100"])
    held = bench.spawner.sandboxes[bench.entry.text_id].execs
    held[1].label = b"?"
    await bench.crash()
    assert [run.id for run in bench.execs.page(bench.entry, 5, None)[0]] == [good.id]
    assert list(held) == [2]
    assert broken.id != good.id


# ---------------------------------------------------------------------------------------- ends of sandboxes


async def test_death_of_the_sandbox(bench: benches.Bench) -> None:
    """With its sandbox every command ends, those who wait are told, and the output so far can be read."""
    run = await bench.run("echo some; sleep 100")
    await bench.execs.frames(run, cursor=0, wait=20, limit=1, encoding="utf8")
    waiting = asyncio.ensure_future(bench.execs.wait(run))
    await bench.die()
    await waiting
    result = await bench.execs.result(bench.execs.get(bench.entry, run.id))
    assert (result["status"], result["stdout"]) == ("exited", "some\n")
    with pytest.raises(errors.Conflict):
        await bench.run(["true"])
    await bench.execs.forget(bench.entry)
    assert logs(bench) == set()
    with pytest.raises(errors.NotFound):
        bench.execs.get(bench.entry, run.id)


@pytest.mark.parametrize(
    "reason, end",
    [(states.EndReason.DELETED, "lost"), (states.EndReason.OUT_OF_MEMORY, "out_of_memory")],
)
async def test_execs_whose_end_nobody_saw(bench: benches.Bench, reason: states.EndReason, end: str) -> None:
    """A command whose sandbox died under it is lost, with no invented code, or was out of memory."""
    run = await bench.run(["sleep", "100"])
    bench.spawner.detach()
    await bench.die(reason)
    result = await bench.execs.result(run)
    assert (result["end"], result["exit_code"], result["signal"], result["duration_ms"] is None) == (
        end,
        None,
        None,
        end == "lost",
    )


async def test_sandbox_that_died_with_the_worker(bench: benches.Bench) -> None:
    """What ran when worker and sandbox died is lost, and says so."""
    run = await bench.run(["sleep", "100"])
    await benches.until(lambda: run.id in bench.journal.known)
    await bench.execs.close()
    await bench.kill_all()
    await bench.spawner.end(bench.entry.text_id, states.EndReason.LOST)
    await bench.crash()
    bench.entry.state, bench.entry.reason = states.SandboxState.STOPPED, states.EndReason.LOST
    result = await bench.execs.result(bench.execs.get(bench.entry, run.id))
    assert (result["end"], result["exit_code"]) == ("lost", None)


async def test_sandbox_that_died_while_a_command_started(bench: benches.Bench) -> None:
    """A command that got started in a sandbox that has been buried meanwhile is lost, and holds nobody up."""
    running = bench.entry.running
    assert running is not None
    real = running.exec

    async def late(start: contract.ExecStart) -> contract.RunningExec:
        found = await real(start)
        bench.spawner.detach()
        await bench.die()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "exec", late)
        run = await bench.run(["sleep", "100"])
    await bench.execs.wait(run)
    assert (await bench.execs.result(run))["end"] == "lost"


async def test_sweep_forgets_execs_of_unknown_sandboxes(bench: benches.Bench) -> None:
    """What the journal knows of sandboxes that nobody knows any more is dropped from it."""
    run = await bench.run("echo x")
    await bench.execs.wait(run)
    await until_released(bench)
    await bench.crash()
    assert await bench.execs.sweep([]) == 1
    assert (bench.journal.known, logs(bench)) == ({}, set())


async def test_close_tells_those_who_wait(bench: benches.Bench) -> None:
    """A worker that stops does not leave anybody waiting, and the commands go on."""
    run = await bench.run(["sleep", "100"])
    waiting = [
        asyncio.ensure_future(bench.execs.wait(run)),
        asyncio.ensure_future(bench.execs.frames(run, cursor=0, wait=60, limit=1, encoding="utf8")),
    ]
    await asyncio.sleep(0)
    await bench.execs.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [errors.WorkerUnavailable, errors.WorkerUnavailable]
    assert bench.spawner.sandboxes[bench.entry.text_id].execs[1].exit is None

from collections.abc import AsyncIterator

import pytest

from tests.fakes.cutters import Cutter
from tests.fakes.servers import FakeServer
from traforo.sdk import errors, pauses, requests
from traforo.sdk._async import execs
from traforo.sdk._async.sandboxes import AsyncSandbox

LINES = "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done; exit 3"


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.002)


async def test_frames_are_all_of_the_output_in_order(worker: FakeServer) -> None:
    """Each stream is whole and in order, the last frame is the end, and cursors count on."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(LINES)
        frames = [frame async for frame in execution.frames()]
    joined = {kind: b"".join(f.data for f in frames if f.type == kind) for kind in ("stdout", "stderr")}
    assert joined == {"stdout": b"1\n2\n3\n4\n5\n", "stderr": b"e1\ne2\ne3\ne4\ne5\n"}
    assert [frame.cursor for frame in frames] == list(range(len(frames)))
    assert [frame.type for frame in frames].index("exit") == len(frames) - 1
    assert execution.next_cursor == len(frames)


async def test_frames_are_exact_bytes(worker: FakeServer) -> None:
    """What is no UTF-8 arrives as it was written."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(r"printf '\377\000\n'")
        frames = [frame async for frame in execution.frames()]
    assert b"".join(frame.data for frame in frames if frame.type == "stdout") == b"\xff\x00\n"


async def test_frames_go_on_where_a_connection_broke(worker: FakeServer) -> None:
    """Every other request is cut off before, after or amid the answer; nothing is lost and nothing comes twice."""
    faults = iter(["drop", None, "drop-after", None, "truncate", "drop", None, "truncate"])
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(LINES)
        worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/frames") else None
        frames = [frame async for frame in execution.frames()]
        worker.fault = lambda _: None
    assert b"".join(frame.data for frame in frames if frame.type == "stdout") == b"1\n2\n3\n4\n5\n"
    assert [frame.cursor for frame in frames] == list(range(len(frames)))


async def test_frames_give_up_on_a_server_that_is_gone(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the reader is told, and can go on from there."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("echo hello")
        worker.fault = lambda asked: "drop" if asked.path.endswith("/frames") else None
        with pytest.raises(errors.ConnectionFailed):
            async for _ in execution.frames():
                pass
        worker.fault = lambda _: None
        assert [frame.type async for frame in execution.frames()] == ["stdout", "exit"]


async def test_frames_can_be_read_again(worker: FakeServer) -> None:
    """From any cursor, by any handle; a handle that saw the end gives nothing more by itself."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("echo hello")
        first = [frame async for frame in execution.frames()]
        assert [frame async for frame in execution.frames()] == []
        assert [frame async for frame in execution.frames(0)] == first
        assert [frame async for frame in sandbox.get_exec(execution.id).frames(1)] == first[1:]


async def test_frames_beyond_the_end_are_none(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor that was never reached does not make a reader wait for ever."""
    monkeypatch.setattr(execs, "POLL_SECONDS", 0.01)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(["true"])
        await execution.wait()
        assert [frame async for frame in sandbox.get_exec(execution.id).frames(99)] == []


async def test_wait_returns_the_result(worker: FakeServer) -> None:
    """Whether it still runs or not, before or after its frames were read."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("sleep 0.05; " + LINES)
        first = await execution.wait()
        assert (first.exit_code, first.stdout) == (3, "1\n2\n3\n4\n5\n")
        assert await execution.wait() == first
        assert (await execution.result()).exec_id == execution.id


async def test_wait_has_a_limit(worker: FakeServer) -> None:
    """When it is over the command goes on."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(["sleep", "60"])
        with pytest.raises(errors.RequestTimedOut, match="still runs"):
            await execution.wait(timeout=0.05)
        assert (await execution.result()).status == "running"


async def test_a_signal_is_sent(worker: FakeServer) -> None:
    """By name or number; the result tells of it."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        for signal, code in (("TERM", 143), (2, 130)):
            execution = await sandbox.start(["sleep", "60"])
            await execution.signal(signal)
            result = await execution.wait()
            assert (result.end, result.exit_code) == ("signalled", code)
    assert worker.requests[2].json == {"signal": "TERM", "tree": True}


async def test_kill_may_come_too_late(worker: FakeServer) -> None:
    """What has ended cannot be killed, and that is fine; a signal says so."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(["true"])
        await execution.wait()
        await execution.kill()
        with pytest.raises(errors.Conflict):
            await execution.signal("HUP")


async def test_an_exec_that_never_was_is_not_found(worker: FakeServer) -> None:
    """Killing it is an error, unlike killing one that ended."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = sandbox.get_exec("exec_none")
        for attempt in (execution.result, execution.kill):
            with pytest.raises(errors.NotFound):
                await attempt()
    assert repr(execution) == "AsyncExec('exec_none')"


WAYS = ("socket", "lines", "pages")


def choose(worker: FakeServer, way: str) -> None:
    worker.websockets, worker.streams = way == "socket", way != "pages"


@pytest.mark.parametrize("way", WAYS)
async def test_output_is_all_of_the_output_in_order(worker: FakeServer, way: str) -> None:
    """Over the best way that the server knows, and with the same frames over each."""
    choose(worker, way)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(LINES)
        frames = [frame async for frame in execution.output()]
        assert execution._way == way
        assert [(f.cursor, f.type, f.data) for f in frames] == [
            (f.cursor, f.type, f.data) async for f in execution.frames(0)
        ]
        assert [frame async for frame in execution.output()] == []
        assert [frame.type async for frame in sandbox.get_exec(execution.id).output(execution.next_cursor - 1)] == [
            "exit"
        ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(5))
async def test_output_goes_on_where_a_connection_was_cut(worker: FakeServer, way: str, seed: int) -> None:
    """Wherever that was: nothing is lost and nothing comes twice."""
    choose(worker, way)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("for n in $(seq 300); do echo $n; echo e$n >&2; done; exit 9")
        await execution.wait()
        with Cutter(worker.url, seed, least=1, most=1500, cuts=30) as cutter:
            place = requests.Place(sandbox._place.url.replace(worker.url, cutter.url), None)
            frames = [f async for f in execs.AsyncExec(sandbox._client, place, execution.id).output()]
            assert cutter.cuts > 0
    assert [frame.cursor for frame in frames] == list(range(len(frames)))
    joined = {kind: b"".join(f.data for f in frames if f.type == kind) for kind in ("stdout", "stderr")}
    assert joined["stdout"] == b"".join(b"%d\n" % n for n in range(1, 301))
    assert joined["stderr"] == b"".join(b"e%d\n" % n for n in range(1, 301))


@pytest.mark.parametrize("way", WAYS)
async def test_output_gives_up_on_a_server_that_is_gone(
    worker: FakeServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the reader is told."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    choose(worker, way)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("echo hello")
        worker.fault = lambda asked: "drop" if execution.id in asked.path else None
        with pytest.raises(errors.ConnectionFailed):
            async for _ in execution.output():
                pass
        worker.fault = lambda _: None
        assert [frame.type async for frame in execution.output()] == ["stdout", "exit"]


async def test_output_beyond_the_end_is_none(worker: FakeServer) -> None:
    """A cursor that was never reached does not make a reader wait for ever."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(["true"])
        await execution.wait()
        for way in WAYS[:2]:
            choose(worker, way)
            assert [frame async for frame in sandbox.get_exec(execution.id).output(99)] == []


async def test_output_of_nothing_is_not_found(worker: FakeServer) -> None:
    """And is not asked for again and again."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        for way in WAYS:
            choose(worker, way)
            with pytest.raises(errors.NotFound):
                async for _ in sandbox.get_exec("exec_none").output():
                    pass


async def test_what_was_written_so_far(worker: FakeServer) -> None:
    """Without waiting for more."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("echo begun; read x", stdin_open=True)
        async for _ in execution.output():
            break
        assert [frame.data async for frame in execution.written()] == [b"begun\n"]
        await execution.close_stdin()
        await execution.wait()
        assert [frame.type async for frame in execution.written(1)] == ["exit"]


async def test_input_is_written(worker: FakeServer) -> None:
    """As text, bytes or pieces; then its end."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("cat", stdin_open=True)
        await execution.write("grün ")
        await execution.write(b"\xff ")
        await execution.write(pieces())
        await execution.close_stdin()
        data = b"".join([frame.data async for frame in execution.output() if frame.type == "stdout"])
        with pytest.raises(errors.Conflict):
            await execution.write("late")
        closed = await sandbox.start(["sleep", "60"])
        with pytest.raises(errors.Conflict):
            await closed.write("no input")
        with pytest.raises(errors.Conflict):
            await closed.resize(1, 1)
    assert data == "grün ".encode() + b"\xff 012"


async def test_input_is_never_sent_twice(worker: FakeServer) -> None:
    """A broken connection leaves it open how much arrived, and the caller is told."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("cat", stdin_open=True)
        worker.fault = lambda asked: "drop-after" if asked.path.endswith("/stdin") else None
        with pytest.raises(errors.ConnectionFailed):
            await execution.write("once")
        worker.fault = lambda _: None
        await execution.close_stdin()
        assert (await execution.wait()).stdout == "once"


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_that_is_started_again_is_waited_for(worker: FakeServer, way: str) -> None:
    """It says so itself while it is not ready."""
    choose(worker, way)
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start("echo hello")
        faults = iter(["unavailable", "unavailable"])
        worker.fault = lambda asked: next(faults, None) if execution.id in asked.path else None
        assert [frame.type async for frame in execution.output()] == ["stdout", "exit"]
        assert next(faults, None) is None

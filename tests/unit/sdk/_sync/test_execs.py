# Written by tools/async_to_sync.py. Change _async/test_execs.py instead.
from collections.abc import Iterator

import pytest

from tests.fakes.cutters import Cutter
from tests.fakes.servers import FakeServer
from traforo.sdk import errors, pauses, requests
from traforo.sdk._sync import execs
from traforo.sdk._sync.sandboxes import Sandbox

LINES = "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done; exit 3"


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.002)


def test_frames_are_all_of_the_output_in_order(worker: FakeServer) -> None:
    """Each stream is whole and in order, the last frame is the end, and cursors count on."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(LINES)
        frames = list(execution.frames())
    joined = {kind: b"".join(f.data for f in frames if f.type == kind) for kind in ("stdout", "stderr")}
    assert joined == {"stdout": b"1\n2\n3\n4\n5\n", "stderr": b"e1\ne2\ne3\ne4\ne5\n"}
    assert [frame.cursor for frame in frames] == list(range(len(frames)))
    assert [frame.type for frame in frames].index("exit") == len(frames) - 1
    assert execution.next_cursor == len(frames)


def test_frames_are_exact_bytes(worker: FakeServer) -> None:
    """What is no UTF-8 arrives as it was written."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(r"printf '\377\000\n'")
        frames = list(execution.frames())
    assert b"".join(frame.data for frame in frames if frame.type == "stdout") == b"\xff\x00\n"


def test_frames_go_on_where_a_connection_broke(worker: FakeServer) -> None:
    """Every other request is cut off before, after or amid the answer; nothing is lost and nothing comes twice."""
    faults = iter(["drop", None, "drop-after", None, "truncate", "drop", None, "truncate"])
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(LINES)
        worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/frames") else None
        frames = list(execution.frames())
        worker.fault = lambda _: None
    assert b"".join(frame.data for frame in frames if frame.type == "stdout") == b"1\n2\n3\n4\n5\n"
    assert [frame.cursor for frame in frames] == list(range(len(frames)))


def test_frames_give_up_on_a_server_that_is_gone(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the reader is told, and can go on from there."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("echo hello")
        worker.fault = lambda asked: "drop" if asked.path.endswith("/frames") else None
        with pytest.raises(errors.ConnectionFailed):
            for _ in execution.frames():
                pass
        worker.fault = lambda _: None
        assert [frame.type for frame in execution.frames()] == ["stdout", "exit"]


def test_frames_can_be_read_again(worker: FakeServer) -> None:
    """From any cursor, by any handle; a handle that saw the end gives nothing more by itself."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("echo hello")
        first = list(execution.frames())
        assert list(execution.frames()) == []
        assert list(execution.frames(0)) == first
        assert list(sandbox.get_exec(execution.id).frames(1)) == first[1:]


def test_frames_beyond_the_end_are_none(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor that was never reached does not make a reader wait for ever."""
    monkeypatch.setattr(execs, "POLL_SECONDS", 0.01)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(["true"])
        execution.wait()
        assert list(sandbox.get_exec(execution.id).frames(99)) == []


def test_wait_returns_the_result(worker: FakeServer) -> None:
    """Whether it still runs or not, before or after its frames were read."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("sleep 0.05; " + LINES)
        first = execution.wait()
        assert (first.exit_code, first.stdout) == (3, "1\n2\n3\n4\n5\n")
        assert execution.wait() == first
        assert (execution.result()).exec_id == execution.id


def test_wait_has_a_limit(worker: FakeServer) -> None:
    """When it is over the command goes on."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(["sleep", "60"])
        with pytest.raises(errors.RequestTimedOut, match="still runs"):
            execution.wait(timeout=0.05)
        assert (execution.result()).status == "running"


def test_a_signal_is_sent(worker: FakeServer) -> None:
    """By name or number; the result tells of it."""
    with Sandbox.create(url=worker.url) as sandbox:
        for signal, code in (("TERM", 143), (2, 130)):
            execution = sandbox.start(["sleep", "60"])
            execution.signal(signal)
            result = execution.wait()
            assert (result.end, result.exit_code) == ("signalled", code)
    assert worker.requests[2].json == {"signal": "TERM", "tree": True}


def test_kill_may_come_too_late(worker: FakeServer) -> None:
    """What has ended cannot be killed, and that is fine; a signal says so."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(["true"])
        execution.wait()
        execution.kill()
        with pytest.raises(errors.Conflict):
            execution.signal("HUP")


def test_an_exec_that_never_was_is_not_found(worker: FakeServer) -> None:
    """Killing it is an error, unlike killing one that ended."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.get_exec("exec_none")
        for attempt in (execution.result, execution.kill):
            with pytest.raises(errors.NotFound):
                attempt()
    assert repr(execution) == "Exec('exec_none')"


WAYS = ("socket", "lines", "pages")


def choose(worker: FakeServer, way: str) -> None:
    worker.websockets, worker.streams = way == "socket", way != "pages"


@pytest.mark.parametrize("way", WAYS)
def test_output_is_all_of_the_output_in_order(worker: FakeServer, way: str) -> None:
    """Over the best way that the server knows, and with the same frames over each."""
    choose(worker, way)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(LINES)
        frames = list(execution.output())
        assert execution._way == way
        assert [(f.cursor, f.type, f.data) for f in frames] == [(f.cursor, f.type, f.data) for f in execution.frames(0)]
        assert list(execution.output()) == []
        assert [frame.type for frame in sandbox.get_exec(execution.id).output(execution.next_cursor - 1)] == ["exit"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(5))
def test_output_goes_on_where_a_connection_was_cut(worker: FakeServer, way: str, seed: int) -> None:
    """Wherever that was: nothing is lost and nothing comes twice."""
    choose(worker, way)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("for n in $(seq 300); do echo $n; echo e$n >&2; done; exit 9")
        execution.wait()
        with Cutter(worker.url, seed, least=1, most=1500, cuts=30) as cutter:
            place = requests.Place(sandbox._place.url.replace(worker.url, cutter.url), None)
            frames = list(execs.Exec(sandbox._client, place, execution.id).output())
            assert cutter.cuts > 0
    assert [frame.cursor for frame in frames] == list(range(len(frames)))
    joined = {kind: b"".join(f.data for f in frames if f.type == kind) for kind in ("stdout", "stderr")}
    assert joined["stdout"] == b"".join(b"%d\n" % n for n in range(1, 301))
    assert joined["stderr"] == b"".join(b"e%d\n" % n for n in range(1, 301))


@pytest.mark.parametrize("way", WAYS)
def test_output_gives_up_on_a_server_that_is_gone(
    worker: FakeServer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the reader is told."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    choose(worker, way)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("echo hello")
        worker.fault = lambda asked: "drop" if execution.id in asked.path else None
        with pytest.raises(errors.ConnectionFailed):
            for _ in execution.output():
                pass
        worker.fault = lambda _: None
        assert [frame.type for frame in execution.output()] == ["stdout", "exit"]


def test_output_beyond_the_end_is_none(worker: FakeServer) -> None:
    """A cursor that was never reached does not make a reader wait for ever."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start(["true"])
        execution.wait()
        for way in WAYS[:2]:
            choose(worker, way)
            assert list(sandbox.get_exec(execution.id).output(99)) == []


def test_output_of_nothing_is_not_found(worker: FakeServer) -> None:
    """And is not asked for again and again."""
    with Sandbox.create(url=worker.url) as sandbox:
        for way in WAYS:
            choose(worker, way)
            with pytest.raises(errors.NotFound):
                for _ in sandbox.get_exec("exec_none").output():
                    pass


def test_what_was_written_so_far(worker: FakeServer) -> None:
    """Without waiting for more."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("echo begun; read x", stdin_open=True)
        for _ in execution.output():
            break
        assert [frame.data for frame in execution.written()] == [b"begun\n"]
        execution.close_stdin()
        execution.wait()
        assert [frame.type for frame in execution.written(1)] == ["exit"]


def test_input_is_written(worker: FakeServer) -> None:
    """As text, bytes or pieces; then its end."""

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("cat", stdin_open=True)
        execution.write("grün ")
        execution.write(b"\xff ")
        execution.write(pieces())
        execution.close_stdin()
        data = b"".join([frame.data for frame in execution.output() if frame.type == "stdout"])
        with pytest.raises(errors.Conflict):
            execution.write("late")
        closed = sandbox.start(["sleep", "60"])
        with pytest.raises(errors.Conflict):
            closed.write("no input")
        with pytest.raises(errors.Conflict):
            closed.resize(1, 1)
    assert data == "grün ".encode() + b"\xff 012"


def test_input_is_never_sent_twice(worker: FakeServer) -> None:
    """A broken connection leaves it open how much arrived, and the caller is told."""
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("cat", stdin_open=True)
        worker.fault = lambda asked: "drop-after" if asked.path.endswith("/stdin") else None
        with pytest.raises(errors.ConnectionFailed):
            execution.write("once")
        worker.fault = lambda _: None
        execution.close_stdin()
        assert (execution.wait()).stdout == "once"


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_is_started_again_is_waited_for(worker: FakeServer, way: str) -> None:
    """It says so itself while it is not ready."""
    choose(worker, way)
    with Sandbox.create(url=worker.url) as sandbox:
        execution = sandbox.start("echo hello")
        faults = iter(["unavailable", "unavailable"])
        worker.fault = lambda asked: next(faults, None) if execution.id in asked.path else None
        assert [frame.type for frame in execution.output()] == ["stdout", "exit"]
        assert next(faults, None) is None

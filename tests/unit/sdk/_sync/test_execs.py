# Written by tools/async_to_sync.py. Change _async/test_execs.py instead.
import pytest

from tests.fakes.servers import FakeServer
from traforo.sdk import errors
from traforo.sdk._sync import execs
from traforo.sdk._sync.sandboxes import Sandbox

LINES = "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done; exit 3"


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(execs, "_LONGEST_PAUSE", 0.002)


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
    monkeypatch.setattr(execs, "RECONNECT_SECONDS", 0.01)
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

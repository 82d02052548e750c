# Written by tools/async_to_sync.py. Change _async/test_calls.py instead.
import pytest

from tests.fakes.commands import Asked
from tests.fakes.servers import FakeServer
from traforo.sdk import errors, pauses
from traforo.sdk._sync import calls
from traforo.sdk._sync.sandboxes import Sandbox


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.002)
    monkeypatch.setattr(calls, "LOOK_AGAIN_SECONDS", (0.001, 0.001))


def breaking(worker: FakeServer, fault: str, *others: str) -> None:
    """Break the connection of the next start, and those of the requests after it with the other faults."""
    faults = iter(others)
    first = iter([fault])
    worker.fault = lambda asked: next(first, None) if asked.method == "POST" else next(faults, None)


def starts(worker: FakeServer) -> list[Asked]:
    return [asked for asked in worker.requests if asked.method == "POST" and asked.path.endswith(("/exec", "/run"))]


@pytest.mark.parametrize("fault", ["cut", "drop-after", "truncate"])
def test_a_command_outlives_its_connection(fault: str, worker: FakeServer) -> None:
    """Whether it still ran or had ended when the connection broke, the caller gets its result and it ran once."""
    with Sandbox.create(url=worker.url) as sandbox:
        breaking(worker, fault)
        result = sandbox.exec("echo once >> runs; sleep 0.05; cat runs; exit 3", cwd="/")
    assert (result.stdout, result.exit_code, result.end) == ("once\n", 3, "exited")
    assert len(starts(worker)) == 1


def test_a_worker_that_is_away_is_waited_for(worker: FakeServer) -> None:
    """No connection, and a worker that is being started, are asked again; while it is followed too."""
    with Sandbox.create(url=worker.url) as sandbox:
        breaking(worker, "cut", "drop", "unavailable", "drop", "", "unavailable", "drop", "drop")
        assert (sandbox.exec("sleep 0.05; echo done")).stdout == "done\n"
    assert len(starts(worker)) == 1


def test_a_quick_command_is_one_request(worker: FakeServer) -> None:
    """With a tag that no other has."""
    with Sandbox.create(url=worker.url) as sandbox:
        before = len(worker.requests)
        tags = {(sandbox.exec("true")).tag for _ in range(3)}
        assert len(worker.requests) == before + 3
    assert len(tags) == 3
    assert {(tag or "").startswith("call-") for tag in tags} == {True}


def test_a_command_that_never_started_is_not_started_again(worker: FakeServer) -> None:
    """The worker is asked, and asked again; then the caller is told."""
    with Sandbox.create(url=worker.url) as sandbox:
        breaking(worker, "drop")
        with pytest.raises(errors.ConnectionFailed) as caught:
            sandbox.exec("true")
        assert sandbox.list_execs() == ()
    assert "never started" in (caught.value.hint or "")
    assert len(starts(worker)) == 1


def test_a_command_that_cannot_be_asked_for_is_named(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the worker stays away, the error says how the command is found later."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    with Sandbox.create(url=worker.url) as sandbox:
        first = iter(["cut"])
        worker.fault = lambda _: next(first, "drop")
        with pytest.raises(errors.ConnectionFailed) as caught:
            sandbox.exec("sleep 60")
        worker.fault = lambda _: None
        found = sandbox.list_execs(tag=caught.value.fields["tag"])
        assert [item.command for item in found] == ["sleep 60"]
        assert caught.value.fields["tag"] in (caught.value.hint or "")


def test_a_command_that_is_out_of_reach_is_named(worker: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the worker goes away for good while it is followed, the error has its id."""
    monkeypatch.setattr(pauses, "GIVE_UP_SECONDS", 0.01)
    with Sandbox.create(url=worker.url) as sandbox:
        first = iter(["cut"])
        worker.fault = lambda asked: "drop" if asked.path.endswith("/frames") else next(first, None)
        with pytest.raises(errors.ConnectionFailed) as caught:
            sandbox.exec("echo hello")
        worker.fault = lambda _: None
        assert (sandbox.get_exec(caught.value.fields["exec_id"]).wait()).stdout == "hello\n"
        assert caught.value.fields["exec_id"] in (caught.value.hint or "")


def test_a_tag_of_the_callers_own_is_no_proof(worker: FakeServer) -> None:
    """Another command may have it, so nothing is guessed: the error says where to look."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.exec("true", tag="mine")
        breaking(worker, "drop-after")
        with pytest.raises(errors.ConnectionFailed) as caught:
            sandbox.exec("true", tag="mine")
        assert len(sandbox.list_execs(tag="mine")) == 2
    assert (caught.value.fields["tag"], caught.value.hint) == ("mine", "it may run: `list_execs(tag='mine')` tells")


@pytest.mark.parametrize("fault", ["drop", "truncate", "unavailable"])
def test_a_command_with_a_tag_outlives_connections(fault: str, worker: FakeServer) -> None:
    """Once it is known by its id, which the short request that starts it answers; others may have the tag."""
    with Sandbox.create(url=worker.url) as sandbox:
        sandbox.exec("echo other", tag="mine")
        faults = iter([fault, fault])
        worker.fault = lambda asked: next(faults, None) if asked.method == "GET" else None
        result = sandbox.exec("sleep 0.05; echo $0 done", tag="mine")
        assert (result.stdout, result.tag) == ("/bin/sh done\n", "mine")
        assert next(faults, None) is None
    assert len(starts(worker)) == 2


@pytest.mark.parametrize("fault", ["cut", "drop-after"])
def test_a_command_that_is_heard_outlives_its_start(fault: str, worker: FakeServer) -> None:
    """It has a tag of its own as well, by which it is found."""
    said: list[str] = []
    with Sandbox.create(url=worker.url) as sandbox:
        breaking(worker, fault)
        sandbox.exec("echo once >> runs; cat runs", cwd="/", on_stdout=said.append)
    assert "".join(said) == "once\n"
    assert len(starts(worker)) == 1


class Left(BaseException):
    """What a listener raises to leave, as a signal would."""


def leave(_: str) -> None:
    raise Left


@pytest.mark.parametrize("tag", [None, "mine"])
def test_a_command_whose_caller_leaves_is_killed(worker: FakeServer, tag: str | None) -> None:
    """With what it started, and none but it; what the caller left with is what is raised."""
    with Sandbox.create(url=worker.url) as sandbox:
        other = sandbox.start(["sleep", "60"], tag="mine")
        with pytest.raises(Left):
            sandbox.exec("echo begun; sleep 60", on_stdout=leave, tag=tag)
        ends = {item.exec_id: item.end for item in sandbox.list_execs() if item.exec_id != other.id}
        assert (sandbox.get_exec(min(ends)).wait()).end == "signalled"
        assert (other.result()).status == "running"
        other.kill(timeout=9)


def test_a_server_that_fails_meanwhile_hides_nothing(worker: FakeServer) -> None:
    """That the command could not be stopped is of no interest to somebody who leaves."""
    with Sandbox.create(url=worker.url) as sandbox:
        worker.fault = lambda asked: "drop" if asked.method == "DELETE" else None
        with pytest.raises(Left):
            sandbox.exec("echo begun; sleep 60", on_stdout=leave)
        worker.fault = lambda _: None


def test_code_whose_caller_leaves_is_interrupted(worker: FakeServer) -> None:
    """Its context stays; what it runs for others is let be until it is the turn of that code."""
    with Sandbox.create(url=worker.url) as sandbox, sandbox.contexts.create() as context:
        with pytest.raises(Left):
            context.run("print('begun')", on_stdout=leave)
        assert (context.run("1")).text == "1"


def test_no_server_is_told_at_once(worker: FakeServer) -> None:
    """Nothing was sent, so nothing is looked for."""
    with Sandbox.create(url=worker.url) as sandbox:
        there, sandbox._place.url = sandbox._place.url, f"http://127.0.0.1:1/sandboxes/{sandbox.id}"
        with pytest.raises(errors.ConnectionFailed) as command:
            sandbox.exec("true")
        with pytest.raises(errors.ConnectionFailed) as code:
            sandbox.run_code("1")
        sandbox._place.url = there
    for caught in (command, code):
        assert caught.value.fields == {"sent": False}
        assert "traforo up" in (caught.value.hint or "")


def test_code_outlives_its_connection(worker: FakeServer) -> None:
    """It is found by its tag, and nothing is run twice."""
    with Sandbox.create(url=worker.url) as sandbox:
        breaking(worker, "drop-after")
        assert (sandbox.run_code("print(1)")).stdout == "1\n"
        assert len(sandbox.list_execs()) == 1


@pytest.mark.parametrize("fault", ["cut", "drop-after", "truncate"])
def test_code_in_a_context_outlives_its_connection(fault: str, worker: FakeServer) -> None:
    """With its value, and what it raised."""
    with Sandbox.create(url=worker.url) as sandbox, sandbox.contexts.create() as context:
        context.run("n = 0")
        breaking(worker, fault)
        assert (context.run("(n := n + 1)")).text == "1"
        breaking(worker, fault)
        failed = context.run("1 / 0")
        assert failed.error is not None
        assert failed.error.name == "ZeroDivisionError"
        assert (context.run("n")).text == "1"

"""`run` and `exec`: output, exit codes, ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.fakes.commands import wait_until
from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done

Run = Callable[..., Done]


def states(worker: FakeServer) -> list[str]:
    return [sandbox.state for sandbox in worker.sandboxes.values()]


def test_run_passes_output_through(worker: FakeServer, traforo: Run) -> None:
    """Byte by byte, stream by stream, and the sandbox is gone."""
    done = traforo("run", "--", "sh", "-c", r"printf '\377\000out'; printf 'err\376' >&2")
    assert (done.code, done.out, done.err) == (0, b"\xff\x00out", b"err\xfe")
    assert states(worker) == ["stopped"]


@pytest.mark.parametrize(
    "script,code", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)]
)
def test_the_exit_code_is_the_commands(script: str, code: int, worker: FakeServer, traforo: Run) -> None:
    """128 + signal for a command that was killed."""
    done = traforo("run", "--", "sh", "-c", script)
    assert (done.code, done.out, done.err) == (code, b"", b"")
    assert states(worker) == ["stopped"]


def test_a_deadline_is_told(traforo: Run) -> None:
    """Exit code 124 and a note, so that it is not taken for the command's own."""
    done = traforo("run", "--timeout", "0.05", "--", "sleep", "60")
    assert (done.code, done.said) == (124, "note: the command and all it started were killed: its timeout passed\n")


@pytest.mark.parametrize(
    "command,code,hint",
    [
        (["/no/such"], 127, False),
        (["no-such | program"], 127, True),
        (["/etc/passwd"], 126, False),
        (["/etc/passwd/x"], 127, False),
    ],
)
def test_a_command_that_cannot_start(
    command: list[str], code: int, hint: bool, worker: FakeServer, traforo: Run
) -> None:
    """127 or 126 as a shell would, and words that say why; a line for the shell is recognised."""
    done = traforo("run", "--", *command)
    assert (done.code, done.out) == (code, b"")
    assert done.said.startswith("error: cannot start ")
    assert ("hint: a line for the shell is run as: sh -c" in done.said) is hint
    assert states(worker) == ["stopped"]


def test_a_directory_that_is_not_there_is_an_error(traforo: Run) -> None:
    """127 is for commands, and 1 may be that of a command."""
    done = traforo("run", "--cwd", "/none", "--", "true")
    assert (done.code, done.out, done.said.startswith("error: ")) == (125, b"", True)


def test_run_hands_on_how_to_start(worker: FakeServer, traforo: Run) -> None:
    """Options before `--` are ours, words after it are the command's."""
    options = ["--cpu", "0.5", "--env", "A=1", "--user", "root", "--timeout", "9", "--ttl", "77"]
    done = traforo("run", *options, "--", "sh", "-c", 'echo "$A $0 $1"', "--help", "-x")
    assert done.out == b"1 --help -x\n"
    created, started = worker.requests[0].json, worker.requests[1].json
    assert created == {"cpu": 0.5, "ttl_seconds": 77}
    assert (started["env"], started["user"], started["timeout_ms"]) == ({"A": "1"}, "root", 9000)


def test_run_without_a_time_limit_keeps_a_short_lease(worker: FakeServer, traforo: Run) -> None:
    """The sandbox lives while the program does, and not for long when the program is killed."""
    traforo("run", "--", "true")
    assert worker.requests[0].json == {"ttl_seconds": 120.0}


def test_run_reads_output_over_broken_connections(worker: FakeServer, traforo: Run) -> None:
    """All of it, once."""
    faults = iter(["drop", None, "truncate", None, "drop-after"])
    worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/frames") else None
    done = traforo("run", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; done")
    assert (done.code, done.out) == (0, b"1\n2\n3\n4\n5\n")


def test_nothing_is_created_where_the_server_refuses(worker: FakeServer, traforo: Run) -> None:
    """The error of the create is the error of the run."""
    assert traforo("run", "--image", "none", "--", "true").code == 125
    assert worker.sandboxes == {}


@pytest.mark.parametrize("command", ["run", "exec", "attach", "code", "create"])
def test_an_error_is_not_taken_for_the_commands_end(command: str, traforo: Run) -> None:
    """What exits as a command in a sandbox did has a code of its own for errors, as `env` and `timeout` have."""
    words = {"run": [], "exec": ["sbx_1"], "attach": ["sbx_1", "exec_1"], "code": ["sbx_1", "-c", "1"]}
    ours = ["--", "true"] if command in {"run", "exec"} else []
    done = traforo(command, *words.get(command, []), "--url", "http://127.0.0.1:1", *ours)
    assert (done.code, done.out) == (1 if command == "create" else 125, b"")
    assert done.said.startswith("error: cannot reach http://127.0.0.1:1")


def test_exec_runs_in_a_sandbox_and_leaves_it(worker: FakeServer, traforo: Run) -> None:
    """With the same output and exit codes as run."""
    sandbox_id = worker.create({}).sandbox_id
    done = traforo("exec", sandbox_id, "-e", "A=1", "--", "sh", "-c", "echo $A; echo e >&2; exit 5")
    assert (done.code, done.out, done.err) == (5, b"1\n", b"e\n")
    assert traforo("exec", sandbox_id, "/no/such").code == 127
    assert states(worker) == ["running"]


class Client:
    """The command line as a process of its own."""

    def __init__(self, control: FakeServer, *arguments: str, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "traforo.cli", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=os.environ | {"TRAFORO_URL": control.url},
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_deletes_the_sandbox_of_run(number: int, worker: FakeServer, control: FakeServer) -> None:
    """Whichever way it is ended, and output came through before that."""
    with Client(control, "run", "--", "sh", "-c", "echo begun; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert states(worker) == ["stopped"]


def test_a_signal_during_the_create_deletes_what_comes_of_it(worker: FakeServer, control: FakeServer) -> None:
    """The answer is waited for, so that the sandbox is known."""
    worker.fault = lambda asked: "slow" if asked.method == "POST" else None
    with Client(control, "run", "--", "sleep", "60") as process:
        wait_until(lambda: len(worker.requests) > 0)
        process.send_signal(signal.SIGINT)
        worker.slow.set()
        assert process.wait(20) == 130
    assert states(worker) == ["stopped"]


def test_a_signal_kills_the_command_of_exec(worker: FakeServer, control: FakeServer) -> None:
    """And leaves the sandbox."""
    sandbox = worker.create({})
    with Client(control, "exec", sandbox.sandbox_id, "--", "sh", "-c", "echo begun; sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    wait_until(lambda: [execution.code for execution in sandbox.execs.values()] == [137])
    assert sandbox.state == "running"


def test_a_reader_that_leaves_ends_the_command(worker: FakeServer, control: FakeServer) -> None:
    """As a pipe would have ended it."""
    sandbox = worker.create({})
    with Client(control, "exec", sandbox.sandbox_id, "--", "sh", "-c", "while echo y; do :; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(20) == 141
    wait_until(lambda: all(execution.code is not None for execution in sandbox.execs.values()))

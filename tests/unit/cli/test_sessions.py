"""Commands that lend out their terminal, as a person at one meets them, against a fake server."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.commands import FakeSandbox, wait_until
from tests.fakes.servers import FakeServer
from tests.typists import Typist, typist
from tests.unit.cli.conftest import Done
from traforo.cli import terminals

ARGV = (sys.executable, "-m", "traforo.cli")
PROMPT = b"# " if os.getuid() == 0 else b"$ "
Open = Callable[..., contextlib.AbstractContextManager[Typist]]


@pytest.fixture
def sandbox(worker: FakeServer) -> FakeSandbox:
    return worker.create({})


@pytest.fixture
def opened(control: FakeServer) -> Open:
    env = {**os.environ, "TRAFORO_URL": control.url}

    @contextlib.contextmanager
    def run(*arguments: str) -> Iterator[Typist]:
        with typist([*ARGV, *arguments], env) as found:
            yield found
            assert found.wait() is not None
            assert found.now == found.before, "the terminal was not put back"

    return run


def test_a_shell_is_typed_to(sandbox: FakeSandbox, opened: Open) -> None:
    """Its size is that of the terminal, now and after a change; Ctrl-C is the shell's; its code is the program's."""
    with opened("shell", sandbox.sandbox_id, "--", "sh") as person:
        person.until(PROMPT)
        assert person.raw
        person.type(b"stty size\r")
        person.until(b"30 100")
        person.resize(41, 121)
        person.type(b"sleep 0.1; stty size\r")
        person.until(b"41 121")
        person.type(b"sh -c 'echo slee\"\"ps; exec sleep 60'\r")  # who says so is in the foreground already
        person.until(b"sleeps\r\n")
        person.type(b"\x03")
        person.until(b"^C")
        person.until(PROMPT)
        person.type(b"exit 7\r")
        assert person.wait() == 7


def test_detaching_leaves_it_running(sandbox: FakeSandbox, opened: Open) -> None:
    """And says how to come back; whoever comes back sees what was shown, or the end of it."""
    with opened(
        "exec", "-it", sandbox.sandbox_id[-6:], "--", "sh", "-c", "echo fir''st; read x; echo got $x"
    ) as person:
        person.until(b"first")
        person.type(b"\x10\x11")
        assert person.wait() == 0
    (execution,) = sandbox.execs.values()
    assert f"traforo attach {sandbox.sandbox_id} {execution.exec_id}".encode() in person.seen
    assert execution.code is None
    with opened("attach", "--tail", "0", sandbox.sandbox_id, execution.exec_id) as person:
        wait_until(lambda: person.raw)
        person.type(b"\x10\x11")
        assert person.wait() == 0
    assert b"first" not in person.seen
    with opened("attach", sandbox.sandbox_id, execution.exec_id) as person:
        person.until(b"first")
        person.type(b"it\r")
        person.until(b"got it")
        assert person.wait() == 0


@pytest.mark.parametrize("number,code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_it_running(sandbox: FakeSandbox, opened: Open, number: int, code: int) -> None:
    """The terminal is put back, and so is what the program in the sandbox had done to it."""
    script = r"printf '\033[?1049h\033[?25l'; echo rea''dy; sleep 60"
    with opened("exec", "-it", sandbox.sandbox_id, "--", "sh", "-c", script) as person:
        person.until(b"ready")
        person.process.send_signal(number)
        assert person.wait() == code
    assert person.seen.endswith(b"\x1b[?25h\x1b[?1049l\x1b[0m")
    assert next(iter(sandbox.execs.values())).code is None


def test_a_lost_sandbox_puts_the_terminal_back(worker: FakeServer, sandbox: FakeSandbox, opened: Open) -> None:
    """However it ends: here with an error of the server while it tries to reconnect."""
    with opened("exec", "-it", sandbox.sandbox_id, "--", "sh", "-c", "echo rea''dy; exec sleep 60") as person:
        person.until(b"ready")
        execution = next(iter(sandbox.execs.values()))
        os.killpg(execution.process.pid, signal.SIGKILL)
        assert person.wait() == 137


def test_every_byte_that_is_typed_arrives(sandbox: FakeSandbox, opened: Open) -> None:
    """Whatever key it is; only the keys that detach are held back, and they too if they were not meant."""
    script = "stty raw -echo; echo rea''dy; head -c 6 | od -An -tx1; stty sane"
    with opened("exec", "-it", sandbox.sandbox_id, "--", "sh", "-c", script) as person:
        person.until(b"ready")
        person.type(b"\x00\x03\x1a\x10\x04\xff")
        person.until(b"00 03 1a 10 04 ff")
        assert person.wait() == 0


def test_a_command_that_cannot_start(sandbox: FakeSandbox, opened: Open) -> None:
    """As without a terminal."""
    with opened("exec", "-it", sandbox.sandbox_id, "--", "no-such-command") as person:
        assert person.wait() == 127
    assert b"error: " in person.seen


def test_a_shell_of_its_own_sandbox(worker: FakeServer, opened: Open) -> None:
    """It is made for the shell, and deleted when that ends."""
    with opened("shell", "--memory-mib", "64") as person:
        person.until(PROMPT)
        person.type(b"exit 3\r")
        assert person.wait() == 3
    assert [sandbox.state for sandbox in worker.sandboxes.values()] == ["stopped"]


def test_a_terminal_without_input_shows_output(sandbox: FakeSandbox, opened: Open) -> None:
    """`-t` alone: nothing is read, and Ctrl-C is this program's, which kills the command as it does without `-t`."""
    with opened("exec", "-t", sandbox.sandbox_id, "--", "sh", "-c", "stty size; sleep 60") as person:
        person.until(b"30 100")
        assert not person.raw
        person.process.send_signal(signal.SIGINT)
        assert person.wait() == 130
    wait_until(lambda: next(iter(sandbox.execs.values())).code == 137)


def test_a_connection_that_breaks_is_made_anew(worker: FakeServer, sandbox: FakeSandbox, opened: Open) -> None:
    """The person notices nothing but a pause."""
    with opened(
        "exec", "-it", sandbox.sandbox_id, "--", "sh", "-c", "echo one; read x; echo two; read x; echo three"
    ) as person:
        person.until(b"one")
        worker.hang_up_sockets()
        wait_until(lambda: sum(asked.path.endswith("/ws") for asked in worker.requests) > 1)
        person.type(b"\r")
        person.until(b"two")
        person.type(b"\r")
        person.until(b"three")
        assert person.wait() == 0
    assert person.seen.count(b"one") == 1


@pytest.mark.parametrize("state,said", [("stopped", "killed with its sandbox: it was deleted"), ("running", "lost")])
def test_a_terminal_that_ended_with_its_sandbox(
    state: str, said: str, sandbox: FakeSandbox, traforo: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why is told, once the terminal has been put back."""

    async def session(*_: object, **__: object) -> tuple[str, None]:
        sandbox.state = state
        return "lost", None

    monkeypatch.setattr(terminals, "session", session)
    done = traforo("exec", "-t", sandbox.sandbox_id, "--", "sleep", "60")
    assert (done.code, said in done.said, done.said.count("\n")) == (125, True, 1)

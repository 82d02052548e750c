"""Commands on a terminal: it is one, its size can be changed, and no byte of its output is lost."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import signal
import termios

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors
from traforo.worker.runtimes import contract

Sandbox = contract.RunningSandbox
SIZE = contract.TerminalSize(24, 80)


async def _begin(sandbox: Sandbox, script: str, **options: object) -> contract.RunningExec:
    return await sandbox.exec(outputs.start(script, terminal=SIZE, **options))  # type: ignore[arg-type]  # a builder


async def _until(running: contract.RunningExec, text: bytes) -> bytes:
    return await outputs.read(running.stdout, lambda found: text in found)


async def test_a_command_has_the_terminal_as_its_own(sandbox: Sandbox) -> None:
    """All three streams, a name in /dev/pts, a session of its own, and /dev/tty."""
    done = await outputs.finish(
        await _begin(
            sandbox,
            "test -t 0 && test -t 1 && test -t 2 && stty size && echo through >/dev/tty; tty;"
            "cut -d' ' -f5-7 /proc/self/stat",
        )
    )
    lines = done.stdout.decode().split("\r\n")
    assert lines[:2] == ["24 80", "through"]
    assert lines[2].startswith("/dev/pts/")
    group, session, terminal = lines[3].split()
    assert group == session
    assert int(terminal) >> 8 == 136
    assert done.exit == contract.ExecExit(code=0)


async def test_all_output_is_in_one_stream(sandbox: Sandbox) -> None:
    """There is no second one on a terminal."""
    running = await _begin(sandbox, "echo one; echo two >&2")
    assert running.stderr == -1
    assert (await outputs.finish(running)).stdout == b"one\r\ntwo\r\n"


async def test_what_is_written_is_typed(sandbox: Sandbox) -> None:
    """It is shown, and a line is read when it ends."""
    running = await _begin(sandbox, "echo ready; read x; echo got $x")
    await _until(running, b"ready\r\n")
    os.write(running.stdin, b"hel")
    os.write(running.stdin, b"lo\n")
    assert (await outputs.finish(running)).stdout == b"hello\r\ngot hello\r\n"


@pytest.mark.parametrize("typed", [b"", b"line\n"])
async def test_the_end_of_the_input_is_its_character(sandbox: Sandbox, typed: bytes) -> None:
    """What reads lines sees the end of the file."""
    running = await _begin(sandbox, "stty -echo; echo ready; cat; echo end")
    await _until(running, b"ready\r\n")
    os.write(running.stdin, typed) if typed else None
    await outputs.end_input(running)
    assert (await outputs.finish(running)).stdout == typed.replace(b"\n", b"\r\n") + b"end\r\n"


async def test_the_end_in_the_middle_of_a_line(sandbox: Sandbox) -> None:
    """The line comes first, and then the end."""
    sandbox_is_real = sandbox.pid != os.getpid()
    if not sandbox_is_real:
        pytest.skip("the fake says it once")
    running = await _begin(sandbox, "stty -echo; echo ready; cat; echo end")
    await _until(running, b"ready\r\n")
    os.write(running.stdin, b"half")
    await outputs.end_input(running)
    assert (await outputs.finish(running)).stdout == b"halfend\r\n"


async def test_an_interrupt_is_typed(sandbox: Sandbox) -> None:
    """Control-C reaches what runs in front."""
    running = await _begin(sandbox, "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.01; done")
    await _until(running, b"ready\r\n")
    os.write(running.stdin, b"\x03")
    done = await outputs.finish(running)
    assert done.stdout == b"^Ccaught\r\n"
    assert done.exit == contract.ExecExit(code=3)


async def test_a_size_can_be_changed(sandbox: Sandbox) -> None:
    """And whoever runs in front is told."""
    running = await _begin(sandbox, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done")
    await _until(running, b"ready\r\n")
    await running.resize(contract.TerminalSize(4096, 1))
    assert (await outputs.finish(running)).stdout == b"4096 1\r\n"


async def test_a_size_is_for_what_runs_on_a_terminal(sandbox: Sandbox) -> None:
    """And only while it runs."""
    plain = await sandbox.exec(outputs.start("sleep 1000"))
    with pytest.raises(errors.Conflict):
        await plain.resize(SIZE)
    await plain.signal(signal.SIGKILL, tree=True)
    await outputs.finish(plain)
    over = await _begin(sandbox, "exit 0")
    await over.ended
    with pytest.raises(errors.NotFound):
        await over.resize(SIZE)
    await outputs.finish(over)


@pytest.mark.parametrize("mebibytes", [4])
async def test_a_large_output_comes_whole(sandbox: Sandbox, mebibytes: int) -> None:
    """However slowly it is read: the last byte is there when the end is told."""
    running = await _begin(sandbox, f"stty raw; head -c {mebibytes << 20} /dev/zero; printf end")
    done = await outputs.finish(running)
    assert len(done.stdout) == (mebibytes << 20) + 3
    assert done.stdout.endswith(b"end")


async def test_short_outputs_come_whole(sandbox: Sandbox) -> None:
    """A command that ends at once after it wrote: all of it was read before its end is told."""
    for number in range(50):
        running = await _begin(sandbox, f"stty raw; head -c 20000 /dev/zero; printf {number}")
        read = asyncio.ensure_future(outputs.read(running.stdout))
        await running.ended
        assert len(await read) == 20000 + len(str(number))
        os.close(running.stdin)
        await running.release()


async def test_an_end_does_not_wait_for_what_was_left_behind(sandbox: Sandbox) -> None:
    """A command has ended when its main process has, whoever still has the terminal open."""
    running = await _begin(sandbox, "trap '' HUP; sleep 1000 & echo started")
    assert await _until(running, b"started\r\n") == b"started\r\n"
    assert await running.ended == contract.ExecExit(code=0)
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def test_what_is_left_behind_and_loud_holds_nothing_up(sandbox: Sandbox) -> None:
    """Its output has no end; that of the command has one."""
    running = await _begin(sandbox, "trap '' HUP; yes & sleep 0.1; exit 5")
    reading = asyncio.ensure_future(outputs.read(running.stdout))
    assert await running.ended == contract.ExecExit(code=5)
    await running.signal(signal.SIGKILL, tree=True)
    await reading
    os.close(running.stdin)
    await running.release()


async def test_a_terminal_closed_for_a_moment_is_not_over(sandbox: Sandbox) -> None:
    """A command may close its streams and open them again."""
    running = await _begin(sandbox, "exec <&- >&- 2>&-; sleep 0.1; exec >/dev/tty; echo back")
    assert (await outputs.finish(running)).stdout == b"back\r\n"


async def test_a_command_that_is_not_there_leaves_no_terminal(sandbox: Sandbox) -> None:
    """Said as for any other, more often than there are terminals."""
    for _ in range(150):
        with pytest.raises(errors.StartFailed):
            await sandbox.exec(outputs.start(["no-such-program"], terminal=SIZE))
    assert (await outputs.finish(await _begin(sandbox, "echo fine"))).stdout == b"fine\r\n"


async def test_terminals_have_an_end(subject: subjects.Subject) -> None:
    """A sandbox has so many and no more; one that is free again can be had."""
    subject.needs_isolation()
    sandbox = await subject.create(pids=1024)
    running = [await _begin(sandbox, "sleep 1000") for _ in range(128)]
    with pytest.raises(errors.StartFailed) as caught:
        await _begin(sandbox, "sleep 1000")
    assert caught.value.fields["stage"] == "limits"
    assert (await outputs.run(sandbox, ["true"])).exit.code == 0
    last = running.pop()
    await last.signal(signal.SIGKILL, tree=True)
    await outputs.finish(last)
    running.append(await _begin(sandbox, "sleep 1000"))
    for one in running:
        os.close(one.stdin)
        os.close(one.stdout)


async def test_an_output_nobody_reads_stops_the_command(subject: subjects.Subject) -> None:
    """And costs nothing while it is stopped: no busy loop in the init."""
    subject.needs_isolation()
    sandbox = await subject.create()
    running = await _begin(sandbox, "stty raw; yes")
    seen: list[int] = []

    async def is_full() -> bool:
        seen.append(_waiting(running))
        return seen[-1] > 0 and seen[-30:] == [seen[-1]] * 30

    await outputs.eventually(is_full)
    before = _ticks(sandbox.pid)
    await asyncio.sleep(0.5)
    assert _ticks(sandbox.pid) - before <= 2
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def test_input_nobody_reads_is_held_back(subject: subjects.Subject) -> None:
    """A writer finds the pipe full, and the init has nothing to do."""
    subject.needs_isolation()
    sandbox = await subject.create()
    running = await _begin(sandbox, "stty raw -echo; echo ready; sleep 1000")
    await _until(running, b"ready")
    total = 0
    for _ in range(100):
        try:
            total += os.write(running.stdin, b"x" * 65536)
        except BlockingIOError:
            await asyncio.sleep(0.01)
    assert total < 1 << 20
    before = _ticks(sandbox.pid)
    await asyncio.sleep(0.5)
    assert _ticks(sandbox.pid) - before <= 2
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


def _waiting(running: contract.RunningExec) -> int:
    """Return how many bytes of output can be read."""
    waiting = array.array("i", [0])
    fcntl.ioctl(running.stdout, termios.FIONREAD, waiting)
    return waiting[0]


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

"""Terminals: each sandbox has its own, each terminal has one user, and what types into one is its worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.security import ablations, labs
from traforo.domain import errors
from traforo.worker.runtimes import contract

SIZE = contract.TerminalSize()
INJECT = "import fcntl, sys, termios; [fcntl.ioctl(0, termios.TIOCSTI, c.encode()) for c in 'x']"


async def _terminal(sandbox: labs.Sandbox, script: str, user: str = "root") -> contract.RunningExec:
    running = await labs.start(sandbox, script, user=user, terminal=SIZE)
    await labs.line(running)
    return running


async def _end(running: contract.RunningExec) -> None:
    with contextlib.suppress(errors.NotFound):
        await running.signal(signal.SIGKILL, tree=True)
    os.close(running.stdout)
    os.close(running.stdin)
    await running.release()


def _terminals_of_the_host() -> int:
    return int(Path("/proc/sys/kernel/pty/nr").read_text())


async def test_a_terminal_is_not_there_for_other_sandboxes(lab: labs.Lab) -> None:
    """The names begin anew in each, and the one in the other is another."""
    one, other = await lab.create(), await lab.create()
    running = await _terminal(one, "echo ready; stty -echo; read x; echo heard $x")
    assert (await labs.run(one, "ls /dev/pts")).lines == ["0", "ptmx"]
    assert (await labs.run(other, "ls /dev/pts")).lines == ["ptmx"]
    assert (await labs.run(other, "echo typed > /dev/pts/0")).exit.code != 0
    second = await _terminal(other, "tty; sleep 1000")
    assert (await labs.run(other, "echo typed > /dev/pts/0")).exit.code == 0
    os.write(running.stdin, b"mine\n")
    assert await labs.line(running) == "heard mine"
    await _end(second)
    await _end(running)


async def test_a_terminal_has_one_user(sandbox: labs.Sandbox) -> None:
    """Others can neither read what is typed nor write on it; root inside can do both, as everywhere."""
    running = await _terminal(sandbox, "tty; sleep 1000", user="1000")
    for attack in ("cat < /dev/pts/0", "echo typed > /dev/pts/0", "chmod 666 /dev/pts/0"):
        assert (await labs.run(sandbox, attack, user="1001")).exit.code != 0
        assert (
            "denied" in " ".join((await labs.run(sandbox, f"({attack}) 2>&1", user="1001")).lines) or "chmod" in attack
        )
    assert (await labs.run(sandbox, "echo typed > /dev/pts/0", user="1000")).exit.code == 0
    await _end(running)


async def test_nothing_inside_types_into_a_terminal(lab: labs.Lab) -> None:
    """Input comes from the worker alone; where the filter is missing the kernel is asked, whatever it says."""
    for weakening, refused in ((None, True), (ablations.unfiltered, False)):
        sandbox = await lab.create(weakening)
        running = await labs.start(
            sandbox, ["python3", "-c", INJECT], terminal=SIZE, env={"PATH": labs.PATH, "LC_ALL": "C"}
        )
        done = await labs.finish(running)
        assert (b"PermissionError" in done.stdout) == refused


async def test_the_outer_side_is_nobodys(sandbox: labs.Sandbox) -> None:
    """No command has it: neither among its descriptors, nor through its init's."""
    running = await _terminal(sandbox, "ls -l /proc/self/fd; sleep 1000")
    seen = (await labs.run(sandbox, "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c ptmx")).lines
    assert seen == ["0"]
    await _end(running)


async def test_terminals_go_with_their_sandbox(lab: labs.Lab) -> None:
    """However many were open; the host has them back."""
    before = _terminals_of_the_host()
    sandbox = await lab.create(pids=512)
    running = [await labs.start(sandbox, "sleep 1000", terminal=SIZE) for _ in range(128)]
    with pytest.raises(errors.StartFailed):
        await labs.start(sandbox, "sleep 1000", terminal=SIZE)
    other = await lab.create()
    await _end(await _terminal(other, "tty; sleep 1000"))
    assert _terminals_of_the_host() >= before + 128
    for one in running:
        os.close(one.stdout)
        os.close(one.stdin)
    await lab.remove(sandbox)
    await lab.remove(other)

    async def are_gone() -> bool:
        return _terminals_of_the_host() <= before

    await labs.eventually(are_gone)


async def test_a_hostile_terminal_does_not_stop_its_init(sandbox: labs.Sandbox) -> None:
    """Whatever a command does to its terminal: settings, stopped output, a flood, a hang-up, other sizes."""
    attacks = (
        "stty raw; stty stop x; yes x | head -c 100000 & sleep 1000",
        "stty -ixon; kill -STOP $$",
        "printf '\\023'; yes & yes >&2 & sleep 1000",
        "exec 3<>/dev/tty; exec <&- >&- 2>&-; cat /dev/zero >&3",
        "while :; do stty rows 1 cols 1; stty rows 4096 cols 4096; done",
        "setsid sh -c 'cat /dev/zero > /dev/pts/5' & stty eof x; sleep 1000",
    )
    running = [await labs.start(sandbox, attack, terminal=SIZE) for attack in attacks]
    for one in running:
        for _ in range(20):
            try:
                os.write(one.stdin, b"\x03\x04\x11\x13\x1a\xff" * 1000)
            except BlockingIOError:
                break
    for _ in range(20):
        assert (await asyncio.wait_for(labs.run(sandbox, "echo alive"), 10)).stdout == b"alive\n"
    for one in running:
        with contextlib.suppress(errors.NotFound):  # one may have ended by what was typed
            await one.resize(contract.TerminalSize(1, 4096))
        await _end(one)

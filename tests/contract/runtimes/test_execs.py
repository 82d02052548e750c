"""Commands: what starts, how it is told to end, how it ended."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors
from traforo.domain.states import EndReason
from traforo.worker.runtimes import contract

Sandbox = contract.RunningSandbox


@pytest.mark.parametrize("code", [0, 1, 124, 255])
async def test_an_exit_code_is_the_commands_own(sandbox: Sandbox, code: int) -> None:
    """Whatever it is."""
    done = await outputs.run(sandbox, f"exit {code}")
    assert done == outputs.Done(contract.ExecExit(code=code), b"", b"")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_signalled_command_has_no_code(sandbox: Sandbox, number: int) -> None:
    """It has a signal instead."""
    done = await outputs.run(sandbox, f"kill -{int(number)} $$")
    assert done.exit == contract.ExecExit(signal=int(number))


async def test_streams_are_apart_and_exact(sandbox: Sandbox) -> None:
    """Every byte, NUL and stray ones too, on the stream it was written to."""
    done = await outputs.run(sandbox, r"printf 'a\000\377b'; printf 'c\n' >&2")
    assert (done.stdout, done.stderr) == (b"a\x00\xffb", b"c\n")


async def test_descriptors_do_not_block(sandbox: Sandbox) -> None:
    """None of them, so that no command can hold the worker up."""
    running = await sandbox.exec(outputs.start("cat", stdin=True))
    assert not any(os.get_blocking(fd) for fd in (running.stdout, running.stderr, running.stdin))
    await outputs.end_input(running)
    assert (await outputs.finish(running)).exit.code == 0


async def test_stdin_is_a_pipe_on_request(sandbox: Sandbox) -> None:
    """What is written comes in, and so does its end when it is told."""
    running = await sandbox.exec(outputs.start("cat", stdin=True))
    os.write(running.stdin, b"hello")
    await outputs.end_input(running)
    await running.close_stdin()
    assert (await outputs.finish(running)).stdout == b"hello"


async def test_closing_the_input_tells_nothing(sandbox: Sandbox) -> None:
    """Whoever closes its descriptor may have died, and the next one may have more to say."""
    running = await sandbox.exec(outputs.start("read x; echo $x; read x || echo end", stdin=True))
    os.write(running.stdin, b"hello\n")
    os.close(running.stdin)
    running.stdin = -1
    assert await outputs.line(running) == b"hello\n"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running.ended), 0.2)
    await running.close_stdin()
    assert (await outputs.finish(running)).stdout == b"end\n"


async def test_input_is_refused_once_nobody_reads(sandbox: Sandbox) -> None:
    """Who writes to a command that has ended is told."""
    running = await sandbox.exec(outputs.start("exit 0", stdin=True))
    await running.ended
    with pytest.raises(BrokenPipeError):
        os.write(running.stdin, b"hello")
    await outputs.finish(running)


async def test_stdin_is_empty_otherwise(sandbox: Sandbox) -> None:
    """A command that reads finds the end at once."""
    running = await sandbox.exec(outputs.start("cat; echo end"))
    assert running.stdin == -1
    assert (await outputs.finish(running)).stdout == b"end\n"


async def test_a_large_output_comes_whole(sandbox: Sandbox) -> None:
    """Four mebibytes through a pipe, no byte lost."""
    done = await outputs.run(sandbox, "head -c 4194304 /dev/zero")
    assert done.stdout == bytes(4_194_304)


async def test_the_environment_is_what_was_given_and_the_users(sandbox: Sandbox) -> None:
    """Nothing of the worker's own; HOME, USER, LOGNAME and SHELL are added where missing."""
    done = await outputs.run(sandbox, ["env"], env={"PATH": outputs.PATH, "A": "ü", "USER": "mine"})
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    found.pop("TRAFORO_FAKE", None)
    assert found == {
        "PATH": outputs.PATH,
        "A": "ü",
        "USER": "mine",
        "HOME": "/root",
        "LOGNAME": "root",
        "SHELL": found["SHELL"],
    }
    assert found["SHELL"].startswith("/")


async def test_the_working_directory(sandbox: Sandbox) -> None:
    """A path of the sandbox; the home of the user where none is given."""
    await sandbox.files.mkdir("/data/here", user="root", parents=False)
    await outputs.run(sandbox, "echo in > found", cwd="/data/here")
    await outputs.run(sandbox, "echo home > found", cwd=None)
    for path in ("/data/here/found", "/root/found"):
        assert (await sandbox.files.stat(path, user="root")).kind is contract.FileKind.FILE


async def test_a_program_is_looked_up_in_its_own_path(sandbox: Sandbox) -> None:
    """PATH is that of the command, not of the worker."""
    descriptor = await sandbox.files.open("/data/bin/tool", os.O_WRONLY | os.O_CREAT, 0o755, user="root")
    os.write(descriptor, b"#!/bin/sh\necho tool $1\n")
    os.close(descriptor)
    with pytest.raises(errors.StartFailed):
        await sandbox.exec(outputs.start(["tool"]))
    running = await sandbox.exec(outputs.start(["./bin/tool", "one"]))
    assert (await outputs.finish(running)).stdout == b"tool one\n"


@pytest.mark.parametrize(
    "argv, cwd, stage, name",
    [
        (["no-such-program"], "/data", "exec", "ENOENT"),
        (["/no/such/program"], "/data", "exec", "ENOENT"),
        (["/etc/passwd"], "/data", "exec", "EACCES"),
        (["true"], "/no/such/directory", "cwd", "ENOENT"),
    ],
)
async def test_what_cannot_start_says_why(sandbox: Sandbox, argv: list[str], cwd: str, stage: str, name: str) -> None:
    """The stage and the error's name; the sandbox goes on."""
    with pytest.raises(errors.StartFailed) as caught:
        await sandbox.exec(outputs.start(argv, cwd=cwd))
    assert (caught.value.fields["stage"], caught.value.fields["errno_name"]) == (stage, name)
    assert (await outputs.run(sandbox, ["true"])).exit.code == 0
    assert await sandbox.execs() == []


async def test_a_command_has_a_largest_size(sandbox: Sandbox) -> None:
    """Argv and env together; the sandbox goes on."""
    with pytest.raises(errors.TooLarge):
        await sandbox.exec(outputs.start(["true", "x" * contract.MAX_COMMAND_BYTES]))
    assert (await outputs.run(sandbox, ["true"])).exit.code == 0


async def test_an_unknown_user(sandbox: Sandbox) -> None:
    """Said to be one."""
    with pytest.raises(errors.NotFound) as caught:
        await sandbox.exec(outputs.start(["true"], user="nobody-of-that-name"))
    assert caught.value.fields["kind"] == "user"


async def test_numbers_are_unique_and_labels_kept(sandbox: Sandbox) -> None:
    """Counted from 1; a label may be as long as is allowed."""
    labels = [b"a", b"b" * contract.MAX_LABEL_BYTES, b""]
    execs = [await sandbox.exec(outputs.start(["true"], label=label)) for label in labels]
    assert [found.label for found in execs] == labels
    assert len({found.number for found in execs}) == 3
    assert min(found.number for found in execs) >= 1
    for found in execs:
        await outputs.finish(found)


async def test_many_at_once(sandbox: Sandbox) -> None:
    """Each has its own output and its own end."""
    done = await asyncio.gather(*(outputs.run(sandbox, f"echo {n}; exit {n}") for n in range(30)))
    assert [(one.stdout, one.exit.code) for one in done] == [(f"{n}\n".encode(), n) for n in range(30)]


async def test_an_end_does_not_wait_for_what_was_left_behind(sandbox: Sandbox) -> None:
    """A command has ended when its main process has, whoever still holds its output."""
    running = await sandbox.exec(outputs.start("sleep 1000 & echo started"))
    assert await outputs.line(running) == b"started\n"
    assert await running.ended == contract.ExecExit(code=0)
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def test_a_signal_to_the_main_process(sandbox: Sandbox) -> None:
    """Its children are not meant."""
    running = await sandbox.exec(
        outputs.start("trap 'echo caught; exit 7' TERM; (trap '' TERM; exec sleep 1000) & echo ready; wait")
    )
    assert await outputs.line(running) == b"ready\n"
    await running.signal(signal.SIGTERM, tree=False)
    assert await outputs.line(running) == b"caught\n"
    assert await running.ended == contract.ExecExit(code=7)
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1000 & sleep 1000 & echo ready; wait",
        "(setsid sleep 1000 &) ; echo ready; sleep 1000",
        "f() { (sleep 0.01; f) & echo ready; sleep 1000; }; f",
    ],
    ids=["children", "another session", "forking on and on"],
)
async def test_a_kill_of_the_tree_leaves_no_survivor(sandbox: Sandbox, command: str) -> None:
    """However it forks: the output ends, because nobody is left to hold it."""
    running = await sandbox.exec(outputs.start(command))
    await outputs.line(running)
    await running.signal(signal.SIGKILL, tree=True)
    assert (await outputs.finish(running)).exit.signal == signal.SIGKILL


async def test_a_tree_outlives_its_main_process(sandbox: Sandbox) -> None:
    """What it left behind can still be killed, until it is released."""
    running = await sandbox.exec(outputs.start("(sleep 1000 &); echo ready"))
    await outputs.line(running)
    await running.ended
    with pytest.raises(errors.NotFound):
        await running.signal(signal.SIGTERM, tree=False)
    await running.signal(signal.SIGKILL, tree=True)
    await outputs.finish(running)


async def test_nobody_to_signal(sandbox: Sandbox) -> None:
    """An exec that has ended with all its tree."""
    running = await sandbox.exec(outputs.start(["true"]))
    await running.ended
    for tree in (False, True):
        with pytest.raises(errors.NotFound):
            await running.signal(signal.SIGTERM, tree=tree)
    await outputs.finish(running)


async def test_a_released_exec_is_forgotten_and_goes_on(sandbox: Sandbox) -> None:
    """What it left behind is not stopped by an output that nobody reads."""
    much = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done"
    running = await sandbox.exec(outputs.start(f"({much}; echo > done) &"))
    await running.ended
    os.close(running.stdout)
    os.close(running.stderr)
    await running.release()
    assert await sandbox.execs() == []

    async def done() -> bool:
        try:
            return bool(await sandbox.files.stat("/data/done", user="root"))
        except errors.NotFound:
            return False

    await outputs.eventually(done)


async def test_memory_is_limited(subject: subjects.Subject) -> None:
    """A command that takes too much is killed, and it is known why; the sandbox goes on."""
    subject.needs_isolation()
    sandbox = await subject.create(memory_mib=64, disk_mib=16)
    done = await outputs.run(sandbox, "a=$(head -c 200000000 /dev/zero | tr '\\0' x)")
    assert done.exit == contract.ExecExit(signal=int(signal.SIGKILL), out_of_memory=True)
    assert (await outputs.run(sandbox, ["true"])).exit == contract.ExecExit(code=0)
    end = await sandbox.kill(EndReason.DELETED)
    assert end.oom_kills >= 1


async def test_processes_are_limited(subject: subjects.Subject) -> None:
    """A fork too many fails, inside."""
    subject.needs_isolation()
    sandbox = await subject.create(pids=16)
    done = await outputs.run(sandbox, "i=0; while [ $i -lt 40 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done")
    assert done.exit.code != 0
    assert b"fork" in done.stderr.lower()


async def test_a_sandbox_sees_itself_alone(subject: subjects.Subject) -> None:
    """Its own host name, and no process but its own."""
    subject.needs_isolation()
    sandbox = await subject.create()
    assert (await outputs.run(sandbox, ["cat", "/proc/sys/kernel/hostname"])).stdout == b"the-sandbox\n"
    done = await outputs.run(sandbox, "ls -d /proc/[0-9]*")
    assert len(done.stdout.split()) < 6

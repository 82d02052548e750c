"""Limits hold against whoever tries to pass them; who does not try notices nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.security import labs
from traforo.domain import errors, states
from traforo.worker.files import fillings
from traforo.worker.runtimes import contract


async def _lives(sandbox: labs.Sandbox) -> bool:
    return (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"


async def test_a_fork_bomb_ends_at_the_limit_of_processes(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """It gets EAGAIN, new commands are refused in words, others go on; when it is gone all is as before."""
    other = await lab.create()
    bomb = await labs.start(sandbox, [labs.PROBE, "breed", "1000"])
    number, code = (await labs.line(bomb)).split()
    assert (code, int(number) <= 64) == ("EAGAIN", True)
    assert await _lives(other)
    await labs.end(bomb)
    bomb = await labs.start(sandbox, ":(){ :|:& };: ; sleep 1; :|:|:|:")
    assert await _lives(other)
    await labs.end(bomb)
    assert await _lives(sandbox)


async def test_no_room_for_a_command_is_said_in_words(sandbox: labs.Sandbox) -> None:
    """And the init itself needs no process to say it, or to end those there are."""
    full = await labs.begin(sandbox, "breed", "1000")
    with pytest.raises(errors.StartFailed) as caught:
        await labs.start(sandbox, [labs.PROBE, "wait"])
    assert caught.value.fields["stage"] == "limits"
    await labs.end(full)
    assert await _lives(sandbox)


async def test_memory_beyond_the_limit_kills_who_took_it(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """The command is killed and its end says why; the sandbox, and others, live on."""
    other = await lab.create()
    done = await labs.run(sandbox, [labs.PROBE, "hog", "512"])
    assert done.exit == contract.ExecExit(signal=9, out_of_memory=True)
    assert await _lives(sandbox)
    assert await _lives(other)
    assert (await labs.run(other, [labs.PROBE, "hog", "16"])).lines == ["ok"]


async def test_many_small_hogs_end_in_words_as_well(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Whoever the kernel picks: the sandbox lives, or its end says that memory was the reason."""
    other = await lab.create()
    hogs = [await labs.start(sandbox, [labs.PROBE, "hog", "48"]) for _ in range(8)]
    for hog in hogs:
        await labs.finish(hog)
    if sandbox.ended.done():
        assert sandbox.ended.result().reason is states.EndReason.OUT_OF_MEMORY
    else:
        assert await _lives(sandbox)
    assert await _lives(other)


@pytest.mark.parametrize("user", ["root", "user"])
async def test_the_kernel_takes_a_command_first_and_a_worker_last(sandbox: labs.Sandbox, user: str) -> None:
    """When memory is short, of the sandbox or of the host."""
    worker, init = (int(Path(f"/proc/{which}/oom_score_adj").read_text()) for which in ("self", sandbox.pid))
    done = await labs.run(sandbox, "cat /proc/self/oom_score_adj", user=user)
    assert worker < init < int(done.lines[0])


async def test_network_buffers_are_memory_too(lab: labs.Lab) -> None:
    """Control groups of the old kind count them apart: without a limit of their own a sandbox takes what it likes."""
    sandbox = await lab.create(memory_mib=64)
    done = await labs.run(sandbox, [labs.PROBE, "stuff", "30"])
    assert done.exit.out_of_memory or int(done.lines[0]) < 64
    assert int(lab.on_host("stuff", "30")[0]) >= 64


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/usr", "/home/user"])
async def test_a_full_disk_is_an_error_of_who_fills_it(lab: labs.Lab, place: str) -> None:
    """Bytes beyond `disk_mib` are refused wherever they are written; the file API says so in words."""
    sandbox = await lab.create(memory_mib=128, disk_mib=16)
    assert await labs.probe(sandbox, "fill", f"{place}/full") == ["ENOSPC"]
    with pytest.raises(OSError, match="No space left"):
        await labs.write(sandbox, "/tmp/more", b"x" * (1 << 20))
    assert (await labs.run(sandbox, f"rm {place}/full; echo alive > /tmp/x; cat /tmp/x")).stdout == b"alive\n"


async def test_what_is_written_for_a_sandbox_is_its_memory(lab: labs.Lab) -> None:
    """An upload to a disk in memory counts as if a command had written it: else it would have that much twice."""
    sandbox = await lab.create(memory_mib=64, disk_mib=64)
    descriptor = await sandbox.files.open("/tmp/upload", os.O_WRONLY | os.O_CREAT, user="root")
    filling = fillings.Filling(sandbox.files, descriptor, "/tmp/upload", "root")
    try:
        for _ in range(44):
            await filling.write(b"x" * (1 << 20))
        await filling.finish()
        done = await labs.run(sandbox, [labs.PROBE, "hog", "40"])
        assert done.exit == contract.ExecExit(signal=9, out_of_memory=True)
        with pytest.raises(errors.DiskFull):
            await filling.write(b"x" * (64 << 20))
    finally:
        await filling.abandon()
        os.close(descriptor)
    assert await _lives(sandbox)


async def test_files_without_number_are_refused(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Empty files use no bytes but memory of the kernel: there is a limit on their number."""
    await labs.run(sandbox, "mkdir /tmp/litter")
    assert await labs.probe(sandbox, "litter", "/tmp/litter") == ["ENOSPC"]
    with pytest.raises(errors.DiskFull):
        await sandbox.files.mkdir("/tmp/more", user="root", parents=False)
    other = await lab.create()
    assert (await labs.run(other, "mkdir /tmp/more")).exit.code == 0


async def test_descriptors_of_one_command_do_not_take_those_of_others(sandbox: labs.Sandbox) -> None:
    """Open files are limited for each process; the init has its own."""
    greedy = await labs.start(sandbox, [labs.PROBE, "take", "files", "100000", "keep"])
    assert int(await labs.line(greedy)) < 100000
    assert await _lives(sandbox)
    await labs.end(greedy)


async def test_output_that_nobody_reads_stops_its_writer_alone(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """The pipe is full, the writer waits, the init and the worker do other things."""
    loud = [await labs.start(sandbox, [labs.PROBE, "shout"]) for _ in range(8)]
    for _ in range(10):
        assert await _lives(sandbox)
    for running in loud:
        await labs.end(running)


async def test_released_output_is_thrown_away_without_end(sandbox: labs.Sandbox) -> None:
    """What a command left behind may write for ever; the init reads it away and still answers."""
    loud = await labs.start(sandbox, f"{labs.PROBE} shout & exit 0")
    await loud.ended
    os.close(loud.stdout)
    os.close(loud.stderr)
    await loud.release()
    for _ in range(10):
        assert await _lives(sandbox)


@pytest.mark.parametrize("user", ["root", "user"])
async def test_a_killed_tree_leaves_nobody(sandbox: labs.Sandbox, user: str) -> None:
    """However it forks, whoever its parents and sessions are: one SIGKILL to the tree and there is nothing left."""
    trees = [await labs.begin(sandbox, "scatter", user=user) for _ in range(4)]
    trees.append(
        await labs.start(
            sandbox, "echo; (setsid sh -c 'sleep 100 & sleep 100' &) ; (trap '' TERM HUP; sleep 100) & exit 0"
        )
    )
    await labs.line(trees[-1])
    for tree in trees:
        await labs.end(tree)

    async def nobody() -> bool:
        try:
            done = await labs.run(sandbox, "cat /proc/[0-9]*/comm")
        except errors.StartFailed:  # the dead still count as processes until they are reaped
            return False
        return set(done.lines) <= {"init", "sh", "cat"}

    await labs.eventually(nobody)


async def test_a_sandbox_that_resists_is_dead_when_it_is_said_to_be(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Killed in the middle of everything at once: no process, mount or control group of it is left."""
    await labs.begin(sandbox, "scatter")
    await labs.start(sandbox, [labs.PROBE, "shout"])
    await labs.start(sandbox, [labs.PROBE, "breed", "30"])
    end = await sandbox.kill(states.EndReason.DELETED)
    assert end.reason is states.EndReason.DELETED
    assert [
        found.path for found in lab.layout.hierarchies if os.path.exists(f"{found.path}/{sandbox.sandbox_id}")
    ] == []
    assert not os.path.exists(f"/proc/{sandbox.pid}/ns")


async def test_arguments_and_environment_have_a_limit(sandbox: labs.Sandbox) -> None:
    """Up to it they arrive unharmed; beyond it the command is refused before anything is sent."""
    environment = {f"V{number}": "x" * 1000 for number in range(100)}
    done = await labs.run(sandbox, ["env"], env={"PATH": labs.PATH, **environment})
    assert sum(line.startswith("V") for line in done.lines) == 100
    with pytest.raises(errors.TooLarge):
        await labs.run(sandbox, ["env"], env={"PATH": "x" * contract.MAX_COMMAND_BYTES})
    for arguments in ([""] * 60000, ["x" * 20] * 5000):
        with pytest.raises((errors.StartFailed, errors.TooLarge)):
            await labs.run(sandbox, ["true", *arguments])
    try:  # each of the two is as large as it may be
        whole = await labs.start(
            sandbox, ["true", "x" * (contract.MAX_COMMAND_BYTES - 100)], label=b"x" * contract.MAX_LABEL_BYTES
        )
        assert (await labs.finish(whole)).exit == contract.ExecExit(code=0)
    except errors.TooLarge as error:
        assert error.fields["limit"] > 0
    assert await _lives(sandbox)


@pytest.mark.parametrize(
    "user",
    [
        "-1",
        "4294967295",
        "65535",
        "65536",
        "+0",
        " 0",
        "0 ",
        "0:",
        ":0",
        "root:",
        "a:b:c",
        "",
        "../root",
        "root\n",
        "0x0",
    ],
)
async def test_users_that_are_none_start_nothing(sandbox: labs.Sandbox, user: str) -> None:
    """A user is a name or number of the sandbox's own; what a careless parser would take for root is refused."""
    with pytest.raises((errors.NotFound, errors.InvalidRequest, errors.StartFailed)):
        await labs.run(sandbox, ["id"], user=user)


async def test_a_hostile_passwd_gives_nobody_more_than_the_sandbox_has(sandbox: labs.Sandbox) -> None:
    """Root inside decides who is who; ids outside its range, NULs, links to devices and to /proc mean nothing."""
    await labs.write(
        sandbox, "/etc/passwd", b"evil:x:4294967295:0::/:\nnul\0:x:0:0::/:\nbig:x:70000:70000::/:\n" + b"a" * (2 << 20)
    )
    for user in ("evil", "nul", "big"):
        with pytest.raises((errors.NotFound, errors.InvalidRequest)):
            await labs.run(sandbox, ["id"], user=user)
    for target in ("/dev/zero", "/proc/self/environ", "/proc/self/mem", "/proc/kmsg"):
        await labs.run(sandbox, f"ln -sf {target} /etc/passwd")
        with pytest.raises((errors.NotFound, errors.InvalidRequest)):
            await labs.run(sandbox, ["id"], user="evil")
    await labs.run(sandbox, "rm /etc/passwd; mkfifo /etc/passwd")
    with pytest.raises((errors.NotFound, errors.InvalidRequest)):
        await labs.run(sandbox, ["id"], user="evil")
    assert (await labs.run(sandbox, ["id", "-u"])).lines == ["0"]

"""Lives of sandboxes: made, kept through a restart of the worker, dead for sure."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.contract.runtimes import outputs, subjects
from traforo.domain import errors, specs
from traforo.domain.states import EndReason
from traforo.worker.runtimes import contract

Subject = subjects.Subject


async def test_a_sandbox_can_be_used_at_once(subject: Subject) -> None:
    """It is what was asked for, and phases were measured."""
    deadline = time.time() + 600
    sandbox = await subject.create(label=b"the label", deadline=deadline)
    assert (sandbox.label, sandbox.deadline) == (b"the label", deadline)
    os.kill(sandbox.pid, 0)  # it is a process of this host
    assert all(value >= 0 for value in sandbox.timings_ms.values())
    assert not sandbox.ended.done()
    assert await sandbox.execs() == []
    assert (await outputs.run(sandbox, ["true"])).exit.code == 0


async def test_sandboxes_are_apart(subject: Subject) -> None:
    """What one writes no other sees; twenty at once."""
    made = await asyncio.gather(*(subject.create() for _ in range(20)))
    await outputs.run(made[0], "echo mine > file")
    for other in made[1:]:
        with pytest.raises(errors.NotFound):
            await other.files.stat("/data/file", user="root")
    await asyncio.gather(*(sandbox.kill(EndReason.DELETED) for sandbox in made))
    assert all(sandbox.ended.done() for sandbox in made)


async def test_an_id_is_used_once(subject: Subject) -> None:
    """A second sandbox of the same id cannot start, and the first is not hurt."""
    sandbox = await subject.create()
    request = contract.CreateRequest(
        sandbox.sandbox_id,
        "again",
        specs.Resources(cpu=1, memory_mib=64, disk_mib=16, pids=32),
        subject.rootfs,
        b"",
        None,
    )
    with pytest.raises(errors.StartFailed):
        await subject.runtime.create(request)
    assert (await outputs.run(sandbox, ["true"])).exit.code == 0


async def test_a_kill_is_the_end(subject: Subject) -> None:
    """Everything in it is dead when it returns, everybody is told, and later kills change nothing."""
    sandbox = await subject.create()
    running = await sandbox.exec(outputs.start("(setsid sleep 1000 &); echo ready; sleep 1000"))
    await outputs.line(running)
    ends = await asyncio.gather(*(sandbox.kill(EndReason.DELETED) for _ in range(5)))
    ends.append(await sandbox.kill(EndReason.EXPIRED))
    assert {end.reason for end in ends} == {EndReason.DELETED}
    assert sandbox.ended.result() == ends[0]
    assert (await running.ended).code is None
    assert await outputs.read(running.stdout) == b""  # nobody holds the other end
    os.close(running.stderr)


async def test_a_dead_sandbox_does_nothing(subject: Subject) -> None:
    """Every use of it is an error of ours, and none hangs."""
    sandbox = await subject.create()
    await sandbox.kill(EndReason.DELETED)
    for call in (sandbox.exec(outputs.start(["true"])), sandbox.update(label=b"", deadline=None)):
        with pytest.raises(errors.TraforoError):
            await call


async def test_a_deadline_is_kept(subject: Subject) -> None:
    """Without anybody's help, and told as what it is."""
    sandbox = await subject.create(deadline=time.time() + 0.2)
    assert (await sandbox.ended).reason is EndReason.EXPIRED


async def test_a_deadline_can_be_moved(subject: Subject) -> None:
    """Sooner and later; the label moves along."""
    sooner = await subject.create(deadline=time.time() + 600)
    later = await subject.create(deadline=time.time() + 600)
    far = time.time() + 6000
    await later.update(label=b"later", deadline=far)
    await sooner.update(label=b"sooner", deadline=time.time() + 0.1)
    assert (later.label, later.deadline) == (b"later", far)
    assert (await sooner.ended).reason is EndReason.EXPIRED
    assert not later.ended.done()


async def test_live_sandboxes_outlive_the_worker(subject: Subject) -> None:
    """The next one gets them with their last label and deadline, and can do everything with them."""
    sandbox = await subject.create(label=b"first")
    deadline = time.time() + 600
    await sandbox.update(label=b"x" * contract.MAX_LABEL_BYTES, deadline=deadline)
    await outputs.run(sandbox, "echo kept > file")
    adoption = await subject.restart()
    (found,) = adoption.live
    assert adoption.dead == []
    assert (found.sandbox_id, found.label) == (sandbox.sandbox_id, b"x" * contract.MAX_LABEL_BYTES)
    assert found.deadline == pytest.approx(deadline, abs=0.01)
    assert found.timings_ms == {}
    assert (await outputs.run(found, ["cat", "file"])).stdout == b"kept\n"
    assert (await found.kill(EndReason.EXPIRED)).reason is EndReason.EXPIRED


async def test_execs_outlive_the_worker(subject: Subject) -> None:
    """Running and ended ones that were not released, with their labels and fresh descriptors; released ones not."""
    sandbox = await subject.create()
    running = await sandbox.exec(
        outputs.start("echo one; until [ -e go ]; do sleep 0.01; done; printf three; exit 5", label=b"running")
    )
    ended = await sandbox.exec(outputs.start("echo two; exit 6", label=b"ended"))
    await outputs.run(sandbox, ["true"], label=b"released")
    assert await outputs.line(running) == b"one\n"
    await ended.ended
    for old in (running, ended):
        os.close(old.stdout)
        os.close(old.stderr)
    (found,) = (await subject.restart()).live
    execs = {one.label: one for one in await found.execs()}
    assert {label: one.number for label, one in execs.items()} == {b"running": running.number, b"ended": ended.number}
    await outputs.run(found, ["touch", "go"])
    done = await outputs.finish(execs[b"running"])
    assert (done.stdout, done.exit.code) == (b"three", 5)
    done = await outputs.finish(execs[b"ended"])
    assert (done.stdout, done.exit.code) == (b"two\n", 6)
    assert list(await found.execs()) == []


async def test_the_dead_are_remembered_until_they_are_forgotten(subject: Subject) -> None:
    """With label and reason, through any number of restarts."""
    sandbox = await subject.create(label=b"dead")
    await sandbox.kill(EndReason.DELETED)
    for _ in range(2):
        adoption = await subject.restart()
        assert adoption.live == []
        (dead,) = adoption.dead
        assert (dead.sandbox_id, dead.label, dead.end.reason) == (sandbox.sandbox_id, b"dead", EndReason.DELETED)
    await subject.runtime.forget(sandbox.sandbox_id)
    await subject.runtime.forget(sandbox.sandbox_id)
    await subject.runtime.forget("sbx_unknown")
    assert (await subject.restart()).dead == []


async def test_a_deadline_is_kept_without_a_worker(subject: Subject) -> None:
    """It passes while nobody is there: dead when the next one comes, or at once."""
    sandbox = await subject.create(deadline=time.time() + 0.2)
    await subject.runtime.close(keep=True)
    await asyncio.sleep(0.3)
    adoption = await subject.start()
    if adoption.live:
        assert (await adoption.live[0].ended).reason is EndReason.EXPIRED
    else:
        assert [(one.sandbox_id, one.end.reason) for one in adoption.dead] == [(sandbox.sandbox_id, EndReason.EXPIRED)]


async def test_closing_for_good_kills_everything(subject: Subject) -> None:
    """Nothing is left for the next worker but the word that they are dead."""
    sandbox = await subject.create()
    await subject.runtime.close(keep=False)
    adoption = await subject.start()
    assert adoption.live == []
    assert {one.sandbox_id for one in adoption.dead} <= {sandbox.sandbox_id}


async def test_a_hundred_rounds(subject: Subject) -> None:
    """Made and killed, nothing piles up."""
    for _ in range(10):
        made = await asyncio.gather(*(subject.create() for _ in range(10)))
        await asyncio.gather(*(sandbox.kill(EndReason.DELETED) for sandbox in made))
        await asyncio.gather(*(subject.runtime.forget(sandbox.sandbox_id) for sandbox in made))
    adoption = await subject.restart()
    assert (adoption.live, adoption.dead) == ([], [])


async def test_input_goes_on_after_the_worker(subject: Subject) -> None:
    """What an earlier worker began to write is written on by the next; an end that was told stays told."""
    sandbox = await subject.create()
    open_one = await sandbox.exec(outputs.start("cat", label=b"open", stdin=True))
    closed = await sandbox.exec(outputs.start("cat; sleep 1000", label=b"closed", stdin=True))
    os.write(open_one.stdin, b"one ")
    await outputs.end_input(closed)
    for old in (open_one.stdin, open_one.stdout, open_one.stderr, closed.stdout, closed.stderr):
        os.close(old)
    (found,) = (await subject.restart()).live
    execs = {one.label: one for one in await found.execs()}
    assert execs[b"closed"].stdin == -1
    running = execs[b"open"]
    os.write(running.stdin, b"two")
    await outputs.end_input(running)
    assert (await outputs.finish(running)).stdout.endswith(b"two")
    await execs[b"closed"].signal(signal.SIGKILL, tree=True)
    await outputs.finish(execs[b"closed"])


async def test_terminals_outlive_the_worker(subject: Subject) -> None:
    """The same shell on the same terminal, which can be written to and resized."""
    sandbox = await subject.create()
    start = outputs.start("echo one; read x; stty size; echo $x", terminal=contract.TerminalSize(10, 20))
    running = await sandbox.exec(start)
    assert await outputs.line(running) == b"one\r\n"
    for old in (running.stdin, running.stdout):
        os.close(old)
    (found,) = (await subject.restart()).live
    (again,) = await found.execs()
    assert again.stderr == -1
    await again.resize(contract.TerminalSize(30, 40))
    os.write(again.stdin, b"two\n")
    assert (await outputs.finish(again)).stdout == b"two\r\n30 40\r\ntwo\r\n"

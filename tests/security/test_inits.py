"""PID 1 of a sandbox: nobody inside can look into it, write to it, stop it or end it."""

from __future__ import annotations

import asyncio
import fcntl
import os

import pytest

from tests.security import labs
from traforo.domain import errors
from traforo.worker.runtimes.container import channels

SECRETS = ["mem", "environ", "maps", "auxv", "fd", "fdinfo", "map_files", "exe", "root", "cwd", "stack", "syscall"]
SECRETS += ["personality", "pagemap", "smaps", "numa_maps", "timers", "io", "ns/pid", "task/1/mem", "task/1/fd"]
F_GET_SEALS = 1034
CROWD = """
import array, errno, os, socket, time
sent = array.array("i", [os.open("/dev/null", os.O_RDONLY)] * 250)
kept = []
try:
    while True:
        kept += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for _ in range(5):
            kept[-1].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
time.sleep(20)
"""
"""Sends descriptors to itself, and takes none out, until the kernel refuses."""
ALL_SEALS = 0xF  # against sealing, shrinking, growing, writing


@pytest.mark.parametrize("user", ["root", "user"])
async def test_the_init_cannot_be_looked_into(sandbox: labs.Sandbox, user: str) -> None:
    """Nothing that takes the right to trace it: not its memory, its environment, its descriptors, its root."""
    found = await labs.calls(sandbox, *(f"openat -100 s:/proc/1/{name} 0" for name in SECRETS), user=user)
    assert {name: answer for name, answer in zip(SECRETS, found, strict=True) if answer != "EACCES"} == {}
    done = await labs.run(sandbox, "cd /proc/1; readlink exe root cwd fd/3; cat cmdline", user=user)
    assert done.stdout.strip(b"\0") == b"init"


async def test_the_init_would_be_open_if_it_could_be_traced(site: labs.Site) -> None:
    """Proves the tests around this one."""
    async with site.lab("traceable") as lab:
        weak = await lab.create()
        names = ["mem", "environ", "maps", "fd", "root", "exe"]
        found = await labs.calls(weak, *(f"openat -100 s:/proc/1/{name} 0" for name in names))
        assert dict(zip(names, found, strict=True)) == dict.fromkeys(names, "ok")
        assert await labs.calls(weak, "ptrace 0x4206 1 0 0") == ["ok"]
        assert await labs.probe(weak, "memory", "1") == ["ok", "EFAULT", "ok"]


@pytest.mark.parametrize("user", ["root", "user"])
async def test_the_init_cannot_be_traced(sandbox: labs.Sandbox, user: str) -> None:
    """Nor its memory read or written, nor its descriptors taken."""
    assert await labs.calls(sandbox, "ptrace 16 1 0 0", "ptrace 0x4206 1 0 0", user=user) == ["EPERM", "EPERM"]
    assert await labs.probe(sandbox, "memory", "1", user=user) == ["EPERM", "EPERM", "EPERM"]


@pytest.mark.parametrize("user", ["root", "user"])
async def test_no_signal_reaches_the_init(sandbox: labs.Sandbox, user: str) -> None:
    """Every signal there is, many times: it lives, and starts commands as before."""
    everything = [f"kill 1 {number}" for number in range(1, 65)]
    await labs.calls(sandbox, *everything * 3, user=user)
    await labs.run(sandbox, "kill -9 -1; kill -STOP -1", user=user)
    assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"
    assert not sandbox.ended.done()


async def test_a_flood_of_signals_does_not_hold_the_init_up(sandbox: labs.Sandbox) -> None:
    """It answers while a command sends it one after the other."""
    flood = await labs.start(sandbox, "echo; while :; do kill -CHLD 1; kill -HUP 1; kill -USR1 1; done")
    await labs.line(flood)
    for _ in range(20):
        assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"
    await labs.end(flood)


@pytest.mark.parametrize("user", ["root", "user"])
async def test_a_command_that_does_not_begin_holds_nobody_up(sandbox: labs.Sandbox, user: str) -> None:
    """Before it is its command, a child of the init is its user already: who may stop it, or make it wait for a file."""
    await labs.write(sandbox, "/tmp/program", b"#!/bin/sh\n", mode=0o755, user=user)
    keeper = await labs.begin(sandbox, "lease", "/tmp/program", user=user)  # whoever else opens it waits
    waiting = asyncio.ensure_future(labs.run(sandbox, ["/tmp/program"], user=user))
    signal = "for each in /proc/[0-9]*; do grep -qx init $each/comm && kill -{} ${{each#/proc/}}; done 2>&1; echo sent"

    async def stop() -> bool:
        await labs.run(sandbox, signal.format("STOP"), user=user)
        return b"stopped" in (await labs.run(sandbox, "cat /proc/[0-9]*/status")).stdout

    await labs.eventually(stop)
    await labs.end(keeper)
    for _ in range(10):
        assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"
        assert (await sandbox.files.stat("/etc", user="root")).mode
    assert not waiting.done()
    await labs.run(sandbox, signal.format("CONT"), user=user)
    assert (await waiting).exit.code == 0


async def test_limits_of_the_init_cannot_be_set_from_inside(sandbox: labs.Sandbox) -> None:
    """Root inside has the same ids as the init; without descriptors or time it would be as good as dead."""
    few, nothing = f"h:{'0300000000000000' * 2}", "z:16"
    attacks = [f"prlimit64 1 7 {few} null", f"prlimit64 1 0 {nothing} null", f"prlimit64 1 6 {nothing} null"]
    assert await labs.calls(sandbox, *attacks) == ["EPERM"] * 3
    own = f"prlimit64 0 7 h:{'4000000000000000' * 2} null"
    assert await labs.calls(sandbox, own) == ["ok"]
    for _ in range(20):
        assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"


@pytest.mark.parametrize("init", ["", "unsealed"])
async def test_the_program_of_the_init_is_sealed(site: labs.Site, init: str) -> None:
    """It runs from memory that nobody can write, whoever finds a way to its file (as CVE-2019-5736 did)."""
    async with site.lab(init) as lab:
        sandbox = await lab.create()
        descriptor = os.open(f"/proc/{sandbox.pid}/exe", os.O_RDONLY)
        try:
            seals = fcntl.fcntl(descriptor, F_GET_SEALS)
        except OSError:
            seals = 0
        finally:
            os.close(descriptor)
        assert seals & ALL_SEALS == (0 if init else ALL_SEALS)


async def test_a_command_that_is_the_init_itself_cannot_be_written(sandbox: labs.Sandbox) -> None:
    """Before it becomes its command, a child of the init is the init; as /proc/self/exe it can be run, not changed.

    The attacker keeps its file after it has ended, so that nobody runs it when it is written to.
    """
    thief = await labs.begin(sandbox, "steal", "/memfd:")
    for _ in range(500):
        await labs.run(sandbox, ["/proc/self/exe", "version"])
        if thief.ended.done():
            break
    found = (await labs.finish(thief)).lines
    assert (len(found), set(found) - {"EPERM", "ETXTBSY"}) == (3, set())
    assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"


async def test_zombies_are_reaped(sandbox: labs.Sandbox) -> None:
    """However many orphans end at once, none is left to fill the sandbox's processes."""
    assert await labs.probe(sandbox, "orphan", "2000") == ["ok"]

    async def clean() -> bool:
        return (await labs.run(sandbox, "grep -l '^State:.Z' /proc/[0-9]*/status")).stdout == b""

    await labs.eventually(clean)


async def test_no_room_for_descriptors_is_said_in_words(sandbox: labs.Sandbox) -> None:
    """Root inside has so many on their way to itself that the kernel lets its user, which the init is too, send no more.

    What was started for nobody is ended again.
    """
    crowd = await labs.start(sandbox, ["python3", "-c", CROWD])
    assert await labs.line(crowd) == "ETOOMANYREFS"
    with pytest.raises(errors.StartFailed) as caught:
        await labs.start(sandbox, [labs.PROBE, "wait"])
    assert (caught.value.fields["stage"], caught.value.fields["errno_name"]) == ("limits", "ETOOMANYREFS")
    with pytest.raises(errors.TraforoError) as refused:
        await sandbox.files.open("/etc/hostname", os.O_RDONLY, user="root")
    assert not isinstance(refused.value, channels.Silent)
    await labs.end(crowd)
    assert set((await labs.run(sandbox, "cat /proc/[0-9]*/comm")).lines) <= {"init", "sh", "cat"}

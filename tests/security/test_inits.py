"""PID 1 of a sandbox: nobody inside can look into it, write to it, stop it or end it."""

from __future__ import annotations

import fcntl
import os

import pytest

from tests.security import labs

SECRETS = ["mem", "environ", "maps", "auxv", "fd", "fdinfo", "map_files", "exe", "root", "cwd", "stack", "syscall"]
SECRETS += ["personality", "pagemap", "smaps", "numa_maps", "timers", "io", "ns/pid", "task/1/mem", "task/1/fd"]
F_GET_SEALS = 1034
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

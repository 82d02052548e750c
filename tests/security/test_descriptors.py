"""What a command and an init hold: descriptors, memory, environment. None of it is anybody else's, or leads out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.security import labs
from traforo.domain import errors
from traforo.worker.runtimes.container import plans

NUMBERS = range(3, 24)


@pytest.mark.parametrize("stdin", [False, True])
@pytest.mark.parametrize("user", ["root", "user"])
async def test_a_command_holds_its_three_streams(sandbox: labs.Sandbox, user: str, stdin: bool) -> None:
    """And nothing else: not the init's socket, not its cgroup, not streams of other commands."""
    other = await labs.start(sandbox, "cat", stdin=True)
    done = await labs.run(sandbox, [labs.PROBE, "descriptors"], user=user, stdin=stdin)
    assert done.lines == ["0", "1", "2"]
    leaky = await labs.run(sandbox, f"exec {labs.PROBE} descriptors 7</etc/passwd")
    assert leaky.lines == ["0", "1", "2", "7"]
    await labs.end(other)


async def test_streams_are_pipes_of_the_commands_own(sandbox: labs.Sandbox) -> None:
    """Nothing of the host stands behind them: its end of a pipe, or the sandbox's own /dev/null."""
    done = await labs.run(sandbox, "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2")
    assert re.sub(r"\d+", "N", " ".join(done.lines)) == "/dev/null pipe:[N] pipe:[N]"


async def _places(sandbox: labs.Sandbox) -> list[str]:
    """Start a command in every place that the descriptors of others might be; return where that worked."""
    starts = [f"/proc/self/fd/{number}" for number in NUMBERS]
    starts += [f"/proc/thread-self/fd/{number}" for number in NUMBERS] + [f"/dev/fd/{number}" for number in NUMBERS]
    starts += [f"/proc/1/fd/{number}" for number in NUMBERS] + ["/proc/1/cwd", "/proc/1/root", "/proc/1/task/1/cwd"]
    found = []
    for place in starts:
        try:
            await labs.run(sandbox, "pwd", cwd=place)
        except errors.StartFailed:
            continue
        found.append(place)
    return found


@pytest.mark.parametrize("user", ["root", "user"])
async def test_no_command_starts_in_a_descriptor_of_the_init(sandbox: labs.Sandbox, user: str) -> None:
    """The directory of a command is looked up while it is still the init's child (as in CVE-2024-21626)."""
    assert await _places(sandbox) == []


async def test_no_program_is_found_through_a_descriptor_of_the_init(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Neither as the command, nor on its PATH, nor as the interpreter of a script."""
    up = "/".join([".."] * 12)
    await labs.write(sandbox, "/tmp/inner", b"", mode=0o755)
    for number in NUMBERS:
        base = f"/proc/self/fd/{number}/{up}"
        with pytest.raises(errors.StartFailed):
            await labs.run(sandbox, [f"{base}{lab.probe}", "ids"])
        with pytest.raises(errors.StartFailed):
            await labs.run(sandbox, ["probe", "ids"], env={"PATH": f"{base}{lab.probe.parent}"})
        await labs.write(sandbox, "/tmp/script", f"#!{base}{lab.probe}\n".encode(), mode=0o755)
        with pytest.raises(errors.StartFailed):
            await labs.run(sandbox, ["/tmp/script"])


async def test_descriptors_left_open_would_lead_to_the_host(site: labs.Site) -> None:
    """Proves the two tests above: an init that does not close before it looks up lets a command start elsewhere."""
    async with site.lab("lingering") as lab:
        weak = await lab.create()
        assert any(place.startswith("/proc/self/fd/") for place in await _places(weak))


async def test_directories_that_the_init_holds_lead_nowhere(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """Somebody who takes the init over finds in its descriptors no way up to the host."""
    running = await labs.start(sandbox, "cat", stdin=True)
    found = lab.on_host("possess", str(sandbox.pid), hex(plans.CAPABILITY_MASK))
    await labs.end(running)
    assert int(found[-1]) > 3
    assert [line for line in found[:-1] if line != "root"] == []


async def test_the_init_holds_nothing_of_the_worker_or_of_others(lab: labs.Lab, sandbox: labs.Sandbox) -> None:
    """One socket, its cgroup, its signals, and pipes: no file of the host, no other sandbox's socket or cgroup."""
    other = await lab.create()
    found = [os.readlink(path) for path in Path(f"/proc/{other.pid}/fd").iterdir()]
    own = {"/dev/null", "anon_inode:[signalfd]", f"/proc/{other.pid}/oom_score_adj", "/"}
    files = [target for target in found if not target.startswith(("socket:", "pipe:")) and target not in own]
    assert [target for target in files if other.sandbox_id not in target] == []
    assert sum(target.startswith("socket:") for target in found) == 1


def _scan(pid: int, needles: list[bytes]) -> list[bytes]:
    """Return which of these a process has in its memory."""
    found = set()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("r") or "[v" in line:
                continue
            first, last = (int(part, 16) for part in span.split("-"))
            memory.seek(first)
            data = memory.read(last - first)
            found |= {needle for needle in needles if needle in data}
    return sorted(found)


async def test_memory_of_an_init_holds_nothing_of_others(lab: labs.Lab) -> None:
    """Nothing of what the worker knows, and nothing of other sandboxes: a label holds what its caller asked for.

    The worker comes back once in between, for it then asks the spawner for everything it has.
    """
    first = await lab.create(label=b"x" * 20000 + b"label-of-the-first")
    await lab.runtime.close(keep=True)
    lab.runtime._closing = False
    await lab.runtime.start()
    second = await lab.create(label=b"label-of-the-second")
    third = await lab.create(label=b"label-of-the-third")
    secrets = [labs.SECRET.encode(), b"label-of-the-first", first.sandbox_id.encode(), b"x" * 100]
    assert _scan(second.pid, secrets) == []
    assert _scan(third.pid, [*secrets, second.sandbox_id.encode(), b"label-of-the-second"]) == []
    assert _scan(os.getpid(), [labs.SECRET.encode()]) == [labs.SECRET.encode()]


async def test_a_command_sees_the_environment_it_was_given(sandbox: labs.Sandbox) -> None:
    """Nothing of the worker's, the spawner's or the init's."""
    done = await labs.run(sandbox, ["env"], env={"PATH": labs.PATH, "GIVEN": "yes"})
    names = {line.partition("=")[0] for line in done.lines}
    assert names == {"PATH", "GIVEN", "HOME", "USER", "LOGNAME", "SHELL"}

"""Real sandboxes for attacks: made by the plan as it is, or by a weakened one, with the probe in /opt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import uids
from tests.security import ablations
from traforo.domain import errors, ids, specs, states
from traforo.worker.hosts import cgroups, features
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers, inits, plans, runtimes

PROBE = "/opt/probe"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "the-sandbox"
SECRET = "known-to-the-worker-alone-5c1d"
"""Stands in the environment of the worker."""

Sandbox = inits.Sandbox


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    exit: contract.ExecExit
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        """What it printed; numbers of errors as their names."""
        return [" ".join(map(_named, line.split(" "))) for line in self.stdout.decode(errors="replace").splitlines()]


def _named(word: str) -> str:
    number = word.removeprefix("errno")
    return errno.errorcode.get(int(number), word) if number != word and number.isdecimal() else word


class _Runtime(runtimes.ContainerRuntime):
    """The runtime, with a place to take something out of a plan."""

    weakening: ablations.Weakening | None = None

    async def _spawn(self, request: contract.CreateRequest, plan: plans.Plan, uid: int | None) -> Sandbox:
        return await super()._spawn(request, self.weakening(plan) if self.weakening else plan, uid)


@dataclass
class Lab:
    """A runtime of its own, and what was made with it."""

    runtime: _Runtime
    rootfs: contract.Rootfs
    layout: cgroups.Layout
    probe: Path
    disk_kind: states.DiskKind = states.DiskKind.TMPFS

    async def create(
        self,
        weakening: ablations.Weakening | None = None,
        *,
        label: bytes = b"label",
        rootfs: contract.Rootfs | None = None,
        **limits: object,
    ) -> Sandbox:
        """Make a sandbox."""
        values: dict[str, object] = {
            "cpu": 2.0,
            "memory_mib": 128,
            "disk_mib": 32,
            "pids": 64,
            "disk_kind": self.disk_kind,
        }
        values |= limits
        request = contract.CreateRequest(
            sandbox_id=str(ids.new_sandbox_id(ids.worker_hash("security"))),
            hostname=HOSTNAME,
            resources=specs.Resources(**values),  # type: ignore[arg-type]  # a builder for tests
            rootfs=rootfs or self.rootfs,
            label=label,
            deadline=time.time() + 120,
        )
        self.runtime.weakening = weakening
        return await self.runtime.create(request)

    async def remove(self, sandbox: Sandbox) -> contract.SandboxEnd:
        """End a sandbox."""
        end = await sandbox.kill(states.EndReason.DELETED)
        await self.runtime.forget(sandbox.sandbox_id)
        return end

    def on_host(self, *argv: str, user: int = 0) -> list[str]:
        """Run the probe on the host, to see what it does where nothing stops it."""
        done = subprocess.run(
            [str(self.probe), *argv],
            capture_output=True,
            check=True,
            timeout=30,
            user=user,
            group=user,
            extra_groups=[],
        )
        return Done(contract.ExecExit(), done.stdout, b"").lines


@dataclass
class Site:
    """What all labs of one run of the tests share."""

    directory: Path
    probe: Path
    rootfs: contract.Rootfs
    features: features.Features
    group: str
    """Name of the control group in which all of it happens."""
    _inits: dict[str, Path] = field(default_factory=dict)

    def init(self, name: str) -> Path:
        """Return the program of an init: the real one for "", else one that lacks something."""
        if not name:
            return drivers.find_binary()
        if name not in self._inits:
            self._inits[name] = ablations.compile_init(self.directory, name)
        return self._inits[name]

    @contextlib.asynccontextmanager
    async def lab(self, init: str = "", *, outside: bool = False) -> AsyncIterator[Lab]:
        """Run a runtime; afterwards nothing of it is left. `outside` has overlays mounted as on older kernels."""
        known = self.features
        if outside:
            known = dataclasses.replace(known, overlay_xattr=features.Probe(ok=False))
        binary = await asyncio.to_thread(self.init, init)
        layout = cgroups.prepare(self.group, Path("/proc/self/mountinfo").read_text())
        directory = Path(tempfile.mkdtemp(prefix="trf-"))
        places = runtimes.Places(binary, directory / "run", directory / "disks")
        masked, read_only = plans.look_at_proc()
        host = plans.Host(known, layout, str(places.devices), masked, read_only)
        runtime = _Runtime(places, host, uids.LABS)
        try:
            await runtime.start()
            yield Lab(runtime, self.rootfs, layout, self.probe)
        finally:
            await runtime.close(keep=False)
            shutil.rmtree(directory)
        for hierarchy in layout.hierarchies:
            assert list(Path(hierarchy.path).glob("sbx_*")) == []
            with contextlib.suppress(FileNotFoundError):
                Path(hierarchy.path).rmdir()


def host_capability(bit: int) -> bool:
    """Say whether this process has a capability: root of a virtual machine or container may lack some."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> bit & 1)


def has_32_bit_calls() -> bool:
    """Say whether this host's kernel runs 32-bit code at all."""
    return os.uname().machine == "x86_64" and Path("/proc/sys/abi/vsyscall32").exists()


async def start(sandbox: contract.RunningSandbox, argv: Sequence[str] | str, **options: object) -> contract.RunningExec:
    """Start a command; a string is for the shell."""
    values: dict[str, object] = {"label": b"exec", "cwd": "/", "user": "root", "env": {"PATH": PATH}, **options}
    command = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
    return await sandbox.exec(contract.ExecStart(argv=command, **values))  # type: ignore[arg-type]  # a builder for tests


async def run(sandbox: contract.RunningSandbox, argv: Sequence[str] | str, **options: object) -> Done:
    """Run a command to its end."""
    return await finish(await start(sandbox, argv, **options))


async def probe(sandbox: contract.RunningSandbox, *argv: str, user: str = "root") -> list[str]:
    """Run the probe to its end, which must be a good one, and return its lines."""
    done = await run(sandbox, [PROBE, *argv], user=user)
    assert (done.exit, done.stderr) == (contract.ExecExit(code=0), b"")
    return done.lines


async def calls(sandbox: contract.RunningSandbox, *texts: str, user: str = "root") -> list[str]:
    """Make system calls inside; return "ok" or the name of the error of each."""
    return await probe(sandbox, "calls", *texts, user=user)


async def begin(sandbox: contract.RunningSandbox, *argv: str, user: str = "root") -> contract.RunningExec:
    """Start the probe and return when it has said its first line, which is dropped."""
    running = await start(sandbox, [PROBE, *argv], user=user)
    await line(running)
    return running


async def end(running: contract.RunningExec) -> None:
    """Kill a command and all that descends from it."""
    with contextlib.suppress(errors.NotFound):
        await running.signal(9, tree=True)
    await finish(running)


async def finish(running: contract.RunningExec) -> Done:
    """Read both streams to their ends, wait for the end and release."""
    stdout, stderr = await asyncio.gather(_read(running.stdout), _read(running.stderr))
    ended = await running.ended
    if running.stdin >= 0:
        os.close(running.stdin)
    await running.release()
    return Done(ended, stdout, stderr)


async def line(running: contract.RunningExec) -> str:
    """Read one line of output, and leave the descriptor open."""
    found = await _read(running.stdout, lambda data: data.endswith(b"\n"), size=1)
    return Done(contract.ExecExit(), found, b"").lines[0]


async def _read(descriptor: int, stop: Callable[[bytes], bool] = lambda _: False, size: int = 1 << 16) -> bytes:
    found = b""
    loop = asyncio.get_running_loop()
    while descriptor >= 0 and not stop(found):
        try:
            piece = os.read(descriptor, size)
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_reader(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(descriptor)
            continue
        if not piece:
            os.close(descriptor)
            break
        found += piece
    return found


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens elsewhere; the test's own limit of time is the limit."""
    while not await condition():
        await asyncio.sleep(0.01)


async def write(
    sandbox: contract.RunningSandbox, path: str, data: bytes, *, mode: int = 0o644, user: str = "root"
) -> None:
    """Put a file into a sandbox."""
    descriptor = await sandbox.files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode, user=user)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)

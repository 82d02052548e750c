"""A runtime without isolation, for tests: commands are plain processes of the host in a temporary directory.

`FakeSpawner` plays what outlives a worker (the spawner and its labels); `FakeRuntime` plays the worker's side, so a
test restarts a worker by making a new runtime over the same spawner. The contract suite holds both to the contract.
Limits of memory, disk and processes are not enforced, users have no rights of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal as signals
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.fakes import filesystems, terminals
from traforo.domain import clocks, errors, states
from traforo.worker.runtimes import contract

_MARK = "TRAFORO_FAKE"
"""Variable by which processes are found again: `<sandbox>/<exec>`, inherited by every descendant."""
_KILLED = contract.ExecExit(signal=int(signals.SIGKILL))


def _marked(mark: str) -> list[int]:
    """Return the processes of the host whose mark begins with `mark`."""
    wanted = f"{_MARK}={mark}/".encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with contextlib.suppress(OSError):
                environ = (place / "environ").read_bytes()
                if any((item + b"/").startswith(wanted) for item in environ.split(b"\0")):
                    found.append(int(place.name))
    return found


def _send(mark: str, number: int) -> int:
    """Signal every process with this mark; SIGKILL until none is left. Return how many there were at first."""
    first = _marked(mark)
    alive = first
    for _ in range(200):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number != signals.SIGKILL or not alive:
            break
        alive = _marked(mark)
    return len(first)


class _Exec:
    """A process as the spawner knows it."""

    def __init__(
        self,
        number: int,
        start: contract.ExecStart,
        process: subprocess.Popen[bytes],
        terminal: terminals.Terminal | None,
    ) -> None:
        self.number = number
        self.label = start.label
        self.process = process
        self.terminal = terminal
        if terminal is not None:
            self.stdout, self.stderr, self.stdin = terminal.stdout, -1, terminal.stdin
        else:
            assert process.stdout is not None
            assert process.stderr is not None
            self.stdout = os.dup(process.stdout.fileno())
            self.stderr = os.dup(process.stderr.fileno())
            self.stdin = os.dup(process.stdin.fileno()) if process.stdin is not None else -1
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None:
                stream.close()
        self.exit: contract.ExecExit | None = None
        self.listeners: list[asyncio.Future[contract.ExecExit]] = []
        self.pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self.pidfd, self._reap)

    def _reap(self) -> None:
        if self.exit is not None:  # both the descriptor and whoever kills may have seen it end
            return
        code = self.process.poll()
        if code is None:
            return
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        if self.terminal is not None:
            self.terminal.ended()
        self.exit = contract.ExecExit(signal=-code) if code < 0 else contract.ExecExit(code=code)
        for listener in self.listeners:
            if not listener.done():
                listener.set_result(self.exit)

    def close(self) -> None:
        for descriptor in (self.stdout, self.stderr, self.stdin):
            if descriptor >= 0:
                os.close(descriptor)
        self.stdout = self.stderr = self.stdin = -1


class _Sandbox:
    """A sandbox as the spawner knows it."""

    def __init__(self, request: contract.CreateRequest) -> None:
        self.request = request
        self.label = request.label
        self.deadline = request.deadline
        self.numbers = 0
        self.execs: dict[int, _Exec] = {}
        self.end: contract.SandboxEnd | None = None
        self.dying: asyncio.Future[contract.SandboxEnd] | None = None
        self.listeners: list[asyncio.Future[contract.SandboxEnd]] = []
        self.directory: Path | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.mark = f"{request.sandbox_id}.{id(self):x}"

    def root(self) -> Path:
        """Return the directory that plays the root; made when first wanted, so that a create touches no disk."""
        if self.directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="traforo-fake-"))
            for place in filesystems.HOMES.values():
                (self.directory / place.lstrip("/")).mkdir(parents=True)
            (self.directory / "tmp").mkdir()
        return self.directory


class FakeSpawner:
    """What outlives a worker, and the switches by which tests make things go wrong."""

    def __init__(self, clock: clocks.Clock | None = None) -> None:
        self.clock = clock or clocks.SystemClock()
        self.sandboxes: dict[str, _Sandbox] = {}
        """Live ones, and dead ones that were not forgotten."""
        self.refuse: list[errors.TraforoError] = []
        """Errors that the next creates raise, one each."""
        self.create_gate: asyncio.Event | None = None
        """Where set, creates wait for it."""
        self.kill_gate: asyncio.Event | None = None
        """Where set, kills wait for it."""
        self.creates = 0
        self.kills: dict[str, int] = {}
        """How often each sandbox was really killed."""
        self.forgotten: list[str] = []
        self.usage: contract.Usage | None = None
        """What every sandbox says that it uses; None for something plausible."""
        self.servers: dict[int | str, Callable[[socket.socket], None]] = {}
        """Who gets the other end of a connection to a port or a name, in every sandbox. What is not here is looked for
        on the host's own loopback device, where the commands of a fake sandbox listen."""

    @property
    def live(self) -> list[str]:
        """Ids of the sandboxes that are alive."""
        return [name for name, sandbox in self.sandboxes.items() if sandbox.end is None]

    def detach(self) -> None:
        """Play the death of the worker: nobody listens any more, sandboxes go on."""
        for sandbox in self.sandboxes.values():
            sandbox.listeners.clear()
            for run in sandbox.execs.values():
                run.listeners.clear()

    async def end(self, sandbox_id: str, reason: states.EndReason, oom_kills: int = 0) -> contract.SandboxEnd:
        """Kill a sandbox as its kernel, its deadline or its caller would; the first reason stays."""
        sandbox = self.sandboxes[sandbox_id]
        if sandbox.dying is None:
            sandbox.dying = asyncio.ensure_future(self._kill(sandbox, contract.SandboxEnd(reason, oom_kills)))
        return await asyncio.shield(sandbox.dying)

    async def _kill(self, sandbox: _Sandbox, end: contract.SandboxEnd) -> contract.SandboxEnd:
        self.kills[sandbox.request.sandbox_id] = self.kills.get(sandbox.request.sandbox_id, 0) + 1
        if self.kill_gate is not None:
            await self.kill_gate.wait()
        if sandbox.timer is not None:
            sandbox.timer.cancel()
        if sandbox.directory is not None:
            await asyncio.to_thread(_send, sandbox.mark, signals.SIGKILL)
            for run in sandbox.execs.values():
                if run.exit is None:
                    await asyncio.to_thread(run.process.wait)
                    run._reap()  # one thing in two classes
                run.close()
            await asyncio.to_thread(shutil.rmtree, sandbox.directory, ignore_errors=True)
            sandbox.directory = None
        sandbox.end = end
        for listener in sandbox.listeners:
            if not listener.done():
                listener.set_result(end)
        return end

    def arm(self, sandbox: _Sandbox) -> None:
        """Keep the deadline of a sandbox."""
        if sandbox.timer is not None:
            sandbox.timer.cancel()
        if sandbox.deadline is not None and sandbox.end is None:
            loop = asyncio.get_running_loop()
            delay = max(0.0, sandbox.deadline - self.clock.now())
            sandbox.timer = loop.call_later(delay, self._expire, sandbox)

    def _expire(self, sandbox: _Sandbox) -> None:
        if sandbox.deadline is not None and sandbox.deadline <= self.clock.now() and sandbox.dying is None:
            end = contract.SandboxEnd(states.EndReason.EXPIRED)
            sandbox.dying = asyncio.ensure_future(self._kill(sandbox, end))

    async def close(self) -> None:
        """Kill what is left, at the end of a test."""
        self.kill_gate = None
        for name in self.live:
            await self.end(name, states.EndReason.WORKER_STOPPED)


class FakeExec:
    """`contract.RunningExec` over a process of the host."""

    def __init__(self, sandbox: _Sandbox, run: _Exec) -> None:
        self._sandbox = sandbox
        self._run = run
        self.number = run.number
        self.label = run.label
        self.pid = run.process.pid
        self.stdout, self.stderr, self.stdin = _own(run.stdout), _own(run.stderr), _own(run.stdin)
        self.ended: asyncio.Future[contract.ExecExit] = asyncio.get_running_loop().create_future()
        if run.exit is not None:
            self.ended.set_result(run.exit)
        else:
            run.listeners.append(self.ended)

    async def signal(self, number: int, *, tree: bool) -> None:
        if tree:
            mark = f"{self._sandbox.mark}/{self.number}"
            found = await asyncio.to_thread(_send, mark, number)
            while not found and self._run.process.poll() is None:  # in the middle of an exec it has no environment
                found = await asyncio.to_thread(_send, mark, number)
        else:
            found = 0
            if self._run.exit is None:
                self._run.process.send_signal(number)
                found = 1
        if not found:
            raise errors.NotFound("cannot signal: the process has ended", kind="exec", id=str(self.number))

    async def close_stdin(self) -> None:
        if self._run.stdin >= 0:
            os.close(self._run.stdin)
            self._run.stdin = -1

    async def resize(self, size: contract.TerminalSize) -> None:
        if self._run.terminal is None:
            raise errors.Conflict("cannot resize: the command runs on no terminal")
        if self._run.exit is not None:
            raise errors.NotFound("cannot resize: the process has ended", kind="exec", id=str(self.number))
        self._run.terminal.resize(size)

    async def release(self) -> None:
        if self._sandbox.execs.pop(self.number, None) is not None:
            for descriptor in (self._run.stdout, self._run.stderr):
                if descriptor >= 0:
                    _discard(descriptor)
            self._run.stdout = self._run.stderr = -1
            self._run.close()


class FakeSandbox:
    """`contract.RunningSandbox` over a directory of the host."""

    def __init__(self, spawner: FakeSpawner, sandbox: _Sandbox, timings: Mapping[str, float]) -> None:
        self._spawner = spawner
        self._sandbox = sandbox
        self.sandbox_id = sandbox.request.sandbox_id
        self.label = sandbox.label
        self.deadline = sandbox.deadline
        self.pid = os.getpid()
        self.files: contract.Files = filesystems.FakeFiles(sandbox.root)
        self.timings_ms = timings
        self.ended: asyncio.Future[contract.SandboxEnd] = asyncio.get_running_loop().create_future()
        sandbox.listeners.append(self.ended)

    async def exec(self, start: contract.ExecStart) -> contract.RunningExec:
        if self._sandbox.dying is not None:
            raise errors.StartFailed("cannot start: the sandbox is dead", stage="exec", errno_name="ESRCH")
        sandbox = self._sandbox
        sandbox.numbers += 1
        number = sandbox.numbers
        terminal = terminals.Terminal(start.terminal) if start.terminal is not None else None
        try:
            process = await asyncio.to_thread(_spawn, sandbox, start, number, terminal)
        except BaseException:
            if terminal is not None:
                terminal.discard()
            raise
        run = _Exec(number, start, process, terminal)
        sandbox.execs[number] = run
        return FakeExec(sandbox, run)

    async def execs(self) -> Sequence[contract.RunningExec]:
        return [FakeExec(self._sandbox, run) for run in self._sandbox.execs.values()]

    async def connect(self, port: int | str) -> socket.socket:
        if self._sandbox.end is not None:
            raise errors.Lost("cannot connect: the sandbox is dead")
        serve = self._spawner.servers.get(port)
        if serve is not None:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            serve(theirs)
            return ours
        return await _connect_on_host(port)

    async def usage(self) -> contract.Usage:
        if self._sandbox.end is not None:
            raise errors.Lost("cannot tell: the sandbox is dead")
        limit = self._sandbox.request.resources.disk_mib << 20
        return self._spawner.usage or contract.Usage(0.25, 8 << 20, 16 << 20, len(self._sandbox.execs), 4096, limit)

    async def update(self, *, label: bytes, deadline: float | None) -> None:
        if self._sandbox.end is not None:
            raise errors.Lost("cannot update: the sandbox is dead")
        _check_label(label)
        self._sandbox.label = self.label = label
        self._sandbox.deadline = self.deadline = deadline
        self._spawner.arm(self._sandbox)

    async def kill(self, reason: states.EndReason) -> contract.SandboxEnd:
        if self._sandbox.end is not None:
            return self._sandbox.end
        return await self._spawner.end(self.sandbox_id, reason)


class FakeRuntime:
    """`contract.Runtime` over a `FakeSpawner`."""

    virtualization = "container"
    limits_enforced = frozenset({"cpu", "disk", "memory", "pids"})

    def __init__(self, spawner: FakeSpawner) -> None:
        self.spawner = spawner

    async def start(self) -> contract.Adoption:
        live: list[contract.RunningSandbox] = []
        dead: list[contract.DeadSandbox] = []
        now = self.spawner.clock.now()
        for name, sandbox in list(self.spawner.sandboxes.items()):
            if sandbox.end is None and sandbox.deadline is not None and sandbox.deadline <= now:
                await self.spawner.end(name, states.EndReason.EXPIRED)
            if sandbox.end is None:
                self.spawner.arm(sandbox)
                live.append(FakeSandbox(self.spawner, sandbox, {}))
            else:
                dead.append(contract.DeadSandbox(name, sandbox.label, sandbox.end))
        return contract.Adoption(live, dead)

    async def create(self, request: contract.CreateRequest) -> contract.RunningSandbox:
        self.spawner.creates += 1
        if self.spawner.create_gate is not None:
            await self.spawner.create_gate.wait()
        if self.spawner.refuse:
            raise self.spawner.refuse.pop(0)
        _check_label(request.label)
        if request.sandbox_id in self.spawner.sandboxes:
            raise errors.StartFailed("cannot create: it exists", stage="create", errno_name="EEXIST")
        sandbox = _Sandbox(request)
        self.spawner.sandboxes[request.sandbox_id] = sandbox
        self.spawner.arm(sandbox)
        return FakeSandbox(self.spawner, sandbox, {"fake": 0.0})

    async def forget(self, sandbox_id: str) -> None:
        sandbox = self.spawner.sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.end is not None:
            del self.spawner.sandboxes[sandbox_id]
            self.spawner.forgotten.append(sandbox_id)

    async def close(self, *, keep: bool) -> None:
        if not keep:
            for name in self.spawner.live:
                await self.spawner.end(name, states.EndReason.WORKER_STOPPED)
        for sandbox in self.spawner.sandboxes.values():
            if sandbox.timer is not None:
                sandbox.timer.cancel()
        self.spawner.detach()


def _check_label(label: bytes) -> None:
    if len(label) > contract.MAX_LABEL_BYTES:
        raise errors.TooLarge("cannot keep the label: it is too long", limit=contract.MAX_LABEL_BYTES)


def _own(descriptor: int) -> int:
    """Return a non-blocking duplicate, which its receiver closes."""
    if descriptor < 0:
        return -1
    copy = os.dup(descriptor)
    os.set_blocking(copy, False)
    return copy


async def _connect_on_host(port: int | str) -> socket.socket:
    """Connect to what a command of a fake sandbox listens on: the host's loopback, the host's abstract names."""
    loop = asyncio.get_running_loop()
    places: list[tuple[socket.AddressFamily, object]] = [(socket.AF_INET, ("127.0.0.1", port))]
    places.append((socket.AF_INET6, ("::1", port)))
    if isinstance(port, str):
        places = [(socket.AF_UNIX, "\0" + port)]
    for family, address in places:
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # this host has no such family
            continue
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)  # type: ignore[arg-type]  # an abstract name is an address too
        except OSError:
            connection.close()
        else:
            return connection
    raise errors.NotFound(f"nothing listens on port {port!r}", kind="port", id=str(port))


def _discard(descriptor: int) -> None:
    """Read and drop what still comes, so that those who write go on."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)

    def readable() -> None:
        try:
            rest = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not rest:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    loop.add_reader(descriptor, readable)


def _spawn(
    sandbox: _Sandbox, start: contract.ExecStart, number: int, terminal: terminals.Terminal | None
) -> subprocess.Popen[bytes]:
    total = sum(len(os.fsencode(text)) + 1 for text in [*start.argv, *(f"{k}={v}" for k, v in start.env.items())])
    if total > contract.MAX_COMMAND_BYTES:
        raise errors.TooLarge("cannot start: the command is too long", limit=contract.MAX_COMMAND_BYTES)
    _check_label(start.label)
    place = filesystems.home(start.user)
    name = start.user.split(":", 1)[0]
    env = {"HOME": place, "USER": name, "LOGNAME": name, "SHELL": "/bin/sh", **start.env}
    env[_MARK] = f"{sandbox.mark}/{number}"
    try:
        cwd = filesystems.resolve(sandbox.root(), start.cwd or place)
    except OSError as error:
        raise _failed("cwd", error.errno or 0) from error
    if not cwd.is_dir():
        raise _failed("cwd", errno.ENOTDIR if cwd.exists() else errno.ENOENT)
    program = start.argv[0] if "/" in start.argv[0] else shutil.which(start.argv[0], path=env.get("PATH", os.defpath))
    if program is None:
        raise _failed("exec", errno.ENOENT)
    pipe: int | None = subprocess.PIPE if terminal is None else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            start.argv if terminal is None else terminal.command(program, start.argv),
            executable=program if terminal is None else None,
            stdin=subprocess.PIPE if start.stdin and terminal is None else subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise _failed("exec", error.errno or 0) from error
    return process


def _failed(stage: str, number: int) -> errors.StartFailed:
    name = errno.errorcode.get(number, str(number))
    return errors.StartFailed(f"cannot start the command: {os.strerror(number).lower()}", stage=stage, errno_name=name)

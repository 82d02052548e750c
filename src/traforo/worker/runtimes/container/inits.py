"""One live sandbox: its init on a socket, as `contract.RunningSandbox` and `contract.RunningExec`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence

from traforo.domain import errors, states
from traforo.wire import init_messages as wire
from traforo.worker.hosts import cgroups, usages
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, connections, files, spawners

_START_STAGES = frozenset({"exec", "cwd", "user", "limits"})
_EXECS_MAX = 4096
_STRINGS_MAX = 4000
_HEADER_ROOM = 64
_SIDE_MAX = 4096
_STDIN, _STDOUT, _STDERR = 1, 2, 4
_ALL = _STDIN | _STDOUT | _STDERR
_ABANDON_TRIES = 50
_ABANDON_PAUSE_SECONDS = 0.02


def command_fields(number: int, start: contract.ExecStart) -> bytes:
    """Encode the fields of M_EXEC. Raises `InvalidRequest` for what no command line can hold."""
    size = sum(len(os.fsencode(part)) + 1 for part in start.argv)
    size += sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in start.env.items())
    if len(start.argv) > _STRINGS_MAX or len(start.env) > _STRINGS_MAX:
        raise errors.TooLarge("argv or env has too many strings", limit=_STRINGS_MAX)
    if size > contract.MAX_COMMAND_BYTES:
        raise errors.TooLarge("argv and env are too large together", limit=contract.MAX_COMMAND_BYTES)
    fields = [wire.number(wire.Tag.NUMBER, number), wire.field(wire.Tag.LABEL, start.label)]
    try:
        fields.extend(wire.string(wire.Tag.ARG, part) for part in start.argv)
        fields.extend(wire.string(wire.Tag.ENV, f"{name}={value}") for name, value in start.env.items())
        if start.cwd is not None:
            fields.append(wire.string(wire.Tag.CWD, start.cwd))
        fields.append(wire.string(wire.Tag.USER, start.user))
    except ValueError as error:
        raise errors.InvalidRequest("a command cannot hold a NUL byte") from error
    if start.terminal is not None:
        fields.append(size_fields(start.terminal))
    else:
        fields.append(wire.number(wire.Tag.STDIN, start.stdin))
    encoded = b"".join(fields)
    if len(encoded) > wire.MSG_MAX - _HEADER_ROOM:
        raise errors.TooLarge("argv, env and label are too large together", limit=contract.MAX_COMMAND_BYTES)
    return encoded


def size_fields(size: contract.TerminalSize) -> bytes:
    """Encode the size of a terminal. Raises `InvalidRequest` for one that none can have."""
    if not (1 <= size.rows <= _SIDE_MAX and 1 <= size.columns <= _SIDE_MAX):
        raise errors.InvalidRequest(f"a terminal has 1 to {_SIDE_MAX} rows and columns", field="terminal")
    return wire.number(wire.Tag.ROWS, size.rows) + wire.number(wire.Tag.COLUMNS, size.columns)


def streams_of(start: contract.ExecStart) -> int:
    """Return which streams a command must come with, as T_STREAMS says it."""
    if start.terminal is not None:
        return _STDIN | _STDOUT
    return _STDOUT | _STDERR | (_STDIN if start.stdin else 0)


def check_pipes(descriptors: Sequence[int], which: int) -> tuple[int, int, int]:
    """Check descriptors that an init sent as an exec's streams; they become ours. Returns stdout, stderr, stdin.

    `which` says what they have to be; -1 is returned for what is not among them. Closes all of them and raises `Closed`
    if they are not pipes, since a socket or a device there could block this process; `Incomplete` if this process has
    no room.
    """
    order = [stream for stream in (_STDOUT, _STDERR, _STDIN) if which & stream]
    good = len(descriptors) == len(order) and all(stat.S_ISFIFO(os.fstat(found).st_mode) for found in descriptors)
    if not good:
        for found in descriptors:
            os.close(found)
        raise channels.Closed("an init sent streams that are no pipes")
    owned: dict[int, int] = {}
    try:
        for stream, found in zip(order, descriptors, strict=True):
            owned[stream] = _own(found, os.O_WRONLY if stream == _STDIN else os.O_RDONLY)
    except OSError as error:
        for found in owned.values():
            os.close(found)
        if error.errno in channels.SHORT:
            raise channels.Incomplete("cannot start the command: too many open files") from error
        raise channels.Closed("an init sent streams that cannot be used") from error
    finally:
        for found in descriptors:
            os.close(found)
    return owned.get(_STDOUT, -1), owned.get(_STDERR, -1), owned.get(_STDIN, -1)


def _own(descriptor: int, access: int) -> int:
    """Open a pipe anew. Whether a descriptor blocks is told to all that share its opening, an init's among them."""
    return os.open(f"/proc/self/fd/{descriptor}", access | os.O_NONBLOCK | os.O_CLOEXEC)


def read_exit(status: int | None, *, oom: bool) -> contract.ExecExit:
    """Translate a wait status; None, or one that no process can have, is a lost exec."""
    if status is None or not 0 <= status <= 0xFFFF:
        return contract.ExecExit()
    if os.WIFEXITED(status):
        return contract.ExecExit(code=os.WEXITSTATUS(status))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return contract.ExecExit(signal=number, out_of_memory=oom and number == signal.SIGKILL)
    return contract.ExecExit()


class Exec:
    """A command in a sandbox (`contract.RunningExec`)."""

    def __init__(self, sandbox: Sandbox, number: int, label: bytes, pid: int, streams: tuple[int, int, int]) -> None:
        self._sandbox = sandbox
        self.number = number
        self.label = label
        self.pid = pid
        self.stdout, self.stderr, self.stdin = streams
        self.ended: asyncio.Future[contract.ExecExit] = asyncio.get_running_loop().create_future()

    def end(self, exit_: contract.ExecExit) -> None:
        """Note how it ended; the first word counts."""
        if not self.ended.done():
            self.ended.set_result(exit_)

    async def signal(self, number: int, *, tree: bool) -> None:
        """Send a signal to the main process or to everything that descends from it."""
        fields = (
            wire.number(wire.Tag.NUMBER, self.number)
            + wire.number(wire.Tag.SIGNAL, number)
            + wire.number(wire.Tag.TREE, tree)
        )
        try:
            await self._sandbox.channel.request(wire.Type.SIGNAL, fields)
        except channels.Refused as error:
            if error.errno == errno.ESRCH:
                raise errors.NotFound("nothing of this exec is left", kind="process", id=str(self.pid)) from error
            raise errors.InvalidRequest(str(error)) from error

    async def close_stdin(self) -> None:
        """Have the init let go of the input, so that it ends."""
        # One that has ended and was forgotten, or whose init is gone, reads nothing more.
        with contextlib.suppress(channels.Refused, channels.Closed):
            await self._sandbox.channel.request(wire.Type.STDIN_CLOSE, wire.number(wire.Tag.NUMBER, self.number))

    async def resize(self, size: contract.TerminalSize) -> None:
        """Set the size of its terminal."""
        fields = wire.number(wire.Tag.NUMBER, self.number) + size_fields(size)
        try:
            await self._sandbox.channel.request(wire.Type.RESIZE, fields)
        except channels.Refused as error:
            if error.errno == errno.ENOTTY:
                raise errors.Conflict("the command runs on no terminal") from error
            raise errors.NotFound("the command has ended", kind="process", id=str(self.pid)) from error

    async def release(self) -> None:
        """Let the init forget it."""
        self._sandbox.forget_exec(self.number)
        # An init that is gone, or has forgotten it already, leaves nothing to release; a silent one has heard it.
        with contextlib.suppress(channels.Refused, channels.Closed, channels.Silent):
            await self._sandbox.channel.request(wire.Type.EXEC_RELEASE, wire.number(wire.Tag.NUMBER, self.number))


class Sandbox:
    """A live sandbox (`contract.RunningSandbox`)."""

    def __init__(
        self,
        sandbox_id: str,
        descriptor: int,
        *,
        pid: int,
        label: bytes,
        deadline: float | None,
        spawner: Callable[[], spawners.Spawner],
        oom_file: tuple[str, str] | None,
        namespaces: connections.Namespaces | None = None,
        hierarchies: Sequence[cgroups.Hierarchy] = (),
        limits: channels.Limits | None = None,
    ) -> None:
        self.sandbox_id = sandbox_id
        self.pid = pid
        self.label = label
        self.deadline = deadline
        self.timings_ms: Mapping[str, float] = {}
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[contract.SandboxEnd] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ready.add_done_callback(_seen)
        self._spawner = spawner
        self._oom_file = oom_file
        self._execs: dict[int, Exec] = {}
        self._last_number = 0
        self._starting: dict[int, wire.Message | None] = {}
        self._abandoning: set[asyncio.Task[None]] = set()
        self._oom_seen = 0
        self._asked: states.EndReason | None = None
        self.channel = channels.Channel(descriptor, self._event, self._channel_closed, limits=limits)
        self._hierarchies = hierarchies
        self._files = files.Files(self.channel)
        self._network = connections.Network(namespaces or connections.Namespaces(), self.channel, pid)
        self.files: contract.Files = self._files

    def oom_kills(self) -> int:
        """Return how many processes the memory limit has killed so far."""
        return cgroups.read_oom_kills(*self._oom_file) if self._oom_file else 0

    def _memory_killed(self) -> bool:
        """Say whether the memory limit has killed anything since this was last asked."""
        before, self._oom_seen = self._oom_seen, self.oom_kills()
        return self._oom_seen > before

    def forget_exec(self, number: int) -> None:
        """Stop expecting news of an exec."""
        self._execs.pop(number, None)

    async def exec(self, start: contract.ExecStart) -> Exec:
        """Start a command."""
        self._last_number += 1
        number = self._last_number
        fields = command_fields(number, start)
        self._starting[number] = None  # its exit may be told before this coroutine runs again
        try:
            reply = await self.channel.request(wire.Type.EXEC, fields, takes=True)
            streams = check_pipes(reply.descriptors, streams_of(start))
        except channels.Refused as error:
            raise _start_failure(error, start) from error
        except channels.Incomplete:  # it runs, and nobody could ever read what it writes
            await asyncio.shield(self._abandon(number))
            raise
        except channels.Silent:  # it may start yet
            self._abandon_later(number)
            raise
        finally:
            early = self._starting.pop(number)
        started = Exec(self, number, start.label, _pid(reply.message), streams)
        self._execs[number] = started
        if early is not None:
            self._exec_exited(started, early)
        elif self.channel.closed:
            started.end(contract.ExecExit())
        return started

    def _abandon_later(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._abandon(number))
        self._abandoning.add(task)
        task.add_done_callback(self._abandoning.discard)

    async def _abandon(self, number: int) -> None:
        """Kill a command that nobody was told of, and have it forgotten. A silent init hears that when it listens."""
        field = wire.number(wire.Tag.NUMBER, number)
        kill = field + wire.number(wire.Tag.SIGNAL, signal.SIGKILL) + wire.number(wire.Tag.TREE, 1)
        with contextlib.suppress(channels.Closed, channels.Silent, channels.Busy):
            with contextlib.suppress(channels.Refused):  # it has ended
                await self.channel.request(wire.Type.SIGNAL, kill)
            for _ in range(_ABANDON_TRIES):
                try:
                    await self.channel.request(wire.Type.EXEC_RELEASE, field)
                except channels.Refused:  # not reaped yet
                    await asyncio.sleep(_ABANDON_PAUSE_SECONDS)
                else:
                    return

    async def execs(self) -> Sequence[Exec]:
        """Ask the init for its execs, and for their streams anew: what an earlier worker process left."""
        found: list[Exec] = []
        seen: set[int] = set()
        cursor, more = 0, True
        try:
            while more and len(found) <= _EXECS_MAX:
                reply = await self.channel.request(wire.Type.EXEC_LIST, wire.number(wire.Tag.CURSOR, cursor))
                for entry in reply.message.entries():
                    number = entry.number(wire.Tag.NUMBER) or 0
                    if number in seen or len(seen) >= _EXECS_MAX:
                        raise channels.Closed("an init listed more execs than it can have")
                    seen.add(number)
                    adopted = await self._attach(entry)
                    if adopted is not None:
                        found.append(adopted)
                before, cursor = cursor, reply.message.number(wire.Tag.CURSOR) or 0
                more = bool(reply.message.number(wire.Tag.MORE)) and cursor > before
        except (channels.Refused, wire.MalformedMessage) as error:
            raise channels.Closed("an init did not list its execs") from error
        # Released ones are not listed, yet while processes that they left behind run their numbers are taken. Those
        # were counted from 1, or from an earlier moment of this clock, which outruns any count.
        self._last_number = max(self._last_number, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000))
        return found

    async def _attach(self, entry: wire.Message) -> Exec | None:
        number = entry.number(wire.Tag.NUMBER) or 0
        if number in self._execs:
            return self._execs[number]
        try:
            reply = await self.channel.request(wire.Type.EXEC_ATTACH, wire.number(wire.Tag.NUMBER, number), takes=True)
        except channels.Refused:
            return None
        streams = check_pipes(reply.descriptors, (_number(reply.message, wire.Tag.STREAMS) or 0) & _ALL)
        adopted = Exec(self, number, entry.data(wire.Tag.LABEL) or b"", _pid(entry), streams)
        self._execs[number] = adopted
        self._last_number = max(self._last_number, number)
        status = _number(entry, wire.Tag.STATUS)
        if status is not None:
            adopted.end(read_exit(status, oom=self.oom_kills() > 0))
        return adopted

    async def connect(self, port: int | str) -> socket.socket:
        """Return a connection to a server inside."""
        return await self._network.connect(port)

    async def usage(self) -> contract.Usage:
        """Return what it uses, as the host's kernel counts it."""
        groups, disk, network = await asyncio.to_thread(self._count)
        used: int | None
        size: int | None
        if disk is None:
            used, size = await self._told_disk()
        else:
            used, size = disk
            await connections.prove(self.channel)
        received, sent = network or (None, None)
        return contract.Usage(
            cpu_seconds=groups.cpu_seconds,
            memory_bytes=groups.memory_bytes,
            memory_peak_bytes=groups.memory_peak_bytes,
            pids=None if groups.processes is None else max(0, groups.processes - 1),
            disk_bytes=used,
            disk_limit_bytes=size,
            network_received_bytes=received,
            network_sent_bytes=sent,
            oom_kills=self.oom_kills(),
        )

    def _count(self) -> tuple[usages.Groups, tuple[int, int] | None, tuple[int, int] | None]:
        groups = usages.read_groups(self._hierarchies, self.sandbox_id)
        network = usages.network_bytes(usages.read_text(f"/proc/{self.pid}/net/dev"))
        try:
            return groups, usages.disk_bytes(f"/proc/{self.pid}/root"), network
        except OSError:  # rootless, or gone
            return groups, None, network

    async def _told_disk(self) -> tuple[int | None, int | None]:
        """Ask the init, where this process may not look itself."""
        try:
            reply = await self.channel.request(wire.Type.USAGE)
        except channels.Refused:
            return None, None
        numbers = _number(reply.message, wire.Tag.USED), _number(reply.message, wire.Tag.SIZE)
        return numbers if all(number is None or number < 1 << 60 for number in numbers) else (None, None)

    async def update(self, *, label: bytes, deadline: float | None) -> None:
        """Replace label and deadline in the spawner."""
        await self._spawner().update(self.sandbox_id, label, deadline)
        self.label = label
        self.deadline = deadline

    async def kill(self, reason: states.EndReason) -> contract.SandboxEnd:
        """Kill everything in it."""
        if not self.ended.done():
            self._asked = self._asked or reason
            await self._spawner().kill(self.sandbox_id, reason)
        return await asyncio.shield(self.ended)

    def unseen_end(self, now: float) -> contract.SandboxEnd:
        """Say how it ended while no spawner was there to see it, from what is known; `now` in Unix seconds."""
        oom_kills = self.oom_kills()
        if self._asked is not None:
            return contract.SandboxEnd(self._asked, oom_kills)
        if self.deadline is not None and self.deadline <= now:
            return contract.SandboxEnd(states.EndReason.EXPIRED, oom_kills)
        reason = states.EndReason.OUT_OF_MEMORY if oom_kills else states.EndReason.LOST
        return contract.SandboxEnd(reason, oom_kills)

    def end(self, end: contract.SandboxEnd) -> None:
        """Note that it is dead; the first word counts. Its execs have ended with it."""
        if self.ended.done():
            return
        self.channel.drain()  # the spawner's word may overtake the init's last ones
        self.channel.close()
        self.ended.set_result(end)

    def _event(self, message: wire.Message) -> None:
        if message.kind == wire.Type.READY and not self.ready.done():
            self.ready.set_result(None)
        elif message.kind == wire.Type.FAILED and not self.ready.done():
            self.ready.set_exception(channels.refusal(message))
        elif message.kind == wire.Type.EXEC_EXITED:
            number = message.number(wire.Tag.NUMBER) or 0
            if number in self._execs:
                self._exec_exited(self._execs[number], message)
            elif number in self._starting:
                self._starting[number] = message

    def _exec_exited(self, ended: Exec, message: wire.Message) -> None:
        status = message.number(wire.Tag.STATUS)
        killed = status is not None and status & 0x7F == signal.SIGKILL
        ended.end(read_exit(status, oom=killed and self._memory_killed()))

    def _channel_closed(self) -> None:
        self._files.close()
        self._network.close()
        if not self.ready.done():
            self.ready.set_exception(channels.Closed("the init is gone"))
        execs, self._execs = self._execs, {}
        oom = bool(execs) and self.oom_kills() > 0
        for lost in execs.values():
            lost.end(contract.ExecExit(out_of_memory=oom))


def _number(message: wire.Message, tag: int) -> int | None:
    """Read a number that an init sent; one that is none counts as not sent."""
    try:
        return message.number(tag)
    except wire.MalformedMessage:
        return None


def _pid(message: wire.Message) -> int:
    return _number(message, wire.Tag.PID) or 0


def _seen(future: asyncio.Future[None]) -> None:
    """Whoever waited may have given up: a failure that nobody reads is none of the event loop's business."""
    if not future.cancelled():
        future.exception()


def _start_failure(error: channels.Refused, start: contract.ExecStart) -> errors.TraforoError:
    if error.stage == "user":
        return errors.NotFound(f"no user {start.user!r} in this sandbox", kind="user", id=start.user)
    stage = error.stage if error.stage in _START_STAGES else "exec"
    what = {"cwd": f"enter {start.cwd!r}", "limits": "start another process"}.get(stage, f"run {start.argv[0]!r}")
    reason = os.strerror(error.errno).lower()
    return errors.StartFailed(f"cannot {what}: {reason}", stage=stage, errno_name=error.errno_name)

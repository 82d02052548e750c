"""The spawner seen from the worker: its process, its socket, and what it knows of sandboxes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors, states
from traforo.wire import init_messages as wire
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels

_START_SECONDS = 10.0
_LIMITS = channels.Limits(requests=65536, unsent_bytes=256 << 20, strict=True)
"""It is our own, and asked about every sandbox at once when the worker stops. Without an answer it is no spawner."""


@dataclass(frozen=True, slots=True)
class Known:
    """A sandbox in the spawner's memory."""

    sandbox_id: str
    label: bytes
    deadline: float | None
    pid: int
    live: bool
    end: contract.SandboxEnd


def boot_deadline(deadline: float | None) -> int:
    """Turn Unix seconds into milliseconds of the boot clock; 0 stands for none."""
    if deadline is None:
        return 0
    left = deadline - time.time()
    return max(1, int((time.clock_gettime(time.CLOCK_BOOTTIME) + left) * 1000))


def wall_deadline(milliseconds: int) -> float | None:
    """The reverse of `boot_deadline`."""
    if not milliseconds:
        return None
    return time.time() + milliseconds / 1000 - time.clock_gettime(time.CLOCK_BOOTTIME)


def read_end(message: wire.Message) -> contract.SandboxEnd:
    """Read how a sandbox ended from M_SANDBOX_EXITED or an entry of a listing."""
    oom_kills = message.number(wire.Tag.OOM_KILLS) or 0
    given = message.string(wire.Tag.REASON) or ""
    try:
        return contract.SandboxEnd(states.EndReason(given), oom_kills)
    except ValueError:
        # Nobody asked for this end: the init was killed, by its memory limit if that has killed anything.
        reason = states.EndReason.OUT_OF_MEMORY if oom_kills else states.EndReason.LOST
        return contract.SandboxEnd(reason, oom_kills)


def read_known(entry: wire.Message) -> Known:
    """Read an entry of a listing."""
    return Known(
        sandbox_id=entry.string(wire.Tag.ID) or "",
        label=entry.data(wire.Tag.LABEL) or b"",
        deadline=wall_deadline(entry.number(wire.Tag.DEADLINE) or 0),
        pid=entry.number(wire.Tag.PID) or 0,
        live=bool(entry.number(wire.Tag.LIVE)),
        end=read_end(entry),
    )


class Spawner:
    """A connection to a running spawner."""

    def __init__(
        self,
        descriptor: int,
        on_end: Callable[[str, contract.SandboxEnd], None],
        on_close: Callable[[], None],
    ) -> None:
        self._on_end = on_end
        self._channel = channels.Channel(descriptor, self._event, on_close, frozenset({stat.S_IFSOCK}), _LIMITS)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._channel.closed

    def _event(self, message: wire.Message) -> None:
        if message.kind == wire.Type.SANDBOX_EXITED:
            self._on_end(message.string(wire.Tag.ID) or "", read_end(message))

    async def hello(self) -> int:
        """Subscribe to ends. Returns the spawner's process id. Raises `StartFailed` for another protocol."""
        reply = await self._channel.request(wire.Type.HELLO)
        if reply.message.number(wire.Tag.VERSION) != wire.PROTOCOL_VERSION:
            raise errors.StartFailed(
                "the running spawner speaks another protocol",
                stage="spawner",
                hint="stop the sandboxes of the old version first",
            )
        return reply.message.number(wire.Tag.PID) or 0

    async def create(self, sandbox_id: str, label: bytes, deadline: float | None, plan: bytes) -> tuple[int, int]:
        """Start a sandbox. Returns its init's process id and control socket. Raises `Refused`."""
        fields = (
            wire.string(wire.Tag.ID, sandbox_id),
            wire.field(wire.Tag.LABEL, label),
            wire.number(wire.Tag.DEADLINE, boot_deadline(deadline)),
            plan,
        )
        reply = await self._channel.request(wire.Type.CREATE, b"".join(fields), takes=True)
        return reply.message.number(wire.Tag.PID) or 0, _only(reply.descriptors)

    async def attach(self, sandbox_id: str) -> int:
        """Return a control socket of a live sandbox. Raises `Refused`."""
        reply = await self._channel.request(wire.Type.ATTACH, wire.string(wire.Tag.ID, sandbox_id), takes=True)
        return _only(reply.descriptors)

    async def adopt(self, known: Known, groups: bytes, control: int, pidfd: int) -> None:
        """Hand over a sandbox whose spawner has died. Raises `Refused`."""
        fields = (
            wire.number(wire.Tag.PID, known.pid),
            wire.string(wire.Tag.ID, known.sandbox_id),
            wire.field(wire.Tag.LABEL, known.label),
            wire.number(wire.Tag.DEADLINE, boot_deadline(known.deadline)),
            groups,
        )
        await self._channel.request(wire.Type.ADOPT, b"".join(fields), (control, pidfd))

    async def update(self, sandbox_id: str, label: bytes, deadline: float | None) -> None:
        """Replace what is kept of a sandbox. Raises `Lost` if it is dead, `WorkerUnavailable` if the spawner is."""
        fields = (
            wire.string(wire.Tag.ID, sandbox_id),
            wire.field(wire.Tag.LABEL, label),
            wire.number(wire.Tag.DEADLINE, boot_deadline(deadline)),
        )
        try:
            await self._channel.request(wire.Type.UPDATE, b"".join(fields))
        except channels.Refused as error:
            raise errors.Lost(f"cannot update sandbox {sandbox_id!r}: {error.text}") from error
        except channels.Closed as error:
            raise _unavailable() from error

    async def kill(self, sandbox_id: str, reason: states.EndReason) -> None:
        """Kill a sandbox; its end is told by `on_end`. An unknown one is fine. Raises `WorkerUnavailable`."""
        fields = wire.string(wire.Tag.ID, sandbox_id) + wire.string(wire.Tag.REASON, reason.value)
        try:
            await self._channel.request(wire.Type.KILL, fields)
        except channels.Refused:
            self._on_end(sandbox_id, contract.SandboxEnd(reason))
        except channels.Closed as error:
            raise _unavailable() from error

    async def forget(self, sandbox_id: str) -> bool:
        """Drop a dead sandbox. An unknown one is fine. Returns False where it is not dead yet."""
        try:
            await self._channel.request(wire.Type.FORGET, wire.string(wire.Tag.ID, sandbox_id))
        except channels.Refused as error:
            return error.errno != errno.EBUSY
        return True

    async def known(self) -> list[Known]:
        """Return everything that the spawner remembers."""
        found: list[Known] = []
        cursor, more = 0, True
        while more:
            reply = await self._channel.request(wire.Type.LIST, wire.number(wire.Tag.CURSOR, cursor))
            found.extend(read_known(entry) for entry in reply.message.entries())
            cursor = reply.message.number(wire.Tag.CURSOR) or 0
            more = bool(reply.message.number(wire.Tag.MORE))
        return found

    async def shutdown(self) -> None:
        """End the spawner. Raises `Refused` while a sandbox lives."""
        await self._channel.request(wire.Type.SHUTDOWN)

    def close(self) -> None:
        """Let go of the connection; the spawner goes on."""
        self._channel.close()


def _unavailable() -> errors.WorkerUnavailable:
    """Say that the spawner died: what was asked of it may have been done, what it kept alive lives."""
    return errors.WorkerUnavailable("the spawner died", hint="try again in a moment")


def _only(descriptors: Sequence[int]) -> int:
    if len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise channels.Closed("the spawner sent no control socket")
    return descriptors[0]


def connect(path: Path) -> int | None:
    """Connect to a spawner's socket; None if nobody listens there. Returns a descriptor.

    Raises `StartFailed` for one that listens and takes no connection: a second spawner beside it would not help.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        connection.connect(str(path))
    except BlockingIOError as error:
        connection.close()
        raise errors.StartFailed("the running spawner takes no connection", stage="spawner") from error
    except OSError:
        connection.close()
        return None
    return connection.detach()


async def launch(command: Sequence[str], path: Path, log: Path, keeps: Sequence[int] = ()) -> int:
    """Start a spawner that outlives this process and connect to it. Raises `StartFailed` with what it said.

    It keeps the descriptors `keeps` open as long as it lives; no sandbox gets them. The program goes to the background
    by itself when it serves, so its exit is the sign to connect.
    """
    await asyncio.to_thread(_run, command, log, keeps)
    descriptor = connect(path)
    if descriptor is None:
        raise errors.StartFailed("cannot reach the spawner that was just started", stage="spawner")
    return descriptor


def _run(command: Sequence[str], log: Path, keeps: Sequence[int]) -> None:
    with log.open("ab") as output:
        before = output.tell()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                pass_fds=tuple(keeps),
                check=False,
                timeout=_START_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise errors.StartFailed(f"cannot start the spawner: {error}", stage="spawner") from error
    if done.returncode:
        said = log.read_bytes()[before:][-500:].decode(errors="replace").strip()
        raise errors.StartFailed(f"cannot start the spawner: {said}", stage="spawner")

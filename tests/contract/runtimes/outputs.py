"""Running commands in sandboxes of any runtime, and reading what they print."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from traforo.worker.runtimes import contract

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    exit: contract.ExecExit
    stdout: bytes
    stderr: bytes


def start(argv: Sequence[str] | str, *, env: Mapping[str, str] | None = None, **options: object) -> contract.ExecStart:
    """Describe a command in /data; a string is for the shell."""
    values: dict[str, object] = {"label": b"exec", "cwd": "/data", "user": "root", **options}
    command = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
    return contract.ExecStart(argv=command, env={"PATH": PATH} if env is None else env, **values)  # type: ignore[arg-type]  # a builder for tests


async def run(sandbox: contract.RunningSandbox, argv: Sequence[str] | str, **options: object) -> Done:
    """Run a command to its end."""
    return await finish(await sandbox.exec(start(argv, **options)))  # type: ignore[arg-type]  # as above


async def finish(running: contract.RunningExec) -> Done:
    """Read both streams to their ends, wait for the end and release."""
    stdout, stderr = await asyncio.gather(read(running.stdout), _rest(running.stderr))
    ended = await running.ended
    if running.stdin >= 0:
        os.close(running.stdin)
    await running.release()
    return Done(ended, stdout, stderr)


async def end_input(running: contract.RunningExec) -> None:
    """Close the input and tell its end."""
    os.close(running.stdin)
    running.stdin = -1
    await running.close_stdin()


async def read(descriptor: int, stop: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """Read a non-blocking descriptor until its end, which closes it, or until `stop` is content."""
    found = b""
    while not stop(found):
        await _readable(descriptor)
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            os.close(descriptor)
            break
        found += piece
    return found


async def _rest(descriptor: int) -> bytes:
    return await read(descriptor) if descriptor >= 0 else b""


async def line(running: contract.RunningExec) -> bytes:
    """Read one line of output, and leave the descriptor open."""
    return await read(running.stdout, lambda found: found.endswith(b"\n"))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens in another process; fail when it never does."""
    for _ in range(5000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to pass")


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)

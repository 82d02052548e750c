"""Load for a worker whose parts are about to be killed, and the account of what it has promised.

Each caller makes sandboxes, starts commands, writes files and deletes, in an order and at moments that a seed decides,
and writes down what was acknowledged. `check` then asks for every promise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.faults import clients

MEMORY_MIB = 64


@dataclass(frozen=True, slots=True)
class Script:
    """A command of which everything it will ever write is known."""

    command: str
    stdout: bytes
    stderr: bytes
    exit_code: int


def counting(lines: int, pause: float, exit_code: int) -> Script:
    """Count on stdout, slowly, with a line on stderr for every tenth."""
    command = (
        f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; "
        f"[ $((i % 10)) = 0 ] && echo tenth $i >&2; sleep {pause}; done; exit {exit_code}"
    )
    stdout = b"".join(b"line %d\n" % number for number in range(1, lines + 1))
    stderr = b"".join(b"tenth %d\n" % number for number in range(10, lines + 1, 10))
    return Script(command, stdout, stderr, exit_code)


def bursting(lines: int, exit_code: int) -> Script:
    """Write a lot as fast as it goes, a pause, and the same again: larger than any pipe."""
    stdout = b"".join(b"%d\n" % number for number in range(1, lines + 1))
    return Script(f"seq {lines}; sleep 0.4; seq {lines}; exit {exit_code}", stdout * 2, b"", exit_code)


@dataclass(slots=True)
class Sandbox:
    """What is known of one sandbox."""

    id: str
    deleted: bool | None = False
    """None when nobody knows."""
    files: dict[str, set[bytes | None]] = field(default_factory=dict)
    """By path what it may hold; None stands for no file."""
    execs: dict[str, Script] = field(default_factory=dict)


class Storm:
    """Callers of one worker or control plane. `seed` decides what they do."""

    def __init__(self, client: clients.Client, seed: int) -> None:
        self.client = client
        self.sandboxes: list[Sandbox] = []
        self.stopping = False
        self.unclear = 0
        """Requests of which nobody knows whether they were carried out."""
        self._seed = seed
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def blowing(self, callers: int) -> Any:
        """Run callers for the length of a block."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._call(random.Random(f"{self._seed}/{number}")))
            try:
                yield
            finally:
                self.stopping = True

    async def _call(self, chance: random.Random) -> None:
        mine: list[Sandbox] = []
        steps: list[tuple[Callable[[Sandbox, random.Random], Coroutine[Any, Any, None]], int]] = [
            (self._exec, 3),
            (self._run, 3),
            (self._write, 3),
            (self._delete, 2),
        ]
        while not self.stopping:
            usable = [one for one in mine if one.deleted is False]
            if not usable or (len(usable) < 3 and chance.random() < 0.3):
                mine.append(await self._create())
                continue
            step = chance.choices([step for step, _ in steps], [weight for _, weight in steps])[0]
            await step(chance.choice(usable), chance)
            await asyncio.sleep(chance.uniform(0, 0.02))

    async def _create(self) -> Sandbox:
        # The key makes it the same sandbox, however often the connection breaks.
        key = f"{self._seed}-{next(self._numbers)}"
        answer = await self.client.call(
            "POST", "/sandboxes", (201, 422), json={"memory_mib": MEMORY_MIB}, headers={"idempotency-key": key}
        )
        while answer.status_code == 422:
            problem = answer.json()["error"]
            if problem["code"] != "start_failed":
                raise clients.Unexpected(answer.text)
            answer = await self.client.call(
                "POST", "/sandboxes", (201, 422), json={"memory_mib": MEMORY_MIB}, headers={"idempotency-key": key}
            )
        made = Sandbox(answer.json()["sandbox_id"])
        self.sandboxes.append(made)
        return made

    async def _exec(self, sandbox: Sandbox, chance: random.Random) -> None:
        code = chance.randrange(100)
        if chance.random() < 0.3:
            script = bursting(chance.randrange(20_000, 60_000), code)
        else:
            script = counting(chance.randrange(5, 50), 0.05, code)
        body = {"command": script.command}
        answer = await self.client.once("POST", f"/sandboxes/{sandbox.id}/exec", json=body)
        if answer is None or (answer.status_code in {503, 422} and "exec_id" not in answer.text):
            self.unclear += 1
            await asyncio.sleep(clients.PAUSE_SECONDS)
        elif answer.status_code == 202:
            sandbox.execs[answer.json()["exec_id"]] = script
        else:
            raise clients.Unexpected(f"exec was answered with {answer.status_code}: {answer.text[:500]}")

    async def _run(self, sandbox: Sandbox, chance: random.Random) -> None:
        code, word = chance.randrange(100), str(chance.randrange(1 << 30))
        command = f"echo {word}; echo of {word} >&2; exit {code}"
        body = {"command": command, "wait": True}
        answer = await self.client.once("POST", f"/sandboxes/{sandbox.id}/exec", json=body)
        if answer is None or answer.status_code == 503:
            self.unclear += 1
            await asyncio.sleep(clients.PAUSE_SECONDS)
            return
        if answer.status_code != 200:
            raise clients.Unexpected(f"exec was answered with {answer.status_code}: {answer.text[:500]}")
        said = answer.json()
        assert (said["stdout"], said["stderr"], said["exit_code"]) == (f"{word}\n", f"of {word}\n", code)
        sandbox.execs[said["exec_id"]] = Script(command, f"{word}\n".encode(), f"of {word}\n".encode(), code)

    async def _write(self, sandbox: Sandbox, chance: random.Random) -> None:
        path = f"/tmp/file-{chance.randrange(4)}"
        data = chance.randbytes(chance.choice([0, 10, 4096, 300_000]))
        answer = await self.client.once("PUT", f"/sandboxes/{sandbox.id}/files", params={"path": path}, content=data)
        if answer is not None and answer.status_code == 200:
            sandbox.files[path] = {data}
        elif answer is None:
            self.unclear += 1
            sandbox.files.pop(path, None)  # perhaps half of it is there: nothing was promised
            await asyncio.sleep(clients.PAUSE_SECONDS)
        elif answer.status_code != 503:
            raise clients.Unexpected(f"a file was answered with {answer.status_code}: {answer.text[:500]}")

    async def _delete(self, sandbox: Sandbox, chance: random.Random) -> None:
        answer = await self.client.once("DELETE", f"/sandboxes/{sandbox.id}")
        if answer is not None and answer.status_code == 204:
            sandbox.deleted = True
            return
        self.unclear += 1
        sandbox.deleted = None
        if answer is not None and answer.status_code != 503:
            raise clients.Unexpected(f"a delete was answered with {answer.status_code}: {answer.text[:500]}")

    async def check(self, *, alone: bool = True) -> None:
        """Ask for everything that was acknowledged, and end what is left: nothing is, where no other storm blew."""
        await asyncio.gather(*(self._check(sandbox) for sandbox in self.sandboxes))
        assert not alone or await self.client.live() == set()

    async def _check(self, sandbox: Sandbox) -> None:
        client = self.client
        if sandbox.deleted is True:
            assert await client.end(sandbox.id) == ("stopped", "deleted"), sandbox
        elif sandbox.deleted is False:
            assert await client.end(sandbox.id) == ("running", None), sandbox
            for path, contents in sandbox.files.items():
                found = await client.read(sandbox.id, path)
                assert found in contents, f"{sandbox.id}:{path} holds {len(found)} other bytes"
            await asyncio.gather(*(self._check_exec(sandbox, *one) for one in sandbox.execs.items()))
            again = await client.run(sandbox.id, ["echo", "still here"])
            assert (again["output"], again["exit_code"]) == ("still here\n", 0)
        await client.delete(sandbox.id)
        assert await client.end(sandbox.id) == ("stopped", "deleted"), sandbox

    async def _check_exec(self, sandbox: Sandbox, exec_id: str, script: Script) -> None:
        output = await self.client.output(sandbox.id, exec_id)
        what = f"{exec_id} in {sandbox.id}: {script.command!r}"
        assert output.ended == ("exited", script.exit_code), what
        assert output.dropped == 0, what
        assert _difference(output.stdout, script.stdout) is None, what
        assert _difference(output.stderr, script.stderr) is None, what


def _difference(found: bytes, wanted: bytes) -> str | None:
    """Say where two outputs begin to differ; None where they do not."""
    if found == wanted:
        return None
    at = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted)))
    return f"from byte {at} of {len(wanted)}: {found[at : at + 60]!r} for {wanted[at : at + 60]!r}, {len(found)} in all"

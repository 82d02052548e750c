"""One exec as the worker knows it: what was asked, how it goes, how it ended, and who waits for news of it.

A record with identity that `traforo.worker.execs.execs` alone changes. Small once it has ended, since thousands are
remembered: neither argv nor environment is kept, only the command as it is shown.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from traforo.domain import clocks, states
from traforo.worker.execs import inputs, outcomes, pumps
from traforo.worker.journal import records
from traforo.worker.outputs import framelogs, frames
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import activities


class Written(msgspec.Struct, frozen=True, array_like=True):
    """How much output an exec had, whether or not it is still there."""

    stdout: int = 0
    """Bytes."""
    stderr: int = 0
    frames: int = 0
    results: int = 0
    """Bytes."""

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.stdout + self.stderr + self.results


NOTHING = Written()


def amounts(written: Written) -> frames.Amounts:
    """Return the bytes alone."""
    return frames.Amounts(written.stdout, written.stderr, written.results)


@dataclass(slots=True, eq=False)
class Exec:
    """One exec. Compared by identity."""

    id: str
    sandbox_id: str
    command: str | list[str]
    """As its caller wrote it, cut to some length."""
    started_at: float
    """Unix seconds."""
    runtime: str | None = None
    """Language, where it runs code."""
    timeout_ms: int | None = None
    hidden: bool = False
    """One of our own: in no list and in no journal."""
    tag: str | None = None
    """What its caller calls it."""
    background: bool = False
    """Nobody waits for it, and it does not count as use of its sandbox."""
    tty: bool = False
    """It runs on a terminal."""
    context_id: str | None = None
    """The interpreter that runs it; then it is no process of its own."""
    became: str | None = None
    """The prepared interpreter that became it, by which its process is known after a restart; None for most."""
    pid: int | None = None
    """Process id inside the sandbox; None for what is no process of its own."""
    outcome: outcomes.Outcome | None = None
    """None while it runs."""
    completed_at: float | None = None
    """Unix seconds; None while it runs. Of a lost one, when the loss was noticed."""
    duration_ms: float | None = None
    """None while it runs, and where nobody saw its end."""
    log: framelogs.FrameLog | None = None
    """None after a restart until somebody reads it, and for an ended exec that had no output."""
    written: Written = field(default_factory=lambda: NOTHING)
    """Its output, once it has ended."""
    running: contract.RunningExec | None = None
    """Handle of the runtime; None when it has ended."""
    pump: pumps.Pump | None = None
    input: inputs.Input | None = None
    """Its stdin, where that can be written."""
    began: float = 0.0
    """Monotonic seconds of the start; 0 after a restart."""
    killing: asyncio.Task[None] | None = None
    """The kill of its tree, begun when its deadline passed."""
    hold: activities.Hold | None = None
    """Keeps its sandbox from being idle while it runs."""
    ending: bool = False
    """Its end was seen and is being recorded."""
    deadline: asyncio.TimerHandle | None = None
    noting: asyncio.TimerHandle | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """Who waits for the end."""
    watchers: list[asyncio.Future[None]] = field(default_factory=list)
    """Who waits for output or the end."""

    @property
    def status(self) -> states.ExecStatus:
        """Word of the API."""
        return states.ExecStatus.RUNNING if self.outcome is None else states.ExecStatus.EXITED

    @property
    def stdin_open(self) -> bool:
        """Whether its stdin can be written now."""
        return self.outcome is None and self.input is not None and self.input.open

    @property
    def logged(self) -> bool:
        """Whether an exec that has ended may have files of output. Of a lost one nobody counted what it wrote."""
        lost = self.outcome is not None and self.outcome.end is states.ExecEnd.LOST
        return lost or self.written.total > 0

    async def end(self) -> None:
        """Return when it has ended; nothing happens to it if the caller goes away."""
        if self.outcome is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter

    def notify(self) -> None:
        """Wake those who wait for output."""
        if self.watchers:
            waking, self.watchers = self.watchers, []
            for future in waking:
                if not future.done():
                    future.set_result(None)

    def finish(self) -> None:
        """Wake everybody."""
        self.notify()
        waking, self.waiters = self.waiters, []
        for future in waking:
            if not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits that there will be no news."""
        for future in [*self.waiters, *self.watchers]:
            if not future.done():
                future.set_exception(error)
        self.waiters, self.watchers = [], []

    def summary(self) -> dict[str, Any]:
        """Return what `schemas.ExecSummary` describes."""
        outcome = self.outcome
        return {
            "exec_id": self.id,
            "sandbox_id": self.sandbox_id,
            "command": self.command,
            "runtime": self.runtime,
            "status": self.status,
            "end": outcome.end if outcome else None,
            "exit_code": outcome.exit_code if outcome else None,
            "signal": outcome.signal if outcome else None,
            "duration_ms": self.duration_ms,
            "started_at": clocks.rfc3339(self.started_at),
            "completed_at": None if self.completed_at is None else clocks.rfc3339(self.completed_at),
            "tag": self.tag,
            "pid": self.pid,
            "tty": self.tty,
            "background": self.background,
            "context_id": self.context_id,
            "stdin_open": self.stdin_open,
        }

    def record(self) -> records.ExecRecord:
        """Return what the journal keeps."""
        facts: dict[str, Any] = {"command": self.command, "duration_ms": self.duration_ms}
        if self.runtime is not None:
            facts["runtime"] = self.runtime
        if self.timeout_ms is not None:
            facts["timeout_ms"] = self.timeout_ms
        if self.pid is not None:
            facts["pid"] = self.pid
        if self.tag is not None:
            facts["tag"] = self.tag
        if self.context_id is not None:
            facts["context_id"] = self.context_id
        if self.became is not None:
            facts["became"] = self.became
        if self.tty:
            facts["tty"] = True
        if self.background:
            facts["background"] = True
        if self.outcome is not None:
            facts["outcome"] = msgspec.to_builtins(self.outcome)
            if self.written.total:
                facts["written"] = msgspec.to_builtins(self.written)
        return records.ExecRecord(
            exec_id=self.id,
            sandbox_id=self.sandbox_id,
            status=self.status,
            started_at=self.started_at,
            ended_at=self.completed_at,
            facts=facts,
        )


def restore(record: records.ExecRecord) -> Exec:
    """Return an exec from the journal. Raises `msgspec.ValidationError` for facts that are none of ours."""
    facts = record.facts
    outcome = facts.get("outcome")
    return Exec(
        record.exec_id,
        record.sandbox_id,
        msgspec.convert(facts.get("command", ""), str | list[str]),
        record.started_at,
        runtime=msgspec.convert(facts.get("runtime"), str | None),
        timeout_ms=msgspec.convert(facts.get("timeout_ms"), int | None),
        outcome=None if outcome is None else msgspec.convert(outcome, outcomes.Outcome),
        completed_at=record.ended_at,
        duration_ms=msgspec.convert(facts.get("duration_ms"), float | None),
        written=msgspec.convert(facts.get("written", ()), Written),
        tag=msgspec.convert(facts.get("tag"), str | None),
        background=msgspec.convert(facts.get("background", False), bool),
        tty=msgspec.convert(facts.get("tty", False), bool),
        context_id=msgspec.convert(facts.get("context_id"), str | None),
        became=msgspec.convert(facts.get("became"), str | None),
        pid=msgspec.convert(facts.get("pid"), int | None),
    )

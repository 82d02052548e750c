"""One run of code in a context: what was asked, what has come of it, and what it is answered with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from traforo.worker.execs import runs
from traforo.worker.interpreters import messages
from traforo.worker.sandboxes import activities

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""JSON of results that an answer carries; frames carry all of them."""


@dataclass(slots=True, eq=False)
class Run:
    """One run. Compared by identity."""

    exec: runs.Exec
    """How everybody else knows it."""
    code: bytes = b""
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    timeout_ms: int | None = None
    hold: activities.Hold | None = None
    deadline: asyncio.TimerHandle | None = None
    expired: bool = False
    """Its deadline passed."""
    seen: int = 0
    """Results that have come."""
    tries: int = 1
    """How often what is missing of them may be asked for again."""
    recalled: bool = False
    """An earlier worker recorded it, and may have sent it."""
    results: list[msgspec.Raw] = field(default_factory=list)
    error: msgspec.Raw | None = None
    bytes: int = 0
    """Of both."""
    truncated: bool = False
    execution_count: int | None = None

    @property
    def id(self) -> str:
        """What the interpreter calls it."""
        return self.exec.id.removeprefix("exec_")

    @property
    def size(self) -> int:
        """Bytes of what was asked."""
        return len(self.code) + sum(len(name) + len(value) for name, value in self.env.items())

    def take(self, result: messages.Result) -> bool:
        """Note a result; False for one that is not the next."""
        if result.number != self.seen:
            return False
        self.seen += 1
        self.bytes += len(result.data)
        if self.bytes > MAX_ANSWER_BYTES:
            self.truncated = True
        elif result.data.startswith(b'{"error":'):
            self.error = msgspec.Raw(result.data[len(b'{"error":') : -1])
        else:
            self.results.append(msgspec.Raw(result.data))
        return True

    def answer(self) -> dict[str, Any]:
        """Return what `schemas.ContextRun` has beyond an exec."""
        return {
            "results": self.results,
            "results_truncated": self.truncated,
            "error": self.error,
            "execution_count": self.execution_count,
        }

"""How an exec ended, decided from what is known and from nothing else.

Pure. An exit code is the command's own or says what happened to it; where nobody saw the end there is none.
"""

from __future__ import annotations

import msgspec

from traforo.domain import states
from traforo.worker.runtimes import contract

TIMED_OUT_CODE = 124
"""Exit code of an exec whose deadline passed, as `timeout` of coreutils has it."""
_SIGNALLED_BASE = 128
_SIGKILL = 9


class Outcome(msgspec.Struct, frozen=True):
    """The end of an exec, in the words of the API."""

    end: states.ExecEnd
    exit_code: int | None
    signal: int | None


class Told(msgspec.Struct, frozen=True):
    """The end of an exec as its log keeps it, for a worker that dies before the journal has it."""

    outcome: Outcome
    duration_ms: float | None


LOST = Outcome(states.ExecEnd.LOST, None, None)
"""Nobody saw how it ended."""

_encoder = msgspec.json.Encoder()
_told = msgspec.json.Decoder(Told)


def decide(ended: contract.ExecExit, *, expired: bool, sandbox: states.EndReason | None) -> Outcome:
    """Return what `ended` means. `expired`: its deadline passed and we killed it. `sandbox`: why that died, if it did.

    A command that exits by itself in the moment of its deadline has its own code.
    """
    if ended.code is not None:
        return Outcome(states.ExecEnd.EXITED, ended.code, None)
    if ended.signal is None:
        memory = sandbox is states.EndReason.OUT_OF_MEMORY
        return Outcome(states.ExecEnd.OUT_OF_MEMORY, None, None) if memory else LOST
    code = _SIGNALLED_BASE + ended.signal
    if ended.signal == _SIGKILL and expired:
        return Outcome(states.ExecEnd.TIMED_OUT, TIMED_OUT_CODE, ended.signal)
    if ended.signal == _SIGKILL and ended.out_of_memory:
        return Outcome(states.ExecEnd.OUT_OF_MEMORY, code, ended.signal)
    return Outcome(states.ExecEnd.SIGNALLED, code, ended.signal)


def told(outcome: Outcome) -> bool:
    """Tell whether the runtime alone could not repeat this after a restart: part of it was known only to us."""
    return outcome.end in {states.ExecEnd.TIMED_OUT, states.ExecEnd.OUT_OF_MEMORY}


def encode(outcome: Outcome) -> bytes:
    """Return the JSON text of an exit frame."""
    return _encoder.encode(outcome)


def encode_told(outcome: Outcome, duration_ms: float | None) -> bytes:
    """Return what a log keeps of an end."""
    return _encoder.encode(Told(outcome, duration_ms))


def decode_told(data: bytes) -> Told | None:
    """Read what a log keeps of an end; None when it is none."""
    try:
        return _told.decode(data)
    except msgspec.MsgspecError:
        return None

"""How an exec ended: never more than what is known."""

import pytest

from traforo.domain.states import EndReason, ExecEnd
from traforo.worker.execs import outcomes
from traforo.worker.execs.outcomes import Outcome
from traforo.worker.runtimes.contract import ExecExit


@pytest.mark.parametrize(
    "seen, expired, sandbox, expected",
    [
        (ExecExit(code=0), False, None, Outcome(ExecEnd.EXITED, 0, None)),
        (ExecExit(code=137), False, None, Outcome(ExecEnd.EXITED, 137, None)),
        (ExecExit(code=3), True, None, Outcome(ExecEnd.EXITED, 3, None)),
        (ExecExit(signal=15), False, None, Outcome(ExecEnd.SIGNALLED, 143, 15)),
        (ExecExit(signal=15), True, None, Outcome(ExecEnd.SIGNALLED, 143, 15)),
        (ExecExit(signal=9), False, None, Outcome(ExecEnd.SIGNALLED, 137, 9)),
        (ExecExit(signal=9), True, None, Outcome(ExecEnd.TIMED_OUT, 124, 9)),
        (ExecExit(signal=9, out_of_memory=True), False, None, Outcome(ExecEnd.OUT_OF_MEMORY, 137, 9)),
        (ExecExit(signal=9, out_of_memory=True), True, None, Outcome(ExecEnd.TIMED_OUT, 124, 9)),
        (ExecExit(signal=11, out_of_memory=True), False, None, Outcome(ExecEnd.SIGNALLED, 139, 11)),
        (ExecExit(code=1, out_of_memory=True), False, None, Outcome(ExecEnd.EXITED, 1, None)),
        (ExecExit(), False, None, Outcome(ExecEnd.LOST, None, None)),
        (ExecExit(), True, None, Outcome(ExecEnd.LOST, None, None)),
        (ExecExit(), False, EndReason.DELETED, Outcome(ExecEnd.LOST, None, None)),
        (ExecExit(), False, EndReason.OUT_OF_MEMORY, Outcome(ExecEnd.OUT_OF_MEMORY, None, None)),
        (ExecExit(code=0), False, EndReason.OUT_OF_MEMORY, Outcome(ExecEnd.EXITED, 0, None)),
    ],
)
def test_decide(seen: ExecExit, expired: bool, sandbox: EndReason | None, expected: Outcome) -> None:
    """A code is the command's own or says what happened to it; where nobody saw the end there is none."""
    assert outcomes.decide(seen, expired=expired, sandbox=sandbox) == expected


@pytest.mark.parametrize("end", list(ExecEnd))
def test_round_trip(end: ExecEnd) -> None:
    """What a log keeps says the same when it is read again."""
    outcome = Outcome(end, 5, None)
    assert outcomes.decode_told(outcomes.encode_told(outcome, 1.5)) == outcomes.Told(outcome, 1.5)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"outcome":{"end":"bored","exit_code":1,"signal":null},"duration_ms":null}']
)
def test_broken_exit_frame(data: bytes) -> None:
    """What is no end decides nothing."""
    assert outcomes.decode_told(data) is None

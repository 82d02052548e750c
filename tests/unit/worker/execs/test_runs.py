"""Execs as records: what is told of them and what comes back from the journal."""

import asyncio

import msgspec
import pytest

from traforo.api import schemas
from traforo.domain import errors, states
from traforo.worker.execs import outcomes, runs
from traforo.worker.journal import records


def run(**changes: object) -> runs.Exec:
    found = runs.Exec("exec_01K6Z8Q4T3V7WXYZ0123456789", "sbx_1", ["echo", "é"], 1_800_000_000.25)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


ENDED = {
    "outcome": outcomes.Outcome(states.ExecEnd.TIMED_OUT, 124, 9),
    "completed_at": 1_800_000_001.5,
    "duration_ms": 1250.0,
    "runtime": "python",
    "timeout_ms": 1000,
    "written": runs.Written(5, 6, 2),
}


@pytest.mark.parametrize("changes", [{}, ENDED])
def test_journal_round_trip(changes: dict[str, object]) -> None:
    """A record that went through the journal's encoding tells the same."""
    found = run(**changes)
    record = msgspec.json.decode(msgspec.json.encode(found.record()), type=records.ExecRecord)
    assert runs.restore(record).summary() == found.summary()
    assert runs.restore(record).timeout_ms == found.timeout_ms
    assert runs.restore(record).written == found.written


@pytest.mark.parametrize(
    "facts", [{"command": 7}, {"outcome": {"end": "bored"}}, {"duration_ms": "x"}, {"written": ["x"]}]
)
def test_foreign_facts(facts: dict[str, object]) -> None:
    """Facts that are none of ours are refused."""
    record = records.ExecRecord(
        exec_id="exec_1", sandbox_id="sbx_1", status=states.ExecStatus.EXITED, started_at=1.0, facts=facts
    )
    with pytest.raises(msgspec.ValidationError):
        runs.restore(record)


@pytest.mark.parametrize("changes", [{}, ENDED])
def test_summary_is_what_the_schema_says(changes: dict[str, object]) -> None:
    """Nothing is missing in a summary and nothing is too much."""
    schemas.ExecSummary.model_validate_json(msgspec.json.encode(run(**changes).summary()))


async def test_wakes() -> None:
    """Output wakes those who watch; the end wakes everybody; a failure reaches everybody; the cancelled are passed."""
    found = run()
    loop = asyncio.get_running_loop()
    watcher, waiter, gone = loop.create_future(), loop.create_future(), loop.create_future()
    gone.cancel()
    found.watchers, found.waiters = [watcher, gone], [waiter, gone]
    found.notify()
    assert (watcher.done(), waiter.done()) == (True, False)
    found.finish()
    assert (waiter.done(), found.waiters, found.watchers) == (True, [], [])
    failing = loop.create_future()
    found.watchers = [failing, gone]
    found.fail(errors.WorkerUnavailable("stopping"))
    with pytest.raises(errors.WorkerUnavailable):
        await failing

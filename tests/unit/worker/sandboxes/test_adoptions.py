"""What a starting worker concludes from labels and journal, in every combination of the two."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import ids, specs, states
from traforo.domain.states import EndReason, SandboxState
from traforo.worker.journal import records
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import adoptions, entries, labels

NOW = 1000.0
WORKER = ids.worker_hash("here")
ROOTFS = contract.Rootfs("host", (contract.Lower("/", "/"),), {"A": "1"})


def entry(number: int) -> entries.Entry:
    spec = specs.SandboxSpec("host", "container", specs.Resources(1, 64, 32, 10), 60.0)
    return entries.Entry(
        id=ids.SandboxId(WORKER, f"{number:026d}"),
        spec=spec,
        owner="label",
        rootfs=ROOTFS,
        state=SandboxState.RUNNING,
        created_at=900.0,
        expires_at=960.0,
        jti=f"jti-{number}",
        jti_expires_at=2000.0,
    )


def label(number: int) -> bytes:
    return labels.encode(entry(number), expires_at=entry(number).expires_at, idle_seconds=30.0)


def record(number: int, **changes: Any) -> records.SandboxRecord:
    found = entry(number)
    values = {
        "sandbox_id": found.text_id,
        "spec": found.spec,
        "owner": "journal",
        "state": SandboxState.RUNNING,
        "created_at": 900.0,
        "expires_at": 960.0,
        "image": ROOTFS,
        **changes,
    }
    return records.SandboxRecord(**values)


def ended(number: int) -> records.SandboxRecord:
    return record(number, state=SandboxState.STOPPED, reason=EndReason.DELETED, ended_at=950.0, oom_kills=2)


class Running:
    """As much of a live sandbox as is looked at."""

    def __init__(self, number: int, found: bytes) -> None:
        self.sandbox_id = entry(number).text_id
        self.label = found


def dead(number: int, found: bytes, reason: EndReason = EndReason.OUT_OF_MEMORY) -> contract.DeadSandbox:
    return contract.DeadSandbox(entry(number).text_id, found, contract.SandboxEnd(reason, oom_kills=7))


def plan(
    live: list[Running] | None = None,
    gone: list[contract.DeadSandbox] | None = None,
    journal: list[records.SandboxRecord] | None = None,
) -> adoptions.Plan:
    adoption = contract.Adoption(cast("list[contract.RunningSandbox]", live or []), gone or [])
    return adoptions.plan(adoption, journal or [], NOW)


@pytest.mark.parametrize("journal", [[], [record(1)], [ended(1)]], ids=["unknown", "live", "ended"])
def test_what_lives_lives(journal: list[records.SandboxRecord]) -> None:
    """By its label, whatever the journal believes."""
    found = plan([Running(1, label(1))], journal=journal)
    (one,) = found.live
    assert (one.entry.owner, one.entry.state, one.entry.reason) == ("label", SandboxState.RUNNING, None)
    assert (one.entry.rootfs, one.image_known, one.entry.idle_seconds) == (ROOTFS, True, 30.0)
    assert found.ended == []


def test_a_label_that_cannot_be_read_is_replaced_by_the_journal() -> None:
    """And without that the sandbox is left alone."""
    found = plan([Running(1, b"?"), Running(2, b"?")], journal=[record(1)])
    assert [one.entry.owner for one in found.live] == ["journal"]
    assert found.unreadable == [entry(2).text_id]


@pytest.mark.parametrize("journal", [[], [record(1)]], ids=["unknown", "live"])
def test_a_death_is_news(journal: list[records.SandboxRecord]) -> None:
    """Seen now, with the runtime's reason; to be journaled, and forgotten after that."""
    (one,) = plan(gone=[dead(1, label(1))], journal=journal).ended
    assert (one.entry.state, one.entry.reason) == (SandboxState.STOPPED, EndReason.OUT_OF_MEMORY)
    assert (one.entry.ended_at, one.oom_kills, one.news, one.forget) == (NOW, 7, True, True)


def test_a_death_that_is_known_is_no_news() -> None:
    """The journal's time and reason stay; the runtime may forget it at once."""
    (one,) = plan(gone=[dead(1, label(1))], journal=[ended(1)]).ended
    assert (one.entry.reason, one.entry.ended_at) == (EndReason.DELETED, 950.0)
    assert (one.oom_kills, one.news, one.forget) == (2, False, True)


def test_an_expiry_happened_at_its_time() -> None:
    """Not when somebody looked; a deadline that is still to come was not reached."""
    (one,) = plan(gone=[dead(1, label(1), EndReason.EXPIRED)]).ended
    assert one.entry.ended_at == 960.0


def test_the_dead_without_a_name() -> None:
    """Neither label nor journal: nobody can be told."""
    found = plan(gone=[dead(1, b"?"), dead(2, b"?")], journal=[record(2)])
    assert found.nameless == [entry(1).text_id]
    assert [one.entry.owner for one in found.ended] == ["journal"]


def test_what_only_the_journal_knows() -> None:
    """Live there and unknown to the runtime is lost; ended stays ended."""
    lost, known = sorted(plan(journal=[record(1), ended(2)]).ended, key=lambda one: one.entry.text_id)
    assert (lost.entry.state, lost.entry.reason, lost.entry.ended_at) == (SandboxState.STOPPED, EndReason.LOST, NOW)
    assert (lost.news, lost.forget) == (True, False)
    assert (known.entry.reason, known.entry.ended_at, known.news, known.forget) == (
        EndReason.DELETED,
        950.0,
        False,
        False,
    )


def test_the_ended_are_in_the_order_of_their_ends() -> None:
    """So that they are forgotten in that order."""
    journal = [record(number, state=SandboxState.STOPPED, ended_at=900.0 + 7 * number % 5) for number in range(5)]
    found = [one.entry.ended_at for one in plan(journal=journal).ended]
    assert found == sorted(found, key=lambda at: at or 0.0)


def test_tokens_are_those_of_both() -> None:
    """What the journal has, and what sandboxes were paid with: those that live, and those that died unseen."""
    found = plan([Running(1, label(1))], [dead(2, label(2))])
    assert adoptions.used_tokens({"old": 5.0}, found) == {"old": 5.0, "jti-1": 2000.0, "jti-2": 2000.0}


numbers = st.sets(st.integers(0, 9))


@given(live=numbers, gone=numbers, running=numbers, over=numbers, damaged=numbers)
def test_every_sandbox_is_accounted_for_once(
    live: set[int], gone: set[int], running: set[int], over: set[int], damaged: set[int]
) -> None:
    """Whatever either side says, each sandbox is in exactly one list, and what lives is never called ended."""
    gone -= live
    over -= running

    def written(number: int) -> bytes:
        return b"?" if number in damaged else label(number)

    found = plan(
        [Running(number, written(number)) for number in live],
        [dead(number, written(number)) for number in gone],
        [*(record(number) for number in running), *(ended(number) for number in over)],
    )
    alive = [*(one.entry.text_id for one in found.live), *found.unreadable]
    others = [*(one.entry.text_id for one in found.ended), *found.nameless]
    assert sorted(alive) == sorted(entry(number).text_id for number in live)
    assert sorted(others) == sorted(entry(number).text_id for number in (gone | running | over) - live)
    assert all(one.entry.state in {SandboxState.STOPPED, SandboxState.FAILED} for one in found.ended)
    assert all(one.entry.reason in set(states.EndReason) for one in found.ended)

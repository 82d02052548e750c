"""The table of states, what may be derived from it, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from traforo.domain import errors
from traforo.domain.states import EndReason, SandboxState
from traforo.worker.sandboxes import lifecycles
from traforo.worker.sandboxes.lifecycles import Event, Life

PAGE = Path(__file__).parents[4] / "docs" / "concepts" / "lifecycle.md"
REASON = {Event.STOP: EndReason.DELETED, Event.DIED: EndReason.LOST}


def test_every_state_is_in_the_table() -> None:
    """No state of the API is without a way in, and none but the terminal ones is without a way out."""
    sources = {row.source for row in lifecycles.TABLE}
    targets = {row.target for row in lifecycles.TABLE}
    assert targets | set(lifecycles.BIRTHS) == set(SandboxState)
    assert set(SandboxState) - sources == lifecycles.TERMINAL


def test_the_table_is_a_function() -> None:
    """One state and one event lead to one state."""
    keys = [(row.source, row.event) for row in lifecycles.TABLE]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("state", list(SandboxState))
@pytest.mark.parametrize("event", list(Event))
def test_step_follows_the_table_and_nothing_else(state: SandboxState, event: Event) -> None:
    """What has a row goes where the row says; what has none is a conflict that names both."""
    row = next((row for row in lifecycles.TABLE if (row.source, row.event) == (state, event)), None)
    if row is not None:
        assert lifecycles.step(Life(state), event, REASON.get(event)).state is row.target
        return
    with pytest.raises(errors.Conflict) as caught:
        lifecycles.step(Life(state), event, REASON.get(event))
    assert caught.value.fields == {"state": state.value, "event": event.value}


@pytest.mark.parametrize(
    "state, event, reason",
    [
        (SandboxState.RUNNING, Event.STOP, None),
        (SandboxState.RUNNING, Event.STOP, EndReason.OUT_OF_MEMORY),
        (SandboxState.RUNNING, Event.DIED, None),
        (SandboxState.RUNNING, Event.DIED, EndReason.FAILED_TO_START),
        (SandboxState.STARTING, Event.READY, EndReason.DELETED),
    ],
)
def test_a_wrong_reason_is_a_defect(state: SandboxState, event: Event, reason: EndReason | None) -> None:
    """A stop needs a reason that somebody can have, an end one that can happen, anything else none."""
    with pytest.raises(errors.Internal):
        lifecycles.step(Life(state), event, reason)


def test_what_the_runtime_proved_is_the_reason() -> None:
    """A sandbox that runs out of memory while it is being deleted did so."""
    stopping = lifecycles.step(Life(SandboxState.RUNNING), Event.STOP, EndReason.DELETED)
    assert stopping == Life(SandboxState.STOPPING, EndReason.DELETED)
    ended = lifecycles.step(stopping, Event.DIED, EndReason.OUT_OF_MEMORY)
    assert ended == Life(SandboxState.STOPPED, EndReason.OUT_OF_MEMORY)


class Lives(RuleBasedStateMachine):
    """Any events in any order: a life only ever takes steps of the table, and ends for good."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(SandboxState.PENDING)
        self.ended: Life | None = None

    @rule(event=st.sampled_from(Event), reason=st.sampled_from([None, *EndReason]))
    def happen(self, event: Event, reason: EndReason | None) -> None:
        try:
            self.life = lifecycles.step(self.life, event, reason)
        except (errors.Conflict, errors.Internal):
            return
        assert self.ended is None

    @invariant()
    def reason_fits_state(self) -> None:
        if self.life.state in lifecycles.TERMINAL:
            assert self.life.reason is not None
            self.ended = self.ended or self.life
            assert self.ended == self.life
        elif self.life.state is SandboxState.STOPPING:
            assert self.life.reason in lifecycles.STOP_REASONS
        else:
            assert self.life.reason is None


TestLives = Lives.TestCase


def test_the_page_shows_the_table() -> None:
    """The diagram and the list in the documentation are drawn from the table: `python -m tools.lifecycle_page`."""
    page = PAGE.read_text()
    assert f"```mermaid\n{lifecycles.mermaid()}```" in page
    assert lifecycles.markdown() in page

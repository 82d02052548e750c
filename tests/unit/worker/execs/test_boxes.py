"""Boxes: who runs, who is remembered, who is forgotten."""

import pytest

from traforo.domain import errors, ids, specs, states
from traforo.worker.execs import boxes, outcomes, runs
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

DONE = outcomes.Outcome(states.ExecEnd.EXITED, 0, None)


def run(number: int, *, hidden: bool = False) -> runs.Exec:
    return runs.Exec(f"exec_{number:03}", "sbx", "true", float(number), hidden=hidden)


def end(box: boxes.Box, one: runs.Exec) -> list[str]:
    one.outcome = DONE
    return [old.id for old in box.end(one)]


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that start count as those that run, so that no burst gets past the limit."""
    monkeypatch.setattr(boxes, "MAX_RUNNING", 2)
    box = boxes.Box(None)
    box.reserve()
    one = run(1)
    box.add(one)
    with pytest.raises(errors.RateLimited):
        box.reserve()
    box.starting -= 1
    box.reserve()
    box.starting -= 1
    end(box, one)
    box.reserve()
    box.reserve()
    with pytest.raises(errors.RateLimited):
        box.reserve()


def test_oldest_end_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is never forgotten; of the others the one that ended first goes."""
    monkeypatch.setattr(boxes, "MAX_REMEMBERED", 3)
    box = boxes.Box(None)
    found = [run(number) for number in range(5)]
    for one in found:
        box.add(one)
    assert end(box, found[3]) == ["exec_003"]
    assert end(box, found[1]) == ["exec_001"]
    assert end(box, found[0]) == []
    box.add(run(9))
    assert end(box, found[2]) == ["exec_000"]
    assert [one.id for one in box.page(9, None)[0]] == ["exec_009", "exec_004", "exec_002"]
    assert len(box) == 3


def test_pages() -> None:
    """Pages go from the newest to the oldest without gap or repetition, though a page's last one was forgotten."""
    box = boxes.Box(None)
    for number in (2, 0, 3, 1, 4):
        box.add(run(number))
    first, cursor = box.page(2, None)
    assert ([one.id for one in first], cursor) == (["exec_004", "exec_003"], "exec_003")
    box._all.pop("exec_003")
    rest, cursor = box.page(3, cursor)
    assert ([one.id for one in rest], cursor) == (["exec_002", "exec_001", "exec_000"], None)


def test_hidden_ones_are_not_found() -> None:
    """One of our own takes room and can be seen by nobody until it is shown."""
    box = boxes.Box(None)
    one = run(1, hidden=True)
    box.add(one)
    assert (box.get(one.id), box.page(9, None)[0], list(box.running)) == (None, [], [one.id])
    assert box.everything() == [one]
    assert end(box, one) == []
    assert box.everything() == []
    box.show(one)
    assert (box.get(one.id), one.hidden) == (one, False)


def test_restored_ones_are_forgotten_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execs from the journal count like others."""
    monkeypatch.setattr(boxes, "MAX_REMEMBERED", 1)
    box = boxes.Box(None)
    old, new = run(1), run(2)
    old.outcome = DONE
    box.add(old)
    box.add(new)
    assert end(box, new) == [old.id]


def entry() -> entries.Entry:
    return entries.Entry(
        id=ids.new_sandbox_id(ids.worker_hash("here")),
        spec=specs.SandboxSpec("host", "container", specs.Resources(1, 64, 32, 16), 60.0),
        owner=None,
        rootfs=contract.Rootfs("host", ()),
        state=states.SandboxState.RUNNING,
        created_at=0.0,
        expires_at=60.0,
    )


@pytest.mark.parametrize("background, hidden, held", [(False, False, 1), (True, False, 0), (False, True, 0)])
def test_who_uses_the_sandbox(background: bool, hidden: bool, held: int) -> None:
    """A command that somebody waits for, until its end; taken in twice, as on adoption, it counts once."""
    box = boxes.Box(entry())
    assert box.entry is not None
    one = run(1, hidden=hidden)
    one.background = background
    box.add(one)
    box.add(one)
    assert box.entry.activity.holds == held
    end(box, one)
    assert box.entry.activity.holds == 0


def told(box: boxes.Box) -> list[tuple[states.Happening, dict[str, object]]]:
    assert box.entry is not None
    return [(event.kind, dict(event.facts)) for event in box.entry.happenings.all()]


def test_beginnings_and_ends_are_told() -> None:
    """Each once, with what a reader knows the exec by; what an earlier worker started was told by it."""
    kind = states.Happening
    box = boxes.Box(entry())
    one, adopted, own = run(1), run(2), run(3, hidden=True)
    one.began, one.tag, own.began = 5.0, "build", 5.0
    adopted.outcome = None
    for each in (one, adopted, own):
        box.add(each)
    assert told(box) == [(kind.EXEC_STARTED, {"exec_id": "exec_001", "tag": "build"})]
    end(box, own)
    end(box, one)
    adopted.outcome = outcomes.Outcome(states.ExecEnd.OUT_OF_MEMORY, 137, 9)
    box.end(adopted)
    assert told(box)[1:] == [
        (kind.EXEC_ENDED, {"exec_id": "exec_001", "end": "exited", "exit_code": 0, "tag": "build"}),
        (kind.OOM, {"exec_id": "exec_002"}),
        (kind.EXEC_ENDED, {"exec_id": "exec_002", "end": "out_of_memory", "exit_code": 137}),
    ]

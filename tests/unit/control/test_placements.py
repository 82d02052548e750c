from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from traforo.control import placements
from traforo.domain import workers


def member(
    name: str,
    *,
    live: int = 0,
    most: int = 10,
    sku: str = "",
    virtualizations: tuple[str, ...] = ("container",),
    expires_at: float = 1000.0,
) -> workers.Member:
    return workers.Member(
        worker=workers.Worker(
            worker_id=name,
            hostname=name,
            base_url=f"http://{name}",
            hardware_sku=sku,
            virtualizations=virtualizations,
            max_live_sandboxes=most,
        ),
        hash=name,
        registered_at=0.0,
        lease=workers.Lease(heartbeat_at=0.0, expires_at=expires_at, live_sandboxes=live),
    )


def choose(
    candidates: placements.Candidates,
    virtualization: str = "container",
    sku: str = "",
    retry: int = 0,
    now: float = 0.0,
) -> str:
    """Return the chosen worker's id, or the reason of the refusal."""
    chosen = candidates.choose(placements.Request(virtualization, sku, retry), now=now, retry_max=2)
    return chosen.reason if isinstance(chosen, placements.Refusal) else chosen.worker.worker_id


def test_one_worker_gets_everything() -> None:
    candidates = placements.Candidates([member("a")])
    assert [choose(candidates) for _ in range(3)] == ["a", "a", "a"]


def test_equals_take_turns() -> None:
    """Round robin: over any number of full turns each worker is chosen equally often."""
    candidates = placements.Candidates([member("a"), member("b"), member("c")])
    assert Counter(choose(candidates) for _ in range(30)) == {"a": 10, "b": 10, "c": 10}


def test_no_worker_at_all() -> None:
    assert choose(placements.Candidates()) == placements.Reason.NO_WORKER


def test_no_worker_offers_the_virtualization() -> None:
    assert choose(placements.Candidates([member("a")]), "gvisor") == placements.Reason.NO_WORKER


def test_virtualization_decides() -> None:
    candidates = placements.Candidates([member("a"), member("b", virtualizations=("container", "gvisor"))])
    assert [choose(candidates, "gvisor") for _ in range(2)] == ["b", "b"]


def test_sku_decides_and_its_absence_is_told_from_no_worker() -> None:
    candidates = placements.Candidates([member("a"), member("b", sku="gpu")])
    assert choose(candidates, sku="gpu") == "b"
    assert choose(candidates, sku="arm") == placements.Reason.NO_MATCHING_HARDWARE_SKU
    assert choose(candidates, "gvisor", sku="gpu") == placements.Reason.NO_WORKER


def test_without_sku_every_worker_will_do() -> None:
    candidates = placements.Candidates([member("a"), member("b", sku="gpu")])
    assert {choose(candidates) for _ in range(2)} == {"a", "b"}


def test_lease_decides_before_any_sweep() -> None:
    """A worker whose lease has ended is not chosen, though nobody has taken it out yet."""
    candidates = placements.Candidates([member("a", expires_at=50.0), member("b")])
    assert {choose(candidates, now=50.0) for _ in range(4)} == {"b"}
    assert choose(candidates, now=1000.0) == placements.Reason.NO_WORKER


def test_room_is_preferred() -> None:
    candidates = placements.Candidates([member("a", live=10), member("b", live=9)])
    assert {choose(candidates) for _ in range(4)} == {"b"}


def test_full_workers_are_asked_when_nobody_else_is_left() -> None:
    """What the registry knows may be old: the worker decides on its capacity, so a full one is still asked."""
    candidates = placements.Candidates([member("a", live=10), member("b", live=11)])
    assert {choose(candidates) for _ in range(4)} == {"a", "b"}


def test_heartbeat_moves_between_full_and_roomy() -> None:
    candidates = placements.Candidates([member("a"), member("b", live=10)])
    candidates.put(member("a", live=10))
    candidates.put(member("b", live=3))
    assert {choose(candidates) for _ in range(4)} == {"b"}


def test_reconfigured_worker_is_found_by_its_new_facts_only() -> None:
    candidates = placements.Candidates([member("a", sku="old"), member("b")])
    candidates.put(member("a", sku="new", virtualizations=("gvisor",)))
    assert choose(candidates, "gvisor", "new") == "a"
    assert choose(candidates, "container", "old") == placements.Reason.NO_MATCHING_HARDWARE_SKU
    assert {choose(candidates) for _ in range(3)} == {"b"}


@pytest.mark.parametrize("retry, expected", [(0, "a"), (2, "a"), (3, placements.Reason.PLACEMENT_RETRY_EXHAUSTED)])
def test_retries_are_limited(retry: int, expected: str) -> None:
    assert choose(placements.Candidates([member("a")]), retry=retry) == expected


def test_worker_that_refused_is_not_asked_again() -> None:
    """A request that was sent back goes to another worker; when there is no other, its tries are over."""
    candidates = placements.Candidates([member("a"), member("b")])
    request = placements.Request("container", retry=1, refused_by="a")
    chosen = [candidates.choose(request, now=0.0, retry_max=2) for _ in range(3)]
    assert [found.worker.worker_id for found in chosen if isinstance(found, workers.Member)] == ["b", "b", "b"]
    candidates.drop("b")
    refusal = placements.Refusal(placements.Reason.PLACEMENT_RETRY_EXHAUSTED)
    assert candidates.choose(request, now=0.0, retry_max=2) == refusal


def test_without_virtualization_containers_come_first() -> None:
    """Who names none gets `container` where that is offered, and otherwise what there is."""
    candidates = placements.Candidates([member("a", virtualizations=("gvisor",)), member("b")])
    assert {choose(candidates, "") for _ in range(4)} == {"b"}
    candidates.drop("b")
    assert {choose(candidates, "") for _ in range(4)} == {"a"}
    assert choose(candidates, "", "gpu") == placements.Reason.NO_MATCHING_HARDWARE_SKU


@given(names=st.lists(st.integers(0, 20), unique=True, min_size=1), gone=st.integers(0, 20))
def test_ring_goes_round_whatever_was_removed(names: list[int], gone: int) -> None:
    """After any removal a whole turn visits each remaining name exactly once."""
    ring = placements.Ring()
    for name in names:
        ring.add(str(name))
        ring.add(str(name))
    ring.next(lambda _: True)
    ring.discard(str(gone))
    rest = sorted(str(name) for name in names if name != gone)
    assert len(ring) == len(rest)
    assert sorted(str(ring.next(lambda _: True)) for _ in rest) == rest
    assert ring.next(lambda _: False) is None


NAMES = st.sampled_from(["a", "b", "c", "d"])
SKUS = st.sampled_from(["", "gpu", "arm"])
KINDS = st.sampled_from(["container", "gvisor"])


class PlacementMachine(RuleBasedStateMachine):
    """The indexed decision against one that looks at every worker each time."""

    def __init__(self) -> None:
        super().__init__()
        self.candidates = placements.Candidates()
        self.model: dict[str, workers.Member] = {}
        self.now = 0.0

    @rule(name=NAMES, live=st.integers(0, 3), sku=SKUS, kinds=st.sets(KINDS, min_size=1), ttl=st.integers(0, 3))
    def put(self, name: str, live: int, sku: str, kinds: set[str], ttl: int) -> None:
        new = member(name, live=live, most=2, sku=sku, virtualizations=tuple(sorted(kinds)), expires_at=self.now + ttl)
        self.candidates.put(new)
        self.model[name] = new

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        self.candidates.drop(name)
        self.model.pop(name, None)

    @rule()
    def wait(self) -> None:
        self.now += 1.0

    @rule(kind=KINDS | st.just(""), sku=SKUS, retry=st.integers(0, 3), refused_by=NAMES | st.just(""))
    def choose(self, kind: str, sku: str, retry: int, refused_by: str) -> None:
        expected = self.expected(kind, sku, retry, refused_by)
        request = placements.Request(kind, sku, retry, refused_by)
        found = [self.candidates.choose(request, now=self.now, retry_max=2) for _ in expected]
        names = [one.reason if isinstance(one, placements.Refusal) else one.worker.worker_id for one in found]
        assert sorted(names) == sorted(expected)  # each once: they take turns

    def expected(self, kind: str, sku: str, retry: int, refused_by: str) -> set[str]:
        if retry > 2:
            return {placements.Reason.PLACEMENT_RETRY_EXHAUSTED}
        live = [m for m in self.model.values() if m.live(self.now) and (not kind or kind in m.worker.virtualizations)]
        fitting = [m for m in live if sku in ("", m.worker.hardware_sku)]
        asked = [m for m in fitting if m.worker.worker_id != refused_by]
        if not kind:
            asked = [m for m in asked if "container" in m.worker.virtualizations] or asked
        if asked:
            return {m.worker.worker_id for m in asked if m.room} or {m.worker.worker_id for m in asked}
        if fitting:
            return {placements.Reason.PLACEMENT_RETRY_EXHAUSTED}
        return {placements.Reason.NO_MATCHING_HARDWARE_SKU if live else placements.Reason.NO_WORKER}

    @invariant()
    def nothing_is_left_over(self) -> None:
        """Rings of nobody are gone, so that names made up by workers do not add up."""
        offered = {key for m in self.model.values() for key in placements._keys(m.worker)}
        assert set(self.candidates._roomy) | set(self.candidates._full) == offered


TestPlacementMachine = PlacementMachine.TestCase
TestPlacementMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None)

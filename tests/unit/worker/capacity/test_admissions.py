"""The ledger: never over a cap, nothing left at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from traforo.domain import errors, specs
from traforo.domain.states import DiskKind
from traforo.worker.capacity import admissions
from traforo.worker.capacity.admissions import Caps, Demand, Host, Ledger

CAPS = Caps(cpu_milli=4000, memory_mib=4096, disk_mib=1000, live=5)


def test_caps_multiply_exactly() -> None:
    """A factor is a decimal: 1.1 is eleven tenths, and a cap is rounded down."""
    host = Host(cpu_milli=2000, memory_mib=1001, disk_mib=7)
    found = admissions.caps(host, live=3, cpu_overcommit=1.1, memory_overcommit=1.5, disk_overcommit=1)
    assert found == Caps(cpu_milli=2200, memory_mib=1501, disk_mib=7, live=3)


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan")])
def test_a_factor_below_one_is_refused(factor: float) -> None:
    """Less than all cannot be promised: that is what a smaller host is for."""
    with pytest.raises(errors.InvalidRequest):
        admissions.caps(Host(1, 1, 1), live=1, cpu_overcommit=factor, memory_overcommit=1, disk_overcommit=1)


@pytest.mark.parametrize(
    "cpu, expected", [(1, 1000), (0.1, 100), (0.3, 300), (0.0101, 11), (1.0000000001, 1000), (2.5, 2500)]
)
def test_cores_count_as_thousandths(cpu: float, expected: int) -> None:
    """What floats cannot say exactly is meant as written; a finer share counts as the next thousandth."""
    assert admissions.milli(cpu) == expected


@given(st.integers(1, 10**9))
def test_thousandths_survive_being_cores(milli: int) -> None:
    """Writing a share as cores and reading it back changes nothing."""
    assert admissions.milli(milli / 1000) == milli


def test_a_disk_in_memory_counts_as_memory() -> None:
    """A tmpfs disk is within the memory limit, so it is not counted again; one on disk is."""
    tmpfs = specs.Resources(cpu=0.5, memory_mib=512, disk_mib=256, pids=10)
    disk = specs.Resources(cpu=0.5, memory_mib=512, disk_mib=256, pids=10, disk_kind=DiskKind.DISK)
    assert admissions.demand(tmpfs) == Demand(500, 512, 0)
    assert admissions.demand(disk) == Demand(500, 512, 256)


@pytest.mark.parametrize(
    "wanted, resource, requested, available",
    [
        (Demand(3500, 1, 0), "cpu", 3.5, 3.0),
        (Demand(1, 4000, 0), "memory", 4000, 3096),
        (Demand(1, 1, 901), "disk", 901, 900),
    ],
)
def test_a_refusal_says_what_is_missing(wanted: Demand, resource: str, requested: float, available: float) -> None:
    """The caller learns which cap it was, what it asked for and what is left; the ledger is as before."""
    ledger = Ledger(CAPS)
    ledger.admit("a", Demand(1000, 1000, 100))
    with pytest.raises(errors.NoCapacity) as caught:
        ledger.admit("b", wanted)
    assert caught.value.fields == {"resource": resource, "requested": requested, "available": available}
    assert (ledger.live, ledger.allocated) == (1, Demand(1000, 1000, 100))


def test_the_number_of_sandboxes_is_a_cap() -> None:
    """One more than allowed is refused, however small."""
    ledger = Ledger(CAPS)
    for number in range(5):
        ledger.admit(str(number), Demand(1, 1, 0))
    with pytest.raises(errors.NoCapacity) as caught:
        ledger.admit("5", Demand(1, 1, 0))
    assert caught.value.fields["resource"] == "sandboxes"


def test_a_reservation_is_given_back_once() -> None:
    """Releasing twice, or what was never held, is a defect and changes nothing."""
    ledger = Ledger(CAPS)
    ledger.admit("a", Demand(1, 1, 1))
    ledger.release("a")
    for key in ("a", "b"):
        with pytest.raises(errors.Internal):
            ledger.release(key)
    assert (ledger.live, ledger.allocated) == (0, admissions.NOTHING)


def test_what_lives_is_restored_beyond_the_caps() -> None:
    """A restart with smaller caps forgets nobody; it only admits nobody new."""
    ledger = Ledger(Caps(1, 1, 1, 1))
    ledger.restore("a", Demand(4000, 4000, 0))
    ledger.restore("b", Demand(4000, 4000, 0))
    assert ledger.live == 2
    with pytest.raises(errors.NoCapacity) as caught:
        ledger.admit("c", Demand(1, 1, 0))
    assert caught.value.fields["available"] == 0
    for key in "ab":
        with pytest.raises(errors.Internal):
            ledger.restore(key, Demand(1, 1, 0))


class Admissions(RuleBasedStateMachine):
    """Any order of admissions and releases keeps within every cap and adds up."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(CAPS)
        self.model: dict[str, Demand] = {}
        self.next = 0

    @rule(
        target=held,
        wanted=st.builds(Demand, st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 600)),
    )
    def admit(self, wanted: Demand) -> str:
        self.next += 1
        key = str(self.next)
        total = [sum(part) for part in zip(*map(_parts, [*self.model.values(), wanted]), strict=True)]
        fits = len(self.model) < CAPS.live and all(
            used <= cap for used, cap in zip(total, (CAPS.cpu_milli, CAPS.memory_mib, CAPS.disk_mib), strict=True)
        )
        try:
            self.ledger.admit(key, wanted)
        except errors.NoCapacity:
            assert not fits
        else:
            assert fits
            self.model[key] = wanted
        return key

    @rule(key=consumes(held))
    def release(self, key: str) -> None:
        if self.model.pop(key, None) is not None:
            self.ledger.release(key)

    @invariant()
    def adds_up(self) -> None:
        sums = [sum(part) for part in zip(*map(_parts, self.model.values()), strict=True)] or [0, 0, 0]
        assert list(_parts(self.ledger.allocated)) == sums
        assert self.ledger.live == len(self.model) <= CAPS.live

    def teardown(self) -> None:
        for key in self.model:
            self.ledger.release(key)
        assert (self.ledger.live, self.ledger.allocated) == (0, admissions.NOTHING)


def _parts(demand: Demand) -> tuple[int, int, int]:
    return demand.cpu_milli, demand.memory_mib, demand.disk_mib


TestAdmissions = Admissions.TestCase

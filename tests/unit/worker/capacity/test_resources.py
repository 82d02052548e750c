"""What a caller names, and what a spec has in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, specs
from traforo.domain.states import DiskKind
from traforo.worker.capacity import resources
from traforo.worker.capacity.admissions import Host
from traforo.worker.capacity.resources import Wish

HOST = Host(cpu_milli=4000, memory_mib=8191, disk_mib=50_000)


def complete(wish: Wish, host: Host = HOST) -> specs.Resources:
    return resources.complete(wish, host, default_pids=512)


def test_nothing_named_gives_the_defaults() -> None:
    """One core, its part of the memory rounded down, half of that as disk, the setting's pids."""
    assert complete(Wish()) == specs.Resources(cpu=1, memory_mib=2047, disk_mib=1023, pids=512)


@pytest.mark.parametrize(
    "wish, expected",
    [
        (Wish(cpu=0.5), specs.Resources(cpu=0.5, memory_mib=1023, disk_mib=511, pids=512)),
        (Wish(cpu=4), specs.Resources(cpu=4, memory_mib=8188, disk_mib=1024, pids=512)),
        (Wish(cpu=0.01), specs.Resources(cpu=0.01, memory_mib=64, disk_mib=32, pids=512)),
        (Wish(memory_mib=16), specs.Resources(cpu=1, memory_mib=16, disk_mib=8, pids=512)),
        (Wish(memory_mib=100, disk_mib=100), specs.Resources(cpu=1, memory_mib=100, disk_mib=100, pids=512)),
        (
            Wish(memory_mib=100, disk_mib=5000, disk_kind=DiskKind.DISK, pids=2),
            specs.Resources(cpu=1, memory_mib=100, disk_mib=5000, pids=2, disk_kind=DiskKind.DISK),
        ),
    ],
)
def test_what_is_named_is_kept(wish: Wish, expected: specs.Resources) -> None:
    """Defaults fill in around it; memory goes with the cores."""
    assert complete(wish) == expected


def test_a_small_host_still_has_defaults() -> None:
    """Half a core and 40 MiB are all there is: a create that names nothing gets them."""
    small = Host(cpu_milli=500, memory_mib=40, disk_mib=10)
    assert complete(Wish(), small) == specs.Resources(cpu=0.5, memory_mib=40, disk_mib=20, pids=512)


@pytest.mark.parametrize(
    "wish, field",
    [
        (Wish(cpu=0.009), "cpu"),
        (Wish(cpu=4.001), "cpu"),
        (Wish(cpu=-1), "cpu"),
        (Wish(cpu=float("nan")), "cpu"),
        (Wish(cpu=float("inf")), "cpu"),
        (Wish(memory_mib=15), "memory_mib"),
        (Wish(memory_mib=8192), "memory_mib"),
        (Wish(disk_mib=0), "disk_mib"),
        (Wish(disk_mib=2048), "disk_mib"),
        (Wish(disk_mib=50_001, disk_kind=DiskKind.DISK), "disk_mib"),
        (Wish(pids=1), "pids"),
        (Wish(pids=4_194_305), "pids"),
    ],
)
def test_what_can_never_be_given_is_refused(wish: Wish, field: str) -> None:
    """Outside of the documented ranges, with the field named."""
    with pytest.raises(errors.InvalidRequest) as caught:
        complete(wish)
    assert caught.value.fields["field"] == field


def test_a_large_disk_in_memory_has_a_way_out() -> None:
    """The refusal says what to ask for instead."""
    with pytest.raises(errors.InvalidRequest) as caught:
        complete(Wish(memory_mib=512, disk_mib=1024))
    assert "disk_kind 'disk'" in str(caught.value.hint)


@given(
    st.builds(
        Wish,
        cpu=st.none() | st.floats(),
        memory_mib=st.none() | st.integers(-10, 10_000),
        disk_mib=st.none() | st.integers(-10, 60_000),
        disk_kind=st.sampled_from(DiskKind),
        pids=st.none() | st.integers(-10, 5_000_000),
    )
)
def test_whatever_is_given_is_within_the_host(wish: Wish) -> None:
    """Any request is either refused as invalid or gets what this host can give."""
    try:
        found = complete(wish)
    except errors.InvalidRequest:
        return
    assert 0.01 <= found.cpu <= 4
    assert 16 <= found.memory_mib <= 8191
    assert 1 <= found.disk_mib <= (found.memory_mib if found.disk_kind is DiskKind.TMPFS else 50_000)
    assert 2 <= found.pids <= 4_194_304

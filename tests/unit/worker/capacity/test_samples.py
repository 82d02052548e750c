"""Samples of use: kept in a ring, measured against the one before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.capacity import samples

counts = st.none() | st.integers(0, 2**53)
seconds = st.none() | st.floats(0, 1e9)
found = st.builds(
    samples.Sample,
    at=st.floats(0, 1e10),
    cpu_seconds=seconds,
    cpu_percent=seconds,
    memory_bytes=counts,
    memory_peak_bytes=counts,
    disk_bytes=counts,
    disk_limit_bytes=counts,
    pids=counts,
    network_received_bytes=counts,
    network_sent_bytes=counts,
)


def sample(at: float) -> samples.Sample:
    return samples.Sample(at, *([None] * 9))


@given(st.lists(found, max_size=5))
def test_samples_come_back(given_samples: list[samples.Sample]) -> None:
    """As they were, with what nobody knows."""
    history = samples.History()
    for one in given_samples:
        history.add(one)
    assert list(history.since(-1.0)) == given_samples


def test_the_oldest_goes() -> None:
    """After an hour of them; and a reader gets what came after its last one."""
    history = samples.History()
    for at in range(samples.MAX_SAMPLES + 5):
        history.add(sample(float(at)))
    kept = [one.at for one in history.since(0.0)]
    assert kept == [float(at) for at in range(5, samples.MAX_SAMPLES + 5)]
    assert [one.at for one in history.since(363.0)] == [364.0]


def test_processors() -> None:
    """The first percentage is of its whole life, the others since the one before; too soon after it they stay."""
    history = samples.History()
    assert history.use(5.0, 100.0, 10.0) == 50.0
    assert history.use(5.1, 100.2, 10.2) == 50.0
    assert history.use(7.0, 101.0, 11.0) == 200.0
    assert history.use(7.0, 111.0, 21.0) == 0.0
    assert history.use(6.0, 121.0, 31.0) == 0.0  # a counter that fell
    assert history.use(None, 131.0, 41.0) is None
    assert samples.History().use(1.0, 1.0, 0.0) == 0.0

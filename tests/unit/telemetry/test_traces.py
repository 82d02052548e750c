import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.telemetry import traces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
hexadecimal = st.sampled_from("0123456789abcdef")


def test_headers_are_read() -> None:
    """Ids, the sampling flag and other vendors' state are kept."""
    assert traces.parse(PARENT, "a=1") == traces.Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "a=1")


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    """The specification: a higher version is parsed by the rules of this one, and what follows is ignored."""
    assert str(traces.parse("cc-" + PARENT[3:] + "-what-else")) == PARENT


@pytest.mark.parametrize(
    "header",
    [
        "",
        PARENT + "-more",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + "-01",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "\n",
        "00-zz" + PARENT[5:],
    ],
)
def test_invalid_parent_is_ignored(header: str) -> None:
    """A request with a broken header is handled as one without."""
    assert traces.parse(header) is None


@pytest.mark.parametrize("state", ["x" * 513, "ä=1"])
def test_state_that_cannot_be_passed_on_is_dropped(state: str) -> None:
    """The trace goes on without it."""
    assert traces.parse(PARENT, state) == traces.parse(PARENT)


@given(st.text(hexadecimal, min_size=32, max_size=32), st.text(hexadecimal, min_size=16, max_size=16), st.booleans())
def test_trace_survives_being_written(trace_id: str, span_id: str, sampled: bool) -> None:
    """What is sent on is what the next process reads."""
    trace = traces.Trace(trace_id, span_id, int(sampled))
    valid = set(trace_id) != {"0"} and set(span_id) != {"0"}
    assert traces.parse(str(trace)) == (trace if valid else None)


def test_child_stays_in_its_trace() -> None:
    """A child has the trace, the sampling decision and the state of its parent, and a span of its own."""
    parent = traces.parse(PARENT, "a=1")
    assert parent is not None
    child = traces.child(parent)
    assert (child.trace_id, child.flags, child.state) == (parent.trace_id, parent.flags, parent.state)
    assert child.span_id != parent.span_id


def test_new_trace_is_valid() -> None:
    """A trace begun here can be read by anyone."""
    trace = traces.new()
    assert traces.parse(str(trace)) == trace


def test_about_a_tenth_of_new_traces_is_sampled() -> None:
    """The ratio is decided by the trace id, as elsewhere: 300 in 3000, give or take what chance does."""
    assert 180 < sum(traces.new().flags for _ in range(3000)) < 420


def test_headers_of_the_current_trace() -> None:
    """What is sent on names the request that is being handled; outside of one there is nothing to send."""
    assert traces.headers() == {}
    token = traces.enter(traces.Trace("1" * 32, "2" * 16, 1, "a=1"))
    try:
        assert traces.headers() == {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=1"}
        assert traces.headers(traces.Trace("3" * 32, "4" * 16, 0)) == {"traceparent": f"00-{'3' * 32}-{'4' * 16}-00"}
    finally:
        traces.leave(token)
    assert traces.current() is None

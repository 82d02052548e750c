import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.telemetry import labels


def test_allowed_labels_pass() -> None:
    """Every allowed name may be used, in the order given."""
    assert labels.check(["cpu", "start_type"]) == ("cpu", "start_type")
    assert set(labels.check(labels.ALLOWED)) == labels.ALLOWED


@pytest.mark.parametrize("name", ["sandbox_id", "exec_id", "client_id", "image", "full_image", "path", ""])
def test_labels_without_bound_are_refused(name: str) -> None:
    """A name that is not on the list cannot be declared, so no series is ever made for it."""
    with pytest.raises(ValueError, match="cannot declare a metric"):
        labels.check(["cpu", name])


@pytest.mark.parametrize(
    "value, expected", [(0.01, "0.1"), (0.25, "0.25"), (0.3, "0.5"), (1, "1"), (3, "4"), (64, "64"), (65, "more")]
)
def test_cpu_is_a_step(value: float, expected: str) -> None:
    """Callers may ask for any fraction of a processor; the label has eleven values."""
    assert labels.cpu(value) == expected


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_cpu_has_few_values(value: float) -> None:
    """Whatever is asked for, the number of series stays bounded."""
    assert labels.cpu(value) in {"0.1", "0.25", "0.5", "1", "2", "4", "8", "16", "32", "64", "more"}

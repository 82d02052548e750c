import pytest

from traforo.cli import options, printers


def test_variables_are_given_or_taken_from_here() -> None:
    """`NAME=value` sets, `NAME` takes the value it has here, if it has one."""
    assert options.variables(["A=1", "B", "C", "D=x=y", "E="], {"B": "b"}) == {"A": "1", "B": "b", "D": "x=y", "E": ""}


def test_a_variable_needs_a_name() -> None:
    with pytest.raises(printers.UsageError, match="names no variable"):
        options.variables(["=x"], {})


def test_labels_are_names_with_values() -> None:
    assert options.labels(["a=b", "c="]) == {"a": "b", "c": ""}
    for text in ("a", "=b"):
        with pytest.raises(printers.UsageError):
            options.labels([text])

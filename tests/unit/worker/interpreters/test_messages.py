"""What interpreters say: facts within limits, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.execs import execs
from traforo.worker.interpreters import marks, messages

RUN = "01M80NJB88BF2KGWBTHYNB2H5X"


def said(kind: str, *fields: bytes) -> messages.Answer | None:
    return messages.read(marks.Message(kind, marks.join(fields)))


def result(*fields: bytes, number: bytes = b"0") -> dict[str, Any] | None:
    found = said("R", RUN.encode(), number, *fields)
    assert found is None or isinstance(found, messages.Result)
    return None if found is None else json.loads(found.data)


def test_forms_of_a_value() -> None:
    """Text, base64 and JSON come under their types; JSON as what it says."""
    found = result(b"1", b"text/plain", "é".encode(), b"image/png", b"AAAA", b"application/json", b'{"a": [1, null]}')
    assert found == {"text/plain": "é", "image/png": "AAAA", "application/json": {"a": [1, None]}, "is_main": True}


@pytest.mark.parametrize("text", [b"{", b"", b"[" * 100_000, b"\xff"])
def test_json_that_is_none_is_text(text: bytes) -> None:
    """What does not parse, or is nested beyond measure, stays text."""
    found = result(b"0", b"application/json", text)
    assert found == {"application/json": text.decode("utf-8", "replace"), "is_main": False}


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"1",),
        (b"1", b"text/plain"),
        (b"1", b"no type", b"x"),
        (b"1", b"is_main", b"x"),
        (b"1", b"error", b"x"),
        (b"1", *[b"a/b", b"x"] * 65),
    ],
)
def test_values_that_are_none(fields: tuple[bytes, ...]) -> None:
    """A name that is no MIME type, a form without content or too many forms are nothing."""
    assert result(*fields) is None


@pytest.mark.parametrize("number", [b"-1", b"x", b"", b"1002", b"99999999999", b"\xd9\xa1"])
def test_numbers_that_are_none(number: bytes) -> None:
    """A number of a result is small and written in plain digits."""
    assert result(b"1", b"text/plain", b"x", number=number) is None


@pytest.mark.parametrize("due, heard", [((RUN, 4), True), ((RUN, 3), False), ((RUN, 5), False), (("", 4), False)])
def test_a_result_that_is_not_due_is_none(due: tuple[str, int], heard: bool) -> None:
    """Of another run, told before, or out of turn: an interpreter that lies makes nobody read what it says."""
    message = marks.Message("R", marks.join([RUN.encode(), b"4", b"1", b"text/plain", b"x"]))
    assert (messages.read(message, due) is not None) == heard


def test_an_error() -> None:
    """Name, value and lines are cut to their limits."""
    found = said("E", RUN.encode(), b"3", b"N" * 1000, b"v" * 10**6, *[b"line"] * 3000)
    assert isinstance(found, messages.Result)
    error = json.loads(found.data)["error"]
    assert [len(error["name"]), len(error["value"]), len(error["traceback"])] == [255, 65536, 1000]
    assert found.number == 3


@pytest.mark.parametrize(
    "text, wanted",
    [
        (f"{RUN} 3 2 7", messages.Done(RUN, 3, 2, 7)),
        (f"{RUN} 999 2 7", messages.Done(RUN, 999 & 0xFF, 2, 7)),
        (f"{RUN} -3 2 7", None),
        (f"{RUN} 3 2", None),
        (f"{RUN.lower()} 3 2 7", None),
        (f"{RUN} 3 2 77777777777", None),
        ("", None),
    ],
)
def test_the_end_of_a_run(text: str, wanted: messages.Answer | None) -> None:
    """An end names its run, an exit code and two counts."""
    assert wanted == messages.read(marks.Message("D", text.encode()))


@given(st.sampled_from("HRDESXZ"), st.binary(max_size=300) | st.lists(st.binary(max_size=40)).map(marks.join))
def test_any_message_is_read(kind: str, payload: bytes) -> None:
    """Nothing that is said raises; results are JSON."""
    found = messages.read(marks.Message(kind, payload))
    if isinstance(found, messages.Result):
        json.loads(found.data)


def test_a_result_that_grows_as_json() -> None:
    """A frame has room for whatever comes: what takes too much when it is written down is told to be too large."""
    assert messages.MAX_RESULT_BYTES == execs.MAX_RESULT_BYTES
    large = b"\x01" * (messages.MAX_RESULT_BYTES // 6 + 1)
    assert result(b"1", b"text/plain", large) == {"text/plain": "<too large to be shown>", "is_main": True}
    lines = [b"\x01" * messages.MAX_VALUE] * (messages.MAX_RESULT_BYTES // messages.MAX_VALUE // 6 + 1)
    found = said("E", RUN.encode(), b"0", b"Name", b"value", *lines)
    assert isinstance(found, messages.Result)
    shown = {"name": "Name", "value": "<too large to be shown>", "traceback": []}
    assert json.loads(found.data) == {"error": shown}

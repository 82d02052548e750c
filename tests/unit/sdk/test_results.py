import dataclasses
from datetime import UTC, datetime

import pytest

from traforo.sdk import errors, results

RESULT = results.ExecResult(
    exec_id="exec_1",
    sandbox_id="sbx_1",
    command=("false",),
    status="exited",
    end="exited",
    exit_code=0,
    signal=None,
    stdout="",
    stderr="",
    output="",
    stdout_truncated=False,
    stderr_truncated=False,
    duration_ms=1.0,
    started_at=None,
    completed_at=None,
)


def test_check_passes_a_success_through() -> None:
    """A command that exits with 0 is well."""
    assert RESULT.check() is RESULT
    assert RESULT.ok


def test_check_raises_with_the_end_of_stderr() -> None:
    """The error shows the command, the code and what the command said last, and has the whole result."""
    failed = dataclasses.replace(RESULT, exit_code=3, stderr="x" * 1000 + " the end\n")
    with pytest.raises(errors.CommandFailed, match=r"\('false',\).*exit code 3.*the end$") as caught:
        failed.check()
    assert caught.value.result is failed
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("end,code", [("signalled", 137), ("timed_out", 124), ("out_of_memory", None), ("lost", None)])
def test_only_an_exit_with_0_is_well(end: str, code: int | None) -> None:
    """Whatever else happened is a failure, named."""
    failed = dataclasses.replace(RESULT, end=end, exit_code=code)
    assert not failed.ok
    with pytest.raises(errors.CommandFailed, match=end):
        failed.check()


def test_as_json_spells_times_as_the_api_does() -> None:
    """A record becomes JSON values, at any depth."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    value = {"frames": (results.Frame(1, "stdout", b"", moment),), "n": 1}
    shown = {"cursor": 1, "type": "stdout", "data": b"", "ts": "2026-01-02T03:04:05.678Z"}
    assert results.as_json(value) == {"frames": [shown], "n": 1}


def test_a_frame_shows_its_text() -> None:
    """What is not UTF-8 is marked, not lost in an error."""
    assert results.Frame(0, "stdout", b"a\xff", None).text == "a\ufffd"

import base64
import json

import pytest

from traforo.sdk import cells, errors, results

EXEC = {"exec_id": "exec_1", "status": "exited", "end": "exited", "exit_code": 0, "stdout": "out"}
ERROR = {"name": "ZeroDivisionError", "value": "division by zero", "traceback": ["line 1"]}
PNG = base64.b64encode(b"\x89PNG").decode()


def test_a_run_is_read() -> None:
    """Output, values in every form, and what the last expression is."""
    shown = {"text/plain": "42", "text/html": "<b>42</b>", "image/png": PNG, "application/json": [42], "is_main": True}
    result = cells.code_result({**EXEC, "results": [shown], "error": None, "execution_count": 3})
    assert (result.stdout, result.text, result.execution_count, result.ok) == ("out", "42", 3, True)
    assert (result.results[0].html, result.results[0].png, result.results[0].json) == ("<b>42</b>", b"\x89PNG", [42])
    assert result.check() is result


def test_a_run_that_raised() -> None:
    """`check` tells it as an error of its own, with everything that is known."""
    result = cells.code_result({**EXEC, "results": [], "error": ERROR})
    assert not result.ok
    with pytest.raises(errors.CodeFailed, match="ZeroDivisionError: division by zero") as caught:
        result.check()
    assert caught.value.result is result


def test_a_run_that_was_ended() -> None:
    """By its deadline, for instance."""
    result = cells.code_result({**EXEC, "end": "timed_out", "exit_code": 124})
    with pytest.raises(errors.CodeFailed, match="timed_out"):
        result.check()


def test_a_run_is_put_together_from_its_frames() -> None:
    """As it would have been answered whole."""
    bodies = [{"text/plain": "42", "is_main": True}, {"error": ERROR}, {"execution_count": 7}]
    frames = [results.Frame(n, "result", json.dumps(body).encode(), None) for n, body in enumerate(bodies)]
    found = cells.assembled(cells.code_result(EXEC).exec, frames)
    assert (found.text, found.execution_count) == ("42", 7)
    assert found.error is not None
    assert (found.error.name, found.error.traceback) == ("ZeroDivisionError", ("line 1",))


def test_a_picture_that_is_none_is_a_bad_answer() -> None:
    """It was made in the sandbox."""
    with pytest.raises(errors.BadAnswer):
        _ = cells.rich({"image/png": "?"}).png
    assert cells.rich({"image/png": 7}).png is None

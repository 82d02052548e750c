"""What the server must have answered for a time to count: anything else is a failure, however quick it was."""

from __future__ import annotations

from typing import Any

from bench.contenders import MeasurementError
from bench.http11 import Response


def created(response: Response) -> dict[str, Any]:
    """Return the sandbox of a 201 that was made from nothing, not taken from a pool."""
    sandbox = _expected(response, 201, "create")
    if sandbox.get("start_type") != "cold":
        raise MeasurementError(f"create: start type {sandbox.get('start_type')!r} instead of 'cold'")
    return sandbox


def ran_true(response: Response) -> None:
    """Accept an exec that has exited with 0."""
    answer = _expected(response, 200, "exec")
    if answer.get("status") != "exited" or answer.get("exit_code") != 0:
        raise MeasurementError(f"exec: status {answer.get('status')!r}, exit code {answer.get('exit_code')!r}")


def printed(response: Response, text: str) -> None:
    """Accept code that has exited with 0 and written exactly `text`."""
    answer = _expected(response, 200, "code")
    if answer.get("exit_code") != 0 or answer.get("stdout") != text:
        raise MeasurementError(f"code: exit code {answer.get('exit_code')!r}, stdout {answer.get('stdout')!r}")


def deleted(response: Response) -> None:
    """Accept that the sandbox is dead."""
    _expected(response, 204, "delete")


def _expected(response: Response, status: int, what: str) -> dict[str, Any]:
    if response.status != status:
        raise MeasurementError(f"{what}: status {response.status}: {response.body[:200].decode(errors='replace')}")
    if not response.body:
        return {}
    answer = response.json()
    if not isinstance(answer, dict):
        raise MeasurementError(f"{what}: not an object")
    return answer

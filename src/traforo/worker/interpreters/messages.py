"""What an interpreter says, once it is checked: facts about runs, as JSON that a caller may see.

Pure. Everything comes from inside a sandbox: numbers have ranges, texts have lengths, and what does not fit is None,
which whoever asked takes for silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from traforo.worker.interpreters import marks

MAX_FORMS = 64
"""Forms of one result."""
MAX_NAME = 255
"""Characters of a MIME type or of the name of an error."""
MAX_VALUE = 64 * 1024
"""Characters of one text of an error."""
MAX_LINES = 1000
"""Lines of a traceback."""
MAX_RESULTS = 1002
"""Results of one run."""
MAX_JSON_BYTES = 1024 * 1024
"""Size of JSON that is shown as such; larger stays text."""
MAX_RESULT_BYTES = 16 * 1024 * 1024
"""Size of a result as JSON, which may spell a byte with six: `execs.MAX_RESULT_BYTES`. Of a larger one nothing is shown
but that."""
_TOO_LARGE = "<too large to be shown>"
_RUN = re.compile(rb"[0-9A-HJKMNP-TV-Z]{26}")
_DONE = re.compile(rb"([0-9A-HJKMNP-TV-Z]{26}) ([0-9]{1,3}) ([0-9]{1,9}) ([0-9]{1,9})")
_UNKNOWN = re.compile(rb"([0-9]{1,9}) ([01])")
_MIME = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; ?[a-z0-9_.+=\"-]+)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hello:
    """It is ready for code."""

    version: str


@dataclass(frozen=True, slots=True)
class Result:
    """A value, or an error, of a run: what a frame of type `result` carries."""

    run: str
    """ULID of the exec."""
    number: int
    """From 0 up, without gaps, within the run."""
    data: bytes
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Done:
    """A run is over."""

    run: str
    """ULID of the exec."""
    exit_code: int
    results: int
    """How many it has."""
    runs: int
    """How many runs there were, with this one."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Asked for a run again, it knows only of another, or of none."""

    runs: int
    """How many runs there were."""
    claimed: bool
    """Whether somebody uses it."""


Answer = Hello | Result | Done | Unknown
_encoder = msgspec.json.Encoder()


def read(message: marks.Message, due: tuple[str, int] | None = None) -> Answer | None:
    """Return what a message says; None if it says nothing.

    With `due`, the ULID and the number of the result that comes next, every other result is none, and costs nothing.
    """
    match message.kind:
        case "H":
            return Hello(message.payload[:MAX_NAME].decode("utf-8", "replace"))
        case "D":
            done = _DONE.fullmatch(message.payload)
            return Done(done[1].decode(), int(done[2]) & 0xFF, int(done[3]), int(done[4])) if done else None
        case "S":
            unknown = _UNKNOWN.fullmatch(message.payload)
            return Unknown(int(unknown[1]), unknown[2] == b"1") if unknown else None
        case "R" | "E":
            return _result(message, due)
    return None


def _result(message: marks.Message, due: tuple[str, int] | None) -> Result | None:
    fields = marks.split(message.payload)
    if fields is None or len(fields) < 3:
        return None
    number = _number(fields[1])
    if not _RUN.fullmatch(fields[0]) or number is None or number >= MAX_RESULTS:
        return None
    if due is not None and due != (fields[0].decode(), number):
        return None
    told = _error(fields[2:]) if message.kind == "E" else _forms(fields[2:])
    if told is None:
        return None
    data = _encoder.encode(told)
    if len(data) > MAX_RESULT_BYTES:
        data = _encoder.encode(_instead(told))
    return Result(fields[0].decode(), number, data)


def _instead(told: Mapping[str, Any]) -> Mapping[str, Any]:
    if "error" in told:
        return {"error": {"name": told["error"]["name"], "value": _TOO_LARGE, "traceback": []}}
    return {"text/plain": _TOO_LARGE, "is_main": told["is_main"]}


def _forms(fields: Sequence[bytes]) -> Mapping[str, Any] | None:
    if len(fields) % 2 == 0 or not 3 <= len(fields) <= 2 * MAX_FORMS + 1:
        return None
    found: dict[str, Any] = {}
    for name, data in zip(fields[1::2], fields[2::2], strict=True):
        mime = name[:MAX_NAME].decode("utf-8", "replace")
        if not _MIME.fullmatch(mime):
            return None
        found[mime] = _json(data) if mime.partition(";")[0].endswith(("/json", "+json")) else _text(data)
    found["is_main"] = fields[0] == b"1"
    return found


def _error(fields: Sequence[bytes]) -> Mapping[str, Any] | None:
    if len(fields) < 2:
        return None
    name, value, *lines = (_text(field[: MAX_VALUE * 4])[:MAX_VALUE] for field in fields[: MAX_LINES + 2])
    return {"error": {"name": name[:MAX_NAME], "value": value, "traceback": lines}}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _json(data: bytes) -> Any:
    if len(data) <= MAX_JSON_BYTES:
        try:
            return msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            pass
    return _text(data)


def _number(data: bytes) -> int | None:
    return int(data) if data.isdigit() and len(data) <= 9 else None

"""Spans of time as people write them: `90`, `90s`, `30m`, `1h30m`, `1d`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"\d+(?:\.\d+)?"
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)


class Time(float):
    """A span of time in seconds; the name is what helps show as the kind of a value."""


def seconds(text: str) -> Time:
    """Return a span of time; a number alone is seconds. Raises ValueError."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return Time(text)
    found = _PARTS.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"cannot read {text!r} as a time: write seconds, or 90s, 30m, 1h30m, 1d")
    return Time(sum(float(amount) * _UNITS[unit] for unit, amount in found.groupdict().items() if amount is not None))


def _convert(_: object, tokens: Sequence[Any]) -> Time:
    return seconds(tokens[0].value)


Option = Annotated[Time | None, Parameter(converter=_convert, n_tokens=1, accepts_keys=False)]
"""An option for a span of time."""

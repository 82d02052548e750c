"""Durations and sizes as people write them: `30m`, `1h30m`, `120s`, `256MiB`; and plain numbers.

Pure functions and the two annotated types that settings use. A bare number is seconds, or bytes.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.ASCII | re.IGNORECASE)
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def seconds(value: object) -> float:
    """Read a duration and return seconds. Raises ValueError for anything that is not one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        if _DURATION.fullmatch(text):
            return math.fsum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    raise ValueError("a duration is a number of seconds or text such as '30m', '1h30m', '120s', '500ms'")


def size(value: object) -> int:
    """Read a size and return bytes. Raises ValueError for anything that is not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _BYTES[(match[2] or "B").lower()]
    raise ValueError("a size is a number of bytes or text such as '256MiB', '10MB', '64KiB'")


Seconds = Annotated[float, BeforeValidator(seconds), WithJsonSchema({"type": "string", "title": "duration"})]
"""A duration in seconds, also read from `30m`, `1h30m`, `120s`, `500ms`."""
Bytes = Annotated[int, BeforeValidator(size), WithJsonSchema({"type": "string", "title": "size"})]
"""A size in bytes, also read from `256MiB`, `10MB`."""

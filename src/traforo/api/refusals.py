"""From what pydantic finds wrong with a request to a sentence of ours: the only place that knows its kinds of errors.

Nothing of a value that was sent is repeated: it may be large, or a secret. Names of fields are, and cut off where they
are long.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from traforo.domain import errors

MAX_FIELD = 256
"""Most characters of a caller's text that are repeated in an error."""
_MAX_COMPARED = 64
"""Longest name for which a similar one is looked for."""

SENTENCES: Mapping[str, str] = {
    "missing": "it is required",
    "extra_forbidden": "there is no such field",
    "model_type": "it is not an object",
    "dict_type": "it is not an object",
    "list_type": "it is not a list",
    "too_long": "it has more than {max_length} entries",
    "string_type": "it is not text",
    "string_too_short": "it is empty",
    "string_too_long": "it has more than {max_length} characters",
    "string_pattern_mismatch": "it does not match {pattern!r}",
    "bool_type": "it is neither true nor false",
    "bool_parsing": "it is neither true nor false",
    "int_type": "it is not a whole number",
    "int_parsing": "it is not a whole number",
    "int_parsing_size": "it is not a whole number of a size that can be used",
    "int_from_float": "it is not a whole number",
    "float_type": "it is not a number",
    "float_parsing": "it is not a number",
    "finite_number": "it is not a finite number",
    "greater_than": "it is not more than {gt}",
    "greater_than_equal": "it is less than {ge}",
    "less_than_equal": "it is more than {le}",
    "enum": "it is not {expected}",
    "literal_error": "it is not {expected}",
    "value_error": "{error}",
}
"""What is wrong with a value, by the kind of the error. A validator of ours says it in its own words."""
_OTHERWISE = "it is not what belongs there"


def invalid(error: ValidationError, part: str, model: type[BaseModel]) -> errors.InvalidRequest:
    """Return the first thing that is wrong with a `part` of a request (`body`, `query`), of which a model was to be
    made.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    kind, place = first["type"], first["loc"]
    facts = {name: _shown(value) for name, value in first.get("ctx", {}).items()}
    if kind == "json_invalid":
        return errors.InvalidRequest(f"cannot read the {part}: it is not JSON", hint=_lowered(str(facts["error"])))
    reason = SENTENCES.get(kind, _OTHERWISE).format(**facts)[:MAX_FIELD]
    if not place:
        return errors.InvalidRequest(f"cannot read the {part}: {reason}")
    field = ".".join(str(step) for step in place)[:MAX_FIELD]
    hint = _similar(str(place[0]), model) if kind == "extra_forbidden" and len(place) == 1 else None
    return errors.InvalidRequest(f"cannot read {field!r} in the {part}: {reason}", hint=hint, field=field)


def _shown(value: Any) -> Any:
    """Write a limit of a number as a whole one where it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lowered(text: str) -> str:
    """Begin a sentence in lower case, unless it begins with an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _similar(name: str, model: type[BaseModel]) -> str | None:
    """Return a hint at the field that was meant, if one looks like it."""
    found = difflib.get_close_matches(name, model.model_fields, n=1) if len(name) <= _MAX_COMPARED else []
    return f"did you mean {found[0]!r}?" if found else None

"""How large a body each route takes, as a small table. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT = 1024 * 1024
"""Bytes, where no rule matches."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit of one route."""

    method: str
    path: re.Pattern[str]
    limit: int | None
    """Bytes; None where the body is streamed, and whoever reads it sets the limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of all routes: the first rule that matches wins."""

    default: int = DEFAULT
    rules: Sequence[Rule] = ()

    def of(self, method: str, path: str) -> int | None:
        """Return the most bytes of a body, None for any number."""
        for rule in self.rules:
            if rule.method == method and rule.path.fullmatch(path):
                return rule.limit
        return self.default


def worker(*, default: int = DEFAULT, code: int = 2 * DEFAULT) -> Limits:
    """Return the limits of a worker. Files and stdin are streamed; the route itself limits files in JSON."""
    sandbox = r"/sandboxes/[^/]+"
    return Limits(
        default,
        (
            Rule("PUT", re.compile(sandbox + "/files(/tar)?"), None),
            Rule("POST", re.compile(sandbox + "/exec/code"), code),
            Rule("POST", re.compile(sandbox + "/contexts/[^/]+/run"), code),
            Rule("POST", re.compile(sandbox + "/exec/[^/]+/stdin"), None),
        ),
    )

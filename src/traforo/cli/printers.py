"""How commands speak: JSON and tables on stdout, errors and hints on stderr. Nothing is told by colour alone.

Whatever comes from a server may have been chosen by somebody hostile, so no control character reaches a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any


class UsageError(Exception):
    """The command line contradicts itself in a way that the parser cannot see."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UnknownOption(UsageError):
    """A word that looks like an option stands where a name is expected."""

    def __init__(self, option: str) -> None:
        super().__init__(f"unknown option {option}")
        self.option = option


def shown(value: object) -> str:
    """Return text that is safe on a terminal: what does not print appears as an escape."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def error(message: str, hint: str | None = None) -> None:
    """Print an error, one line, and a hint below."""
    print(f"error: {shown(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {shown(hint)}", file=sys.stderr)


def note(message: str) -> None:
    """Print something for people beside the data."""
    print(shown(message), file=sys.stderr)


def document(value: Any) -> None:
    """Print JSON."""
    json.dump(value, sys.stdout, indent=2)
    print()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below a header, never cut: a line that is too long for the terminal wraps there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column.upper(), no_wrap=True, overflow="ignore")
    for row in rows:
        grid.add_row(*(Text("-" if cell is None or cell == "" else shown(cell)) for cell in row))
    longest = sum(max([len(column), *(len(shown(row[n])) for row in rows)]) + 2 for n, column in enumerate(columns))
    console = Console(width=max(80, longest), soft_wrap=True, highlight=False)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip())


def pairs(facts: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        text = ("no", "yes")[value] if isinstance(value, bool) else value
        print(f"{name:<{width}}  {'-' if text is None or text == '' else shown(text)}")


def distance(moment: datetime, now: datetime) -> str:
    """Return how far a time is from now, in one unit: `in 12 min`, `3 h ago`."""
    seconds = (moment - now).total_seconds()
    amount = span(float(round(abs(seconds))))
    return f"in {amount}" if seconds >= 0 else f"{amount} ago"


def span(seconds: float) -> str:
    """Return how long something takes, in one unit: `15 ms`, `2.5 s`, `12 min`, `3 h`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"

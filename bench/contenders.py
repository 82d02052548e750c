"""What takes part in a measurement, and how it says that it cannot.

A contender is asked for one operation at a time, so that a round can take turns between all of them. What it returns
are readings in milliseconds by name; what it could not do it raises, and a failure is counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

OPERATIONS = ("create", "tti", "run", "exec", "python", "delete")
"""The readings that are compared, in the order of every table. Any other reading is detail for the JSON."""


STEP_OF = {"run": "tti", "delete": "create"}
"""Readings that come out of another one's step, and fail with it."""


class UnavailableError(Exception):
    """A contender that is not on this machine or does not work here."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class MeasurementError(Exception):
    """One operation did not do what it should have; the time it took means nothing."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a report says about a contender, present or absent."""

    name: str
    version: str = ""
    note: str = ""
    absent: str = ""
    """Why it takes no part; empty when it does."""
    hint: str = ""
    """How to make it take part."""


class Contender(Protocol):
    """One engine, ready to be measured."""

    @property
    def description(self) -> Description:
        """Name, version and anything a reader has to know to judge the figures."""
        ...

    @property
    def steps(self) -> tuple[str, ...]:
        """What `measure` can be asked for."""
        ...

    def measure(self, step: str) -> Mapping[str, float]:
        """Do `step` once and return readings in milliseconds; clean up outside of the time taken."""
        ...

    def close(self) -> None:
        """End what this contender started. Called once, also after failures."""
        ...

"""Takes turns, so that whatever disturbs the machine disturbs everybody alike.

Each round gives every contender each of its steps once, in an order of its own: the caches and the work that one leaves
behind would otherwise always be met by the same next one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.contenders import Contender, MeasurementError

_SEED = 20
_MOST_MESSAGES = 5
"""Failure messages kept for each contender and step; all of them are counted."""


@dataclass(slots=True)
class Readings:
    """Everything that came out of the rounds, in milliseconds, by contender and reading."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)

    def add(self, contender: str, reading: str, ms: float) -> None:
        """Keep one reading."""
        self.values.setdefault(contender, {}).setdefault(reading, []).append(ms)

    def fail(self, contender: str, step: str, message: str) -> None:
        """Count one failure."""
        counts = self.failures.setdefault(contender, {})
        counts[step] = counts.get(step, 0) + 1
        messages = self.messages.setdefault(contender, [])
        if len(messages) < _MOST_MESSAGES:
            messages.append(f"{step}: {message}")


def take(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    warmups: int,
    pause_seconds: float,
    progress: Callable[[int, int], None],
) -> Readings:
    """Measure `rounds` rounds after `warmups` that are thrown away, with a pause before each measurement."""
    readings = Readings()
    turns = [(contender, step) for contender in contenders for step in contender.steps]
    chance = random.Random(_SEED)
    for number in range(-warmups, rounds):
        chance.shuffle(turns)
        for contender, step in turns:
            # Lets the kernel finish what the last one left: namespaces are taken down behind the caller's back.
            time.sleep(pause_seconds)
            _measure(contender, step, readings if number >= 0 else Readings())
        progress(max(number + 1, 0), rounds)
    return readings


def _measure(contender: Contender, step: str, readings: Readings) -> None:
    name = contender.description.name
    try:
        measured = contender.measure(step)
    except MeasurementError as error:
        readings.fail(name, step, str(error))
        return
    for reading, ms in measured.items():
        readings.add(name, reading, ms)

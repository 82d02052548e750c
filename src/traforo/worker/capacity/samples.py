"""What a sandbox used at one moment, and over the last hour: values, and a ring of fixed size.

Pure. A sample in the ring takes eighty bytes, so that many sandboxes can be watched at once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_SAMPLES = 360
"""Samples that are kept of one sandbox."""
_SETTLED_SECONDS = 1.0  # less time than this says little about the use of processors


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sandbox used at one moment. None is what this host cannot tell."""

    at: float
    """Unix seconds."""
    cpu_seconds: float | None
    cpu_percent: float | None
    """Of one processor."""
    memory_bytes: int | None
    memory_peak_bytes: int | None
    disk_bytes: int | None
    disk_limit_bytes: int | None
    pids: int | None
    network_received_bytes: int | None
    network_sent_bytes: int | None


_WIDTH = 10


@dataclass(slots=True)
class History:
    """The samples of one sandbox, and what the use of processors is measured against."""

    rows: array[float] = field(default_factory=lambda: array("d"))
    base_at: float | None = None
    """Monotonic seconds of an earlier measurement."""
    base_cpu: float = 0.0
    percent: float | None = None

    def add(self, sample: Sample) -> None:
        """Keep a sample, and forget the oldest if there are too many."""
        self.rows.extend(_row(sample))
        if len(self.rows) > MAX_SAMPLES * _WIDTH:
            del self.rows[:_WIDTH]

    def since(self, at: float) -> Iterator[Sample]:
        """Yield the samples after `at` (Unix seconds), oldest first."""
        for start in range(0, len(self.rows), _WIDTH):
            if self.rows[start] > at:
                yield _sample(self.rows[start : start + _WIDTH])

    def use(self, cpu_seconds: float | None, now: float, age: float) -> float | None:
        """Return the percentage of one processor used since the measurement before, or in `age` seconds of life.

        `now` is monotonic. Where hardly any time has passed it is what it was.
        """
        if cpu_seconds is None:
            return None
        before, passed = (0.0, age) if self.base_at is None else (self.base_cpu, now - self.base_at)
        if passed >= _SETTLED_SECONDS or self.percent is None:
            self.percent = round(100 * max(0.0, cpu_seconds - before) / passed, 2) if passed > 0 else 0.0
            self.base_at, self.base_cpu = now, cpu_seconds
        return self.percent


def _row(sample: Sample) -> list[float]:
    values = (
        sample.at,
        sample.cpu_seconds,
        sample.cpu_percent,
        sample.memory_bytes,
        sample.memory_peak_bytes,
        sample.disk_bytes,
        sample.disk_limit_bytes,
        sample.pids,
        sample.network_received_bytes,
        sample.network_sent_bytes,
    )
    return [math.nan if value is None else float(value) for value in values]


def _sample(row: array[float]) -> Sample:
    at, cpu, percent, *counts = row
    numbers = [None if math.isnan(count) else int(count) for count in counts]
    return Sample(at, _known(cpu), _known(percent), *numbers)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

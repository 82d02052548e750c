"""What a list of readings says: percentiles, counts, and ratios to the floor with how sure they are.

Pure functions. Percentiles interpolate linearly between neighbours; with fewer than a hundred readings a p99 is close
to the largest one, and tables print the number of readings beside it for that reason.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.contenders import STEP_OF

_RESAMPLES = 500
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender at one operation. Times in milliseconds."""

    contender: str
    operation: str
    count: int
    """Readings, without the failures."""
    failures: int
    median: float
    p95: float
    p99: float
    minimum: float
    ratio: float | None
    """Median over the floor's median of the same run; None where the floor does not do the operation."""
    ratio_low: float | None
    """Lower end of the 95 % interval of the ratio."""
    ratio_high: float | None
    """Upper end of the 95 % interval of the ratio."""


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the value at `fraction` (0 to 1) of an ascending, non-empty sequence."""
    position = (len(ordered) - 1) * fraction
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarise(
    contender: str, operation: str, readings: Sequence[float], *, failures: int = 0, floor: Sequence[float] = ()
) -> Summary:
    """Summarise one non-empty list of readings, against the floor's readings of the same operation."""
    ordered = sorted(readings)
    low, high = ratio_interval(readings, floor) if floor else (None, None)
    return Summary(
        contender=contender,
        operation=operation,
        count=len(ordered),
        failures=failures,
        median=percentile(ordered, 0.5),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        minimum=ordered[0],
        ratio=statistics.median(readings) / statistics.median(floor) if floor else None,
        ratio_low=low,
        ratio_high=high,
    )


def ratio_interval(readings: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of median over median: two builds differ when it leaves 1 out."""
    source = random.Random(0)  # the same readings always give the same interval

    def resampled(values: Sequence[float]) -> float:
        return statistics.median(source.choices(values, k=len(values)))

    ratios = sorted(resampled(readings) / resampled(base) for _ in range(_RESAMPLES))
    tail = (1 - _CONFIDENCE) / 2
    return percentile(ratios, tail), percentile(ratios, 1 - tail)


def summarise_all(
    readings: Mapping[str, Mapping[str, Sequence[float]]], failures: Mapping[str, Mapping[str, int]], *, floor: str
) -> list[Summary]:
    """Summarise readings by contender and operation; an operation without any reading gives no summary."""
    base = readings.get(floor, {})
    return [
        summarise(
            contender,
            operation,
            values,
            failures=failures.get(contender, {}).get(STEP_OF.get(operation, operation), 0),
            floor=base.get(operation, ()),
        )
        for contender, operations in readings.items()
        for operation, values in operations.items()
        if values
    ]

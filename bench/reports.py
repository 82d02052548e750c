"""What a run hands to people: a JSON file with every reading, and tables on a terminal.

Data goes to stdout, all else to stderr. The JSON names no path and no host, so that it can be published as it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.contenders import OPERATIONS
from bench.runs import Results
from bench.stats import Summary, ratio_interval

_SCHEMA = 1
_TITLES = {
    "create": "create: until the sandbox can be used",
    "tti": "tti: from the call of create to exit 0 of its first command",
    "run": "run: the same until the sandbox is gone",
    "exec": "exec: `true` in a living sandbox",
    "python": "python: from the call of create to the output of its first Python code",
    "delete": "delete: until the sandbox is dead",
}


def write_json(results: Results, path: Path) -> None:
    """Write everything that was seen."""
    options = dataclasses.asdict(results.options)
    # Where the builds lie is a matter of this machine.
    options |= {"without": sorted(results.options.without), "command": None, "against": bool(results.options.against)}
    document: dict[str, Any] = {
        "schema": _SCHEMA,
        "started_at": results.started_at,
        "machine": results.machine,
        "options": options,
        "contenders": [dataclasses.asdict(contender) for contender in results.contenders],
        "summaries": [dataclasses.asdict(summary) for summary in results.summaries()],
        "bursts": [dataclasses.asdict(burst) for burst in results.bursts],
        "sustained": [dataclasses.asdict(level) for level in results.sustained],
        "memory": dataclasses.asdict(results.memory) if results.memory else None,
        "failures": results.readings.failures,
        "messages": results.readings.messages,
        "readings_ms": _rounded(results.readings.values),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line for each key: readable, and a reading does not take a line of its own.
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    path.write_text(f"{{\n{lines}\n}}\n")


def print_tables(results: Results, console: Console) -> None:
    """Print the machine, one table an operation, the loads, and who was absent."""
    machine = results.machine
    console.print(
        f"{results.started_at}, {machine['processors']} processors, kernel {machine['kernel']},"
        f" cgroup {machine['cgroup']}, load {machine['load_1_min']} at the start;"
        " HTTP on loopback, client on the same processors",
        style="dim",
    )
    compared = results.compared()
    for operation in OPERATIONS:
        summaries = sorted((s for s in compared if s.operation == operation), key=lambda s: s.median)
        if summaries:
            console.print(_operation_table(operation, summaries))
    for table in (*_detail_tables(results), *_load_tables(results)):
        console.print(table)
    _print_difference(results, console)
    _print_rest(results, console)


def _operation_table(operation: str, summaries: Sequence[Summary]) -> Table:
    table = Table(title=_TITLES[operation], title_justify="left")
    table.add_column("contender")
    for column in ("median ms", "p95", "p99", "n", "failed", "x floor", "95 % interval"):
        table.add_column(column, justify="right")
    for summary in summaries:
        times = (f"{ms:.2f}" for ms in (summary.median, summary.p95, summary.p99))
        counts = (str(summary.count), str(summary.failures))
        table.add_row(summary.contender, *times, *counts, *_ratio_cells(summary))
    return table


def _ratio_cells(summary: Summary) -> tuple[str, str]:
    if summary.ratio is None or summary.ratio_low is None or summary.ratio_high is None:
        return "", ""
    return f"{summary.ratio:.1f}", f"{summary.ratio_low:.1f} - {summary.ratio_high:.1f}"


def _detail_tables(results: Results) -> Iterable[Table]:
    details = [summary for summary in results.summaries() if summary.operation not in OPERATIONS]
    if not details:
        return
    table = Table(title="parts of the above, as the server and the client saw them", title_justify="left")
    for column in ("contender", "part", "median ms", "p95", "p99"):
        table.add_column(column, justify="right" if column[0] in "mp" and column != "part" else "left")
    for summary in details:
        times = (f"{ms:.2f}" for ms in (summary.median, summary.p95, summary.p99))
        table.add_row(summary.contender, summary.operation, *times)
    yield table


def _load_tables(results: Results) -> Iterable[Table]:
    if results.bursts:
        table = Table(title="burst: creates sent at once", title_justify="left")
        for column in ("through", "asked", "created", "last ready ms", "median ms"):
            table.add_column(column, justify="left" if column == "through" else "right")
        for burst in results.bursts:
            door = "control plane" if burst.through_control else "worker"
            counts = (str(burst.asked), str(burst.created))
            table.add_row(door, *counts, f"{burst.last_ready_ms:.0f}", f"{burst.median_ms:.0f}")
        yield table
    if results.sustained:
        table = Table(title="sustained create + delete, client included", title_justify="left")
        for column in ("concurrency", "per second", "create median ms", "create p99 ms", "pairs", "failed"):
            table.add_column(column, justify="right")
        for level in results.sustained:
            times = (f"{level.per_second:.0f}", f"{level.create_median_ms:.2f}", f"{level.create_p99_ms:.2f}")
            table.add_row(str(level.concurrency), *times, str(level.pairs), str(level.failures))
        yield table
    if results.memory:
        table = Table(title="idle sandboxes: KiB for each", title_justify="left")
        for column in ("asked", "live", "MemAvailable", "server PSS", "init PSS", "started in s"):
            table.add_column(column, justify="right")
        memory = results.memory
        sizes = (f"{size:.0f}" for size in (memory.available_kib, memory.server_kib, memory.inits_kib))
        table.add_row(str(memory.asked), str(memory.live), *sizes, f"{memory.start_seconds:.1f}")
        yield table


def _print_rest(results: Results, console: Console) -> None:
    for contender in results.contenders:
        if contender.absent:
            hint = f" (hint: {contender.hint})" if contender.hint else ""
            console.print(f"absent: {contender.name}: {contender.absent}{hint}", markup=False)
        else:
            about = " ".join(filter(None, (contender.name, contender.version)))
            console.print(f"{about}: {contender.note}" if contender.note else about, style="dim", markup=False)
    for name, steps in results.readings.failures.items():
        for step, count in steps.items():
            console.print(f"failed: {name}: {step}: {count} times", markup=False)
        for message in results.readings.messages[name]:
            console.print(f"  {message}", markup=False)
    loads = [burst.message for burst in results.bursts] + [level.message for level in results.sustained]
    for message in dict.fromkeys(filter(None, loads)):
        console.print(f"failed: load: {message}", markup=False)
    if results.memory and results.memory.message:
        console.print(f"failed: memory: {results.memory.message}", markup=False)


def _print_difference(results: Results, console: Console) -> None:
    """Say of two builds whether they differ by more than noise."""
    first, second = (results.readings.values.get(name, {}) for name in ("traforo", "traforo B"))
    for operation in OPERATIONS:
        if operation in first and operation in second:
            low, high = ratio_interval(second[operation], first[operation])
            verdict = "no difference beyond noise" if low <= 1 <= high else "slower" if low > 1 else "quicker"
            console.print(f"B over A, {operation}: {low:.2f} - {high:.2f}: {verdict}")


def _rounded(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Cut to microseconds: more digits than the clock has are noise in a file."""
    return {
        contender: {reading: [round(ms, 3) for ms in series] for reading, series in readings.items()}
        for contender, readings in values.items()
    }

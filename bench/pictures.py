"""Draws a run as one PNG: a panel an operation, contenders from quick to slow on one logarithmic axis.

Each row shows the median as a dot with its value, a bar to the p95 and a tick at the p99, so that a good median with a
bad tail looks like what it is. Distances on the axis are ratios, which is what the benchmark is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contenders import OPERATIONS
from bench.loads import Sustained
from bench.runs import Results
from bench.stats import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {
    "create": "create: until it can be used",
    "tti": "time to first command done (create → exit 0)",
    "run": "create → exit 0 → gone",
    "exec": "`true` in a living sandbox",
    "python": "create → first line of output of Python code",
}
_OURS, _FLOOR, _OTHERS = "#0b6e4f", "#6b7280", "#b45309"
_ROW_INCHES = 0.36
_FRAME_INCHES = 1.1


def draw(results: Results, path: Path) -> None:
    """Draw to `path`. Raises ImportError where matplotlib is not installed."""
    import matplotlib as mpl  # noqa: PLC0415 - an optional dependency, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - as above

    compared = results.compared()
    panels = {
        operation: sorted((s for s in compared if s.operation == operation), key=lambda s: -s.median)
        for operation in OPERATIONS
        if operation in _TITLES and any(s.operation == operation for s in compared)
    }
    if not panels:
        return
    rows = [len(summaries) for summaries in panels.values()] + ([len(results.sustained)] if results.sustained else [])
    heights = [count * _ROW_INCHES + _FRAME_INCHES for count in rows]
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(10, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    # One scale for all panels: a distance means the same ratio everywhere.
    drawn = [summary for summaries in panels.values() for summary in summaries]
    limits = (min(s.median for s in drawn) / 1.4, max(s.p99 for s in drawn) * 3)
    for axis, (operation, summaries) in zip(axes[:, 0], panels.items(), strict=False):
        _panel(axis, _TITLES[operation], summaries, limits)
    if results.sustained:
        _throughput(axes[-1, 0], results.sustained)
    machine = results.machine
    figure.suptitle(
        f"Milliseconds, log scale, lower is better. {results.started_at[:10]}, {machine['processors']} processors,"
        f" kernel {str(machine['kernel']).split('-')[0]}, cgroup {machine['cgroup']}\n"
        "dot: median   bar: to p95   tick: p99   (x n): median over the floor's   traforo: over HTTP on loopback",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axis: Axes, title: str, summaries: Sequence[Summary], limits: tuple[float, float]) -> None:
    for row, summary in enumerate(summaries):
        colour = _colour(summary.contender)
        axis.plot(
            [summary.median, summary.p95], [row, row], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt"
        )
        axis.plot([summary.p99], [row], marker="|", color=colour, markersize=11, markeredgewidth=1.6)
        axis.plot([summary.median], [row], marker="o", color=colour, markersize=7)
        ratio = f"  (x {summary.ratio:.1f})" if summary.ratio is not None and summary.contender != "floor" else ""
        failed = f"  {summary.failures} failed" if summary.failures else ""
        right = max(summary.p99, summary.median)
        axis.annotate(
            f"{summary.median:.2f}{ratio}{failed}",
            (right, row),
            textcoords="offset points",
            xytext=(10, 0),
            va="center",
            fontsize=9,
            color=colour,
        )
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.set_yticks(range(len(summaries)), [summary.contender for summary in summaries])
    axis.set_ylim(-0.6, len(summaries) - 0.4)
    axis.set_xscale("log")
    axis.set_xlim(*limits)
    _plain_ticks(axis)
    _bare(axis)


def _throughput(axis: Axes, levels: Sequence[Sustained]) -> None:
    for row, level in enumerate(reversed(levels)):
        axis.barh(row, level.per_second, height=0.5, color=_OURS, alpha=0.8)
        failed = f"  {level.failures} failed" if level.failures else ""
        text = f"{level.per_second:.0f}/s  (create p99 {level.create_p99_ms:.1f} ms){failed}"
        axis.annotate(text, (level.per_second, row), textcoords="offset points", xytext=(8, 0), va="center", fontsize=9)
    axis.set_title("traforo: create + delete sustained, client included", loc="left", fontsize=11, fontweight="bold")
    axis.set_yticks(range(len(levels)), [f"{level.concurrency} at a time" for level in reversed(levels)])
    axis.set_xlim(0, max(level.per_second for level in levels) * 1.4 or 1)
    _bare(axis)


def _plain_ticks(axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - as in draw

    axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _bare(axis: Axes) -> None:
    axis.grid(axis="x", which="major", color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _colour(contender: str) -> str:
    if contender.startswith("traforo"):
        return _OURS
    return _FLOOR if contender.startswith("floor") else _OTHERS

"""`python -m bench`: the benchmark as a command. `traforo bench` calls `main` with its own arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from bench import pictures, reports
from bench.contenders import UnavailableError
from bench.runs import Options, run, words_of

_DEFAULTS = {field.name: field.default for field in fields(Options)}
_RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables to stdout, and write JSON and PNG; return the exit status."""
    arguments = _parser().parse_args(argv)
    options = Options(
        rounds=arguments.rounds,
        warmups=arguments.warmups,
        without=frozenset(arguments.without),
        burst=arguments.burst,
        sustained_seconds=arguments.sustained_seconds,
        live=arguments.live,
        command=words_of(arguments.traforo),
        against=words_of(arguments.against),
    )
    try:
        results = run(options)
    except UnavailableError as error:
        print(f"cannot measure: {error.reason}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    name = results.started_at.replace(":", "").replace("+0000", "Z")
    target: Path = arguments.output or _RESULTS / f"{name}.json"
    reports.write_json(results, target)
    console = Console(highlight=False)
    # A pipe has no width; a table cut to 80 columns would lose its numbers.
    reports.print_tables(results, console if console.is_terminal else Console(highlight=False, width=120))
    print(f"readings: {target}", file=sys.stderr)
    try:
        pictures.draw(results, target.with_suffix(".png"))
        print(f"picture: {target.with_suffix('.png')}", file=sys.stderr)
    except ImportError:
        print("no picture: matplotlib is not installed (hint: pip install 'traforo[bench]')", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=main.__doc__)

    def add(flag: str, default: object, text: str, **more: object) -> None:
        parser.add_argument(flag, default=default, help=f"{text} (default: {default or 'none'})", **more)  # type: ignore[arg-type]

    add("--rounds", _DEFAULTS["rounds"], "readings of each contender and operation", type=int)
    add("--warmups", _DEFAULTS["warmups"], "rounds thrown away before", type=int)
    add("--burst", _DEFAULTS["burst"], "creates at once, 0 for no burst", type=int)
    add("--sustained-seconds", _DEFAULTS["sustained_seconds"], "of each load level, 0 for none", type=float)
    add("--live", _DEFAULTS["live"], "idle sandboxes for the account of memory, 0 for none", type=int)
    add("--without", [], "leave out an engine, or `peers`, `traforo`, `loads`; may be repeated", action="append")
    add("--traforo", "", "command of the build to measure")
    add("--against", "", "command of a second build, measured in turns with the first")
    add("--output", None, "JSON file; the picture lands beside it", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())

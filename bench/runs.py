"""One run from beginning to end: set the stage, take turns, load, account, and hand back everything that was seen.

What cannot take part is named with its reason and the rest goes on: a machine without podman, or a checkout whose
server does not build yet, still gives a picture of what it has.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import floors, loads, machines, memories, peers, rootfs, rounds, scratches, servers, stats
from bench.contenders import OPERATIONS, Contender, Description, UnavailableError
from bench.traforo import Traforo

FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure and how long. The defaults take about three minutes on two processors."""

    rounds: int = 100
    """Readings of each contender and operation."""
    warmups: int = 3
    """Rounds before those, thrown away: caches fill, connections open, programs are read from disk."""
    pause_ms: float = 5.0
    """Pause before each measurement, so that the kernel ends what the last one left behind."""
    without: frozenset[str] = frozenset()
    """Names of engines to leave out, or `peers`, `traforo`, `loads`."""
    burst: int = 100
    """Creates at once; 0 for none."""
    burst_repeats: int = 3
    """Bursts through each door."""
    sustained_seconds: float = 3.0
    """Duration of each level of create and delete; 0 for none."""
    levels: tuple[int, ...] = (1, 2, 4, 8)
    """Concurrencies of that."""
    live: int = 200
    """Idle sandboxes for the account of memory; 0 for none."""
    command: tuple[str, ...] = ()
    """The `traforo` to measure, as words; empty for the one of this environment."""
    against: tuple[str, ...] = ()
    """Another `traforo`, measured in turns with the first: A B A B."""


@dataclass(slots=True)
class Results:
    """All that one run saw. Times in milliseconds."""

    started_at: str
    options: Options
    machine: dict[str, str | int | float]
    contenders: list[Description] = field(default_factory=list)
    readings: rounds.Readings = field(default_factory=rounds.Readings)
    bursts: Sequence[loads.Burst] = ()
    sustained: Sequence[loads.Sustained] = ()
    memory: memories.Memory | None = None

    def summaries(self) -> list[stats.Summary]:
        """Summarise every reading against the floor of this run."""
        return stats.summarise_all(self.readings.values, self.readings.failures, floor=FLOOR)

    def compared(self) -> list[stats.Summary]:
        """Summarise only what is compared between contenders."""
        return [summary for summary in self.summaries() if summary.operation in OPERATIONS]


def run(options: Options) -> Results:
    """Measure. Progress goes to stderr; nothing is written and nothing is left on the machine."""
    results = Results(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"), options=options, machine=machines.described()
    )
    with scratches.opened() as scratch, contextlib.ExitStack() as stack:
        root = rootfs.build(scratch.disk / "rootfs")
        stage = _Stage(results, stack)
        stage.add(FLOOR, lambda: floors.Floor(root, user_namespace=False))
        stage.add("floor + user ns", lambda: floors.Floor(root, user_namespace=True))
        server = None
        if "traforo" not in options.without:
            server = _add_traforo(stage, options, scratch, root)
        for engine in () if "peers" in options.without else peers.ENGINES:
            if engine.name not in options.without:
                stage.add(engine.name, functools.partial(_peer, engine, root, scratch))
        results.readings = rounds.take(
            stage.present,
            rounds=options.rounds,
            warmups=options.warmups,
            pause_seconds=options.pause_ms / 1000,
            progress=_progress,
        )
        if server is not None and "loads" not in options.without:
            _load(results, server, f"dir:{root}")
    if server is not None and options.live and "loads" not in options.without:
        results.memory = _memory(options)
    return results


class _Stage:
    """Those that take part, closed in reverse order at the end, and the reasons of those that do not."""

    def __init__(self, results: Results, stack: contextlib.ExitStack) -> None:
        self.present: list[Contender] = []
        self.stack = stack
        self._results = results

    def add(self, name: str, make: Callable[[], Contender]) -> None:
        """Make a contender and keep it, or keep the reason why not."""
        _say(f"preparing {name}")
        try:
            contender = make()
        except UnavailableError as error:
            self.absent(name, error)
            return
        self.stack.callback(contender.close)
        self.present.append(contender)
        self._results.contenders.append(contender.description)

    def absent(self, name: str, error: UnavailableError) -> None:
        """Keep the reason."""
        self._results.contenders.append(Description(name=name, absent=error.reason, hint=error.hint))


def _peer(engine: type[peers.Engine], root: Path, scratch: scratches.Scratch) -> Contender:
    return peers.Peer(engine(root, scratch), scratch)


def _add_traforo(stage: _Stage, options: Options, scratch: scratches.Scratch, root: Path) -> servers.Server | None:
    """Start the server, and the one to compare it with; return the first."""
    image = f"dir:{root}"
    server = _start(stage, "traforo", options.command, options, scratch)
    if server is not None:
        make = functools.partial(Traforo, server)
        stage.add("traforo", functools.partial(make, name="traforo", image=image))
        via = "traforo via control"
        stage.add(via, functools.partial(make, name=via, image=image, through_control=True))
        host = "traforo host image"
        stage.add(host, functools.partial(make, name=host, image="host"))
    if options.against:
        name = "traforo B"
        other = _start(stage, name, options.against, options, scratch)
        if other is not None:
            stage.add(name, functools.partial(Traforo, other, name=name, image=image))
    return server


def _start(
    stage: _Stage, name: str, command: Sequence[str], options: Options, scratch: scratches.Scratch
) -> servers.Server | None:
    _say(f"starting {name}")
    directory = scratch.disk / name.replace(" ", "-")
    try:
        words = list(command) or servers.executable()
        return stage.stack.enter_context(servers.started(words, directory, most_live=2 * options.burst + 64))
    except UnavailableError as error:
        stage.absent(name, error)
        return None


def _load(results: Results, server: servers.Server, image: str) -> None:
    options = results.options
    if options.burst:
        _say(f"burst of {options.burst}")
        results.bursts = loads.run_bursts(server, image=image, count=options.burst, repeats=options.burst_repeats)
    if options.sustained_seconds:
        _say("sustained create and delete")
        results.sustained = loads.run_sustained(
            server, image=image, levels=options.levels, seconds=options.sustained_seconds
        )


def _memory(options: Options) -> memories.Memory | None:
    """Account on a server of its own, so that nothing else has grown in it."""
    _say(f"memory of {options.live} idle sandboxes")
    words = list(options.command) or servers.executable()
    with scratches.opened() as scratch:
        try:
            with servers.started(words, scratch.disk / "traforo", most_live=options.live + 64) as server:
                return memories.measure(server, count=options.live)
        except UnavailableError as error:
            _say(f"no account of memory: {error.reason}")
            return None


def _progress(done: int, total: int) -> None:
    if total and (done == total or done % max(total // 10, 1) == 0):
        _say(f"round {done} of {total}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def words_of(text: str) -> tuple[str, ...]:
    """Split a command as a shell would."""
    return tuple(shlex.split(text))

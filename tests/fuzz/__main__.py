"""`python -m tests.fuzz [NAME ...]`: looks for input that breaks a parser, led by coverage, one parser after the other.

Needs `atheris`. Ends with status 1 where something was found; the input is in the file that the last line names.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile

NAMES = ("answer", "changes", "header", "interpreter", "listing", "message", "names")
"""Of `targets.TARGETS`, which is imported where it is fuzzed."""


def main() -> int:
    """Run the targets that were named, or all of them."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    unknown = [name for name in wanted.names if name not in NAMES]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(NAMES)}")
    names = wanted.names or NAMES
    if wanted.in_this_process:
        _fuzz(names[0], wanted.seconds)
        return 0
    found = [name for name in names if _run(name, wanted.seconds)]
    sys.stdout.write(
        f"{len(names) - len(found)} of {len(names)} targets withstood {wanted.seconds} s {' '.join(found)}\n"
    )
    return 1 if found else 0


def _run(name: str, seconds: int) -> int:
    sys.stdout.write(f"-- {name}\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--in-this-process"]
    return subprocess.run(command, check=False).returncode


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one target; does not return where something is found."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]  # `make fuzz` installs it

    # Its coverage is what leads; to follow all that it imports would take a minute before it begins.
    with atheris.instrument_imports(include=["traforo", "tests"]):
        from tests.fuzz import targets
    target = targets.TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="traforo-fuzz-") as place:
        for number, seed in enumerate(target.seeds):
            (pathlib.Path(place) / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup(["fuzz", place, *options], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

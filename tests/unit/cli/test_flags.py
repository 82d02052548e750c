from collections.abc import Mapping
from pathlib import Path

import cyclopts
import pytest

from traforo.cli import flags
from traforo.settings import control, sources, worker


def parsed(kind: type[control.ControlSettings | worker.WorkerSettings], *arguments: str) -> tuple[object, object]:
    """Run a command made of these settings and return what it was given."""
    seen: list[tuple[Mapping[str, object], Path | None]] = []

    def run(given: Mapping[str, object], file: Path | None) -> int:
        seen.append((given, file))
        return 0

    app = cyclopts.App()
    app.default(flags.command(kind, run, "Do it."))
    app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    return seen[0]


def test_what_is_not_given_is_not_there() -> None:
    """The other sources of settings decide then."""
    assert parsed(control.ControlSettings) == ({}, None)


def test_flags_have_the_names_that_settings_are_loaded_by() -> None:
    """In any group, and lists as lists."""
    arguments = "--file x.yaml --listen :1 --log-level debug --pre-pull-images a --pre-pull-images b --stop-policy keep"
    given, file = parsed(worker.WorkerSettings, *arguments.split())
    expected = {"listen": ":1", "log.level": "debug", "pre_pull.images": ["a", "b"], "stop_policy": "keep"}
    assert (given, file) == (expected, Path("x.yaml"))


@pytest.mark.parametrize("kind", [control.ControlSettings, worker.WorkerSettings])
def test_every_setting_but_the_secret_has_a_flag(kind: type[control.ControlSettings | worker.WorkerSettings]) -> None:
    """And each flag leads to a setting that can be loaded."""
    for leaf in sources.leaves(kind):
        flag = f"--{leaf.key.replace('.', '-')}"
        if leaf.name == "auth.jwt_secret":
            with pytest.raises(cyclopts.UnknownOptionError):
                parsed(kind, flag, "x")
        else:
            given, _ = parsed(kind, flag, "1")
            assert given in ({leaf.name: "1"}, {leaf.name: ["1"]})


@pytest.mark.parametrize(
    "value,expected",
    [(True, ""), (None, ""), ("", ""), (0, ""), (1800.0, " [default: 1800]"), ("info", " [default: info]"), ((), "")],
)
def test_defaults_are_told_where_they_say_something(value: object, expected: str) -> None:
    """0 and nothing mean that the machine decides; the description says how."""
    assert flags._default(value) == expected

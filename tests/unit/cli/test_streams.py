import types
from collections.abc import Iterator

import pytest

from traforo.cli import streams
from traforo.sdk import errors, results


@pytest.mark.parametrize(
    "end,code,expected,note",
    [
        ("exited", 0, 0, ""),
        ("exited", 7, 7, ""),
        ("signalled", 143, 143, ""),
        ("timed_out", 124, 124, "timeout"),
        ("out_of_memory", 137, 137, "out of memory"),
        ("out_of_memory", None, 125, "out of memory"),
        ("lost", None, 125, "nobody knows"),
        (None, None, 125, ""),
    ],
)
def test_exit_codes(
    end: str | None, code: int | None, expected: int, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's own, with a note where a number alone would mislead."""
    assert streams.exit_code(end, code) == expected
    said = capsys.readouterr().err
    assert note in said
    assert bool(said) == bool(note)


@pytest.mark.parametrize(
    "reason,expected,said",
    [
        ("expired", 124, "killed with its sandbox: its lease was over; `--ttl`"),
        ("deleted", 125, "killed with its sandbox: it was deleted"),
        ("idle", 125, "killed with its sandbox: it had been idle"),
        ("out_of_memory", 125, "killed with its sandbox: it was out of memory"),
        ("worker_stopped", 125, "killed with its sandbox: its worker was stopped"),
        ("lost", 125, "lost: nobody knows"),
        ("a reason of the future", 125, "lost: nobody knows"),
        (None, 125, "lost: nobody knows"),
    ],
)
def test_a_command_that_ended_with_its_sandbox(
    reason: str | None, expected: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why is told, by what the sandbox says of its end; a lease that was over is a time that passed."""
    frame = results.Frame(0, "exit", b'{"end": "lost", "exit_code": null, "signal": null}', None)
    execution = types.SimpleNamespace(dropped=0, output=lambda cursor: iter([frame]))
    sandbox = types.SimpleNamespace(info=lambda: types.SimpleNamespace(reason=reason))
    assert streams.follow(execution, sandbox) == expected  # type: ignore[arg-type]  # they stand for both
    err = capsys.readouterr().err
    assert (err.count("\n"), said in err) == (1, True)


@pytest.mark.parametrize("kill,code,expected", [(True, 0, 125), (True, 3, 3), (False, 0, 0)])
def test_output_that_had_to_go_is_no_success(
    kill: bool, code: int, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what this program started; who attaches to something older may come too late for its beginning."""
    frame = results.Frame(0, "exit", b'{"end": "exited", "exit_code": %d, "signal": null}' % code, None)
    execution = types.SimpleNamespace(dropped=0)

    def output(cursor: int | None) -> Iterator[results.Frame]:
        execution.dropped = 7
        yield frame

    execution.output = output
    assert streams.follow(execution, types.SimpleNamespace(), kill=kill) == expected  # type: ignore[arg-type]  # for both
    assert "7 bytes of older output were gone" in capsys.readouterr().err


def test_a_sandbox_that_cannot_be_asked_has_no_reason() -> None:
    """Whatever the server says then, how the command ended is told all the same."""

    def info() -> None:
        raise errors.NotFound("no sandbox")

    assert streams.end_reason(types.SimpleNamespace(info=info)) is None  # type: ignore[arg-type]  # for a sandbox


@pytest.mark.parametrize(
    "stage,name,expected",
    [
        ("exec", "ENOENT", 127),
        ("exec", "ENOTDIR", 127),
        ("exec", "EACCES", 126),
        ("exec", None, 126),
        ("cwd", "ENOENT", 125),
        ("user", None, 125),
        ("limits", "EACCES", 125),
        (None, None, 125),
    ],
)
def test_commands_that_cannot_start(stage: str | None, name: str | None, expected: int) -> None:
    """As a shell would tell them apart; a directory or a user that is missing is no missing command."""
    assert streams.start_failure(stage, name) == expected


@pytest.mark.parametrize(
    "command,advised",
    [(("ls -l",), True), (("a|b",), True), (("ls",), False), (("ls -l", "x"), False)],
)
def test_a_line_for_the_shell_is_recognised(command: tuple[str, ...], advised: bool) -> None:
    """One word that only a shell could take apart."""
    assert bool(streams.start_hint(command)) is advised

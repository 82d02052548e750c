import pytest

from traforo.cli import streams


@pytest.mark.parametrize(
    "end,code,expected,note",
    [
        ("exited", 0, 0, ""),
        ("exited", 7, 7, ""),
        ("signalled", 143, 143, ""),
        ("timed_out", 124, 124, "timeout"),
        ("out_of_memory", 137, 137, "out of memory"),
        ("out_of_memory", None, 1, "out of memory"),
        ("lost", None, 1, "lost"),
        (None, None, 1, ""),
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
    "stage,name,expected",
    [
        ("exec", "ENOENT", 127),
        ("exec", "ENOTDIR", 127),
        ("exec", "EACCES", 126),
        ("exec", None, 126),
        ("cwd", "ENOENT", 1),
        (None, None, 1),
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

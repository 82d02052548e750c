"""The Bash kernel as a plain process: state, exit codes, output, interrupts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.worker.interpreters import talks


@pytest.fixture(scope="module")
def bash() -> Iterator[talks.Talk]:
    with talks.talk("bash") as found:
        yield found


def test_state_stays(bash: talks.Talk) -> None:
    """Variables, functions, directory and options of one run are there in the next."""
    bash.run("x='a  b'; f() { echo \"f $1\"; }; cd /; set -o noclobber; alias hello='echo hi'")
    assert bash.run('f "$x"; pwd; echo ${-//[^C]/}; hello; set +o noclobber').stdout == b"f a  b\n/\nC\nhi\n"


@pytest.mark.parametrize(
    "code, status", [("true", 0), ("false", 1), ("(exit 42)", 42), ("kill -9 $BASHPID & wait $!", 137), ("", 0)]
)
def test_exit_codes(bash: talks.Talk, code: str, status: int) -> None:
    """The code of a run is that of its last command."""
    assert status == bash.run(code).exit_code


@pytest.mark.parametrize("code", ["if then", "echo 'open", "echo $(", "case", "}", "cat <<X\nno end"])
def test_code_that_does_not_parse(bash: talks.Talk, code: str) -> None:
    """It is told on standard error, and neither the next run nor its marks become part of it."""
    bash.run(code)
    assert bash.run("echo next").stdout == b"next\n"


def test_quoting(bash: talks.Talk) -> None:
    """Code arrives exactly as it is: quotes, backslashes, expansions, newlines, bytes that are not UTF-8."""
    assert (
        bash.run("""echo 'a'"'"'b' "c\\"d" `echo e` $'\\x01' '$x' \\\\ # '\necho "two\nlines"
cat <<'X'
it's $here
X""").stdout
        == b"a'b c\"d e \x01 $x \\\ntwo\nlines\nit's $here\n"
    )
    assert bash.run(b"echo '\xff\xfe'").stdout == b"\xff\xfe\n"
    assert bash.run("printf '\\0\\1'").stdout == b"\0\1"


def test_large_code_and_output(bash: talks.Talk) -> None:
    """Code of a megabyte full of quotes arrives; output of megabytes comes whole."""
    assert bash.run("y='" + "é'\\''" * 100_000 + "'; echo ${#y}").stdout.strip() in {b"200000", b"300000"}
    assert bash.run("head -c 5000000 /dev/zero").stdout == bytes(5_000_000)


def test_streams(bash: talks.Talk) -> None:
    """Standard error comes by itself; standard input is at its end; a redirection of the shell's own output holds."""
    told = bash.run("echo out; echo err >&2; cat; read z; echo [$z]")
    assert (told.stdout, told.stderr) == (b"out\n[]\n", b"err\n")
    bash.run("exec 5>&1 >/dev/null")
    assert bash.run("echo lost").stdout == b""
    bash.run("exec >&5 5>&-")
    assert bash.run("echo found").stdout == b"found\n"


def test_environment_of_a_run(bash: talks.Talk) -> None:
    """Variables hold for their run and for its processes."""
    told = bash.run('echo "$OWN"; env | grep ^OWN=', {"OWN": 'it\'s\n$x "q"', "TWO": "é" * 3000})
    assert told.stdout == b"it's\n$x \"q\"\nOWN=it's\n"
    assert bash.run("echo [$OWN]").stdout == b"[]\n"


@pytest.mark.parametrize(
    "code", ["while :; do :; done", "sleep 100; echo no", "g() { sleep 100; echo no; }; g; echo no"]
)
def test_interrupts(bash: talks.Talk, code: str) -> None:
    """SIGINT breaks loops, commands and functions; what follows them does not run, and the state stays."""
    run = bash.begin("before=7; echo go; " + code)
    told = bash.until(b"go\n")
    bash.interrupt(tree=True)
    bash.again(run, 0)
    told = bash.finish(run)
    assert (told.exit_code, told.stdout) == (130, b"")
    assert bash.run("echo $before").stdout == b"7\n"


def test_commands_in_the_background_are_left_alone(bash: talks.Talk) -> None:
    """An interrupt ends what the shell waits for and nothing else."""
    bash.run("sleep 300 & pid=$!")
    run = bash.begin("echo go; sleep 100")
    bash.until(b"go\n")
    bash.interrupt(tree=True)
    bash.again(run, 0)
    bash.finish(run)
    assert bash.run("kill -0 $pid && kill $pid && echo alive").stdout == b"alive\n"


def test_unset_variables_end_the_run_alone(bash: talks.Talk) -> None:
    """With `set -u` an unset variable ends the run; the shell goes on."""
    assert bash.run("set -u; echo $nope; echo not").exit_code != 0
    assert bash.run("set +u; echo on").stdout == b"on\n"


def test_exit_ends_the_shell() -> None:
    """`exit` ends the shell with its code, after its traps."""
    with talks.talk("bash") as own:
        run = own.begin("trap 'echo bye' EXIT; exit 3")
        with pytest.raises(EOFError) as caught:
            own.finish(run)
        assert caught.value.args == (3,)

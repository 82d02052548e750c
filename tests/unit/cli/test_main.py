import inspect
import json
import subprocess
import sys
from collections.abc import Callable

import cyclopts
import pytest

from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done
from traforo import cli
from traforo.domain import errors as domain_errors
from traforo.sdk import errors as sdk_errors

Run = Callable[..., Done]
NAMES = [command.name for command in cli.COMMANDS]


def test_help_lists_every_command(traforo: Run) -> None:
    """`traforo --help` names each with its summary, on stdout."""
    done = traforo("--help")
    assert (done.code, done.err) == (0, b"")
    assert [c.name for c in cli.COMMANDS if f" {c.name} " not in done.text or c.summary not in done.text] == []


def test_no_command_shows_the_help(traforo: Run) -> None:
    """Whoever types `traforo` wants to know what there is."""
    assert "Usage: traforo" in traforo().text


def test_help_loads_no_command() -> None:
    """Listing the commands costs neither the SDK nor a server."""
    code = "from traforo import cli; cli.main(['--help']); import sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    loaded = set(json.loads(out.splitlines()[-1]))
    heavy = {"httpx2", "pydantic", "fastapi", "sqlalchemy", "asyncio", "markdown_it", "pygments", "traforo.settings"}
    assert {name for name in loaded if name in heavy or name.startswith("traforo.cli.commands.")} == set()


@pytest.mark.parametrize("command", cli.COMMANDS, ids=NAMES)
def test_every_command_has_its_help(command: cli.Command, traforo: Run) -> None:
    """The summary in the list is the first line of the command's own help, which names its options."""
    done = traforo(command.name, "--help")
    assert done.code == 0
    assert f"Usage: traforo {command.name}" in done.text
    assert command.summary in done.text


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["fly"], "fly"),
        (["list", "--fly"], "--fly"),
        (["create", "--cpu", "many"], "many"),
        (["get"], "sandbox"),
        (["--fly"], "--fly"),
        (["run"], "no command to run"),
        (["exec", "sbx_1"], "no command to run"),
        (["delete"], "no sandbox to delete"),
        (["cp", "a", "b"], "exactly one side"),
        (["create", "--env", "=x"], "--env"),
        (["create", "--metadata", "x"], "--metadata"),
        (["exec", "-dt", "sbx_1", "--", "true"], "-d does not go"),
        (["exec", "-it", "sbx_1", "--", "true"], "not a terminal"),
        (["shell"], "not a terminal"),
        (["attach", "sbx_1", "exec_1", "--detach-keys", "ctrl-pq"], "as a key"),
        (["kill", "sbx_1"], "nothing to signal"),
        (["kill", "sbx_1", "--tag", "a", "--pid", "7"], "too much to signal"),
        (["kill", "sbx_1", "exec_1", "--tag", "a"], "too much to signal"),
        (["files", "remove", "sbx_1"], "nothing to remove"),
        (["context", "delete", "sbx_1"], "nothing to delete"),
        (["attach", "sbx_1", "exec_1", "--tail", "1", "--cursor", "1"], "too much to begin with"),
        (["token"], "CLIENT is missing"),
        (["code", "sbx_1"], "give the code once"),
        (["code", "sbx_1", "f", "-c", "1"], "give the code once"),
        (["context", "fly"], "fly"),
        (["port-forward", "sbx_1"], "no port"),
        (["port-forward", "sbx_1", "0"], "cannot forward"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], said: str, traforo: Run) -> None:
    """One line that says what is wrong, a hint, nothing on stdout."""
    done = traforo(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.said.startswith("error: ")
    assert said.lower() in done.said.lower()
    assert "\nhint: " in done.said
    assert len(done.said.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments,said,hint",
    [
        (["create", "--frob"], "unknown option --frob", "create"),
        (["create", "--tl", "3"], "unknown option --tl; did you mean --ttl?", "create"),
        (["create", "--memory=5"], "unknown option --memory; did you mean --memory-mib?", "create"),
        (["cp", "--frob", "a", "b:/c"], "unknown option --frob", "cp"),
        (["cp", "--recursiv", "a"], "unknown option --recursiv; did you mean --recursive?", "cp"),
        (["cp", "a", "--user=x", "b:/c", "d"], "unexpected argument 'd'", "cp"),
        (["code", "sbx_1", "--lang", "node"], "unknown option --lang; did you mean --language?", "code"),
        (["code", "sbx_1", "-c", "1", "--lang", "node"], "unknown option --lang; did you mean --language?", "code"),
        (["context", "run", "sbx_1", "ctx_1", "--frob"], "unknown option --frob", "context run"),
        (
            ["files", "list", "sbx_1", "--recursiv"],
            "unknown option --recursiv; did you mean --recursive?",
            "files list",
        ),
        (["run", "--cpus", "2", "--", "true"], "unknown option --cpus; did you mean --cpu?", "run"),
        (["exec", "sbx_1", "--frob", "--", "true"], "unknown option --frob", "exec"),
        (["shell", "sbx_1", "--frob"], "unknown option --frob", "shell"),
        (["list", "extra"], "unexpected argument 'extra'", "list"),
        (["get"], "SANDBOX is missing", "get"),
        (["create", "--cpu"], "--cpu needs a value", "create"),
        (["lst"], "unknown command 'lst'; did you mean list?", ""),
        (["context", "fly"], "unknown command 'fly'", "context"),
        (["files", "sta", "sbx_1"], "unknown command 'sta'; did you mean stat?", "files"),
        (["create", "--ttl", "soon"], "cannot read 'soon' as a time", "create"),
        (["create", "--cpu", "many"], "--cpu is not a number: 'many'", "create"),
        (["port", "url", "sbx_1", "http"], "PORT is not a whole number: 'http'", "port url"),
        (["list", "--limit", "0"], "--limit", "list"),
        (["list", "--state", "asleep"], "--state", "list"),
    ],
)
def test_wrong_usage_is_told_in_plain_words(arguments: list[str], said: str, hint: str, traforo: Run) -> None:
    """What was not understood, what was meant perhaps, and where to read on."""
    done = traforo(*arguments)
    first, second = done.said.splitlines()
    assert done.code == 2
    assert first.startswith("error: ")
    assert said in first
    assert second == f"hint: see `{' '.join(['traforo', *hint.split()])} --help`"


def test_options_of_the_command_itself_are_its_own(worker: FakeServer, traforo: Run) -> None:
    """What stands behind the name of the program is for the program."""
    sandbox_id = worker.create({}).sandbox_id
    assert traforo("exec", sandbox_id, "echo", "--frob", "x").out == b"--frob x\n"
    assert traforo("exec", sandbox_id, "--", "echo", "--frob", "x").out == b"--frob x\n"


def test_an_error_of_the_server_exits_with_1(traforo: Run) -> None:
    """One line and the server's hint."""
    done = traforo("create", "--image", "none")
    assert (done.code, done.out) == (1, b"")
    assert done.said == "error: no image 'none'\nhint: look at the list of images\n"


def test_no_server_exits_with_1(traforo: Run) -> None:
    """What was tried, and what would help."""
    done = traforo("list", "--url", "http://127.0.0.1:1")
    assert (done.code, done.out) == (1, b"")
    assert "error: cannot reach http://127.0.0.1:1: connection refused\nhint: " in done.said


@pytest.mark.parametrize(
    "error,code,said",
    [
        (
            domain_errors.InvalidRequest("cannot read settings", hint="look"),
            1,
            "error: cannot read settings\nhint: look\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            1,
            "error: cannot use '/x': no such file or directory\n",
        ),
        (OSError("cannot start: late"), 1, "error: cannot start: late\n"),
        (sdk_errors.Unauthenticated("no token"), 1, "error: no token\nhint: TRAFORO_TOKEN "),
        (ModuleNotFoundError("no", name="uvloop"), 1, "error: this command needs 'uvloop'\nhint: "),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_failure_has_its_code(
    error: BaseException, code: int, said: str, traforo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback for what can be expected to fail."""
    from traforo.cli.commands import version

    def fail(*, json: bool = False) -> None:
        raise error

    monkeypatch.setattr(version, "version", fail)
    done = traforo("version")
    assert (done.code, done.out) == (code, b"")
    assert done.said.startswith(said)


def test_a_missing_module_of_our_own_is_a_defect(traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a package that is not installed."""
    from traforo.cli.commands import version

    def fail(*, json: bool = False) -> None:
        raise ModuleNotFoundError("no", name="traforo.nothing")

    monkeypatch.setattr(version, "version", fail)
    with pytest.raises(ModuleNotFoundError):
        traforo("version")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`traforo … | head` ends quietly, with the code that a shell gives for SIGPIPE."""
    argv = [sys.executable, "-c", "from traforo import cli; import sys; sys.exit(cli.main(['version']))"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", cli.BROKEN_PIPE)


def test_description_unwraps_paragraphs() -> None:
    """The terminal decides where lines break."""

    def command() -> None:
        """One.

        Two
        three.

        Args:
            four: Five.
        """

    assert cli.description(command) == "One.\n\nTwo three."
    assert cli.description(lambda: None) == ""


def test_version(traforo: Run) -> None:
    """For people and for programs, and as a flag."""
    import traforo as package

    assert traforo("version").text == f"traforo {package.__version__}\n"
    assert json.loads(traforo("version", "--json").out)["version"] == package.__version__
    assert traforo("--version").text == f"{package.__version__}\n"


def test_the_module_can_be_run() -> None:
    """`python -m traforo.cli` is the same program."""
    done = subprocess.run([sys.executable, "-m", "traforo.cli", "version"], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("traforo ")


def test_commands_take_no_more_than_they_document() -> None:
    """Each option of a command is described where its docstring or its type says so."""
    import importlib

    for command in cli.COMMANDS:
        found = getattr(importlib.import_module(f"traforo.cli.commands.{command.module}"), command.module)
        members = (
            [found] if not isinstance(found, cyclopts.App) else [found[n].default_command for n in found if n[0] != "-"]
        )
        assert members, command.name
        for function in members:
            assert inspect.getdoc(function), command.name

"""Commands that start, find, follow and end what runs in a sandbox, against a fake server."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.commands import FakeExec, FakeSandbox, start, wait_until
from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done
from traforo.cli import streams
from traforo.cli.commands import context, logs

Run = Callable[..., Done]


@pytest.fixture
def sandbox(worker: FakeServer) -> FakeSandbox:
    return worker.create({})


def run(sandbox: FakeSandbox, script: str, **asked: object) -> FakeExec:
    return start(sandbox, ["sh", "-c", script], {**asked}, script)


def go_on(execution: FakeExec) -> None:
    """Write a line to a command that has written something, so that what it writes then is a frame of its own."""
    wait_until(lambda: bool(execution.frames))
    assert execution.stdin is not None
    execution.stdin.write(b"\n")
    execution.stdin.flush()


def test_exec_detached_prints_the_id(sandbox: FakeSandbox, traforo: Run) -> None:
    """It goes on, and is found by its tag."""
    done = traforo("exec", "-d", "--tag", "t", sandbox.sandbox_id, "--", "sleep", "60")
    (execution,) = sandbox.execs.values()
    assert (done.code, done.text, done.err) == (0, f"{execution.exec_id}\n", b"")
    assert (execution.tag, execution.code) == ("t", None)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give the program a pipe as its input, and return the end to write to."""
    reader, writer = os.pipe()
    with io.TextIOWrapper(io.FileIO(reader)) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writer


def test_exec_passes_input_on(sandbox: FakeSandbox, traforo: Run, typed: int) -> None:
    """Byte by byte, to its end."""
    data = os.urandom(200_000)

    def feed() -> None:
        with os.fdopen(typed, "wb") as file:
            file.write(data)

    feeding = threading.Thread(target=feed)
    feeding.start()
    done = traforo("exec", "-i", sandbox.sandbox_id, "--", "cat")
    feeding.join()
    assert (done.code, done.out) == (0, data)


def test_ps_lists_what_runs(sandbox: FakeSandbox, traforo: Run) -> None:
    """And with `-a` what has run."""
    ended = run(sandbox, "exit 3")
    wait_until(lambda: ended.code is not None)
    running = run(sandbox, "sleep 60; echo\n never", tag="web")
    lines = traforo("ps", sandbox.sandbox_id).text.splitlines()
    assert lines[0].split() == ["EXEC", "ID", "TAG", "PID", "TTY", "STATUS", "STARTED", "RAN", "COMMAND"]
    assert [line.split()[:2] for line in lines[1:]] == [[running.exec_id, "web"]]
    assert " s ago  " in lines[1]
    assert lines[1].endswith("sleep 60; echo never")
    (line,) = [line for line in traforo("ps", "-a", sandbox.sandbox_id).text.splitlines() if ended.exec_id in line]
    assert "exited (3)" in line
    assert " ago  2 ms  " in line
    assert traforo("ps", "-q", "--tag", "web", sandbox.sandbox_id).text == f"{running.exec_id}\n"
    found = json.loads(traforo("ps", "-a", "--json", sandbox.sandbox_id).out)["execs"]
    assert [item["exec_id"] for item in found] == [ended.exec_id, running.exec_id]
    assert "stdout" not in found[0]


def test_kill_by_id_tag_and_pid(sandbox: FakeSandbox, traforo: Run) -> None:
    """With the signal that was asked for; what has ended is no error, what never was is."""
    execution = start(sandbox, ["true"], {}, "true")
    for arguments, code in (
        (["ID"], -15),
        (["ID", "-s", "9"], -9),
        (["--tag", "t", "-s", "SIGINT"], -2),
        (["--pid", "PID"], -15),
    ):
        execution = start(sandbox, ["sleep", "60"], {"tag": "t"}, "sleep")
        named = {"ID": execution.exec_id, "PID": str(execution.process.pid)}
        assert traforo("kill", sandbox.sandbox_id, *(named.get(word, word) for word in arguments)).code == 0
        assert execution.process.wait(10) == code
    wait_until(lambda: execution.code is not None)
    done = traforo("kill", sandbox.sandbox_id, execution.exec_id)
    assert (done.code, "ended already" in done.said) == (0, True)
    assert traforo("kill", sandbox.sandbox_id, "exec_none").code == 1
    assert traforo("kill", sandbox.sandbox_id, "--pid", "1").code == 1
    assert "nothing with the tag" in traforo("kill", sandbox.sandbox_id, "--tag", "t").said


def test_logs_of_all_and_of_one(sandbox: FakeSandbox, traforo: Run) -> None:
    """Each stream to its own; of one command exact bytes."""
    first, second = run(sandbox, r"printf 'a\377\n'"), run(sandbox, "echo b; sleep 0.02; echo e >&2")
    wait_until(lambda: first.code is not None and second.code is not None)
    done = traforo("logs", sandbox.sandbox_id)
    assert (done.code, done.out, done.err) == (0, b"a\xef\xbf\xbd\nb\n", b"e\n")
    assert traforo("logs", sandbox.sandbox_id, first.exec_id).out == b"a\xff\n"
    assert traforo("logs", "--stream", "stderr", sandbox.sandbox_id).out == b""
    entries = [json.loads(line) for line in traforo("logs", "--json", sandbox.sandbox_id).text.splitlines()]
    assert [entry["data"] for entry in entries if entry["exec_id"] == second.exec_id] == ["b\n", "e\n"]
    assert second.exec_id in traforo("logs", "-t", sandbox.sandbox_id).text


@pytest.mark.parametrize("status", ["running", "exited"])
def test_logs_tell_what_is_gone(status: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Output that the server dropped is never left out in silence."""
    frame = types.SimpleNamespace(type="stdout", data=b"the rest")
    execution = types.SimpleNamespace(
        result=lambda: types.SimpleNamespace(status=status),
        output=lambda: iter([frame]),
        written=lambda: iter([frame]),
        dropped=5,
    )
    logs._one(execution, {"stdout"}, follow=False)  # type: ignore[arg-type]  # it stands for an exec
    out, err = capfd.readouterr()
    assert (out, "5 bytes" in err) == ("the rest", True)
    entry = types.SimpleNamespace(type="gap", data="7")
    logs._print(entry, json=False, timestamps=False)  # type: ignore[arg-type]  # it stands for an entry
    out, err = capfd.readouterr()
    assert (out, "7 bytes" in err) == ("", True)


def test_logs_of_what_still_runs(sandbox: FakeSandbox, traforo: Run) -> None:
    """What there is now, and with `-f` what comes."""
    execution = run(sandbox, "echo begun; read x; echo ended", stdin_open=True)
    wait_until(lambda: bool(execution.frames))
    assert traforo("logs", sandbox.sandbox_id, execution.exec_id).text == "begun\n"
    assert execution.stdin is not None
    execution.stdin.write(b"\n")
    execution.stdin.flush()
    assert traforo("logs", "-f", sandbox.sandbox_id, execution.exec_id).text == "begun\nended\n"
    sandbox.state = "stopped"
    assert traforo("logs", "-f", sandbox.sandbox_id).text == "begun\nended\n"


def test_logs_of_the_end(sandbox: FakeSandbox, traforo: Run) -> None:
    """The last lines alone, of all or of one command, and with `-f` what comes behind them."""
    ended = run(sandbox, "seq 1 30; read x; printf part >&2", stdin_open=True)
    go_on(ended)
    wait_until(lambda: ended.code is not None)
    running = run(sandbox, "seq 41 50; read x; echo more", stdin_open=True)
    wait_until(lambda: bool(running.frames))
    place = sandbox.sandbox_id
    assert traforo("logs", "--tail", "2", place, ended.exec_id) == Done(0, b"30\n", b"part")
    assert traforo("logs", "--tail", "2", "--stream", "stdout", place, ended.exec_id) == Done(0, b"29\n30\n", b"")
    assert traforo("logs", "-n", "3", place, running.exec_id).out == b"48\n49\n50\n"
    assert traforo("logs", "-n", "3", place).out == b"48\n49\n50\n"
    assert traforo("logs", "-n", "0", place) == Done(0, b"", b"")
    assert traforo("logs", "-n", "99", place, ended.exec_id).out == b"".join(b"%d\n" % n for n in range(1, 31))
    (entry,) = traforo("logs", "-n", "1", "--json", place).text.splitlines()
    assert json.loads(entry)["exec_id"] == running.exec_id
    (line,) = traforo("logs", "-n", "1", "-t", place).text.splitlines()
    assert line.endswith(f"{running.exec_id} 50")
    go_on(running)
    assert traforo("logs", "-f", "-n", "1", place, running.exec_id).out in {b"50\nmore\n", b"more\n"}
    sandbox.state = "stopped"
    assert traforo("logs", "-f", "-n", "1", place).out == b"more\n"


def test_logs_go_on_from_a_cursor(sandbox: FakeSandbox, traforo: Run) -> None:
    """That of the last entry that was read as JSON."""
    execution = run(sandbox, "echo a; read x; echo b", stdin_open=True)
    go_on(execution)
    wait_until(lambda: execution.code is not None)
    entries = [json.loads(line) for line in traforo("logs", "--json", sandbox.sandbox_id).text.splitlines()]
    cursors = [str(entry["cursor"]) for entry in entries]
    assert [entry["data"] for entry in entries] == ["a\n", "b\n"]
    for more in ([], [execution.exec_id]):
        assert traforo("logs", "--cursor", cursors[0], sandbox.sandbox_id, *more).out == b"b\n"
        assert traforo("logs", "--cursor", cursors[-1], sandbox.sandbox_id, *more).out == b""
    assert traforo("logs", "--cursor", cursors[0], "-n", "5", sandbox.sandbox_id).out == b"b\n"


@pytest.mark.parametrize("command", ["logs", "attach"])
def test_fewer_than_no_lines(command: str, traforo: Run) -> None:
    """It is wrong usage."""
    done = traforo(command, "--tail", "-1", "sbx_1", "exec_1")
    assert (done.code, "--tail" in done.said) == (2, True)


def test_attach_to_the_end_of_what_there_is(sandbox: FakeSandbox, traforo: Run) -> None:
    """The last lines, or what comes after an earlier reading, and the code of the command."""
    execution = run(sandbox, "seq 1 9; read x; seq 10 20; exit 6", stdin_open=True)
    go_on(execution)
    wait_until(lambda: execution.code is not None)
    words = ("attach", sandbox.sandbox_id, execution.exec_id)
    assert traforo(*words, "--tail", "2") == Done(6, b"19\n20\n", b"")
    assert traforo(*words, "--cursor", "1").out == b"".join(b"%d\n" % n for n in range(10, 21))
    assert traforo(*words, "--cursor", "1").code == 6
    assert traforo(*words, "--cursor", "1", "--tail", "1").code == 2


def test_attach_says_where_it_stopped(sandbox: FakeSandbox, control: FakeServer) -> None:
    """So that the next reading begins there."""
    execution = run(sandbox, "echo begun; read x; echo more", stdin_open=True)
    argv = [sys.executable, "-m", "traforo.cli", "attach", sandbox.sandbox_id, execution.exec_id]
    env = os.environ | {"TRAFORO_URL": control.url}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        assert process.wait(20) == 130
    again = f"traforo attach {sandbox.sandbox_id} {execution.exec_id} --cursor 1"
    assert said == f"note: the command goes on: `{again}` comes back to it here\n"
    assert execution.code is None


def test_attach_follows_to_the_end(sandbox: FakeSandbox, traforo: Run) -> None:
    """From the beginning, and exits as the command did."""
    execution = run(sandbox, "echo out; echo err >&2; exit 6")
    done = traforo("attach", sandbox.sandbox_id, execution.exec_id)
    assert (done.code, done.out, done.err) == (6, b"out\n", b"err\n")


def test_attach_kills_nothing(sandbox: FakeSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's command goes on when this reader has gone."""

    class Gone:
        dropped = 0

        def output(self, cursor: int | None) -> object:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        streams.follow(Gone(), None, kill=False)  # type: ignore[arg-type]  # it stands for an exec


def test_events_and_stats(sandbox: FakeSandbox, traforo: Run) -> None:
    """For people and for programs."""
    execution = run(sandbox, "true")
    lines = traforo("events", sandbox.sandbox_id).text.splitlines()
    assert [line.split()[1] for line in lines] == ["created", "exec_started"]
    assert f"exec_id={execution.exec_id}" in lines[1]
    assert json.loads(traforo("events", "--json", sandbox.sandbox_id).text.splitlines()[0])["type"] == "created"
    table = traforo("stats").text.splitlines()
    assert table[1].split()[:3] == [sandbox.sandbox_id[-8:], "12.5", "%"]
    assert "64.0 MiB" in table[1]
    found = json.loads(traforo("stats", "--json", sandbox.sandbox_id).out)["sandboxes"]
    assert (found[0]["sandbox_id"], found[0]["memory_bytes"]) == (sandbox.sandbox_id, 64 << 20)


def test_code_runs(sandbox: FakeSandbox, traforo: Run, tmp_path: Path) -> None:
    """As it stands or from a file; what does not compile exits with 1."""
    (tmp_path / "f.py").write_text("print('from a file')")
    assert traforo("code", sandbox.sandbox_id, "-c", "print(6 * 7)").out == b"42\n"
    assert traforo("code", sandbox.sandbox_id, str(tmp_path / "f.py")).out == b"from a file\n"
    done = traforo("code", sandbox.sandbox_id, "-c", "print(")
    assert (done.code, done.out, bool(done.err)) == (1, b"", True)
    assert traforo("code", sandbox.sandbox_id, "-c", "import sys; sys.exit(4)").code == 4


def test_code_from_stdin(sandbox: FakeSandbox, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is no option; what looks like one is no file."""
    context_id = traforo("context", "create", sandbox.sandbox_id).text.strip()
    for words in (["code", sandbox.sandbox_id], ["context", "run", sandbox.sandbox_id, context_id]):
        monkeypatch.setattr("sys.stdin", io.StringIO("print('from stdin')"))
        assert traforo(*words, "-").out == b"from stdin\n"
        done = traforo(*words, "--frob")
        assert (done.code, "unknown option --frob" in done.said) == (2, True)


@pytest.mark.parametrize(
    "end,code,error,expected",
    [("exited", 0, False, 0), ("exited", 0, True, 1), ("exited", 4, True, 4), ("exited", 3, False, 3),
     ("timed_out", 124, True, 124), ("lost", None, False, 1)],
)  # fmt: skip
def test_exit_codes_of_code(
    end: str, code: int | None, error: bool, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the code itself; a timeout is told, although an interrupted interpreter tells an error of its own."""
    ended = types.SimpleNamespace(end=end, exit_code=code)
    failed = types.SimpleNamespace(traceback=["KeyboardInterrupt"], name="", value="") if error else None
    result = types.SimpleNamespace(results=[], error=failed, exec=ended, ok=not error and code == 0)
    assert context._shown(result) == expected  # type: ignore[arg-type]  # it stands for a result
    assert ("timeout" in capsys.readouterr().err) == (end == "timed_out")


def test_contexts_from_first_to_last(sandbox: FakeSandbox, traforo: Run) -> None:
    """What was defined stays; values go to stdout and tracebacks to stderr."""
    context_id = traforo("context", "create", sandbox.sandbox_id, "--name", "n").text.strip()
    assert traforo("context", "run", sandbox.sandbox_id, context_id, "-c", "x = 6").out == b""
    assert traforo("context", "run", sandbox.sandbox_id, context_id, "-c", "x * 7").out == b"42\n"
    done = traforo("context", "run", sandbox.sandbox_id, context_id, "-c", "1 / 0")
    assert (done.code, done.out, "division by zero" in done.said) == (1, b"", True)
    found = json.loads(traforo("context", "run", "--json", sandbox.sandbox_id, context_id, "-c", "x").out)
    assert found["results"][0]["data"] == {"text/plain": "6"}
    assert context_id in traforo("context", "list", sandbox.sandbox_id).text
    node = traforo("context", "create", "--language", "node", sandbox.sandbox_id).text.strip()
    assert sandbox.contexts[node].asked["runtime"] == "node"
    assert traforo("context", "delete", sandbox.sandbox_id, node).code == 0
    for command in ("interrupt", "restart", "delete"):
        assert traforo("context", command, sandbox.sandbox_id, context_id) == Done(0, b"", b"")
    assert json.loads(traforo("context", "list", sandbox.sandbox_id, "--json").out) == {"contexts": []}


def test_a_dead_context_is_told_in_the_words_of_the_command_line(
    worker: FakeServer, sandbox: FakeSandbox, traforo: Run
) -> None:
    """The hint is a command that can be pasted."""
    context_id = traforo("context", "create", sandbox.sandbox_id).text.strip()
    sandbox.contexts[context_id].dead = True
    again = f"hint: `traforo context restart {sandbox.sandbox_id} {context_id}` begins anew"
    for command in (["run", sandbox.sandbox_id, context_id, "-c", "1"], ["interrupt", sandbox.sandbox_id, context_id]):
        done = traforo("context", *command)
        assert (done.code, done.said.splitlines()) == (1, ["error: the interpreter has ended", again])
    assert traforo(*again.split("`")[1].split()[1:]).code == 0
    assert traforo("context", "run", sandbox.sandbox_id, context_id, "-c", "1").text == "1\n"


def test_ports_are_told(sandbox: FakeSandbox, traforo: Run) -> None:
    """The URL alone, or everything."""
    place = sandbox.sandbox_id
    base = f"http://worker.example/sandboxes/{place}/proxy/8000/"
    assert traforo("port", "url", place, "8000").text == f"{base}?traforo_traffic_token=traffic\n"
    assert traforo("port", "url", place, "8000", "/a?b=c").text == f"{base}a?b=c&traforo_traffic_token=traffic\n"
    assert json.loads(traforo("port", "url", "--json", place, "8000").out)["token"] == "traffic"
    assert traforo("port", "publish", place, "8000").text == f"{base}\n"
    assert traforo("port", "url", place, "8000", "a").text == f"{base}a\n"
    assert traforo("port", "url", place, "8000", "--host").text == f"http://8000-{'a' * 52}.localhost/\n"
    assert [line.split() for line in traforo("port", "list", sandbox.sandbox_id).text.splitlines()[1:]] == [
        ["80", "0.0.0.0", "no"],
        ["8000", "127.0.0.1", "yes"],
    ]
    assert traforo("port", "unpublish", sandbox.sandbox_id, "8000").code == 0
    assert sandbox.public == set()


def test_files_are_looked_at_and_changed(sandbox: FakeSandbox, traforo: Run) -> None:
    """Each by its own command."""
    place = sandbox.sandbox_id
    assert traforo("files", "mkdir", place, "/d").code == 0
    (sandbox.root / "d" / "a.py").write_text("x = 1\n")
    assert traforo("files", "list", place, "/d").text.splitlines()[1].split()[-1] == "/d/a.py"
    assert traforo("files", "find", place, "/d", "**/*.py").text == "/d/a.py\n"
    assert traforo("files", "search", place, "/d", "x =").text == "/d/a.py:1:1: x = 1\n"
    assert traforo("files", "search", place, "/d", "nothing").code == 1
    assert "0644" in traforo("files", "stat", place, "/d/a.py").text
    assert traforo("files", "stat", place, "/none").code == 1
    assert traforo("files", "copy", place, "/d/a.py", "/d/c.py").code == 0
    assert traforo("files", "copy", place, "/d/a.py", "/d/c.py").code == 1
    assert traforo("files", "copy", "--overwrite", "-r", place, "/d/a.py", "/d/c.py").code == 0
    assert (sandbox.root / "d" / "c.py").read_text() == "x = 1\n"
    assert traforo("files", "move", place, "/d/a.py", "/d/b.py").code == 0
    assert traforo("files", "url", place, "/d/b.py").text.startswith("http://signed.example/GET/d/b.py")
    assert traforo("files", "remove", "-r", place, "/d").code == 0
    assert traforo("files", "remove", place, "/d").code == 1
    assert traforo("files", "remove", "-f", place, "/d").code == 0
    assert json.loads(traforo("files", "list", place, "/", "--json").out) == {"entries": []}


def test_files_get_modes_and_owners(worker: FakeServer, sandbox: FakeSandbox, traforo: Run) -> None:
    """As chmod and chown take them, names or numbers, one path or several."""
    place = sandbox.sandbox_id
    (sandbox.root / "a").touch()
    (sandbox.root / "b").touch()
    assert traforo("files", "chmod", place, "750", "/a", "/b") == Done(0, b"", b"")
    assert [(sandbox.root / name).stat().st_mode & 0o7777 for name in "ab"] == [0o750, 0o750]

    def sent(*arguments: str) -> dict[str, object]:
        assert traforo("files", "chown", place, *arguments).code == 0
        body: dict[str, object] = worker.requests[-1].json
        return body

    assert sent("user", "/a") == {"path": "/a", "owner": "user"}
    assert sent("1000:users", "/a", "-r") == {"path": "/a", "owner": 1000, "group": "users", "recursive": True}
    assert sent(":5", "/a", "--user", "root") == {"path": "/a", "group": 5, "user": "root"}
    for arguments in (["chmod", place, "u+x", "/a"], ["chmod", place, "755"], ["chown", place, ":", "/a"]):
        assert traforo("files", *arguments).code == 2

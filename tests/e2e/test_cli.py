"""The command line as a user runs it, against real servers."""

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.servers import TRAFORO, Up

BIG = os.urandom(1024) * 10 * 1024
"""10 MiB."""


def state(up: Up, sandbox_id: str) -> str:
    found: dict[str, str] = json.loads(up.run("get", sandbox_id, "--json").stdout)
    return found["state"]


@pytest.fixture
def sandbox_id(up: Up) -> str:
    done = up.run("create", "--ttl", "120")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    "script,code", [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143), ("exit 255", 255)]
)
def test_run_exits_as_the_command_did(up: Up, script: str, code: int) -> None:
    """128 + signal for one that was killed."""
    done = up.run("run", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_run_keeps_streams_apart_and_bytes_exact(up: Up) -> None:
    """What is no UTF-8 arrives as it was written."""
    done = up.run("run", "--", "sh", "-c", r"printf '\377\000out\n'; printf 'err\376' >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff\x00out\n", b"err\xfe")


def test_run_passes_much_output_through(up: Up) -> None:
    """All of it, in order."""
    done = up.run("run", "--", "seq", "200000")
    assert done.returncode == 0
    assert done.stdout == b"".join(b"%d\n" % number for number in range(1, 200_001))


@pytest.mark.parametrize(
    "how,command,code,said",
    [
        ([], "no-such-command", 127, "no-such-command"),
        ([], "/no/such", 127, "/no/such"),
        ([], "/etc/passwd", 126, "/etc/passwd"),
        ([], "/etc", 126, "/etc"),
        (["--cwd", "/no/such"], "true", 125, "/no/such"),
        (["--cwd", "/etc/passwd"], "true", 125, "/etc/passwd"),
        (["--cwd", "/root", "--user", "user"], "true", 125, "/root"),
        (["--user", "nobody-of-that-name"], "true", 125, "nobody-of-that-name"),
        (["--image", "none"], "true", 125, "none"),
    ],
)
def test_a_command_that_cannot_start(up: Up, how: list[str], command: str, code: int, said: str) -> None:
    """As a shell would tell it, with words; 125 where it is not the command that is wrong."""
    done = up.run("run", *how, "--", command)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"error: ")
    assert said.encode() in done.stderr


def test_the_end_of_a_lease_is_told(up: Up) -> None:
    """As a time that passed, and not as a command that was lost."""
    done = up.run("run", "--ttl", "1s", "--", "sh", "-c", "echo before; sleep 60")
    assert (done.returncode, done.stdout) == (124, b"before\n")
    assert done.stderr.startswith(b"note: the command was killed with its sandbox: its lease was over")


def test_an_end_that_somebody_else_makes_is_told(up: Up, sandbox_id: str) -> None:
    """Of whoever follows a command in it, without a terminal."""
    exec_id = up.run("exec", "-d", sandbox_id, "--", "sleep", "60").stdout.decode().strip()
    argv = [*TRAFORO, "attach", sandbox_id, exec_id]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=up.environment()) as process:
        assert up.run("delete", sandbox_id).returncode == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"note: the command was killed with its sandbox: it was deleted\n"
        assert process.wait(30) == 125


def test_a_deadline_ends_the_command(up: Up) -> None:
    """Exit code 124, and what it wrote before."""
    done = up.run("run", "--timeout", "0.5", "--", "sh", "-c", "echo before; sleep 60")
    assert (done.returncode, done.stdout) == (124, b"before\n")


def test_run_deletes_its_sandbox_on_ctrl_c(up: Up) -> None:
    """And everything in it."""
    argv = [*TRAFORO, "run", "--name", "interrupted", "--", "sh", "-c", "echo begun; sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=up.environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    found = json.loads(up.run("list", "--all", "--json").stdout)["sandboxes"]
    assert [s["state"] for s in found if s["name"] == "interrupted"] == ["stopped"]


def test_a_sandbox_from_create_to_delete(up: Up, sandbox_id: str) -> None:
    """Each command knows it by its id, in either spelling."""
    info = json.loads(up.run("get", sandbox_id, "--json").stdout)
    assert (info["sandbox_id"], info["state"], info["image"]) == (sandbox_id, "running", "host")
    assert sandbox_id in up.run("list", "-q").stdout.decode().split()
    assert sandbox_id in [s["sandbox_id"] for s in json.loads(up.run("list", "--json").stdout)["sandboxes"]]
    done = up.run("exec", info["dns_id"], "--", "sh", "-c", "echo here; exit 3")
    assert (done.returncode, done.stdout) == (3, b"here\n")
    assert json.loads(up.run("delete", "--json", sandbox_id).stdout) == {"deleted": [sandbox_id]}
    assert state(up, sandbox_id) == "stopped"
    assert sandbox_id not in up.run("list", "-q").stdout.decode().split()


def test_the_end_of_an_id_is_enough(up: Up, sandbox_id: str) -> None:
    """That which the list shows."""
    shown = [line.split()[0] for line in up.run("list").stdout.decode().splitlines()]
    assert sandbox_id[-8:] in shown
    assert json.loads(up.run("get", sandbox_id[-8:], "--json").stdout)["sandbox_id"] == sandbox_id
    assert up.run("exec", sandbox_id[-8:].lower(), "--", "echo", "x").stdout == b"x\n"


def test_logs_of_the_end_and_what_came_after(up: Up, sandbox_id: str) -> None:
    """The last lines, and from a cursor on what an earlier reading did not see."""
    assert up.run("exec", sandbox_id, "--", "seq", "1", "5000").returncode == 0
    assert up.run("logs", "--tail", "2", sandbox_id).stdout == b"4999\n5000\n"
    cursor = json.loads(up.run("logs", "--tail", "1", "--json", sandbox_id).stdout)["cursor"]
    exec_id = json.loads(up.run("ps", "-a", "--json", sandbox_id).stdout)["execs"][0]["exec_id"]
    assert up.run("logs", "--tail", "2", sandbox_id, exec_id).stdout == b"4999\n5000\n"
    assert up.run("attach", "--tail", "1", sandbox_id, exec_id).stdout == b"5000\n"
    assert up.run("exec", sandbox_id, "--", "echo", "later").returncode == 0
    assert up.run("logs", "--cursor", cursor, sandbox_id).stdout == b"later\n"


def test_a_url_of_a_port_opens(up: Up, sandbox_id: str) -> None:
    """As it is printed."""
    assert (
        up.run("exec", "-d", "--cwd", "/etc", sandbox_id, "--", "python3", "-m", "http.server", "8000").returncode == 0
    )
    script = "import socket, time\nwhile socket.socket().connect_ex(('127.0.0.1', 8000)): time.sleep(0.02)"
    assert up.run("code", sandbox_id, "-c", script).returncode == 0
    url = up.run("port", "url", sandbox_id, "8000", "/hostname?x=1").stdout.decode().strip()
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200


def test_exec_keeps_what_was_done(up: Up, sandbox_id: str) -> None:
    """Files stay between commands."""
    assert up.run("exec", sandbox_id, "--", "sh", "-c", "echo kept > /tmp/kept").returncode == 0
    assert up.run("exec", sandbox_id, "--", "cat", "/tmp/kept").stdout == b"kept\n"


def test_a_lease_is_renewed(up: Up, sandbox_id: str) -> None:
    """Its end moves, and the limit of idleness comes and goes; the token is told where there is one."""
    before = json.loads(up.run("get", sandbox_id, "--json").stdout)
    done = up.run("renew", sandbox_id, "--ttl", "1h", "--idle", "10m", "--json")
    renewed = json.loads(done.stdout)
    assert (renewed["idle_seconds"], renewed["token"]) == (600, None)
    assert renewed["expires_at"] > before["expires_at"]
    assert up.run("renew", sandbox_id, "--idle", "0").stdout.decode() == f"{renewed['expires_at']}\n"
    assert json.loads(up.run("get", sandbox_id, "--json").stdout)["idle_seconds"] is None


def test_files_are_copied_and_given_away(up: Up, sandbox_id: str) -> None:
    """Within the sandbox, with modes and owners."""
    assert up.run("exec", sandbox_id, "--", "sh", "-c", "mkdir /tmp/d; echo 1 > /tmp/d/f").returncode == 0
    refused = up.run("files", "copy", sandbox_id, "/tmp/d", "/tmp/e")
    assert (refused.returncode, b"hint: ask with --recursive\n" in refused.stderr) == (1, True)
    assert up.run("files", "copy", "-r", sandbox_id, "/tmp/d", "/tmp/e").returncode == 0
    assert up.run("files", "chmod", sandbox_id, "750", "/tmp/e/f", "/tmp/e").returncode == 0
    assert up.run("files", "chown", "-r", "--user", "root", sandbox_id, "root:7", "/tmp/e").returncode == 0
    found = json.loads(up.run("files", "stat", sandbox_id, "/tmp/e/f", "--user", "root", "--json").stdout)
    assert (found["uid"], found["gid"], found["mode"]) == (0, 7, 0o750)


def test_an_end_is_told_with_its_reason(up: Up, sandbox_id: str) -> None:
    """Whatever is asked of a sandbox that has ended."""
    assert up.run("delete", sandbox_id).returncode == 0
    for arguments, code in ((["exec", sandbox_id, "--", "true"], 125), (["files", "list", sandbox_id], 1)):
        done = up.run(*arguments)
        assert (done.returncode, done.stderr) == (code, b"error: cannot use the sandbox: it is stopped (deleted)\n")


def test_cp_there_and_back(up: Up, sandbox_id: str, tmp_path: Path) -> None:
    """10 MiB of anything, unchanged, also through pipes."""
    (tmp_path / "in").write_bytes(BIG)
    assert up.run("cp", str(tmp_path / "in"), f"{sandbox_id}:/tmp/big").returncode == 0
    assert up.run("cp", f"{sandbox_id}:/tmp/big", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_bytes() == BIG
    assert up.run("cp", "-", f"{sandbox_id}:/tmp/piped", stdin=BIG).returncode == 0
    assert up.run("cp", f"{sandbox_id}:/tmp/piped", "-").stdout == BIG


def test_cp_of_a_tree(up: Up, sandbox_id: str, tmp_path: Path) -> None:
    """Directories and files, names that are not UTF-8 too."""
    tree = tmp_path / "tree"
    (tree / "a" / "empty").mkdir(parents=True)
    (tree / "a" / "odd \udcff").write_bytes(b"1")
    assert up.run("cp", str(tree), f"{sandbox_id}:/tmp/tree").returncode == 0
    assert up.run("cp", f"{sandbox_id}:/tmp/tree", str(tmp_path / "back")).returncode == 0
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*")}
    assert found == {"a", "a/empty", "a/odd \udcff"}


def test_errors_have_one_line(up: Up, sandbox_id: str) -> None:
    """And exit with 1, or with 125 where 1 may be that of a command."""
    unknown = sandbox_id[:-1] + ("0" if sandbox_id[-1] != "0" else "1")
    for arguments, code in ((["get", unknown], 1), (["exec", unknown, "--", "true"], 125), (["get", "nonsense"], 1)):
        done = up.run(*arguments)
        assert (done.returncode, done.stdout) == (code, b"")
        assert done.stderr.startswith(b"error: ")


def test_doctor_says_that_sandboxes_can_run(up: Up) -> None:
    """Where a worker runs, it must not say otherwise."""
    done = up.run("doctor", "--json")
    assert done.returncode == 0
    assert all({"name", "ok", "detail", "cost"} <= finding.keys() for finding in json.loads(done.stdout)["findings"])

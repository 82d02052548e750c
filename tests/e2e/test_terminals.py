"""Terminals, input, ports and contexts as somebody at a command line uses them, against real servers."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.servers import TRAFORO, Up
from tests.typists import typist


@pytest.fixture
def sandbox_id(up: Up) -> str:
    done = up.run("create", "--ttl", "120")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()


def test_a_shell_from_its_first_key_to_its_last(up: Up, sandbox_id: str) -> None:
    """Its size follows the terminal, Ctrl-C is the shell's, its exit code is the program's, the terminal is put back."""
    with typist([*TRAFORO, "shell", sandbox_id, "--", "sh"], up.environment()) as person:
        person.until(b"$ ")
        person.type(b"stty size; echo $TERM\r")
        person.until(b"30 100")
        person.until(b"xterm-256color")
        person.resize(41, 121)
        person.type(b"sleep 0.2; stty size\r")
        person.until(b"41 121")
        person.type(b"sh -c 'echo slee\"\"ps; exec sleep 60'\r")  # who says so is in the foreground already
        person.until(b"sleeps\r\n")
        person.type(b"\x03")
        person.until(b"$ ")
        person.type(b"exit 7\r")
        assert person.wait() == 7
        assert person.now == person.before


def test_a_shell_that_was_left_is_come_back_to(up: Up, sandbox_id: str) -> None:
    """With what was defined in it; a signal leaves it as well."""
    with typist([*TRAFORO, "shell", sandbox_id], up.environment()) as person:
        person.until(b"$ ")
        person.type(b"X=kept\r")
        person.until(b"$ ")
        person.type(b"\x10\x11")
        assert person.wait() == 0
    (item,) = json.loads(up.run("ps", sandbox_id, "--json").stdout)["execs"]
    assert (item["tty"], item["status"]) == (True, "running")
    with typist([*TRAFORO, "attach", sandbox_id, item["exec_id"]], up.environment()) as person:
        person.until(b"X=kept")
        person.type(b"echo $X$X\r")
        person.until(b"keptkept")
        person.process.send_signal(signal.SIGTERM)
        assert person.wait() == 143
        assert person.now == person.before
    assert up.run("kill", sandbox_id, item["exec_id"], "-s", "KILL").returncode == 0
    assert up.run("attach", sandbox_id, item["exec_id"]).returncode == 137


def test_a_program_at_a_terminal(up: Up, sandbox_id: str) -> None:
    """It finds one, and Ctrl-D ends its input."""
    with typist([*TRAFORO, "exec", "-it", sandbox_id, "--", "python3", "-q"], up.environment()) as person:
        person.until(b">>> ")
        person.type(b"6 * 7\r")
        person.until(b"42")
        person.type(b"\x04")
        assert person.wait() == 0


def test_input_of_any_size(up: Up, sandbox_id: str) -> None:
    """Byte for byte through a command and back; one that reads no more is not waited for."""
    data = bytes(range(256)) * 40_000
    assert up.run("exec", "-i", sandbox_id, "--", "cat", stdin=data).stdout == data
    done = up.run("exec", "-i", sandbox_id, "--", "head", "-c", "3", stdin=data)
    assert (done.returncode, done.stdout) == (0, data[:3])
    argv = [*TRAFORO, "exec", "-i", sandbox_id, "--", "sh", "-c", "exit 5"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=up.environment()) as process:
        assert process.wait(30) == 5


def test_a_command_in_the_background(up: Up, sandbox_id: str) -> None:
    """It is found by its tag, followed, and ended."""
    exec_id = (
        up.run("exec", "-d", "--tag", "web", sandbox_id, "--", "sh", "-c", "echo up; sleep 60").stdout.decode().strip()
    )
    assert up.run("ps", "-q", "--tag", "web", sandbox_id).stdout.decode().split() == [exec_id]
    argv = [*TRAFORO, "logs", "-f", sandbox_id, exec_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=up.environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert up.run("kill", sandbox_id, "--tag", "web").returncode == 0
        assert process.wait(30) == 0
    assert "exec_ended" in up.run("events", sandbox_id).stdout.decode()


def test_a_tree_with_bits_and_links(up: Up, sandbox_id: str, tmp_path: Path) -> None:
    """There and back as one stream."""
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "bin" / "run").chmod(0o755)
    (tree / "link").symlink_to("bin/run")
    assert up.run("cp", "-r", str(tree), f"{sandbox_id}:/tmp/tree").returncode == 0
    assert up.run("exec", sandbox_id, "--", "/tmp/tree/link").stdout == b"ran\n"
    assert up.run("cp", f"{sandbox_id}:/tmp/tree", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back" / "link").readlink() == Path("bin/run")
    assert (tmp_path / "back" / "bin" / "run").stat().st_mode & 0o777 == 0o755


ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
with socketserver.ThreadingTCPServer(("127.0.0.1", 7000), Echo) as server:
    print("up", flush=True)
    server.serve_forever()
"""


def test_a_port_is_forwarded(up: Up, sandbox_id: str) -> None:
    """Byte by byte, half of a connection may end before the other; Ctrl-C ends the forwarding."""
    exec_id = up.run("exec", "-d", sandbox_id, "--", "python3", "-c", ECHO).stdout.decode().strip()
    follow = [*TRAFORO, "logs", "-f", sandbox_id, exec_id]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, env=up.environment()) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"up\n"
        logs.terminate()
    argv = [*TRAFORO, "port-forward", sandbox_id, "0:7000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=up.environment()) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().decode().split(" -> ")[0].rpartition(":")[2])
        for word in (b"hello", b"x" * 300_000):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(word)
                connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as reader:
                    assert reader.read() == word.upper()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_context_keeps_what_was_defined(up: Up, sandbox_id: str) -> None:
    """From one program to the next."""
    context_id = up.run("context", "create", sandbox_id).stdout.decode().strip()
    assert up.run("context", "run", sandbox_id, context_id, "-c", "x = 6").returncode == 0
    assert up.run("context", "run", sandbox_id, context_id, "-c", "x * 7").stdout == b"42\n"
    done = up.run("context", "run", sandbox_id, context_id, "-c", "1 / 0")
    assert (done.returncode, b"ZeroDivisionError" in done.stderr) == (1, True)
    assert up.run("context", "delete", sandbox_id, context_id).returncode == 0


def test_what_it_uses_is_told(up: Up, sandbox_id: str) -> None:
    """For people and for programs."""
    (found,) = json.loads(up.run("stats", "--json", sandbox_id).stdout)["sandboxes"]
    assert (found["sandbox_id"], found["pids_limit"] is not None) == (sandbox_id, True)
    assert sandbox_id[-8:] in up.run("stats", sandbox_id).stdout.decode()

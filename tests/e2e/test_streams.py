"""What the SDK reads and writes while it goes on, against a real worker, with connections that are cut."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.cutters import Cutter
from tests.servers import Up
from traforo import AsyncSandbox, Sandbox
from traforo.sdk import errors, pauses, requests
from traforo.sdk._sync import execs, files

SCRIPT = "for n in $(seq 2000); do echo $n; echo e$n >&2; done; exit 9"


@pytest.fixture(autouse=True)
def server(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAFORO_URL", up.control_url)
    monkeypatch.delenv("TRAFORO_TOKEN", raising=False)
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.002)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.create() as found:
        yield found


def behind(cutter: Cutter, sandbox: Sandbox) -> requests.Place:
    """Return where a sandbox is reached through a proxy."""
    return requests.Place(sandbox._place.url.replace(sandbox.connect_url, cutter.url), None)


@pytest.mark.parametrize("way", ["socket", "lines", "pages"])
@pytest.mark.parametrize("seed", range(3))
def test_output_is_whole_however_often_connections_are_cut(sandbox: Sandbox, way: str, seed: int) -> None:
    """Wherever that is, while it is written: nothing is lost, nothing comes twice."""
    started = sandbox.start(SCRIPT)
    with Cutter(sandbox.connect_url, seed, most=6000, cuts=40) as cutter:
        reader = execs.Exec(sandbox._client, behind(cutter, sandbox), started.id)
        reader._way = way
        frames = list(reader.output())
        assert cutter.cuts > 0
    assert reader._way == way
    assert [frame.cursor for frame in frames] == list(range(len(frames)))
    joined = {kind: b"".join(f.data for f in frames if f.type == kind) for kind in ("stdout", "stderr")}
    assert joined["stdout"] == b"".join(b"%d\n" % n for n in range(1, 2001))
    assert joined["stderr"] == b"".join(b"e%d\n" % n for n in range(1, 2001))
    assert (frames[-1].type, reader.dropped, started.wait().exit_code) == ("exit", 0, 9)


def test_much_output_is_exact(sandbox: Sandbox) -> None:
    """64 MiB, over a WebSocket and over lines."""
    for way in ("socket", "lines"):
        started = sandbox.start("head -c 67108864 /dev/zero | tr '\\0' x")
        started._way = way
        assert sum(frame.data.count(b"x") for frame in started.output() if frame.type == "stdout") == 1 << 26


def test_a_download_is_whole(sandbox: Sandbox, tmp_path: Path) -> None:
    """However often its connection is cut, as long as the file stays the same."""
    sandbox.exec("head -c 3000000 /dev/urandom > /tmp/f", check=True)
    expected = sandbox.files.read("/tmp/f")
    with Cutter(sandbox.connect_url, 1, least=2000, most=500_000, cuts=12) as cutter:
        size = files.Files(sandbox._client, behind(cutter, sandbox)).download("/tmp/f", tmp_path / "f")
        assert cutter.cuts > 0
    assert (size, (tmp_path / "f").read_bytes() == expected) == (3_000_000, True)


def test_input_is_written_and_ended(sandbox: Sandbox) -> None:
    """With the command, after it, and over a terminal."""
    assert sandbox.exec("tr a-z A-Z", stdin="hello").stdout == "HELLO"
    much = "0123456789" * 300_000
    assert sandbox.exec("wc -c", stdin=much).stdout.strip() == "3000000"
    started = sandbox.start("cat; exit 3", stdin_open=True, tag="t")
    started.write(iter([b"one ", b"two"]))
    started.close_stdin()
    assert (started.wait().stdout, started.wait().exit_code) == ("one two", 3)
    with pytest.raises(errors.Conflict):
        started.write("late")
    terminal = sandbox.terminals.create("stty size; read x; echo got $x", rows=33, columns=99)
    with sandbox.terminals.attach(terminal.id) as attached:
        text = b""
        for frame in attached.output():
            text += frame.data if frame.type == "stdout" else b""
            if text.endswith(b"33 99\r\n"):
                attached.write("it\r")
    assert b"got it" in text


def test_listeners_hear_everything(sandbox: Sandbox) -> None:
    """In order, as text."""
    heard: list[str] = []
    result = sandbox.exec("echo grün; exit 2", on_stdout=heard.append)
    assert ("".join(heard), result.stdout, result.exit_code) == ("grün\n", "grün\n", 2)


def test_changes_are_seen(sandbox: Sandbox) -> None:
    """As they happen, below a directory."""
    sandbox.files.mkdir("/tmp/d")
    sandbox.start("until [ -e go ]; do sleep 0.02; done; mkdir e; echo > e/f", cwd="/tmp/d")
    seen = []
    with contextlib.closing(sandbox.files.watch("/tmp/d", recursive=True)) as changes:
        sandbox.start("sleep 0.3; touch /tmp/d/go")
        for change in changes:
            seen.append((change.kind, change.path))
            if change.path == "/tmp/d/e/f":
                break
    assert ("created", "/tmp/d/go") in seen
    assert ("created", "/tmp/d/e") in seen


def test_files_are_managed(sandbox: Sandbox) -> None:
    """Moved, copied, changed, found, searched, packed, and opened by a signed URL."""
    inside = sandbox.files
    inside.write("/tmp/a/x.py", "one\ntwo\n", new=True, mode=0o750)
    assert inside.stat("/tmp/a/x.py").mode == 0o750
    with pytest.raises(errors.PreconditionFailed):
        inside.write("/tmp/a/x.py", "", new=True)
    inside.copy("/tmp/a", "/tmp/b", recursive=True)
    inside.move("/tmp/b/x.py", "/tmp/b/y.py")
    inside.change("/tmp/b/y.py", mode=0o600)
    assert inside.stat("/tmp/b/y.py").mode == 0o600
    assert [entry.path for entry in inside.find("/tmp", "**/*.py")] == ["/tmp/a/x.py", "/tmp/b/y.py"]
    assert [(m.path, m.line) for m in inside.search("/tmp", "two")] == [("/tmp/a/x.py", 2), ("/tmp/b/y.py", 2)]
    inside.untar("/tmp/c", b"".join(inside.tar("/tmp/a")))
    assert inside.read("/tmp/c/x.py") == b"one\ntwo\n"
    assert b"".join(inside.stream("/tmp/c/x.py", start=4)) == b"two\n"
    assert inside.signed_url("/tmp/c/x.py").url.startswith(sandbox.connect_url)


def test_what_happened_is_told(sandbox: Sandbox) -> None:
    """Events, logs and use, also after the end."""
    sandbox.exec("echo hello; echo err >&2", tag="t")
    sandbox.renew(300, idle_seconds=100)
    assert sandbox.info().idle_seconds == 100
    metrics = sandbox.metrics()
    assert metrics.now is not None
    sandbox.delete()
    types = [event.type for event in sandbox.events(follow=True)]
    assert types[0] == "created"
    assert {"ready", "exec_started", "exec_ended", "lease_renewed", "stopped"} <= set(types)
    for follow in (False, True):
        said = {entry.type: entry.data for entry in sandbox.logs(follow=follow)}
        assert (said["stdout"], said["stderr"]) == ("hello\n", "err\n")
    assert [entry.data for entry in sandbox.logs(stream="stdout")] == ["hello\n"]


async def test_contexts_and_ports() -> None:
    """With asyncio."""
    async with await AsyncSandbox.create() as sandbox:
        async with await sandbox.contexts.create() as context:
            await context.run("x = 6")
            assert (await context.run("x * 7")).text == "42"
            heard: list[str] = []
            result = await context.run("print('told'); 1 / 0", on_stdout=heard.append)
            assert ("".join(heard), result.error is not None) == ("told\n", True)
            with pytest.raises(errors.CodeFailed):
                await context.run("1 / 0", check=True)
        with pytest.raises(errors.PortUnreachable):
            await sandbox.ports.connect(1)
        assert (await sandbox.ports.url(8000)).public is False
        assert (await sandbox.ports.publish(8000)).public is True
        assert await sandbox.ports.list() == ()

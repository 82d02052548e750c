"""The SDK as a program uses it, against real servers, with and without asyncio."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import planes
from tests.servers import Up
from traforo import AsyncSandbox, Sandbox
from traforo.sdk import AsyncClient, Client, errors

BIG = os.urandom(1024) * 3000


@pytest.fixture(autouse=True)
def server(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAFORO_URL", up.control_url)
    monkeypatch.delenv("TRAFORO_TOKEN", raising=False)


def test_a_sandbox_for_a_thread(up: Up) -> None:
    """Commands, code, files, and its end."""
    with Sandbox.create(cpu=0.5, memory_mib=256, env={"GREETING": "hello"}, metadata={"a": "b"}) as sandbox:
        assert sandbox.connect_url == up.worker_url
        assert sandbox.start_type == "cold"
        assert sandbox.timings_ms["total"] > 0
        result = sandbox.exec("echo $GREETING; echo err >&2; exit 7")
        assert (result.stdout, result.stderr, result.exit_code, result.end) == ("hello\n", "err\n", 7, "exited")
        assert sandbox.run_code("print(6 * 7)", check=True).stdout == "42\n"
        sandbox.files.write("/tmp/big", BIG)
        assert sandbox.files.read("/tmp/big") == BIG
        assert sandbox.files.stat("/tmp/big").size == len(BIG)
        info = sandbox.info()
        assert (info.cpu, info.memory_mib, info.metadata) == (0.5, 256, {"a": "b"})
        assert sandbox.renew(3600) > info.expires_at
        assert sandbox.id in [item.sandbox_id for item in Sandbox.list(state="running")]
    with Sandbox.connect(sandbox.id) as same:
        assert (same.info().state, same.info().reason) == ("stopped", "deleted")


async def test_a_sandbox_for_an_event_loop() -> None:
    """The same, awaited."""
    async with await AsyncSandbox.create() as sandbox:
        result = await sandbox.exec(["sh", "-c", "echo out; echo err >&2"], check=True)
        assert (result.stdout, result.stderr) == ("out\n", "err\n")
        assert (await sandbox.run_code("print(6 * 7)", check=True)).stdout == "42\n"
        await sandbox.files.write("/tmp/big", BIG)
        assert await sandbox.files.read("/tmp/big") == BIG
        assert [entry.path for entry in await sandbox.files.list("/tmp")] == ["/tmp/big"]
    assert sandbox.id not in [item.sandbox_id for item in await AsyncSandbox.list(state="running")]


def test_frames_arrive_as_they_are_written() -> None:
    """The first piece is there before the command has ended; the last one is its end."""
    with Sandbox.create() as sandbox:
        execution = sandbox.start("mkfifo fifo; echo first; read line < fifo; echo second", cwd="/tmp")
        frames = execution.frames()
        assert next(frames).data == b"first\n"
        execution.kill()
        assert [frame.type for frame in frames] == ["exit"]
        assert (execution.wait().end, execution.wait().stdout) == ("signalled", "first\n")


def test_a_signal_reaches_the_whole_tree() -> None:
    """What the command started dies with it."""
    with Sandbox.create() as sandbox:
        execution = sandbox.start("sleep 60 & sleep 60")
        execution.kill()
        result = execution.wait()
        assert (result.end, result.exit_code) == ("signalled", 137)
        # A process that was killed is gone when it next gets a processor.
        look = "for n in $(seq 500); do grep -qsx sleep /proc/[0-9]*/comm || exit 0; sleep 0.01; done; exit 1"
        assert sandbox.exec(look).exit_code == 0


def test_errors_are_typed() -> None:
    """Each has its class, its code and its fields."""
    with Client() as client, Sandbox.create(client=client) as sandbox:
        with pytest.raises(errors.NotFound) as missing:
            sandbox.files.read("/none")
        with pytest.raises(errors.StartFailed) as unstartable:
            sandbox.exec(["/no/such/command"])
        with pytest.raises(errors.SyntaxRejected):
            sandbox.run_code("print(")
        with pytest.raises(errors.MalformedId):
            Sandbox.connect("nonsense", client=client)
        with pytest.raises(errors.InvalidRequest):
            Sandbox.create(cpu=-1, client=client)
    assert missing.value.fields["kind"] == "file"
    assert (unstartable.value.fields["stage"], unstartable.value.fields["errno_name"]) == ("exec", "ENOENT")
    assert unstartable.value.request_id


def test_directories_go_in_and_come_out(tmp_path: Path) -> None:
    """With modes, times and links as they are; what would lead out on the way back is refused, or left out."""
    local = tmp_path / "local"
    (local / "d" / "empty").mkdir(parents=True)
    (local / "d" / "big").write_bytes(BIG)
    (local / "run").write_text("#!/bin/sh\necho ran\n")
    (local / "run").chmod(0o755)
    (local / "in").symlink_to("d/big")
    os.utime(local / "run", (1_000_000_000, 1_000_000_000))
    with Sandbox.create() as sandbox:
        assert sandbox.files.upload(local, "/tmp/copy") == len(BIG) + 19
        assert (
            sandbox.exec("./run; stat -c %Y run; cmp in d/big", cwd="/tmp/copy", check=True).stdout
            == "ran\n1000000000\n"
        )
        assert sandbox.files.download("/tmp/copy", tmp_path / "back") == len(BIG) + 19
        sandbox.exec("ln -s /etc/passwd out", cwd="/tmp/copy", check=True)
        with pytest.raises(errors.UnsafeArchive):
            sandbox.files.download("/tmp/copy", tmp_path / "refused")
        left_out: list[str] = []
        sandbox.files.download("/tmp/copy", tmp_path / "again", skipped=left_out.append)
    assert left_out == ["out"]
    for back in (tmp_path / "back", tmp_path / "again"):
        assert {path.relative_to(back) for path in back.rglob("*")} == {
            path.relative_to(local) for path in local.rglob("*")
        }
        assert (back / "in").readlink() == Path("d/big")
        assert (back / "in").read_bytes() == BIG
        assert ((back / "run").stat().st_mode & 0o777, (back / "run").stat().st_mtime) == (0o755, 1_000_000_000)


async def test_a_wait_that_is_given_up_ends_the_command() -> None:
    """With all that it started, whoever gave it a tag; code in a context is interrupted, and its context stays."""
    import asyncio

    async def beginning(path: str) -> None:
        while not await sandbox.files.exists(path):
            await asyncio.sleep(0.01)

    async with await AsyncSandbox.create() as sandbox, await sandbox.contexts.create("python") as context:
        await context.run("import pathlib, time; x = 1")
        heard = asyncio.Event()
        calls = [
            asyncio.ensure_future(sandbox.exec("sleep 60 & touch /tmp/command; sleep 60")),
            asyncio.ensure_future(
                sandbox.exec("echo; sleep 60 & sleep 60", tag="mine", on_stdout=lambda _: heard.set())
            ),
            asyncio.ensure_future(context.run("pathlib.Path('/tmp/code').touch(); time.sleep(60); x = 2")),
        ]
        await asyncio.gather(*(beginning(f"/tmp/{name}") for name in ("command", "code")), heard.wait())
        calls.append(asyncio.ensure_future(context.run("time.sleep(60); x = 3")))  # waits behind the one that runs
        while len([item for item in await sandbox.list_execs(status="running") if item.context_id]) < 2:
            await asyncio.sleep(0.01)
        started = await sandbox.list_execs(tag="mine")
        for call in calls:
            call.cancel()
        assert {type(told) for told in await asyncio.gather(*calls, return_exceptions=True)} == {asyncio.CancelledError}
        assert (await sandbox.get_exec(started[0].exec_id).wait()).end == "signalled"
        assert (await context.run("x")).text == "1"
        assert await sandbox.list_execs(status="running") == ()


async def test_many_at_once() -> None:
    """One client holds any number of sandboxes."""
    import asyncio

    async def one(client: AsyncClient, number: int) -> str:
        async with await AsyncSandbox.create(client=client) as sandbox:
            return (await sandbox.exec(["echo", str(number)], check=True)).stdout

    async with AsyncClient() as client:
        said = await asyncio.gather(*(one(client, number) for number in range(20)))
    assert said == [f"{number}\n" for number in range(20)]


@pytest.fixture
def fleet(up: Up) -> Iterator[planes.Fleet]:
    """A control plane and a worker that may be killed and started again."""
    if os.geteuid() != 0:
        pytest.skip("processes of a worker are found by root alone")
    made = planes.fleet()
    try:
        made.ensure()
        yield made
    finally:
        made.destroy()


def restarted(fleet: planes.Fleet, begun: threading.Event) -> threading.Thread:
    """Kill the worker as soon as something has begun, and start it again."""

    def restart() -> None:
        if begun.wait(20):
            fleet.worker.kill()
            fleet.worker.start()

    thread = threading.Thread(target=restart)
    thread.start()
    return thread


def test_calls_outlive_a_restart_of_the_worker(fleet: planes.Fleet) -> None:
    """A command and code in a context that are waited for when the worker is killed have their results all the same;
    a watch goes on, and says that changes may be missing.
    """
    with (
        Client(fleet.worker.url) as client,
        Sandbox.create(memory_mib=128, client=client) as sandbox,
        sandbox.contexts.create() as context,
    ):
        sandbox.files.mkdir("/tmp/seen")
        waiting = "until [ -e /tmp/go ]; do touch /tmp/seen/{0}; sleep 0.05; done; echo {0}"
        code = f"import subprocess; subprocess.run({waiting.format('code')!r}, shell=True); 6 * 7"
        said: dict[str, object] = {}
        calls = [
            threading.Thread(target=lambda: said.update(command=sandbox.exec(waiting.format("command")).stdout)),
            threading.Thread(target=lambda: said.update(code=context.run(code).text)),
        ]
        begun = threading.Event()
        restart = restarted(fleet, begun)
        changes = sandbox.files.watch("/tmp/seen")
        for call in calls:
            call.start()
        seen: Counter[str] = Counter()
        for change in changes:
            seen[change.path] += 1
            # Both have run for long enough to be in the journal: what began a moment before is known to nobody.
            if min(seen["/tmp/seen/command"], seen["/tmp/seen/code"]) >= 10:
                begun.set()
            if change.kind == "overflow":
                break
        assert begun.is_set()
        restart.join()
        sandbox.files.write("/tmp/seen/after", b"")
        assert any(change.path == "/tmp/seen/after" for change in changes)
        changes.close()
        sandbox.files.write("/tmp/go", b"")
        for call in calls:
            call.join(30)
        assert said == {"command": "command\n", "code": "42"}

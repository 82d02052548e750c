from datetime import UTC, datetime

import pytest

from tests.fakes.servers import FakeServer
from traforo.sdk import errors
from traforo.sdk._async.sandboxes import AsyncSandbox


async def test_a_created_sandbox_tells_about_itself(control: FakeServer) -> None:
    """Its id, how it started and how long that took; its state on request."""
    async with await AsyncSandbox.create(name="n", metadata={"a": "b"}, url=control.url) as sandbox:
        info = await sandbox.info()
    assert (sandbox.start_type, sandbox.timings_ms["total"], sandbox.token) == ("cold", 1.5, None)
    assert (info.sandbox_id, info.name, info.metadata, info.state) == (sandbox.id, "n", {"a": "b"}, "running")
    assert repr(sandbox) == f"AsyncSandbox({sandbox.id!r})"


async def test_only_what_was_given_is_sent(worker: FakeServer) -> None:
    """The defaults are the server's."""
    async with await AsyncSandbox.create(url=worker.url, ttl_seconds=60, disk_kind="disk"):
        pass
    assert worker.requests[0].json == {"ttl_seconds": 60, "disk_kind": "disk"}


async def test_leaving_the_context_deletes(worker: FakeServer) -> None:
    """Also when the block raised; the block's own error is what is seen."""
    with pytest.raises(ZeroDivisionError):
        async with await AsyncSandbox.create(url=worker.url):
            raise ZeroDivisionError
    assert [sandbox.state for sandbox in worker.sandboxes.values()] == ["stopped"]


async def test_a_delete_that_fails_does_not_hide_the_blocks_error(worker: FakeServer) -> None:
    """It becomes a note on it, and an error of its own where there was none."""
    sandbox = await AsyncSandbox.create(url=worker.url)
    worker.fault = lambda _: "drop"
    with pytest.raises(ZeroDivisionError) as caught:
        async with sandbox:
            raise ZeroDivisionError
    assert any("left to expire" in note for note in caught.value.__notes__)
    with pytest.raises(errors.ConnectionFailed):
        async with sandbox:
            pass


async def test_delete_may_be_repeated(worker: FakeServer) -> None:
    """What is gone is gone, whoever deleted it."""
    sandbox = await AsyncSandbox.create(url=worker.url)
    await sandbox.delete()
    await sandbox.delete()
    del worker.sandboxes[sandbox.id]
    await sandbox.delete()


async def test_connect_finds_a_sandbox(worker: FakeServer, control: FakeServer) -> None:
    """By its id alone; afterwards the control plane is not asked again."""
    made = worker.create({})
    found = await AsyncSandbox.connect(made.sandbox_id, url=control.url)
    result = await found.exec("echo $0")
    assert (found.id, result.stdout) == (made.sandbox_id, "/bin/sh\n")
    assert len(control.requests) == 1
    await found.close()


async def test_connect_with_the_sandboxs_token(closed_worker: FakeServer, closed_control: FakeServer) -> None:
    """The token that create gave out opens it, without one of the client."""
    async with await AsyncSandbox.create(url=closed_control.url, token="client") as made:
        found = await AsyncSandbox.connect(made.id, sandbox_token=made.token, url=closed_control.url)
        assert (await found.info()).sandbox_id == made.id
        await found.close()
    assert {asked.headers["authorization"] for asked in closed_worker.requests[1:]} == {"Bearer tok"}
    with pytest.raises(errors.Unauthenticated):
        await AsyncSandbox.connect(made.id, url=closed_control.url)


async def test_renew_returns_the_new_end(worker: FakeServer) -> None:
    """The lease ends so many seconds from now."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert await sandbox.renew(90.5) == datetime(2026, 1, 2, 4, tzinfo=UTC)
    assert worker.requests[1].query == {"ttl_seconds": "90.5"}


async def test_a_renewal_may_bring_a_new_token(closed_worker: FakeServer) -> None:
    """All handles of the sandbox use it from then on."""
    async with await AsyncSandbox.create(url=closed_worker.url, token="client") as sandbox:
        files = sandbox.files
        closed_worker.renewed_token = "tok2"
        await sandbox.renew(60)
        assert sandbox.token == "tok2"
        closed_worker.token = "tok2"
        assert not await files.exists("/none")


async def test_exec_returns_the_result(worker: FakeServer) -> None:
    """Both streams apart, the exit code, the end, all in one request."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        result = await sandbox.exec("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code, result.end) == ("out\n", "err\n", 7, "exited")
    assert not result.ok
    assert len(worker.requests) == 3


async def test_exec_hands_on_how_to_start(worker: FakeServer) -> None:
    """Environment, directory, user and deadline."""
    async with await AsyncSandbox.create(url=worker.url, env={"A": "1", "B": "1"}) as sandbox:
        await sandbox.files.mkdir("/work")
        result = await sandbox.exec('echo "$A $B ${PWD##*/}"', env={"B": "2"}, cwd="/work", user="root", timeout=9)
    assert result.stdout == "1 2 work\n"
    sent = worker.requests[2].json
    assert (sent["user"], sent["timeout_ms"], sent["wait"]) == ("root", 9000, True)


async def test_a_deadline_ends_the_command(worker: FakeServer) -> None:
    """The result says so; nothing is raised."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        result = await sandbox.exec(["sleep", "60"], timeout=0.05)
    assert (result.end, result.exit_code) == ("timed_out", 124)


async def test_check_raises(worker: FakeServer) -> None:
    """With the result on the error."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert (await sandbox.exec(["true"], check=True)).ok
        with pytest.raises(errors.CommandFailed, match="no luck") as caught:
            await sandbox.exec("echo no luck >&2; exit 3", check=True)
    assert caught.value.result.exit_code == 3


async def test_a_command_that_cannot_start_is_an_error(worker: FakeServer) -> None:
    """With the stage and the name of the error, so that a program can tell why."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        with pytest.raises(errors.StartFailed) as caught:
            await sandbox.exec(["/no/such/command"])
    assert (caught.value.fields["stage"], caught.value.fields["errno_name"]) == ("exec", "ENOENT")


async def test_run_code(worker: FakeServer) -> None:
    """Code runs; code that does not compile does not, and the compiler is heard."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert (await sandbox.run_code("print(6 * 7)", check=True)).stdout == "42\n"
        with pytest.raises(errors.SyntaxRejected) as caught:
            await sandbox.run_code("print(")
        assert caught.value.fields["stderr"]
        with pytest.raises(errors.CommandFailed):
            await sandbox.run_code("raise SystemExit(1)", check=True)
    sent = worker.requests[1].json
    assert (sent["runtime"], sent["timeout_ms"], sent["wait"]) == ("python", 30_000, True)


async def test_execs_are_listed_and_found_again(worker: FakeServer) -> None:
    """A handle can be made of an id alone."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        started = await sandbox.start("echo hello")
        listed = await sandbox.list_execs()
        assert [item.exec_id for item in listed] == [started.id]
        assert (await sandbox.get_exec(started.id).wait()).stdout == "hello\n"
        assert await sandbox.list_execs(limit=0) == ()

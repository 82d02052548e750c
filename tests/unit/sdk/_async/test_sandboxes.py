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
        await sandbox.files.mkdir("/data")
        result = await sandbox.exec('echo "$A $B ${PWD##*/}"', env={"B": "2"}, cwd="/data", user="root", timeout=9)
    assert result.stdout == "1 2 data\n"
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


async def test_exec_reads_what_it_is_given(worker: FakeServer) -> None:
    """Text or bytes, with the request or, if that is too much, after it."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        assert (await sandbox.exec("cat", stdin="grün")).stdout == "grün"
        assert (await sandbox.exec("cat", stdin=b"a\xff")).stdout == "a\ufffd"
        assert worker.requests[-1].json["stdin_b64"] == "Yf8="
        assert (await sandbox.exec("cat", stdin="")).stdout == ""
        much = "0123456789" * 50_000
        assert (await sandbox.exec("cat", stdin=much)).stdout == much
        assert (await sandbox.exec("head -c 3", stdin=much)).stdout == "012"


async def test_exec_tells_output_as_it_comes(worker: FakeServer) -> None:
    """Each stream to its own listener, and the result is the same as ever."""
    out: list[str] = []
    err: list[str] = []
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        result = await sandbox.exec("echo grün; echo e >&2; exit 3", on_stdout=out.append, on_stderr=err.append)
        quiet = await sandbox.exec("echo a; echo b >&2", on_stderr=err.append)
    assert ("".join(out), "".join(err)) == ("grün\n", "e\nb\n")
    assert (result.stdout, result.stderr, result.exit_code, quiet.stdout) == ("grün\n", "e\n", 3, "a\n")


async def test_commands_have_tags(worker: FakeServer) -> None:
    """They are found and signalled by them."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        execution = await sandbox.start(["sleep", "60"], tag="server", background=True)
        assert worker.requests[-1].json["background"] is True
        await sandbox.exec("true", tag="other")
        assert [item.exec_id for item in await sandbox.list_execs(tag="server", status="running")] == [execution.id]
        assert await sandbox.signal("TERM", tag="server") == 1
        assert (await execution.wait()).exit_code == 143
        assert await sandbox.signal("TERM", tag="server") == 0


async def test_metrics_are_read(worker: FakeServer) -> None:
    """What it uses now, and what it used before where that is asked for."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        metrics = await sandbox.metrics()
        assert metrics.now is not None
        assert (metrics.now.memory_bytes, metrics.now.network_sent_bytes, metrics.series) == (64 << 20, None, ())
        assert len((await sandbox.metrics(series=True)).series) == 2
        since = datetime(2026, 1, 2, tzinfo=UTC)
        await sandbox.metrics(since=since)
    assert worker.requests[3].query == {"series": "true", "since": f"{since.timestamp():.3f}"}


async def test_events_are_read(worker: FakeServer) -> None:
    """Page by page; with `follow` up to the end of the sandbox, also when connections break."""
    sandbox = await AsyncSandbox.create(url=worker.url)
    for _ in range(3):
        await sandbox.exec("true")
    found = [event async for event in sandbox.events()]
    assert [event.type for event in found] == ["created", *["exec_started"] * 3]
    assert found[1].facts["exec_id"].startswith("exec_")
    faults = iter(["drop", None, "drop-after"])
    worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/events") else None
    worker.sandboxes[sandbox.id].state = "stopped"
    assert [event async for event in sandbox.events(follow=True)] == found
    assert [event async for event in sandbox.events(cursor=3)] == found[3:]
    await sandbox.delete()


async def test_logs_are_read(worker: FakeServer) -> None:
    """Of all commands, page by page; with `follow` up to the end of the sandbox."""
    sandbox = await AsyncSandbox.create(url=worker.url)
    for word in ("a", "b", "c"):
        await sandbox.exec(f"echo {word}; sleep 0.05; echo e{word} >&2")
    found = [entry async for entry in sandbox.logs()]
    assert [entry.data for entry in found if entry.type == "stdout"] == ["a\n", "b\n", "c\n"]
    assert [entry.data async for entry in sandbox.logs(stream="stderr")] == ["ea\n", "eb\n", "ec\n"]
    worker.sandboxes[sandbox.id].state = "stopped"
    faults = iter(["drop", "drop"])
    worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/logs") else None
    assert [entry async for entry in sandbox.logs(follow=True)] == found
    assert [entry async for entry in sandbox.logs(cursor=2)] == found[2:]
    await sandbox.delete()


async def test_ports_are_reached(worker: FakeServer) -> None:
    """By URL with a token, by anybody once published, and as plain bytes."""
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        where = await sandbox.ports.url(8000, "ws")
        assert (where.port, where.protocol, where.token, where.public) == (8000, "ws", "traffic", False)
        assert (await sandbox.ports.publish(8000)).public is True
        assert [(port.port, port.public) for port in await sandbox.ports.list()] == [(80, False), (8000, True)]
        assert (await sandbox.ports.unpublish(8000)).public is False
        with pytest.raises(errors.InvalidRequest):
            await sandbox.ports.url(0)
        with pytest.raises(errors.PortUnreachable):
            await sandbox.ports.connect(1)


async def test_contexts_keep_what_was_defined(worker: FakeServer) -> None:
    """Values, output and errors of each piece of code."""
    heard: list[str] = []
    async with await AsyncSandbox.create(url=worker.url) as sandbox:
        async with await sandbox.contexts.create(name="c") as context:
            assert (await context.run("x = 6; print('set')")).stdout == "set\n"
            assert (await context.run("x * 7")).text == "42"
            told = await context.run("print('told'); x", on_stdout=heard.append, on_result=heard.append)
            assert (heard[-1], told.stdout, told.text) == ("told\n", "told\n", None)
            failed = await context.run("1 / 0", on_stderr=heard.append)
            assert failed.error is not None
            assert (failed.error.name, failed.ok) == ("ZeroDivisionError", False)
            with pytest.raises(errors.CodeFailed):
                await context.run("1 / 0", check=True)
            info = await context.info()
            assert (info.runtime, info.name, info.execution_count) == ("python", "c", 5)
            assert [item.context_id for item in await sandbox.contexts.list()] == [context.id]
            await context.interrupt()
            await context.restart()
            assert (await context.run("x")).error is not None
            assert [f.type async for f in (await context.start("print(1)")).output()] == ["stdout", "exit"]
        with pytest.raises(errors.NotFound):
            await context.info()
        await context.delete()
    assert repr(context).endswith("Context('ctx_01HZZZ00')")

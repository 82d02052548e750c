"""What is done to commands that run: input, sizes of terminals, signals, and how they are called and found."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from tests.fakes import benches
from traforo.api import schemas
from traforo.domain import errors, specs
from traforo.worker.execs import controls, execs, outcomes, pumps
from traforo.worker.outputs import frames
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[benches.Bench]:
    async with benches.made(tmp_path) as found:
        yield found


@pytest.fixture
async def client(bench: benches.Bench) -> AsyncIterator[httpx2.AsyncClient]:
    async with bench.client() as found:
        yield found


def read(response: httpx2.Response, status: int, model: type[BaseModel]) -> dict[str, Any]:
    """Return an answer that has this status and is what the schema says."""
    assert response.status_code == status, response.text
    model.model_validate_json(response.text)
    found: dict[str, Any] = response.json()
    return found


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    error: dict[str, Any] = read(response, status, schemas.Problem)["error"]
    return error


async def started(client: httpx2.AsyncClient, **body: Any) -> str:
    """Start a command and return its id."""
    found: str = read(await client.post("/exec", json=body), 202, schemas.ExecStarted)["exec_id"]
    return found


@pytest.mark.parametrize("size", [0, 1, 65_536, 700_000])
async def test_given_input(client: httpx2.AsyncClient, size: int) -> None:
    """Input that comes with the request is read to its end, however much it is."""
    answer = await client.post("/exec", json={"command": "wc -c", "stdin": "x" * size, "wait": True})
    assert read(answer, 200, schemas.Exec)["stdout"].strip() == str(size)


async def test_given_bytes(client: httpx2.AsyncClient) -> None:
    """Bytes come as base64, and anything that is not base64 is refused."""
    answer = await client.post("/exec", json={"command": "od -An -tx1", "stdin_b64": "AP8K", "wait": True})
    assert read(answer, 200, schemas.Exec)["stdout"] == " 00 ff 0a\n"
    for wrong in ("?", "AP8", "ä"):
        body = {"command": "true", "stdin_b64": wrong}
        assert problem(await client.post("/exec", json=body), 400)["field"] == "stdin_b64"


async def test_given_input_that_nobody_reads(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A command that reads none of its input ends as it ends."""
    answer = await client.post("/exec", json={"command": "exec 0<&-; exit 3", "stdin": "x" * 900_000, "wait": True})
    assert read(answer, 200, schemas.Exec)["exit_code"] == 3


async def test_no_input(client: httpx2.AsyncClient) -> None:
    """Without input a command reads nothing, and none can be written."""
    exec_id = await started(client, command="cat; sleep 100")
    assert problem(await client.post(f"/exec/{exec_id}/stdin", content=b"x"), 409)["kind"] == "stdin"
    assert (await client.get(f"/exec/{exec_id}")).json()["stdin_open"] is False


async def test_open_input(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Open input is written piece by piece until its end is told; then no more can be."""
    exec_id = await started(client, command="cat", stdin="one\n", stdin_open=True)
    assert (await client.get(f"/exec/{exec_id}")).json()["stdin_open"] is True
    for piece in (b"two\n", b"", b"three\n"):
        assert (await client.post(f"/exec/{exec_id}/stdin", content=piece)).status_code == 204
    assert (await client.post(f"/exec/{exec_id}/stdin?close=true", content=b"four\n")).status_code == 204
    await bench.execs.wait(bench.execs.get(bench.entry, exec_id))
    result = read(await client.get(f"/exec/{exec_id}"), 200, schemas.Exec)
    assert (result["stdout"], result["stdin_open"]) == ("one\ntwo\nthree\nfour\n", False)
    assert problem(await client.post(f"/exec/{exec_id}/stdin", content=b"x"), 409)["written"] == 0


async def test_input_is_taken_as_fast_as_it_is_read(bench: benches.Bench) -> None:
    """What was acknowledged is in the pipe: writers wait for the command, and learn how much it could have read."""
    run = await bench.run(["sleep", "100"], stdin_open=True)
    writers = [asyncio.create_task(controls.write(run, b"x" * 200_000)) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert not any(writer.done() for writer in writers)
    await bench.kill_all()
    found = await asyncio.gather(*writers, return_exceptions=True)
    assert [type(error) for error in found] == [errors.Conflict] * 3
    written = [error.fields["written"] for error in found if isinstance(error, errors.Conflict)]
    assert (0 < written[0] < 200_000, written[1:]) == (True, [0, 0])


async def test_writers_do_not_mix(bench: benches.Bench) -> None:
    """What one writer writes is in one piece in the input, even where it is larger than the pipe."""
    run = await bench.run("cat", stdin_open=True)
    pieces = [bytes([65 + number]) * 300_000 for number in range(4)]
    await asyncio.gather(*(controls.write(run, piece) for piece in pieces))
    await controls.finish(run)
    assert (await bench.output(run))["stdout"] == b"".join(pieces)


async def test_upload_to_a_command_that_ends(bench: benches.Bench) -> None:
    """A conflict tells how much of a large upload the command could have read."""
    async with bench.served() as served:
        exec_id = await started(served.client, command="head -c 100000 >/dev/null", stdin_open=True)

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * 50_000

        answer = await served.client.post(f"/exec/{exec_id}/stdin", content=endless())
        assert 100_000 <= problem(answer, 409)["written"] < 1_000_000


async def test_command_that_closes_its_input(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Nothing is acknowledged that the command cannot read any more."""
    exec_id = await started(client, command="exec 0<&-; echo closed; sleep 100", stdin_open=True)
    run = bench.execs.get(bench.entry, exec_id)
    await bench.execs.frames(run, cursor=0, wait=20, limit=1, encoding="utf8")
    assert problem(await client.post(f"/exec/{exec_id}/stdin", content=b"x"), 409)["written"] == 0


async def test_input_after_a_restart(bench: benches.Bench) -> None:
    """A new worker goes on with open input, and its end reaches the command."""
    run = await bench.run("cat", stdin_open=True)
    await controls.write(run, b"before\n")
    await bench.crash()
    again = bench.execs.get(bench.entry, run.id)
    assert again.stdin_open
    await controls.write(again, b"behind\n")
    await controls.finish(again)
    assert (await bench.output(again))["stdout"] == b"before\nbehind\n"


async def test_terminal(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """On a terminal there is one stream, of a size that can be changed, and input that is echoed."""
    command = "stty size; test -t 0 && test -t 2 && echo $TERM >&2; read x; stty size; read y; exit 5"
    exec_id = await started(client, command=command, tty={"rows": 33, "columns": 99})
    run = bench.execs.get(bench.entry, exec_id)
    shown = (await client.get(f"/exec/{exec_id}")).json()
    assert (shown["tty"], shown["stdin_open"]) == (True, True)
    await until_output(bench, run, "xterm-256color\r\n")
    assert (await client.post(f"/exec/{exec_id}/resize", json={"rows": 11, "columns": 22})).status_code == 204
    assert (await client.post(f"/exec/{exec_id}/stdin", content=b"typed\n")).status_code == 204
    await until_output(bench, run, "typed\r\n11 22\r\n")
    assert (await client.post(f"/exec/{exec_id}/stdin?close=true", content=b"end\n")).status_code == 204
    await bench.execs.wait(run)
    result = (await client.get(f"/exec/{exec_id}")).json()
    assert result["stdout"].startswith("33 99\r\nxterm-256color\r\ntyped\r\n11 22\r\n")
    assert (result["stderr"], result["exit_code"]) == ("", 5)
    assert problem(await client.post(f"/exec/{exec_id}/resize", json={"rows": 1, "columns": 1}), 409)


async def until_output(bench: benches.Bench, run: execs.Exec, text: str) -> None:
    """Return when the output ends with this text."""
    for _ in range(1000):
        if (await bench.execs.result(run))["stdout"].endswith(text):
            return
        await asyncio.sleep(0.01)
    raise AssertionError((await bench.execs.result(run))["stdout"])


async def test_size_of_no_terminal(client: httpx2.AsyncClient) -> None:
    """Without a terminal there is no size; sizes have limits."""
    exec_id = await started(client, command="sleep 100")
    assert problem(await client.post(f"/exec/{exec_id}/resize", json={}), 409)["kind"] == "terminal"
    for wrong in ({"rows": 0}, {"columns": 4097}, {"rows": "8"}):
        assert problem(await client.post(f"/exec/{exec_id}/resize", json=wrong), 400)
        assert problem(await client.post("/exec", json={"tty": wrong}), 400)


@pytest.mark.parametrize(
    "body, field",
    [
        ({"background": True, "wait": True}, "background"),
        ({"stdin": "", "stdin_b64": ""}, "stdin"),
        ({"tag": ""}, "tag"),
        ({"tag": "x" * 65}, "tag"),
        ({"tag": "a b"}, "tag"),
        ({"tag": "a\n"}, "tag"),
        ({"tag": "ä"}, "tag"),
    ],
)
async def test_what_cannot_be_asked_for(client: httpx2.AsyncClient, body: dict[str, Any], field: str | None) -> None:
    """What contradicts itself, or cannot be a tag, is refused and nothing is started."""
    assert problem(await client.post("/exec", json=body), 400).get("field") == field
    assert (await client.get("/exec")).json()["execs"] == []


async def test_filters(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A list can be of those with a tag, of a process id, of those that run; pages go on behind the filter."""
    ended = [await started(client, command="true", tag="done") for _ in range(3)]
    for exec_id in ended:
        await bench.execs.wait(bench.execs.get(bench.entry, exec_id))
    runs = [await started(client, command="sleep 100", tag="a.b_c-1") for _ in range(2)]
    pid = (await client.get(f"/exec/{runs[0]}")).json()["pid"]

    async def listed(query: str) -> list[str]:
        page = read(await client.get(f"/exec?{query}"), 200, schemas.ExecPage)
        return [found["exec_id"] for found in page["execs"]]

    assert await listed("status=running") == runs[::-1]
    assert await listed("status=exited") == ended[::-1]
    assert await listed("tag=done") == ended[::-1]
    assert await listed(f"pid={pid}&status=running") == [runs[0]]
    assert await listed("tag=done&status=running") == []
    assert await listed("tag=nobody") == []
    page = (await client.get("/exec?tag=done&limit=2")).json()
    assert await listed(f"tag=done&limit=2&cursor={page['next_cursor']}") == [ended[0]]
    for wrong in ("tag=a%20b", "status=dead", "pid=0", "pid=x"):
        assert problem(await client.get(f"/exec?{wrong}"), 400)


async def test_signals_by_name(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A signal reaches all execs of a tag, or the one of a process id or an id, and says how many these were."""
    runs = [await started(client, command=["sleep", "100"], tag="group") for _ in range(3)]
    for exec_id in runs:
        await bench.seen(bench.execs.get(bench.entry, exec_id))
    pid = (await client.get(f"/exec/{runs[0]}")).json()["pid"]

    async def signal(**to: Any) -> int:
        answer = await client.post("/signal", json={"signal": "KILL"} | to)
        found: int = read(answer, 200, schemas.Signalled)["signalled"]
        return found

    assert await signal(pid=pid) == 1
    assert await signal(exec_id=runs[1]) == 1
    for exec_id in runs[:2]:
        await bench.execs.wait(bench.execs.get(bench.entry, exec_id))
    assert await signal(tag="group") == 1
    await bench.execs.wait(bench.execs.get(bench.entry, runs[2]))
    assert (await signal(tag="group"), await signal(exec_id=runs[1]), await signal(pid=pid)) == (0, 0, 0)
    assert problem(await client.post("/signal", json={"exec_id": "exec_01K6Z8Q4T3V7WXYZ0123456789"}), 404)
    for wrong in ({}, {"tag": "a", "pid": 1}, {"tag": "a", "signal": "NOPE"}, {"exec_id": "x"}):
        assert problem(await client.post("/signal", json=wrong), 400)


async def test_kill(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A kill ends the whole tree, says so when that is recorded, and can be repeated."""
    exec_id = await started(client, command="trap '' TERM INT; (trap '' TERM; sleep 100) & sleep 100; true")
    await bench.seen(bench.execs.get(bench.entry, exec_id))
    assert (await client.delete(f"/exec/{exec_id}")).status_code == 204
    shown = (await client.get(f"/exec/{exec_id}")).json()
    assert (shown["status"], shown["end"], shown["signal"]) == ("exited", "signalled", 9)
    assert (await client.delete(f"/exec/{exec_id}")).status_code == 204
    assert problem(await client.delete("/exec/exec_01K6Z8Q4T3V7WXYZ0123456789"), 404)


async def test_activity(bench: benches.Bench) -> None:
    """A command that runs is use of its sandbox, unless it runs in the background."""
    assert bench.entry.activity.holds == 0
    back = await bench.run("sleep 100", background=True)
    assert bench.entry.activity.holds == 0
    front = await bench.run("sleep 100")
    assert bench.entry.activity.holds == 1
    await bench.kill_all()
    await asyncio.gather(bench.execs.wait(back), bench.execs.wait(front))
    assert bench.entry.activity.holds == 0
    assert (back.summary()["background"], front.summary()["background"]) == (True, False)


async def test_facts_survive(bench: benches.Bench) -> None:
    """Tag, process id and the rest are known after a restart, of those that run and of those that have ended."""
    options: dict[str, Any] = {"tag": "kept", "background": True, "terminal": specs.Terminal()}
    ended = await bench.run("true", **options)
    await bench.execs.wait(ended)
    running = await bench.run("sleep 100", **options)
    await benches.until(lambda: ended.id in bench.journal.known)
    await bench.crash()
    for run in (ended, running):
        found = bench.execs.get(bench.entry, run.id).summary()
        assert {name: found[name] for name in ("tag", "pid", "tty", "background")} == {
            "tag": "kept",
            "pid": run.pid,
            "tty": True,
            "background": True,
        }


async def test_terminals(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """A terminal is an exec that runs a login shell; lists have terminals alone, and a delete ends it."""
    other = await started(client, command="sleep 100")
    answer = await client.post("/terminals", json={"rows": 5, "columns": 50, "tag": "mine", "env": {"PS1": "> "}})
    opened = read(answer, 201, schemas.Terminal)
    exec_id = opened["exec_id"]
    assert opened["ws_url"] == f"ws://worker:8081/sandboxes/{bench.entry.text_id}/exec/{exec_id}/ws"
    assert (opened["tty"], opened["background"], opened["tag"]) == (True, True, "mine")
    run = bench.execs.get(bench.entry, exec_id)
    await client.post(f"/exec/{exec_id}/stdin", content=b"stty size; echo $0\n")
    for _ in range(1000):
        if "5 50\r\n" in (await bench.execs.result(run))["stdout"]:
            break
        await asyncio.sleep(0.01)
    listing = read(await client.get("/terminals"), 200, schemas.TerminalPage)
    assert [found["exec_id"] for found in listing["terminals"]] == [exec_id]
    assert (await client.get("/terminals?status=exited")).json()["terminals"] == []
    assert problem(await client.delete(f"/terminals/{other}"), 404)["kind"] == "terminal"
    assert (await client.delete(f"/terminals/{exec_id}")).status_code == 204
    assert run.outcome is not None
    assert (await client.delete(f"/terminals/{exec_id}")).status_code == 204


async def test_recorded(bench: benches.Bench, client: httpx2.AsyncClient) -> None:
    """An exec that is no process is fed and concluded; its frames, values and facts are like any other's."""
    run = bench.execs.record(
        bench.entry, command="1 + 1", runtime="python", context_id="ctx_1", timeout_ms=5000, tag="sum"
    )
    assert (await client.get(f"/exec/{run.id}")).json()["status"] == "running"
    bench.execs.feed(run, frames.Kind.STDOUT, b"out \xc3")
    bench.execs.feed(run, frames.Kind.RESULT, b'{"text/plain":"2"}')
    bench.execs.feed(run, frames.Kind.STDOUT, b"\xa4\n")
    for refused in (client.post(f"/exec/{run.id}/signal", json={}), client.delete(f"/exec/{run.id}")):
        assert problem(await refused, 409)["kind"] == "context"
    bench.execs.conclude(run, outcomes.Outcome(outcomes.LOST.end, None, None))
    page = read(await client.get(f"/exec/{run.id}/frames"), 200, schemas.FramePage)
    found = [(frame["type"], frame["data"]) for frame in page["frames"]]
    assert found[:3] == [("stdout", "out "), ("result", '{"text/plain":"2"}'), ("stdout", "ä\n")]
    assert found[3][0] == "exit"
    result = read(await client.get(f"/exec/{run.id}"), 200, schemas.Exec)
    assert (result["output"], result["context_id"], result["pid"]) == ("out ä\n", "ctx_1", None)
    bench.execs.feed(run, frames.Kind.STDOUT, b"too late")
    assert (await bench.execs.result(run))["output"] == "out ä\n"


async def test_recorded_values_of_any_size(bench: benches.Bench) -> None:
    """A value is one frame, however large; beyond the limit it is refused."""
    run = bench.execs.record(bench.entry, command="x", runtime=None, context_id="ctx_1", timeout_ms=None)
    value = b'"' + b"x" * 3_000_000 + b'"'
    bench.execs.feed(run, frames.Kind.RESULT, value)
    with pytest.raises(errors.TooLarge):
        bench.execs.feed(run, frames.Kind.RESULT, b"x" * (execs.MAX_RESULT_BYTES + 1))
    page = await bench.execs.frames(run, cursor=0, wait=0, limit=10, encoding="utf8")
    assert [frame.data for frame in page.frames] == [value.decode()]
    bench.execs.conclude(run, outcomes.Outcome(outcomes.LOST.end, None, None))


def claimed(entry: entries.Entry, running: contract.RunningExec) -> bool:
    """Take over a command, whatever it is."""
    pumps.close(running)
    return entry.live


async def test_recorded_over_a_restart(bench: benches.Bench) -> None:
    """What its maker cannot go on with is lost; where somebody claims a command it goes on, and keeps its output."""
    alone = bench.execs.record(bench.entry, command="x", runtime=None, context_id="ctx_1", timeout_ms=None)
    bench.execs.feed(alone, frames.Kind.STDOUT, b"so far")
    await benches.until(lambda: alone.id in bench.journal.known)
    await bench.crash()
    assert (await bench.execs.result(bench.execs.get(bench.entry, alone.id)))["end"] == "lost"
    assert (await bench.execs.result(bench.execs.get(bench.entry, alone.id)))["stdout"] == "so far"

    kernel = await bench.execs.start(bench.entry, specs.ExecSpec(("sleep", "100")), hidden=True)
    bench.claims = claimed
    second = bench.execs.record(bench.entry, command="x", runtime=None, context_id="ctx_2", timeout_ms=None)
    bench.execs.feed(second, frames.Kind.STDOUT, b"one ")
    await benches.until(lambda: second.id in bench.journal.known)
    await bench.crash()
    (found,) = bench.execs.recorded(bench.entry)
    bench.execs.feed(found, frames.Kind.STDOUT, b"two")
    bench.execs.conclude(found, outcomes.Outcome(outcomes.LOST.end, None, None))
    assert (await bench.execs.result(found))["stdout"] == "one two"
    assert kernel.id not in [run.id for run in bench.execs.page(bench.entry, 10, None)[0]]


def pipes() -> int:
    """Return how many ends of pipes and terminals this process has."""
    found = []
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(name.readlink()))
    return sum(place.startswith(("pipe:", "/dev/pts", "/dev/ptmx")) for place in found)


async def test_descriptors_are_given_back(bench: benches.Bench) -> None:
    """Neither input nor terminals leave descriptors behind."""
    before = pipes()
    for _ in range(5):
        await bench.done("cat", stdin_data=b"x" * 100_000)
        await bench.done("exit", stdin_open=True)
        await bench.done("exit", terminal=specs.Terminal())
    await benches.until(lambda: pipes() <= before)

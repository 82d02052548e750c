"""Routes of execs over HTTP: the answers are what the schemas say, and bad requests are told apart."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from tests.fakes import benches
from traforo.api import schemas


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
    found = read(response, status, schemas.Problem)
    error: dict[str, Any] = found["error"]
    return error


async def test_wait(client: httpx2.AsyncClient) -> None:
    """With `wait` the answer is the result."""
    answer = await client.post("/exec", json={"command": "echo $A; exit 3", "env": {"A": "b"}, "wait": True})
    result = read(answer, 200, schemas.Exec)
    assert (result["stdout"], result["exit_code"], result["command"]) == ("b\n", 3, "echo $A; exit 3")


async def test_no_wait(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Without it the answer says where to ask; both URLs work, and the list has it."""
    started = read(await client.post("/exec", json={"command": ["echo", "hi"]}), 202, schemas.ExecStarted)
    page = read(await client.get(f"http://worker{started['frames_url']}?wait=20&limit=1"), 200, schemas.FramePage)
    assert [frame["data"] for frame in page["frames"]] == ["hi\n"]
    await bench.execs.wait(bench.execs.get(bench.entry, started["exec_id"]))
    result = read(await client.get(f"http://worker{started['poll_url']}"), 200, schemas.Exec)
    assert (result["output"], result["command"], result["status"]) == ("hi\n", ["echo", "hi"], "exited")
    listing = read(await client.get("/exec?limit=5"), 200, schemas.ExecPage)
    assert [found["exec_id"] for found in listing["execs"]] == [started["exec_id"]]


async def test_default_command(client: httpx2.AsyncClient) -> None:
    """An empty body runs `true`."""
    started = read(await client.post("/exec"), 202, schemas.ExecStarted)
    assert started["status"] in {"running", "exited"}


async def test_frames(client: httpx2.AsyncClient) -> None:
    """Frames are read by cursor, as text or base64, up to the end."""
    exec_id = (await client.post("/exec", json={"command": "printf 'a\\377'; exit 1", "wait": True})).json()["exec_id"]
    text = read(await client.get(f"/exec/{exec_id}/frames"), 200, schemas.FramePage)
    assert [(frame["cursor"], frame["type"]) for frame in text["frames"]] == [(0, "stdout"), (1, "exit")]
    assert text["frames"][0]["data"] == "a\ufffd"
    assert json.loads(text["frames"][1]["data"]) == {"end": "exited", "exit_code": 1, "signal": None}
    assert (text["next_cursor"], text["has_more"], text["dropped"]) == (2, False, 0)
    exact = read(await client.get(f"/exec/{exec_id}/frames?encoding=base64&limit=1"), 200, schemas.FramePage)
    assert ([frame["data"] for frame in exact["frames"]], exact["has_more"]) == (["Yf8="], True)


async def test_signal(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Signals are sent by name or number; to an ended exec they are a conflict."""
    exec_id = ""
    for signal in ("KILL", "SIGKILL", "kill", 9):
        exec_id = (await client.post("/exec", json={"command": ["sleep", "100"]})).json()["exec_id"]
        await bench.seen(bench.execs.get(bench.entry, exec_id))
        answer = await client.post(f"/exec/{exec_id}/signal", json={"signal": signal})
        assert (answer.status_code, answer.content) == (204, b"")
        await bench.execs.wait(bench.execs.get(bench.entry, exec_id))
        assert (await client.get(f"/exec/{exec_id}")).json()["signal"] == 9
    assert problem(await client.post(f"/exec/{exec_id}/signal", json={"signal": 9}), 409)["kind"] == "process"
    for wrong in ("NOPE", 0, 65, -9, True, "", "9"):
        assert problem(await client.post(f"/exec/{exec_id}/signal", json={"signal": wrong}), 400)["field"] == "signal"


@pytest.mark.parametrize(
    "body, status, field",
    [
        ({"command": []}, 400, "command"),
        ({"command": [""]}, 400, "command"),
        ({"command": 7}, 400, "command"),
        ({"command": "a\0b"}, 400, "command"),
        ({"command": ["a"] * 4097}, 413, "command"),
        ({"command": "x" * 131_072}, 413, "command"),
        ({"command": "true", "env": {"A=B": "c"}}, 400, "env"),
        ({"command": "true", "env": {"": "c"}}, 400, "env"),
        ({"command": "true", "env": {"A": "\0"}}, 400, "env"),
        ({"command": "true", "cwd": "tmp"}, 400, "cwd"),
        ({"command": "true", "cwd": "/" + "x" * 4095}, 413, "path"),
        ({"command": "true", "timeout_ms": 0}, 400, "timeout_ms"),
        ({"command": "true", "timeout_ms": 7 * 86_400_000 + 1}, 400, "timeout_ms"),
        ({"command": "true", "user": ""}, 400, "user"),
        ({"command": "true", "what": 1}, 400, "what"),
        ({"command": ["no-such-program"]}, 422, None),
        ({"command": "true", "cwd": "/no/such/place"}, 422, None),
        ({"command": "true", "user": "nobody-here"}, 404, None),
    ],
)
async def test_bad_requests(client: httpx2.AsyncClient, body: dict[str, Any], status: int, field: str | None) -> None:
    """What cannot be run is refused, and the refusal says which field."""
    assert problem(await client.post("/exec", json=body), status).get("field") == field


async def test_start_failed(client: httpx2.AsyncClient) -> None:
    """A command that cannot be started has an id and a stage, and is not remembered."""
    told = problem(await client.post("/exec", json={"command": ["no-such-program"], "wait": True}), 422)
    assert (told["code"], told["stage"], told["errno_name"]) == ("start_failed", "exec", "ENOENT")
    assert problem(await client.get(f"/exec/{told['exec_id']}"), 404)["kind"] == "exec"


async def test_unknown_execs(client: httpx2.AsyncClient) -> None:
    """Ids are checked before they are looked up."""
    assert problem(await client.get("/exec/exec_1"), 400)["code"] == "malformed_id"
    assert problem(await client.get("/exec/exec_01K6Z8Q4T3V7WXYZ0123456789"), 404)["kind"] == "exec"
    assert problem(await client.get("/exec?cursor=7"), 400)["field"] == "cursor"
    assert problem(await client.get("/exec/exec_01K6Z8Q4T3V7WXYZ0123456789/frames?wait=61"), 400)["field"] == "wait"


async def test_code(client: httpx2.AsyncClient) -> None:
    """Code that cannot be run tells what is missing. (Compilers see the host here: more in the tests of codes.)"""
    body = {"code": "print(1)", "env": {"PATH": "/nowhere"}}
    told = problem(await client.post("/exec/code", json=body), 422)
    assert (told["code"], told["stage"], told["runtime"]) == ("start_failed", "exec", "python")
    for wrong, status in (({"code": "x" * (2**20 + 1)}, 413), ({"code": "1", "runtime": "cobol"}, 400), ({}, 400)):
        problem(await client.post("/exec/code", json=wrong), status)


async def test_after_the_end(client: httpx2.AsyncClient, bench: benches.Bench) -> None:
    """Execs of an ended sandbox can be read, and none can be started."""
    exec_id = (await client.post("/exec", json={"command": "echo x", "wait": True})).json()["exec_id"]
    await bench.die()
    assert (await client.get(f"/exec/{exec_id}")).json()["stdout"] == "x\n"
    assert problem(await client.post("/exec", json={}), 409)["code"] == "conflict"

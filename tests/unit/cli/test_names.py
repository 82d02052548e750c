"""Sandboxes are known by the end of their ids, against a fake server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done
from traforo.cli import forwards, names
from traforo.sdk import AsyncSandbox, Client, errors

Run = Callable[..., Done]


@pytest.fixture
def client(control: FakeServer) -> Iterator[Client]:
    with Client(control.url) as found:
        yield found


WHOLE = ("sbx_0123456789abcdef0123456789abcdef_01HZZZZZZZZZZZZZZZZZZZZZ00", "a" * 26 + "01hzzzzzzzzzzzzzzzzzzzzz00")


@pytest.mark.parametrize("text", [*WHOLE, "sbx_1", "", "demo", "a-b", "é", "0" * 26])
def test_whatever_is_no_end_of_an_id_costs_nothing(text: str, control: FakeServer, client: Client) -> None:
    """No request is made for a whole id, in either spelling, nor for what cannot be one."""
    assert names.whole(text, client) == text
    assert control.requests == []


@pytest.mark.parametrize("text", ["ZZ01", "zz01", "1", "ZZZZZZ01"])
def test_an_end_that_is_enough(text: str, worker: FakeServer, client: Client) -> None:
    """As long as nobody else's ends so, in any case of letters; those that have ended count too."""
    ids = [worker.create({}).sandbox_id for _ in range(5)]
    worker.sandboxes[ids[1]].state = "stopped"
    assert names.whole(text, client) == ids[1]


def test_an_end_of_several(worker: FakeServer, client: Client) -> None:
    """Says which, and does not guess."""
    ids = [worker.create({}).sandbox_id for _ in range(13)]
    with pytest.raises(errors.InvalidRequest) as raised:
        names.whole("2", client)
    assert raised.value.message == "cannot tell which sandbox '2' is: 2 ids end with it"
    assert raised.value.hint == f"write more of it: {ids[12]}, {ids[2]}"


def test_an_end_of_many(worker: FakeServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of them is not endless."""
    monkeypatch.setattr(names, "_NAMED", 1)
    worker.create({})
    found = [worker.create({}).sandbox_id for _ in range(20)][9]
    with pytest.raises(errors.InvalidRequest) as raised:
        names.whole("0", client)
    assert (raised.value.hint or "").endswith(", …")
    assert found in (raised.value.hint or "") or "ZZ20" in (raised.value.hint or "")


def test_an_end_of_none(worker: FakeServer, client: Client) -> None:
    """Says where to look."""
    worker.create({})
    with pytest.raises(errors.NotFound) as raised:
        names.whole("77", client)
    assert raised.value.message == "no sandbox whose id ends with '77'"
    assert raised.value.hint == "`traforo list -a` shows yours"


def test_every_way_to_name_a_sandbox_takes_an_end(worker: FakeServer, traforo: Run, tmp_path: Path) -> None:
    """Arguments, ends of a copy, several at once."""
    worker.create({})
    sandbox = worker.create({})
    end = sandbox.sandbox_id[-4:]
    (tmp_path / "file").write_text("x")
    assert json.loads(traforo("get", end, "--json").out)["sandbox_id"] == sandbox.sandbox_id
    assert traforo("exec", end, "--", "echo", "x").out == b"x\n"
    assert traforo("cp", str(tmp_path / "file"), f"{end}:/f").code == 0
    assert traforo("files", "list", end, "/").text.splitlines()[1].endswith("/f")
    assert traforo("port", "url", end, "80").code == 0
    assert traforo("stats", end).text.splitlines()[1].startswith(names.short(sandbox.sandbox_id))
    assert traforo("delete", end).text == f"{end}\n"
    assert [item.state for item in worker.sandboxes.values()] == ["running", "stopped"]


def test_ports_are_forwarded_by_an_end(worker: FakeServer, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a loop of events does the work, too."""
    seen: list[str] = []

    async def serve(sandbox: AsyncSandbox, wanted: object, address: str) -> int:
        seen.append(sandbox.id)
        return 0

    monkeypatch.setattr(forwards, "serve", serve)
    sandbox_id = worker.create({}).sandbox_id
    assert traforo("port-forward", sandbox_id[-5:], "80").code == 0
    assert seen == [sandbox_id]


@pytest.mark.parametrize("command", [["get", "77"], ["exec", "77", "--", "true"], ["delete", "77"]])
def test_an_unknown_end_is_an_error_like_any_other(command: list[str], traforo: Run) -> None:
    """One line and a hint, and the exit code of an error."""
    done = traforo(*command)
    assert (done.code, done.out, len(done.said.splitlines())) == (125 if command[0] == "exec" else 1, b"", 2)
    assert "no sandbox whose id ends with '77'" in done.said

"""`create`, `list`, `get` and `delete` against a fake server."""

import importlib
import json
import typing
from collections.abc import Callable

import pytest

from tests.fakes.servers import FakeServer
from tests.unit.cli.conftest import Done
from traforo.domain import states

Run = Callable[..., Done]


def test_create_prints_the_id_alone(worker: FakeServer, traforo: Run) -> None:
    """So that a shell can keep it."""
    done = traforo("create")
    assert (done.code, done.err) == (0, b"")
    assert done.text == f"{next(iter(worker.sandboxes))}\n"


def test_create_hands_on_every_option(worker: FakeServer, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each becomes what the API calls it, and nothing else is sent."""
    monkeypatch.setenv("HERE", "local")
    shape = "--image i --cpu 0.5 --memory-mib 64 --disk-mib 32 --disk-kind disk --pids 9 --virtualization v"
    more = "--hardware-sku s --name n --ttl 60 -e A=1 -e HERE -e NOWHERE --env B=x=y -m k=v"
    assert traforo("create", *shape.split(), *more.split()).code == 0
    assert worker.requests[0].json == {
        "image": "i",
        "cpu": 0.5,
        "memory_mib": 64,
        "disk_mib": 32,
        "disk_kind": "disk",
        "pids": 9,
        "virtualization": "v",
        "hardware_sku": "s",
        "name": "n",
        "ttl_seconds": 60,
        "env": {"A": "1", "HERE": "local", "B": "x=y"},
        "metadata": {"k": "v"},
    }


def test_times_are_given_with_units(worker: FakeServer, traforo: Run) -> None:
    """Wherever seconds are taken."""
    assert traforo("create", "--ttl", "1h30m", "--idle", "90s").code == 0
    assert worker.requests[0].json == {"ttl_seconds": 5400, "idle_seconds": 90}
    assert traforo("create", "--idle-seconds", "60").code == 0
    assert worker.requests[-1].json == {"idle_seconds": 60}
    sandbox_id = next(iter(worker.sandboxes))
    assert traforo("exec", "--timeout", "1m", sandbox_id, "--", "true").code == 0
    assert [a.json["timeout_ms"] for a in worker.requests if a.method == "POST" and a.path.endswith("/exec")] == [
        60_000
    ]
    assert traforo("files", "url", sandbox_id, "/f", "--expires", "12h").code == 0
    assert worker.requests[-1].json["expires_in_seconds"] == 43_200


def test_renew_tells_the_new_end(worker: FakeServer, traforo: Run) -> None:
    """Of the lease, of the limit of idleness, or of both."""
    sandbox_id = worker.create({"idle_seconds": 60}).sandbox_id
    worker.renewed_token = "tok2"

    def asked(*arguments: str) -> dict[str, str]:
        assert traforo("renew", sandbox_id, *arguments) == Done(0, b"2026-01-02T04:00:00.000Z\n", b"")
        return worker.requests[-1].query

    assert asked("--ttl", "1h") == {"ttl_seconds": "3600"}
    assert asked("--idle", "10m") == {"idle_seconds": "600"}
    assert asked("--ttl", "90", "--idle", "0") == {"ttl_seconds": "90", "idle_seconds": "0"}
    assert json.loads(traforo("renew", sandbox_id, "--ttl", "1h", "--json").out) == {
        "sandbox_id": sandbox_id,
        "expires_at": "2026-01-02T04:00:00.000Z",
        "idle_seconds": 60,
        "token": "tok2",
    }
    done = traforo("renew", sandbox_id)
    assert (done.code, "nothing to renew" in done.said) == (2, True)


def test_create_as_json_has_everything(worker: FakeServer, traforo: Run) -> None:
    """The sandbox, how to reach it, and how it started."""
    sandbox = json.loads(traforo("create", "--json").out)
    assert sandbox["sandbox_id"] in worker.sandboxes
    assert (sandbox["connect_url"], sandbox["token"], sandbox["start_type"]) == (worker.url, None, "cold")
    assert sandbox["timings_ms"]["total"] == 1.5


def test_list_is_a_table_that_is_never_cut(worker: FakeServer, traforo: Run) -> None:
    """A line for each sandbox with the end of its id, which names it, newest first."""
    ids = [worker.create({"name": f"n{number}"}).sandbox_id for number in range(3)]
    lines = traforo("list").text.splitlines()
    assert lines[0].split()[:2] == ["ID", "NAME"]
    assert [line.split()[:2] for line in lines[1:]] == [[ids[n][-8:], f"n{n}"] for n in (2, 1, 0)]
    assert json.loads(traforo("get", lines[2].split()[0], "--json").out)["sandbox_id"] == ids[1]


def test_list_leaves_out_what_has_ended(worker: FakeServer, traforo: Run) -> None:
    """Unless it is asked for; the limit counts what is shown."""
    ids = [worker.create({}).sandbox_id for _ in range(4)]
    worker.sandboxes[ids[3]].state = worker.sandboxes[ids[1]].state = "stopped"
    assert traforo("list", "-q").text.split() == [ids[2], ids[0]]
    assert traforo("list", "-q", "--limit", "1").text.split() == [ids[2]]
    assert traforo("list", "-q", "--all", "--limit", "3").text.split() == ids[:0:-1]
    assert traforo("list", "-q", "--state", "stopped").text.split() == [ids[3], ids[1]]
    assert "stopped (deleted)" in traforo("list", "-a").text


def test_list_knows_every_state() -> None:
    """Those that a server has are those that can be asked for."""
    commands = importlib.import_module("traforo.cli.commands.list")
    assert set(typing.get_args(commands.State)) == set(states.SandboxState)


def test_list_of_nothing_is_a_header(traforo: Run) -> None:
    """And no error."""
    done = traforo("list")
    assert (done.code, len(done.text.splitlines())) == (0, 1)


def test_list_for_programs(worker: FakeServer, traforo: Run) -> None:
    """JSON has everything, `-q` the ids; both take the filters."""
    ids = [worker.create({}).sandbox_id for _ in range(3)]
    worker.sandboxes[ids[1]].state = "stopped"
    found = json.loads(traforo("list", "--all", "--json").out)
    assert [sandbox["sandbox_id"] for sandbox in found["sandboxes"]] == ids[::-1]
    assert found["sandboxes"][0]["created_at"] == "2026-01-02T03:04:05.678Z"
    assert traforo("list", "-q", "--state", "running", "--limit", "1").text == f"{ids[2]}\n"


def test_list_shows_names_without_their_escapes(worker: FakeServer, traforo: Run) -> None:
    """A name cannot move the cursor or colour the terminal."""
    worker.create({"name": "\x1b[31mred\nline"})
    text = traforo("list").text
    assert "\x1b" not in text
    assert r"\x1b[31mred\nline" in text
    assert len(text.splitlines()) == 2


def test_get_shows_one(worker: FakeServer, traforo: Run) -> None:
    """As pairs, and as JSON."""
    sandbox_id = worker.create({"metadata": {"k": "v"}}).sandbox_id
    assert f"sandbox_id        {sandbox_id}\n" in traforo("get", sandbox_id).text
    assert "metadata          k=v\n" in traforo("get", sandbox_id).text
    assert json.loads(traforo("get", sandbox_id, "--json").out)["metadata"] == {"k": "v"}


def test_get_of_nothing_is_an_error(traforo: Run) -> None:
    """Exit code 1, one line."""
    done = traforo("get", "sbx_none", "--json")
    assert (done.code, done.out) == (1, b"")
    assert done.said.startswith("error: no sandbox 'sbx_none'")


def test_delete_takes_several(worker: FakeServer, traforo: Run) -> None:
    """And prints each one that is dead."""
    ids = [worker.create({}).sandbox_id for _ in range(3)]
    done = traforo("delete", *ids[:2])
    assert (done.code, done.text.split()) == (0, ids[:2])
    assert [sandbox.state for sandbox in worker.sandboxes.values()] == ["stopped", "stopped", "running"]
    assert json.loads(traforo("delete", "--json", ids[2]).out) == {"deleted": [ids[2]]}


def test_delete_goes_on_after_a_failure(worker: FakeServer, traforo: Run) -> None:
    """The others are deleted all the same, and the exit code tells."""
    sandbox_id = worker.create({}).sandbox_id
    done = traforo("delete", "sbx_none", sandbox_id)
    assert (done.code, done.text) == (1, f"{sandbox_id}\n")
    assert done.said.startswith("error: cannot delete 'sbx_none': no sandbox")


def test_delete_stops_when_the_server_is_gone(traforo: Run) -> None:
    """There is no use in trying each."""
    done = traforo("delete", "sbx_1", "sbx_2", "--url", "http://127.0.0.1:1")
    assert (done.code, done.said.count("error:")) == (1, 1)

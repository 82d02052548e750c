"""A worker of an ordinary user: what works without root, and what a delegated control group adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hosts import places
from traforo.sdk import Client, Sandbox, errors
from traforo.worker.hosts import cgroups

User = tuple[Path, list[str]]


@pytest.fixture
def user() -> Iterator[User]:
    """A user's directory, and the prefix that becomes that user."""
    prefix = places.as_nobody()
    with places.home_of(places.NOBODY) as home:
        yield home, prefix


def test_a_worker_runs_without_root(user: User) -> None:
    """Commands, code and files work; inside there is one user, root, who is nobody else outside."""
    home, prefix = user
    with places.worker(home, python=places.PYTHON, prefix=prefix) as worker, Client(worker.url) as client:
        assert Path(f"/proc/{worker.process.pid}").stat().st_uid == places.NOBODY
        with Sandbox.create(client=client, memory_mib=128) as sandbox:
            assert sandbox.exec("id -u; id -un").stdout == "0\nroot\n"
            assert sandbox.exec("echo x > /tmp/x && cat /tmp/x", user="root").stdout == "x\n"
            assert sandbox.exec("touch /usr/bin/x 2>/dev/null || echo refused").stdout == "refused\n"
            assert sandbox.run_code("print(6 * 7)").stdout == "42\n"
            sandbox.files.write("/root/a/b.txt", "text")
            assert sandbox.files.read_text("/root/a/b.txt") == "text"
            assert sandbox.exec("exit 7").exit_code == 7
            ended = sandbox.exec("sleep 1000", timeout=0.2)
            assert (ended.end, ended.exit_code) == ("timed_out", 124)


def test_users_that_cannot_be_are_refused(user: User) -> None:
    """A second user would need a second uid of the host: said in words, and the sandbox goes on."""
    home, prefix = user
    with places.worker(home, python=places.PYTHON, prefix=prefix) as worker, Client(worker.url) as client:
        with Sandbox.create(client=client, memory_mib=128) as sandbox:
            with pytest.raises((errors.NotFound, errors.StartFailed), match="nobody"):
                sandbox.exec("id", user="nobody")
            assert sandbox.exec("true").exit_code == 0
        with pytest.raises(errors.InvalidRequest):
            Sandbox.create(client=client, disk_kind="disk")


def test_sandboxes_outlive_a_killed_worker_of_a_user(user: User) -> None:
    """As they outlive one of root."""
    home, prefix = user
    with places.worker(home, python=places.PYTHON, prefix=prefix) as first, Client(first.url) as client:
        sandbox = Sandbox.create(client=client, memory_mib=128)
        sandbox.files.write("/tmp/kept", "kept\n")
        first.kill()
    with places.worker(home, python=places.PYTHON, prefix=prefix) as second, Client(second.url) as client:
        found = Sandbox.connect(sandbox.id, client=client)
        assert found.exec("cat /tmp/kept").stdout == "kept\n"
        found.delete()


def test_the_doctor_says_what_a_user_lacks(user: User) -> None:
    """Each lack with its price, and none that is not there."""
    home, prefix = user
    findings = places.doctor(home, python=places.PYTHON, prefix=prefix)
    assert findings["runtime container"]["ok"] is True
    assert findings["root"]["ok"] is False
    assert findings["cgroup memory"]["cost"] == "the memory limit of a sandbox is not enforced"
    assert all(bool(finding["cost"]) is not finding["ok"] or finding["ok"] for finding in findings.values())


def test_a_delegated_group_is_used(user: User) -> None:
    """Its controllers limit, its tree is killed whole, a restart finds it again, and nothing stays in it."""
    home, prefix = user
    with places.delegated(places.NOBODY) as group:
        joined = places.joining(group, prefix)
        limiting = {"cpu", "memory", "pids"} & set((group / "cgroup.controllers").read_text().split())
        findings = places.doctor(home, python=places.PYTHON, prefix=joined)
        assert findings["cgroup v2 tree"]["ok"] is True
        assert {name for name in cgroups.CONTROLLERS if findings[f"cgroup {name}"]["ok"]} == limiting
        with places.worker(home, python=places.PYTHON, prefix=joined) as worker, Client(worker.url) as client:
            sandbox = Sandbox.create(client=client, memory_mib=64, disk_mib=16, cpu=0.5, pids=32)
            (own,) = group.glob("traforo-*/sbx_*")
            if limiting:
                assert (own / "memory.max").read_text().strip() == str(64 << 20)
                assert (own / "cpu.max").read_text().strip() == "50000 100000"
                assert (own / "pids.max").read_text().strip() == "33"
                assert sandbox.exec("a=$(head -c 300000000 /dev/zero | tr '\\0' x)").end == "out_of_memory"
            assert sandbox.exec("(setsid setsid sleep 1000 &); sleep 1000", timeout=0.5).end == "timed_out"
            assert sandbox.exec("cat /proc/[0-9]*/comm").stdout.split().count("sleep") == 0
            sandbox.delete()
            assert list(group.glob("traforo-*/sbx_*")) == []
        with (
            places.worker(home, python=places.PYTHON, prefix=_again(group, prefix)) as worker,
            Client(worker.url) as client,
            Sandbox.create(client=client, memory_mib=64),
        ):
            assert len(list(group.glob("traforo-*/sbx_*"))) == 1


def _again(group: Path, prefix: list[str]) -> list[str]:
    """Return a prefix that joins where the earlier worker was, which cannot be the group itself any more."""
    leaves = list(group.glob("traforo-*-worker"))
    return places.joining(leaves[0] if leaves else group, prefix)

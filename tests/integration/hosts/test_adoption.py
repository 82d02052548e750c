"""A worker that is killed, and the one after it."""

from __future__ import annotations

from tests.integration.hosts import places
from traforo.sdk import Client, Sandbox


def test_sandboxes_outlive_a_killed_worker() -> None:
    """The next worker has the sandbox, its files, and the whole output of what ran meanwhile."""
    with places.home_of(0) as home:
        with places.worker(home) as first, Client(first.url) as client:
            sandbox = Sandbox.create(client=client, memory_mib=128)
            sandbox.files.write("/tmp/kept", "kept\n")
            running = sandbox.start("echo one; until [ -e /tmp/go ]; do sleep 0.05; done; echo two; exit 5")
            first.kill()
        with places.worker(home) as second, Client(second.url) as client:
            found = Sandbox.connect(sandbox.id, client=client)
            assert found.info().state == "running"
            assert found.exec("cat /tmp/kept; touch /tmp/go").stdout == "kept\n"
            done = found.get_exec(running.id).wait()
            assert (done.stdout, done.exit_code) == ("one\ntwo\n", 5)
            found.delete()
            assert [info.state for info in Sandbox.list(client=client)] == ["stopped"]

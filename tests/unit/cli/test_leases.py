import threading

from tests.fakes.commands import wait_until
from tests.fakes.servers import FakeServer
from traforo.cli import leases
from traforo.sdk import Sandbox


def test_the_lease_is_renewed_while_the_block_runs(worker: FakeServer) -> None:
    """Over and over, through failures, and not afterwards."""
    faults = iter(["drop", "drop"])
    with Sandbox.create(url=worker.url) as sandbox:
        worker.fault = lambda asked: next(faults, None) if asked.path.endswith("/lease") else None
        with leases.renewed(sandbox, 0.03):
            wait_until(lambda: sum(path.endswith("/lease") for path in worker.paths()) >= 4)
    assert worker.requests[1].query == {"ttl_seconds": "0.03"}
    assert "lease" not in [thread.name for thread in threading.enumerate()]

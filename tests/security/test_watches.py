"""Watching from outside: the process that does it is the user's, and it may be stopped, killed or drowned by him."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.security import labs
from traforo.domain import errors, states
from traforo.worker.runtimes import contract

WATCHES = 16
"""So many a sandbox has at once."""
HELPERS = "grep -lE '^Uid:.1000' /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3"


async def _signal_helpers(sandbox: labs.Sandbox, name: str) -> None:
    """Signal the processes of user 1000 as that user; the shell that does it is one of them."""
    script = f"for pid in $({HELPERS}); do [ $pid = $$ ] || kill -{name} $pid; done 2>/dev/null; :"
    await labs.run(sandbox, script, user="1000")


async def test_a_watch_that_is_killed_is_over(sandbox: labs.Sandbox) -> None:
    """Whoever waits is told, and can begin again."""
    watch = await sandbox.files.watch("/tmp", user="1000", recursive=True)
    await _signal_helpers(sandbox, "KILL")
    assert list(await asyncio.wait_for(watch.changes(), 10)) == []
    again = await sandbox.files.watch("/tmp", user="1000", recursive=True)
    await labs.run(sandbox, "touch /tmp/new")
    assert (await asyncio.wait_for(again.changes(), 10))[0].path == "/tmp/new"
    await again.close()


async def test_watches_that_are_stopped_give_their_places_back(sandbox: labs.Sandbox) -> None:
    """Nothing that the sandbox does to the process of a watch keeps it when nobody reads any more."""
    for _ in range(WATCHES + 4):
        watch = await sandbox.files.watch("/tmp", user="1000", recursive=False)
        await _signal_helpers(sandbox, "STOP")
        await watch.close()
    again = await sandbox.files.watch("/tmp", user="1000", recursive=True)
    await labs.run(sandbox, "touch /tmp/new")
    assert (await asyncio.wait_for(again.changes(), 10))[0].path == "/tmp/new"
    await again.close()


async def test_watches_that_are_stopped_keep_their_places_while_somebody_reads(
    lab: labs.Lab, sandbox: labs.Sandbox
) -> None:
    """Then it can be watched no more; it does everything else, dies at once, and others are not concerned."""
    other = await lab.create()
    watches = [await sandbox.files.watch("/tmp", user="1000", recursive=False) for _ in range(WATCHES)]
    await _signal_helpers(sandbox, "STOP")
    with pytest.raises(errors.RateLimited):
        await sandbox.files.watch("/tmp", user="1000", recursive=False)
    assert (await labs.run(sandbox, "echo alive")).stdout == b"alive\n"
    await (await other.files.watch("/tmp", user="1000", recursive=False)).close()
    assert (await lab.remove(sandbox)).reason is states.EndReason.DELETED
    for watch in watches:
        await watch.close()


async def test_a_watch_has_no_more_rights_than_its_user(sandbox: labs.Sandbox) -> None:
    """What happens in a directory that the user may not read is not told, however the tree is turned meanwhile."""
    await labs.run(sandbox, "mkdir -p /srv/w/open /srv/secret; chmod 700 /srv/secret; chown 1000 /srv/w /srv/w/open")
    watch = await sandbox.files.watch("/srv/w", user="1000", recursive=True)
    swap = await labs.start(
        sandbox,
        "cd /srv/w; while :; do mkdir d; rmdir d; ln -s /srv/secret d; rm d; done 2>/dev/null",
        user="1000",
    )
    seen: set[str] = set()

    async def collect() -> None:
        while found := await watch.changes():
            seen.update(change.path for change in found)

    collecting = asyncio.ensure_future(collect())
    await labs.run(sandbox, "for i in $(seq 300); do echo x > /srv/secret/known-$i; done")
    await labs.end(swap)
    await labs.run(sandbox, "touch /srv/w/open/mark")

    async def is_marked() -> bool:
        return "/srv/w/open/mark" in seen

    await labs.eventually(is_marked)
    await watch.close()
    await collecting
    assert not [path for path in seen if "known" in path]


async def test_a_flood_of_changes_costs_the_worker_nothing(sandbox: labs.Sandbox) -> None:
    """What nobody reads is not kept: it is lost inside, and said to be."""
    watch = await sandbox.files.watch("/tmp", user="root", recursive=True)
    await labs.run(sandbox, "cd /tmp; for r in 1 2; do seq 1 5000 | xargs touch; seq 1 5000 | xargs rm; done")
    count = 0
    overflow = False
    with contextlib.suppress(TimeoutError):
        while not overflow:
            found = await asyncio.wait_for(watch.changes(), 5)
            count += len(found)
            overflow = any(change.kind is contract.ChangeKind.OVERFLOW for change in found)
    assert overflow
    assert count < 40_000
    await watch.close()

"""What package managers do to directories of an image: all of it works inside, on every kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import uids
from tests.contract.runtimes import outputs
from tests.integration.hosts import places
from traforo.domain import errors, ids, specs, states
from traforo.settings import worker as settings_worker
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import drivers

PIECES = {
    "replace an empty directory": "rmdir empty && mkdir empty && touch empty/new",
    "replace a full directory": 'rm -r full && mkdir full && test -z "$(ls -A full)" && touch full/new',
    "replace a file by a directory": "rm file && mkdir file && touch file/new",
    "replace a directory by a file": 'rm -r full && echo x >full && test "$(cat full)" = x',
    "move a directory of the image": "mv full other && test -e other/inner/file && ! test -e full",
    "move a new directory over a removed one": "mkdir new && touch new/n && rm -r full && mv new full && ls full",
    "replace by rename, as dpkg does": 'echo 2 >file.new && mv -f file.new file && test "$(cat file)" = 2',
    "remove and make again, twice": "for i in 1 2; do rm -r full; mkdir -p full/inner; touch full/inner/f; done",
    "change owner and mode": 'chown -R 33:33 full && chmod -R go-rwx full && test "$(stat -c %u full/inner)" = 33',
    "hard links": "ln file linked && echo more >>linked && grep -q more file",
    "extended attributes": "python3 -c \"import os; os.setxattr('file', 'security.capability', "
    "bytes.fromhex('0100000200040000000000000000000000000000'))\"",
}


@pytest.fixture
async def sandbox() -> AsyncIterator[contract.RunningSandbox]:
    """A sandbox of an image with /data and the host's programs."""
    with places.home_of(0) as home:
        image = home / "image"
        for directory in ("data/full/inner", "data/empty", "bin", "usr", "lib", "lib64"):
            (image / directory).mkdir(parents=True)
        (image / "data/full/inner/file").write_text("one\n")
        (image / "data/file").write_text("1\n")
        settings = settings_worker.WorkerSettings(
            state_dir=home / "state", run_dir=home / "run", total_memory_mib=4096, uid_base=uids.WORKERS
        )
        try:
            runtime = await asyncio.to_thread(drivers.make, settings)
        except errors.StartFailed as error:
            pytest.skip(f"this host cannot run sandboxes: {error}")
        await runtime.start()
        request = contract.CreateRequest(
            sandbox_id=str(ids.new_sandbox_id(ids.worker_hash("hosts"))),
            hostname="sandbox",
            resources=specs.Resources(cpu=1, memory_mib=128, disk_mib=32, pids=64),
            rootfs=contract.Rootfs("test", (contract.Lower(str(image), "/"), *_programs())),
            label=b"",
            deadline=time.time() + 300,
        )
        made = await runtime.create(request)
        try:
            yield made
        finally:
            await made.kill(states.EndReason.DELETED)
            await runtime.close(keep=False)
        assert (image / "data/full/inner/file").read_text() == "one\n"
        assert sorted(path.name for path in (image / "data").iterdir()) == ["empty", "file", "full"]


def _programs() -> list[contract.Lower]:
    paths = [Path("/", name) for name in ("usr", "bin", "lib", "lib64")]
    return [contract.Lower(str(path.resolve()), str(path)) for path in paths if path.exists()]


@pytest.mark.parametrize("what", PIECES)
async def test_directories_of_the_image_can_be_changed(sandbox: contract.RunningSandbox, what: str) -> None:
    """It works inside, and the image does not change."""
    done = await outputs.run(sandbox, f"set -e; {PIECES[what]}", cwd="/data")
    assert (done.exit, done.stderr) == (contract.ExecExit(code=0), b"")

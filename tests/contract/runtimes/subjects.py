"""What the suite is run against: one implementation of the contract, and how it is made again after a restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from traforo.domain import ids, specs
from traforo.worker.runtimes import contract


@dataclass
class Subject:
    """One implementation under test, and what is needed to use it."""

    make: Callable[[], contract.Runtime]
    rootfs: contract.Rootfs
    isolates: bool
    """Whether it enforces limits and hides the host; the fake does neither."""
    runtime: contract.Runtime = field(init=False)

    async def start(self) -> contract.Adoption:
        """Start a runtime over whatever an earlier one left."""
        self.runtime = self.make()
        return await self.runtime.start()

    async def restart(self) -> contract.Adoption:
        """End the worker's side alone, and start it again."""
        await self.runtime.close(keep=True)
        return await self.start()

    def needs_isolation(self) -> None:
        """Skip a test of what only a runtime with isolation can do."""
        if not self.isolates:
            pytest.skip("the fake enforces nothing")

    async def create(
        self, *, label: bytes = b"label", deadline: float | None = None, **limits: object
    ) -> contract.RunningSandbox:
        """Make a small sandbox with the directory /data in it."""
        values: dict[str, object] = {"cpu": 1.0, "memory_mib": 256, "disk_mib": 64, "pids": 128, **limits}
        request = contract.CreateRequest(
            sandbox_id=str(ids.new_sandbox_id(ids.worker_hash("contract"))),
            hostname="the-sandbox",
            resources=specs.Resources(**values),  # type: ignore[arg-type]  # a builder for tests
            rootfs=self.rootfs,
            label=label,
            deadline=deadline,
        )
        sandbox = await self.runtime.create(request)
        await sandbox.files.mkdir("/data", 0o777, user="root", parents=True)
        return sandbox

    async def close(self) -> None:
        """End everything."""
        await self.runtime.close(keep=False)

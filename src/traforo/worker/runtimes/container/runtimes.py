"""The runtime itself: one spawner, its live sandboxes, and their adoption after this process or the spawner died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from traforo.domain import errors, states
from traforo.telemetry import logs
from traforo.wire import init_messages as wire
from traforo.worker.hosts import cgroups, claims, disks
from traforo.worker.runtimes import contract
from traforo.worker.runtimes.container import channels, connections, inits, plans, remains, slots, spawners

_READY_SECONDS = 30.0
_RETRY_SECONDS = 0.5
_CLEAR_TRIES = 200
_CLEAR_PAUSE_SECONDS = 0.02
_SLOTS_MAX = 16384


@dataclass(frozen=True, slots=True)
class Places:
    """Where the runtime keeps what it needs on the host."""

    binary: Path
    """The `traforo-init` program."""
    run_dir: Path
    """Mode 0700; sockets, stage and devices."""
    disk_dir: Path
    """Disk images of sandboxes with `disk_kind: disk`."""
    claims: Path = claims.DIRECTORY
    """Where the workers of this host tell each other which user ids they use."""

    @property
    def socket(self) -> Path:
        """Where the spawner listens."""
        return self.run_dir / "spawner.sock"

    @property
    def stage(self) -> Path:
        """Where trees are put together."""
        return self.run_dir / "stage"

    @property
    def devices(self) -> Path:
        """Device files that sandboxes share."""
        return self.run_dir / "devices"


class ContainerRuntime:
    """`contract.Runtime` on the spawner."""

    virtualization = "container"

    def __init__(self, places: Places, host: plans.Host, uid_base: int) -> None:
        self._places = places
        self._host = host
        self._planner = plans.Planner(host)
        self._slots = slots.Slots(uid_base, _SLOTS_MAX)
        self._range = claims.Range(uid_base, self._slots.end, str(places.disk_dir.parent))
        self._claim = -1
        self._spawner: spawners.Spawner | None = None
        self._sandboxes: dict[str, inits.Sandbox] = {}
        self._uids: dict[str, int] = {}
        self._coming: set[str] = set()
        """What the spawner was asked to make, and whose answer nobody has read yet."""
        self._adopting = False
        self._early: dict[str, contract.SandboxEnd] = {}
        """Ends of what is coming or being adopted: the spawner tells them to the loop, which may be ahead of us."""
        self._closing = False
        self._recovery: asyncio.Task[None] | None = None
        self._trouble = ""
        self._namespaces = connections.Namespaces()
        self.limits_enforced = contract.LIMITS - host.layout.missing
        oom = next((found for found in host.layout.hierarchies if cgroups.oom_file(found)), None)
        self._oom = (oom.path, cgroups.oom_file(oom)) if oom else None

    async def start(self) -> contract.Adoption:
        """Connect to a spawner, or start one, and take over what it has."""
        for directory in (self._places.run_dir, self._places.stage, self._places.devices):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._places.stage.chmod(0o755)  # a new sandbox's root stands in it; it is empty, and the way to it is closed
        if self._host.features.root:
            await asyncio.to_thread(self._claim_uids)
        self._adopting = True
        self._spawner, _ = await self._connect()
        live: list[contract.RunningSandbox] = []
        dead: list[contract.DeadSandbox] = []
        for known in await self._current().known():
            adopted = await self._adopt(known) if known.live else None
            if adopted is not None:
                live.append(adopted)
            else:
                end = self._early.pop(known.sandbox_id, known.end)
                dead.append(contract.DeadSandbox(known.sandbox_id, known.label, end))
        self._adopting = False
        self._early.clear()
        keep = frozenset(sandbox.sandbox_id for sandbox in live)
        await asyncio.to_thread(self._sweep, keep)
        return contract.Adoption(live, dead)

    def _claim_uids(self) -> None:
        """Say which user ids are ours, and warn of another worker with the same. The spawner holds the claim too."""
        try:
            self._claim, others = claims.claim(self._range, self._places.claims)
        except OSError as error:
            logs.get(__name__).warning("uids_not_claimed", directory=str(self._places.claims), reason=error.strerror)
            return
        for other in others:
            logs.get(__name__).warning(
                "uids_shared",
                other=other.owner,
                first=self._range.first,
                end=self._range.end,
                hint="give each worker of a host its own range of user ids: TRAFORO_WORKER_UID_BASE",
            )

    def _sweep(self, keep: frozenset[str]) -> None:
        """Remove what a killed spawner could not."""
        cgroups.sweep(self._host.layout, keep)
        if self._places.disk_dir.is_dir():
            for image in self._places.disk_dir.iterdir():
                if image.name not in keep:
                    disks.remove(image)

    async def create(self, request: contract.CreateRequest) -> inits.Sandbox:
        """Make a sandbox."""
        started = time.perf_counter()
        uid = self._slots.take() if self._host.features.root else None
        disk = None
        try:
            try:
                disk = await self._make_disk(request, uid)
                plan = self._planner.plan(request, uid_base=uid, disk=disk.device if disk else None)
                sandbox = await self._spawn(request, plan, uid)
            except BaseException:
                self._free(request.sandbox_id, uid)  # no process has them; later its end frees them, and once
                raise
            await self._await_ready(sandbox)
        finally:
            if disk is not None:
                disk.let_go()
        ready = time.perf_counter()
        sandbox.timings_ms = {"runtime": (ready - started) * 1000}
        return sandbox

    async def _spawn(self, request: contract.CreateRequest, plan: plans.Plan, uid: int | None) -> inits.Sandbox:
        """Have an init made, and register it."""
        self._coming.add(request.sandbox_id)
        try:
            pid, control = await self._current().create(
                request.sandbox_id, request.label, request.deadline, plan.encode()
            )
            return self._register(request.sandbox_id, control, pid, request.label, request.deadline, uid)
        except channels.Refused as error:
            raise errors.StartFailed(f"cannot start a sandbox: {error}", stage=error.stage) from error
        except channels.Closed as error:
            # The spawner died on it. An init that was made has nobody left to talk to, and exits.
            await asyncio.shield(self._clear(request.sandbox_id))
            raise errors.WorkerUnavailable("the spawner died", hint="try again in a moment") from error
        except channels.Incomplete as error:
            await asyncio.shield(self._abandon(self._current(), request.sandbox_id))
            raise errors.NoCapacity(error.message, resource="descriptors") from error
        finally:
            self._coming.discard(request.sandbox_id)
            self._early.pop(request.sandbox_id, None)

    async def _await_ready(self, sandbox: inits.Sandbox) -> None:
        """Return when a command can start."""
        try:
            await asyncio.wait_for(sandbox.ready, _READY_SECONDS)
        except BaseException as error:
            # It has an init, so it dies like any other; nobody but us ever heard of it.
            await asyncio.shield(self._discard(sandbox))
            if isinstance(error, channels.Refused):
                raise errors.StartFailed(f"cannot set a sandbox up: {error}", stage=error.stage) from error
            if isinstance(error, (channels.Closed, TimeoutError)):
                raise errors.StartFailed("cannot start a sandbox: its init died", stage="init") from error
            raise

    async def _abandon(self, spawner: spawners.Spawner, sandbox_id: str) -> None:
        """End a sandbox that nobody can talk to, and never could."""
        await spawner.kill(sandbox_id, states.EndReason.FAILED_TO_START)
        for _ in range(_CLEAR_TRIES):
            if await spawner.forget(sandbox_id):
                return
            await asyncio.sleep(_CLEAR_PAUSE_SECONDS)

    async def _discard(self, sandbox: inits.Sandbox) -> None:
        await sandbox.kill(states.EndReason.FAILED_TO_START)
        await self.forget(sandbox.sandbox_id)

    async def _make_disk(self, request: contract.CreateRequest, uid: int | None) -> disks.Disk | None:
        if request.resources.disk_kind is not states.DiskKind.DISK:
            return None
        if uid is None:
            raise errors.InvalidRequest("disks on disk need a worker that runs as root", field="disk_kind")
        image = self._places.disk_dir / request.sandbox_id
        return await asyncio.to_thread(disks.make, image, request.resources.disk_mib, uid)

    def _free(self, sandbox_id: str, uid: int | None) -> None:
        if uid is not None:
            self._slots.give_back(uid)
        disks.remove(self._places.disk_dir / sandbox_id)

    def _register(
        self, sandbox_id: str, control: int, pid: int, label: bytes, deadline: float | None, uid: int | None
    ) -> inits.Sandbox:
        oom = (f"{self._oom[0]}/{sandbox_id}", self._oom[1]) if self._oom else None
        sandbox = inits.Sandbox(
            sandbox_id,
            control,
            pid=pid,
            label=label,
            deadline=deadline,
            spawner=self._current,
            oom_file=oom,
            namespaces=self._namespaces,
            hierarchies=self._host.layout.hierarchies,
        )
        self._sandboxes[sandbox_id] = sandbox
        if uid is not None:
            self._uids[sandbox_id] = uid
        if (early := self._early.pop(sandbox_id, None)) is not None:
            self._ended(sandbox_id, early)
        return sandbox

    async def _adopt(self, known: spawners.Known) -> inits.Sandbox | None:
        try:
            control = await self._current().attach(known.sandbox_id)
        except channels.Refused:
            return None
        uid = _first_uid(known.pid)
        if uid is not None:
            self._slots.adopt(uid)
        return self._register(known.sandbox_id, control, known.pid, known.label, known.deadline, uid)

    async def forget(self, sandbox_id: str) -> None:
        """Drop the memory of a dead sandbox."""
        # What a spawner remembered died with it.
        with contextlib.suppress(channels.Closed, errors.WorkerUnavailable):
            await self._current().forget(sandbox_id)

    async def close(self, *, keep: bool) -> None:
        """Stop, with or without the sandboxes."""
        if self._recovery is not None:  # those who are handed over only halfway would be nobody's
            await asyncio.wait([self._recovery], timeout=_READY_SECONDS)
            self._recovery.cancel()
        self._closing = True
        _close(self._claim)
        self._claim = -1
        if self._spawner is None:
            return
        if not keep:
            ends = [sandbox.kill(states.EndReason.WORKER_STOPPED) for sandbox in list(self._sandboxes.values())]
            await asyncio.gather(*ends)
            # Refused while something lives in it that is not ours to kill.
            with contextlib.suppress(channels.Refused, channels.Closed):
                await self._spawner.shutdown()
                await asyncio.to_thread(remains.retire, self._host.layout)
        for sandbox in list(self._sandboxes.values()):
            sandbox.channel.close()
        self._namespaces.close()
        if self._spawner is not None:
            self._spawner.close()

    def _current(self) -> spawners.Spawner:
        if self._spawner is None:
            raise errors.WorkerUnavailable(self._trouble, hint="try again in a moment")
        return self._spawner

    async def _connect(self) -> tuple[spawners.Spawner, bool]:
        """Connect to the spawner, or to a new one. Returns it and whether it is new."""
        descriptor = spawners.connect(self._places.socket)
        fresh = descriptor is None
        if descriptor is None:
            command = [
                str(self._places.binary), "spawner", str(self._places.socket), str(self._places.stage),
                str(self._places.devices),
            ]  # fmt: skip
            keeps = [self._claim] if self._claim >= 0 else []
            log = self._places.run_dir / "spawner.log"
            descriptor = await spawners.launch(command, self._places.socket, log, keeps)
        spawner = spawners.Spawner(descriptor, self._ended, self._spawner_closed)
        try:
            await spawner.hello()
        except BaseException as error:
            spawner.close()
            if isinstance(error, channels.Closed):
                raise errors.StartFailed("the running spawner does not answer", stage="spawner") from error
            raise
        return spawner, fresh

    def _ended(self, sandbox_id: str, end: contract.SandboxEnd) -> None:
        sandbox = self._sandboxes.pop(sandbox_id, None)
        if sandbox is None and (self._adopting or sandbox_id in self._coming):
            self._early[sandbox_id] = end
            return
        self._free(sandbox_id, self._uids.pop(sandbox_id, None))
        if sandbox is not None:
            sandbox.end(end)

    def _spawner_closed(self) -> None:
        if self._spawner is not None and not self._closing:  # else it was not yet in use: who asked it is told
            self._spawner = None
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """Give the live sandboxes to a new spawner: the old one was killed, they were not.

        Nobody may use the new one before it knows all of them: it would call those dead that it does not know yet.
        """
        self._trouble = "the spawner is being started again"
        while self._spawner is None:
            try:
                spawner, fresh = await self._connect()
                await self._hand_all_over(spawner, fresh=fresh)
            except (channels.Refused, OSError, errors.TraforoError) as error:
                self._trouble = f"the spawner cannot be started again yet: {error}"
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self._spawner = None if spawner.closed else spawner

    async def _hand_all_over(self, spawner: spawners.Spawner, *, fresh: bool) -> None:
        try:
            remembered = {known.sandbox_id: known for known in ([] if fresh else await spawner.known())}
            for stray in remembered.values():
                if stray.live and stray.sandbox_id not in self._sandboxes:  # we were cut off while it was made
                    await self._abandon(spawner, stray.sandbox_id)
            for sandbox in list(self._sandboxes.values()):
                known = remembered.get(sandbox.sandbox_id)
                if known is None:
                    await self._hand_over(spawner, sandbox)
                elif not known.live:  # it died while we were cut off
                    self._ended(sandbox.sandbox_id, known.end)
        except BaseException:
            spawner.close()
            raise

    async def _hand_over(self, spawner: spawners.Spawner, sandbox: inits.Sandbox) -> None:
        groups = [
            plans.Group(
                wire.CgroupKind(found.version), f"{found.path}/{sandbox.sandbox_id}", {}, cgroups.oom_file(found)
            )
            for found in self._host.layout.hierarchies
        ]
        known = spawners.Known(
            sandbox.sandbox_id,
            sandbox.label,
            sandbox.deadline,
            sandbox.pid,
            True,
            contract.SandboxEnd(states.EndReason.LOST),
        )
        pidfd = _open_process(sandbox.pid)
        sandbox.channel.drain()
        if pidfd < 0 or sandbox.channel.closed:  # closed by its end: then the number may be another process by now
            _close(pidfd)
            end = sandbox.unseen_end(time.time())
            await self._clear(sandbox.sandbox_id)
            self._ended(sandbox.sandbox_id, end)
            return
        control = sandbox.channel.duplicate()
        try:
            await spawner.adopt(known, b"".join(group.encode() for group in groups), control, pidfd)
        finally:
            _close(pidfd)
            os.close(control)

    async def _clear(self, sandbox_id: str) -> None:
        """Remove the control groups of a sandbox that no spawner knows, with whatever still runs in them."""
        for _ in range(_CLEAR_TRIES):
            if await asyncio.to_thread(remains.clear, self._host.layout, sandbox_id):
                return
            await asyncio.sleep(_CLEAR_PAUSE_SECONDS)


def _open_process(pid: int) -> int:
    """Return a descriptor of a process, -1 if it is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _first_uid(pid: int) -> int | None:
    """Return the first host uid of a live sandbox's range."""
    try:
        fields = Path(f"/proc/{pid}/uid_map").read_text().split()
    except OSError:
        return None
    return int(fields[1]) if len(fields) == 3 and int(fields[2]) == plans.UIDS_PER_SANDBOX else None

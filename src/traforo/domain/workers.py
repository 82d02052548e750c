"""Workers as the control plane knows them: what each says of itself, and until when its word holds.

The store keeps these records and the registry decides with them; neither owns the other, so they live here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker says of itself. It changes when a worker is moved or reconfigured, hardly ever in a heartbeat."""

    worker_id: str
    hostname: str
    """As the worker spells it; its sandboxes' ids carry the hash of the lower-case form."""
    base_url: str
    """`http[s]://host[:port]` without a path: where clients are sent."""
    hardware_sku: str = ""
    """Kind of machine; empty where the operator named none."""
    virtualizations: tuple[str, ...] = ("container",)
    """Sorted, each once."""
    total_cores: float = 0.0
    total_memory_mib: int = 0
    max_live_sandboxes: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """Until when a worker's word holds, and what it said last. Times are Unix seconds."""

    heartbeat_at: float
    expires_at: float
    """The first moment at which the worker counts as unavailable."""
    live_sandboxes: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A registered worker."""

    worker: Worker
    hash: str
    """`ids.worker_hash` of the host name: how its sandboxes' ids name it."""
    registered_at: float
    lease: Lease

    def live(self, now: float) -> bool:
        """Tell whether the lease still holds."""
        return now < self.lease.expires_at

    @property
    def room(self) -> int:
        """How many more sandboxes the worker had place for when it was last heard of; never negative."""
        return max(0, self.worker.max_live_sandboxes - self.lease.live_sandboxes)

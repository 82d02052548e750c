"""Settings of the control plane."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from traforo.settings import addresses, groups, places, quantities


def _own_url(data: dict[str, Any]) -> str:
    return addresses.url(addresses.parse(data.get("listen", "localhost:0")), "localhost")


class ControlSettings(groups.ProcessSettings):
    """How a control plane runs."""

    env_prefix: ClassVar[str] = "TRAFORO_CONTROL_"

    listen: groups.Listen = "127.0.0.1:8080"
    """Address to listen on, `host:port`. This machine only, until an operator says otherwise: `dev` mode asks for no
    credential. Port 0 lets the kernel choose."""
    base_url: groups.BaseUrl = Field(default_factory=_own_url)
    """URL by which clients and workers reach it, without a path. Default: `http://` and the address of `listen`."""
    state_dir: Path = Field(default_factory=lambda: places.state_dir("control", os.environ, os.geteuid()))
    """Directory of its database. Default: `/var/lib/traforo/control` for root, else `traforo/control` below
    `$XDG_STATE_HOME` (`~/.local/state`)."""
    placement_retry_max: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a create that a worker refused before any side effect may be placed again. Two more tries find room in
    practice; more would only spread an overload."""
    worker_lease_ttl: Annotated[quantities.Seconds, Field(ge=1, le=3600)] = 120.0
    """Seconds that a registration holds without a heartbeat: four missed heartbeats of 30 s."""
    worker_lease_sweep_interval: Annotated[quantities.Seconds, Field(ge=0.1, le=3600)] = 10.0
    """Seconds between two looks for leases that ran out."""

    @classmethod
    def places(cls, environ: Mapping[str, str], uid: int) -> dict[str, object]:
        """Return the defaults that depend on who runs the process, by field name."""
        return {"state_dir": places.state_dir("control", environ, uid)}

    def url_at(self, port: int) -> str:
        """Return the base URL for the port that was really bound: as configured, or made from `listen`."""
        if "base_url" in self.model_fields_set:
            return self.base_url
        return addresses.url(addresses.Address(addresses.parse(self.listen).host, port), "localhost")

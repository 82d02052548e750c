"""What every route of the control plane is handed. Made in one place, `processes`; nothing here decides."""

from __future__ import annotations

from dataclasses import dataclass

from traforo.api import replays, tokens
from traforo.control import inquiries, registrars
from traforo.domain import clocks
from traforo.settings import control
from traforo.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Context:
    """The services behind the routes."""

    settings: control.ControlSettings
    clock: clocks.Clock
    authority: tokens.Authority
    guard: replays.ReplayGuard
    """Of the tokens of workers; those of clients are used up where sandboxes are made."""
    registrar: registrars.Registrar
    inquiries: inquiries.Inquiries
    metrics: metrics.ControlMetrics

"""The worker's HTTP application: every route over one context."""

from __future__ import annotations

from urllib import parse

from traforo.api import applications, limits
from traforo.worker.routes import code as routes_code
from traforo.worker.routes import contexts
from traforo.worker.routes import execs as routes_execs
from traforo.worker.routes import files as routes_files
from traforo.worker.routes import observations as routes_observations
from traforo.worker.routes import ports as routes_ports
from traforo.worker.routes import sandboxes as routes_sandboxes
from traforo.worker.routes import streams as routes_streams
from traforo.worker.routes import terminals as routes_terminals

DESCRIPTION = "Sandboxes of one host: their lives, what runs in them, their files."


def build(context: contexts.Context) -> applications.Application:
    """Make the application."""
    settings = context.settings
    return applications.build(
        "traforo worker",
        [
            routes_sandboxes.build(context),
            routes_observations.build(context),
            routes_execs.build(context),
            routes_streams.build(context),
            routes_terminals.build(context),
            routes_code.build(context),
            routes_ports.build(context),
            routes_files.build(context),
        ],
        measured=context.metrics,
        mode=context.authority.mode,
        body_limits=limits.worker(default=settings.max_body_bytes, code=settings.max_code_body_bytes),
        description=DESCRIPTION,
        names=(settings.hostname, parse.urlsplit(settings.base_url).hostname or ""),
    )

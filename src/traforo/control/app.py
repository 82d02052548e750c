"""The application of the control plane: its routes, and how large their bodies may be."""

from __future__ import annotations

import re
from urllib import parse

from traforo.api import applications, limits
from traforo.control import contexts, portnames, routes_metrics, routes_sandboxes, routes_workers

TITLE = "traforo control plane"
DESCRIPTION = """\
Decides where. `POST /sandboxes` answers with a redirect to the worker that makes the sandbox; everything below
`/sandboxes/{id}` is redirected to its owner, from the id alone. Clients talk to workers directly after that.
"""
_UNREAD = re.compile(r"/(?!sandboxes$|internal/).*", re.DOTALL)
"""Paths whose bodies nobody here reads."""
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")


def build(context: contexts.Context) -> applications.Application:
    """Make the application over these services."""
    routers = [build(context) for build in (routes_sandboxes.build, routes_workers.build, routes_metrics.build)]
    # What is redirected is not read, a port's by its host name included: how long it may be is the owner's business.
    rules = tuple(limits.Rule(method, _UNREAD, None) for method in _WITH_BODY)
    return applications.build(
        TITLE,
        routers,
        measured=context.metrics,
        mode=context.authority.mode,
        body_limits=limits.Limits(rules=rules),
        description=DESCRIPTION,
        names=(parse.urlsplit(context.settings.base_url).hostname or "",),
        around=lambda app: portnames.SendOn(app, context),
    )

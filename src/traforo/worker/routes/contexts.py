"""What every route of the worker is handed: its services, and the one door to a sandbox.

`Context.entry` is the only way from an id in a URL to an `Entry`: it authenticates, checks ownership and checks
liveness, so that no route can forget to. Nothing here decides about HTTP answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from traforo.api import principals, tokens
from traforo.domain import clocks, errors, ids, states
from traforo.settings import worker as settings_worker
from traforo.telemetry import logs, metrics
from traforo.worker.capacity import admissions, usages
from traforo.worker.execs import execs
from traforo.worker.files import files
from traforo.worker.interpreters import services
from traforo.worker.outputs import chronicles
from traforo.worker.ports import proxies
from traforo.worker.routes import doors
from traforo.worker.sandboxes import entries, supervisors

_USABLE = frozenset({states.SandboxState.RUNNING})


@dataclass(slots=True)
class Place:
    """Where clients reach this worker: the `connect_url` of its sandboxes. Known for sure when its socket is bound."""

    base_url: str


@dataclass(frozen=True, slots=True)
class Context:
    """The services behind the routes of one worker."""

    settings: settings_worker.WorkerSettings
    place: Place
    host: admissions.Host
    clock: clocks.Clock
    supervisor: supervisors.Supervisor
    execs: execs.Execs
    interpreters: services.Interpreters
    files: files.Files
    door: doors.Door
    authority: tokens.Authority
    ports: proxies.Proxy
    metrics: metrics.WorkerMetrics
    usages: usages.Usages
    chronicles: chronicles.Chronicles

    def entry(self, connection: HTTPConnection, text: str, *, live: bool = True, touch: bool = True) -> entries.Entry:
        """Return the sandbox that `text` (either spelling of its id) names, for a caller who may use it.

        With `live` it has to be running; without, one that is starting, stopping or ended will do as well. With
        `touch` this counts as using it; what only looks at it does not.
        Raises `MalformedId`, `Unauthenticated`, `Forbidden`, `NotFound`, `Conflict`.
        """
        sandbox_id = ids.parse_sandbox_id(text)
        logs.bind(sandbox_id=str(sandbox_id))  # undone with everything else that is bound for a request
        principal = self.door.opener(connection, str(sandbox_id))
        entry = self.supervisor.get(sandbox_id)
        principal.check(entry.text_id, entry.owner)
        return _usable(entry, live=live, touch=touch)

    def granted(self, text: str, token: str) -> tuple[entries.Entry, tokens.FileGrant]:
        """Return the sandbox that `text` names, for whoever holds the token of one of its files, and what that allows.

        What it allows is the route's to hold to. Raises what `entry` raises.
        """
        sandbox_id = ids.parse_sandbox_id(text)
        logs.bind(sandbox_id=str(sandbox_id))
        grant = self.authority.verify_file(token, str(sandbox_id))
        entry = self.supervisor.get(sandbox_id)
        if grant.client_id != entry.owner:
            raise errors.Forbidden(
                "cannot open the sandbox: it belongs to another client", kind="sandbox", id=entry.text_id
            )
        return _usable(entry, live=True, touch=True), grant


def logged(run: execs.Exec) -> execs.Exec:
    """Have the log lines of this request name an exec, and return it."""
    logs.bind(exec_id=run.id)
    return run


def _usable(entry: entries.Entry, *, live: bool, touch: bool) -> entries.Entry:
    """Return an entry that is running, where it has to be. Raises `Conflict`."""
    if live and (entry.state not in _USABLE or entry.running is None):
        raise errors.Conflict(
            f"cannot use the sandbox: it is {entry.state.value}",
            state=entry.state.value,
            reason=entry.reason.value if entry.reason else None,
        )
    if touch:
        entry.activity.touch()
    return entry


def owner(principal: principals.Principal) -> str | None:
    """Return whose sandboxes a caller may list; None is everybody's, in `dev` mode alone. Raises `Forbidden`."""
    if principal.via == "dev":
        return None
    if principal.client_id is None:
        raise errors.Forbidden("cannot list sandboxes without a client")
    return principal.client_id

"""Every error a caller can meet, under one root, named by a stable code.

    TraforoError
    ├── InvalidRequest        invalid_request        the request contradicts the contract; `field` says where
    │   └── MalformedId       malformed_id
    ├── Unauthenticated       unauthenticated        no credential, or one that does not hold
    ├── Forbidden             forbidden              a valid caller, but not of this thing
    ├── NotFound              not_found              `kind` and `id` say what
    ├── Conflict              conflict               the thing is in a state that forbids it
    ├── PreconditionFailed    precondition_failed    what the caller took for granted of a file does not hold
    ├── RangeNotSatisfiable   range_not_satisfiable  a range of bytes that a file does not have; `size` says how many
    ├── TooLarge              too_large              `limit` in bytes or entries
    ├── SyntaxRejected        syntax_error           code that does not compile; carries the exec's output
    ├── RateLimited           rate_limited
    ├── NoCapacity            no_capacity            refused before any side effect; `resource` says which cap
    ├── WorkerUnavailable     worker_unavailable
    ├── PortUnreachable       port_unreachable       nothing listens on a port of a sandbox; `port`
    ├── UpstreamFailed        upstream_failed        a server in a sandbox broke off, or answered what is no HTTP
    ├── UpstreamTimeout       upstream_timeout       a server in a sandbox did not answer in time
    ├── DiskFull              disk_full              the sandbox's own disk limit
    ├── StartFailed           start_failed           a sandbox or a command could not be started; `stage`, `errno_name`
    ├── Lost                  lost                   the thing existed and is provably gone
    └── Internal              internal               a defect of ours

An error is raised in the words of the domain; the map to HTTP lives in `traforo.api.problems` and nowhere else.
Text is lower case and reads "cannot <do>: <why>"; values are quoted.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TraforoError(Exception):
    """Root of every error that is shown to a caller. `fields` are JSON values and appear beside code and message."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields: dict[str, Any] = fields


class InvalidRequest(TraforoError):
    """The request contradicts the contract. Field `field` names the offending part where there is one."""

    code = "invalid_request"


class MalformedId(InvalidRequest):
    """An id that cannot be one of ours."""

    code = "malformed_id"


class Unauthenticated(TraforoError):
    """No credential, or one that does not hold (expired, replayed, wrong signature)."""

    code = "unauthenticated"


class Forbidden(TraforoError):
    """A valid caller who does not own this thing."""

    code = "forbidden"


class NotFound(TraforoError):
    """Nothing here by that name. Fields `kind` and `id`."""

    code = "not_found"


class Conflict(TraforoError):
    """The thing is in a state that forbids the request."""

    code = "conflict"


class PreconditionFailed(TraforoError):
    """The caller made the request depend on something that does not hold. Nothing was changed."""

    code = "precondition_failed"


class RangeNotSatisfiable(TraforoError):
    """A range of bytes that begins behind the end of a file. Field `size`: how many bytes there are."""

    code = "range_not_satisfiable"


class TooLarge(TraforoError):
    """A body, a path, a list or a message over its limit. Field `limit`."""

    code = "too_large"


class SyntaxRejected(TraforoError):
    """Code that its language refuses to compile; none of it ran."""

    code = "syntax_error"


class RateLimited(TraforoError):
    """The caller asks too often or holds too much."""

    code = "rate_limited"


class NoCapacity(TraforoError):
    """Refused by admission before any side effect, so it may be placed elsewhere. Field `resource`."""

    code = "no_capacity"


class WorkerUnavailable(TraforoError):
    """The worker that owns the sandbox cannot be reached now."""

    code = "worker_unavailable"


class PortUnreachable(TraforoError):
    """Nothing listens on a port of a sandbox. Field `port`."""

    code = "port_unreachable"


class UpstreamFailed(TraforoError):
    """A server in a sandbox broke off before it answered, or answered what cannot be passed on."""

    code = "upstream_failed"


class UpstreamTimeout(TraforoError):
    """A server in a sandbox did not answer in time."""

    code = "upstream_timeout"


class DiskFull(TraforoError):
    """The sandbox's own disk limit was reached."""

    code = "disk_full"


class StartFailed(TraforoError):
    """A sandbox or a command could not be started. Fields `stage` and `errno_name`."""

    code = "start_failed"


class Lost(TraforoError):
    """The thing existed and is provably gone."""

    code = "lost"


class Internal(TraforoError):
    """A defect of ours; details are in the log under the request id, never in the answer."""

    code = "internal"

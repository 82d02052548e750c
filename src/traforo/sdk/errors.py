"""Every error that the SDK raises on purpose, under one root, named by a stable code.

    TraforoError
    ├── InvalidRequest        invalid_request        the request contradicts the API; `fields["field"]` says where
    │   └── MalformedId       malformed_id
    ├── Unauthenticated       unauthenticated        no credential, or one that does not hold
    ├── Forbidden             forbidden              somebody else's sandbox, or the sandbox's own file permissions
    ├── NotFound              not_found              `fields["kind"]`: sandbox, exec, context, file, image, …
    ├── Conflict              conflict               wrong state; directory not empty
    ├── PreconditionFailed    precondition_failed    the file is not the one that was expected
    ├── RangeNotSatisfiable   range_not_satisfiable  a range of bytes that the file does not have
    ├── TooLarge              too_large              over `fields["limit"]`
    ├── SyntaxRejected        syntax_error           code that does not compile; none of it ran
    ├── StartFailed           start_failed           a command that cannot be started; `fields`: stage, errno_name
    ├── RateLimited           rate_limited
    ├── NoCapacity            no_capacity            refused before any side effect: trying again is safe
    ├── WorkerUnavailable     worker_unavailable
    ├── DiskFull              disk_full              the sandbox's own disk limit
    ├── Lost                  lost                   the thing existed and is provably gone
    ├── PortUnreachable       port_unreachable       nothing listens on that port in the sandbox
    ├── UpstreamFailed        upstream_failed        what listens there broke off, or answered no HTTP
    ├── UpstreamTimeout       upstream_timeout       what listens there did not answer in time
    ├── Internal              internal               a defect of the server; its log has more under `request_id`
    ├── ConnectionFailed      connection_failed      no answer: the server is not there, or the connection broke
    │   └── RequestTimedOut   request_timed_out      no answer in time
    ├── BadAnswer             bad_answer             an answer that the API does not know, of a proxy for instance
    ├── UnsafeArchive         unsafe_archive         a tree that would be written elsewhere; `fields["entry"]`
    ├── CommandFailed         command_failed         `check` was asked for and the command did not exit with 0
    └── CodeFailed            code_failed            `check` was asked for and the code did not come to its end

The server decides the code; a code that this version does not know is raised as `TraforoError` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traforo.sdk.cells import CodeResult
    from traforo.sdk.results import ExecResult


class TraforoError(Exception):
    """Root of every error of the SDK."""

    code: str = "unknown"
    """Stable name of what went wrong."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        hint: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What went wrong, in one line."""
        self.code = code or type(self).code
        self.status = status
        """HTTP status of the answer; None when the server did not say this."""
        self.request_id = request_id
        """Id under which the server's log has the request; None without an answer."""
        self.hint = hint
        """What the caller can do about it; None where nothing is known to help."""
        self.fields: dict[str, Any] = dict(fields or {})
        """Further JSON values of the error, as the table of codes describes them."""


class InvalidRequest(TraforoError):
    """The request contradicts the API."""

    code = "invalid_request"


class MalformedId(InvalidRequest):
    """An id that cannot be one of a sandbox or of an exec."""

    code = "malformed_id"


class Unauthenticated(TraforoError):
    """No credential, or one that does not hold: expired, replayed, wrongly signed."""

    code = "unauthenticated"


class Forbidden(TraforoError):
    """A sandbox of somebody else, or a file that the user inside the sandbox may not touch."""

    code = "forbidden"


class NotFound(TraforoError):
    """Nothing there by that name. `fields["kind"]` says what was looked for."""

    code = "not_found"


class Conflict(TraforoError):
    """The thing is in a state that forbids the request."""

    code = "conflict"


class PreconditionFailed(TraforoError):
    """The file is not the one that was expected: it was changed, or it is there although it should not be."""

    code = "precondition_failed"


class RangeNotSatisfiable(TraforoError):
    """A range of bytes that begins behind the end of a file; `fields["size"]` says how many there are."""

    code = "range_not_satisfiable"


class TooLarge(TraforoError):
    """Something is over its limit, `fields["limit"]` (bytes or entries)."""

    code = "too_large"


class SyntaxRejected(TraforoError):
    """Code that its language refuses to compile; none of it ran. `fields` holds `stdout`, `stderr` and `exit_code`."""

    code = "syntax_error"


class StartFailed(TraforoError):
    """A sandbox or a command could not be started. `fields`: `stage` and `errno_name`."""

    code = "start_failed"


class RateLimited(TraforoError):
    """The caller asks too often or holds too much."""

    code = "rate_limited"


class NoCapacity(TraforoError):
    """Refused before any side effect; `fields["resource"]` says which cap."""

    code = "no_capacity"


class WorkerUnavailable(TraforoError):
    """The worker that owns the sandbox cannot be reached now."""

    code = "worker_unavailable"


class DiskFull(TraforoError):
    """The sandbox's own disk limit was reached."""

    code = "disk_full"


class Lost(TraforoError):
    """The thing existed and is provably gone."""

    code = "lost"


class PortUnreachable(TraforoError):
    """Nothing listens on that port in the sandbox."""

    code = "port_unreachable"


class UpstreamFailed(TraforoError):
    """What listens there broke off before it answered, or answered what cannot be passed on."""

    code = "upstream_failed"


class UpstreamTimeout(TraforoError):
    """What listens on a port in the sandbox did not answer in time."""

    code = "upstream_timeout"


class Internal(TraforoError):
    """A defect of the server, whose log has more under `request_id`."""

    code = "internal"


class ConnectionFailed(TraforoError):
    """No answer: the server is not there, or the connection broke. Whether a request took effect is unknown, unless
    `fields["sent"]` is False: then there was no connection at all. `exec_id` and `tag` in `fields` name a command that
    may still run.
    """

    code = "connection_failed"


class RequestTimedOut(ConnectionFailed):
    """No answer in time. Whether the request took effect is unknown."""

    code = "request_timed_out"


class BadAnswer(TraforoError):
    """An answer that the API does not know, as a proxy in between may give."""

    code = "bad_answer"


class UnsafeArchive(TraforoError):
    """A tree of a sandbox holds what cannot be written below the local directory that was asked for: a name or a link
    that leads out of it, or a device. `fields["entry"]` names it; what came before it is there.
    """

    code = "unsafe_archive"


class CommandFailed(TraforoError):
    """A command did not exit with 0, and `check` was asked for."""

    code = "command_failed"

    def __init__(self, message: str, result: ExecResult) -> None:
        super().__init__(message, fields={"exit_code": result.exit_code, "end": result.end})
        self.result = result
        """The whole result, output included."""


class CodeFailed(TraforoError):
    """Code in a context raised an error or did not come to its end, and `check` was asked for."""

    code = "code_failed"

    def __init__(self, message: str, result: CodeResult) -> None:
        super().__init__(message, fields={"exit_code": result.exec.exit_code, "end": result.exec.end})
        self.result = result
        """The whole result, output included."""


_FROM_SERVER: tuple[type[TraforoError], ...] = (
    InvalidRequest,
    MalformedId,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    PreconditionFailed,
    RangeNotSatisfiable,
    TooLarge,
    SyntaxRejected,
    StartFailed,
    RateLimited,
    NoCapacity,
    WorkerUnavailable,
    DiskFull,
    Lost,
    PortUnreachable,
    UpstreamFailed,
    UpstreamTimeout,
    Internal,
)
BY_CODE: Mapping[str, type[TraforoError]] = {error.code: error for error in _FROM_SERVER}
"""The class of each code that a server may answer."""

"""What the server answered, turned into records and errors: pure functions of status and body.

An answer is checked as far as the SDK relies on it. What it lacks is told as `BadAnswer`, never as a `KeyError`; fields
that this version does not know are passed over, so that an older SDK speaks to a newer server.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from traforo.sdk import errors, results

_SHOWN = 200
_BY_STATUS = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.TooLarge,
    416: errors.RangeNotSatisfiable,
    429: errors.RateLimited,
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of frames."""

    frames: Sequence[results.Frame]
    next_cursor: int
    dropped: int
    """Bytes of output that were gone from the log before they were read."""


def error(status: int, body: bytes, request_id: str | None) -> errors.TraforoError:
    """Return the error that an answer of 400 or above means."""
    try:
        told = json.loads(body)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return _foreign_error(status, body, request_id)
    fields = {name: value for name, value in told.items() if name not in {"code", "message", "request_id", "hint"}}
    return errors.BY_CODE.get(code, errors.TraforoError)(
        message,
        code=code,
        status=status,
        request_id=str(told.get("request_id") or request_id or "") or None,
        hint=told.get("hint"),
        fields=fields,
    )


def is_missing_route(error: errors.TraforoError) -> bool:
    """Return whether a `not_found` is about the route itself, which a server that is older than this client lacks."""
    return error.code == errors.NotFound.code and error.fields.get("kind", "route") == "route"


def is_own_error(body: bytes) -> bool:
    """Return whether a body is an error of the API, not one of something in between."""
    try:
        told = json.loads(body)["error"]
        return isinstance(told["code"], str) and isinstance(told["message"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _foreign_error(status: int, body: bytes, request_id: str | None) -> errors.TraforoError:
    shown = " ".join(body[:_SHOWN].decode(errors="replace").split())
    kind = _BY_STATUS.get(status, errors.BadAnswer)
    return kind(
        f"the server answered {status} without an error of the API" + (f": {shown!r}" if shown else ""),
        status=status,
        request_id=request_id,
        hint="is this the URL of a traforo server, with no proxy in between?",
    )


def document(body: bytes) -> Mapping[str, Any]:
    """Return a JSON object. Raises `BadAnswer`."""
    try:
        value = json.loads(body)
    except ValueError as problem:
        shown = body[:_SHOWN].decode(errors="replace")
        raise errors.BadAnswer(f"cannot read the answer: not JSON: {shown!r}") from problem
    if not isinstance(value, dict):
        raise errors.BadAnswer(f"cannot read the answer: not an object but {type(value).__name__}")
    return value


def field(body: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """Return a field that must be there and be of one of these types. Raises `BadAnswer`."""
    value = body.get(name)
    if not isinstance(value, kinds):
        raise errors.BadAnswer(f"cannot read the answer: {name!r} is {value!r:.80}")
    return value


def objects(body: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of objects that must be there. Raises `BadAnswer`."""
    found: list[Any] = field(body, name, list)
    if all(isinstance(item, dict) for item in found):
        return found
    raise errors.BadAnswer(f"cannot read the answer: {name!r} is no list of objects")


def number(body: Mapping[str, Any], name: str) -> float:
    """Return a number, 0 for none."""
    return 0 if body.get(name) is None else float(field(body, name, int, float))


def mapping(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object, an empty one for none."""
    return {} if body.get(name) is None else dict(field(body, name, dict))


def optional(body: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """Return a field that may be missing or null. Raises `BadAnswer` for another type."""
    return None if body.get(name) is None else field(body, name, *kinds)


def string(body: Mapping[str, Any], name: str) -> str:
    """Return a text, empty for none."""
    return str(optional(body, name, str) or "")


def moment(value: Any) -> datetime | None:
    """Return an RFC 3339 time, or None for none. Raises `BadAnswer`."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as problem:
        raise errors.BadAnswer(f"cannot read the answer: {value!r:.80} is no time") from problem


def known_moment(body: Mapping[str, Any], name: str) -> datetime:
    """Return a time that must be there. Raises `BadAnswer`."""
    found = moment(body.get(name))
    if found is None:
        raise errors.BadAnswer(f"cannot read the answer: no {name!r}")
    return found


def sandbox(body: Mapping[str, Any]) -> results.SandboxInfo:
    """Read a sandbox."""
    return results.SandboxInfo(
        sandbox_id=field(body, "sandbox_id", str),
        dns_id=string(body, "dns_id"),
        name=optional(body, "name", str),
        image=string(body, "image"),
        virtualization=string(body, "virtualization"),
        state=field(body, "state", str),
        reason=optional(body, "reason", str),
        cpu=number(body, "cpu"),
        memory_mib=int(number(body, "memory_mib")),
        disk_mib=int(number(body, "disk_mib")),
        disk_kind=string(body, "disk_kind"),
        pids=int(number(body, "pids")),
        metadata=mapping(body, "metadata"),
        created_at=known_moment(body, "created_at"),
        expires_at=known_moment(body, "expires_at"),
        ended_at=moment(body.get("ended_at")),
        idle_seconds=optional(body, "idle_seconds", int, float),
        idle_at=moment(body.get("idle_at")),
        limits_enforced=tuple(str(name) for name in body.get("limits_enforced") or ()),
        last_activity_at=moment(body.get("last_activity_at")),
    )


def created(body: Mapping[str, Any], worker_url: str) -> results.Created:
    """Read the answer to a create, which came from `worker_url`."""
    return results.Created(
        info=sandbox(body),
        connect_url=string(body, "connect_url") or worker_url,
        token=optional(body, "token", str),
        start_type=string(body, "start_type"),
        timings_ms=mapping(body, "timings_ms"),
    )


def sandboxes(body: Mapping[str, Any]) -> tuple[results.SandboxList, str | None]:
    """Read one page of sandboxes and the cursor of the next, if there is one."""
    found = [sandbox(item) for item in objects(body, "sandboxes")]
    missing = [str(worker) for worker in optional(body, "missing_workers", list) or ()]
    return results.SandboxList(found, missing), next_cursor(body)


def exec_result(body: Mapping[str, Any]) -> results.ExecResult:
    """Read an exec."""
    command = optional(body, "command", str, list) or ""
    return results.ExecResult(
        exec_id=field(body, "exec_id", str),
        sandbox_id=string(body, "sandbox_id"),
        command=tuple(str(word) for word in command) if isinstance(command, list) else command,
        status=field(body, "status", str),
        end=optional(body, "end", str),
        exit_code=optional(body, "exit_code", int),
        signal=optional(body, "signal", int),
        stdout=string(body, "stdout"),
        stderr=string(body, "stderr"),
        output=string(body, "output"),
        stdout_truncated=bool(body.get("stdout_truncated")),
        stderr_truncated=bool(body.get("stderr_truncated")),
        duration_ms=optional(body, "duration_ms", int, float),
        started_at=moment(body.get("started_at")),
        completed_at=moment(body.get("completed_at")),
        runtime=optional(body, "runtime", str),
        tag=optional(body, "tag", str),
        pid=optional(body, "pid", int),
        tty=bool(body.get("tty")),
        background=bool(body.get("background")),
        stdin_open=bool(body.get("stdin_open")),
        context_id=optional(body, "context_id", str),
    )


def execs(body: Mapping[str, Any]) -> tuple[Sequence[results.ExecResult], str | None]:
    """Read one page of execs and the cursor of the next, if there is one."""
    return [exec_result(item) for item in objects(body, "execs")], next_cursor(body)


def terminals(body: Mapping[str, Any]) -> Sequence[results.ExecResult]:
    """Read the list of terminals."""
    return [exec_result(item) for item in objects(body, "terminals")]


def frames(body: Mapping[str, Any]) -> Page:
    """Read one page of frames, asked for as base64."""
    found = [_frame(item) for item in objects(body, "frames")]
    return Page(found, field(body, "next_cursor", int), int(number(body, "dropped")))


def _frame(item: Mapping[str, Any]) -> results.Frame:
    kind = field(item, "type", str)
    data = unpacked(kind, string(item, "data"))
    return results.Frame(field(item, "cursor", int), kind, data, moment(item.get("ts")))


def unpacked(kind: str, text: str) -> bytes:
    """Return the bytes of a frame that was asked for as base64. Raises `BadAnswer`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        if kind in {"exit", "result"}:
            return text.encode()  # text of the server, not output
        raise errors.BadAnswer("cannot read the answer: a frame is not base64") from problem


def stat(body: Mapping[str, Any]) -> results.FileStat:
    """Read the facts about one path."""
    return results.FileStat(
        path=path_name(body, "path"),
        exists=field(body, "exists", bool),
        type=optional(body, "type", str),
        size=optional(body, "size", int),
        mode=optional(body, "mode", int),
        uid=optional(body, "uid", int),
        gid=optional(body, "gid", int),
        modified_at=moment(body.get("modified_at")),
        target=optional(body, "target", str),
        etag=optional(body, "etag", str),
    )


def entries(body: Mapping[str, Any]) -> tuple[Sequence[results.FileEntry], str | None]:
    """Read one page of a directory and the cursor of the next, if there is one."""
    found = [
        results.FileEntry(
            name=path_name(item, "name"),
            path=path_name(item, "path"),
            type=field(item, "type", str),
            size=int(number(item, "size")),
            mode=int(number(item, "mode")),
            modified_at=moment(item.get("modified_at")),
        )
        for item in objects(body, "entries")
    ]
    return found, next_cursor(body)


def next_cursor(body: Mapping[str, Any]) -> str | None:
    """Return the cursor of the next page, if there is one."""
    cursor = optional(body, "next_cursor", str, int)
    return None if cursor is None else str(cursor)


def path_name(body: Mapping[str, Any], key: str) -> str:
    """Return a name or path, exact where it is not UTF-8: as surrogate escapes."""
    exact = body.get(f"{key}_b64")
    if exact is None:
        return str(field(body, key, str))
    try:
        return base64.b64decode(exact, validate=True).decode(errors="surrogateescape")
    except (binascii.Error, TypeError, ValueError) as problem:
        raise errors.BadAnswer(f"cannot read the answer: {key}_b64 is not base64") from problem

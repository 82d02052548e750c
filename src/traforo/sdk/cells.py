"""Code contexts: what they are, and what code that ran in one came to. Records and how to read them; no I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from traforo.sdk import answers, errors, results


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """A code context as the server describes it."""

    context_id: str
    sandbox_id: str
    runtime: str
    """`python`, `node` or `bash`."""
    status: str
    """`idle`, `busy` or `dead`."""
    cwd: str | None
    user: str | None
    name: str | None
    created_at: datetime | None
    execution_count: int
    """Pieces of code that it ran."""


@dataclass(frozen=True, slots=True)
class Rich:
    """One value that code displayed, in every form that it has."""

    data: Mapping[str, Any]
    """By media type: text as it is, images as base64."""
    is_main: bool
    """Whether it is the value of the last expression."""

    @property
    def text(self) -> str | None:
        """The plain text form."""
        return self._string("text/plain")

    @property
    def html(self) -> str | None:
        """The HTML form. It was made in the sandbox: show it only where nothing can be lost."""
        return self._string("text/html")

    @property
    def json(self) -> Any:
        """The JSON form."""
        return self.data.get("application/json")

    @property
    def png(self) -> bytes | None:
        """The picture. Raises `BadAnswer` if it is not what it says."""
        text = self._string("image/png")
        try:
            return None if text is None else base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as problem:
            raise errors.BadAnswer("cannot read the result: the picture is not base64") from problem

    def _string(self, kind: str) -> str | None:
        value = self.data.get(kind)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class CodeError:
    """What the code raised."""

    name: str
    value: str
    traceback: Sequence[str]
    """Lines, without those of the interpreter around the code."""


@dataclass(frozen=True, slots=True)
class CodeResult:
    """What a piece of code in a context came to."""

    exec: results.ExecResult
    """Its output, its end and its times."""
    results: Sequence[Rich]
    """What it displayed, in order; the value of its last expression has `is_main`."""
    error: CodeError | None
    """What it raised; None if it came to its end."""
    execution_count: int | None
    """Its number within the context; None where the output was followed, or the interpreter ended first."""

    @property
    def stdout(self) -> str:
        """What it wrote to stdout."""
        return self.exec.stdout

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return self.exec.stderr

    @property
    def text(self) -> str | None:
        """The plain text form of its last expression."""
        return next((rich.text for rich in self.results if rich.is_main), None)

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.error is None and self.exec.ok

    def check(self) -> CodeResult:
        """Return this result, or raise `CodeFailed` if the code did not come to its end."""
        if self.ok:
            return self
        why = f"{self.error.name}: {self.error.value}" if self.error else f"{self.exec.end} ({self.exec.exit_code})"
        raise errors.CodeFailed(f"the code failed: {why}", self)


def context(body: Mapping[str, Any]) -> ContextInfo:
    """Read a context."""
    return ContextInfo(
        context_id=answers.field(body, "context_id", str),
        sandbox_id=answers.string(body, "sandbox_id"),
        runtime=answers.field(body, "runtime", str),
        status=answers.field(body, "status", str),
        cwd=answers.optional(body, "cwd", str),
        user=answers.optional(body, "user", str),
        name=answers.optional(body, "name", str),
        created_at=answers.moment(body.get("created_at")),
        execution_count=int(answers.number(body, "execution_count")),
    )


def contexts(body: Mapping[str, Any]) -> Sequence[ContextInfo]:
    """Read the list of contexts."""
    return [context(item) for item in answers.objects(body, "contexts")]


def code_result(body: Mapping[str, Any]) -> CodeResult:
    """Read what a run answered."""
    listed = answers.objects(body, "results") if body.get("results") is not None else ()
    return CodeResult(
        exec=answers.exec_result(body),
        results=tuple(rich(item) for item in listed),
        error=code_error(answers.optional(body, "error", dict)),
        execution_count=answers.optional(body, "execution_count", int),
    )


def rich(body: Mapping[str, Any]) -> Rich:
    """Read one value that was displayed."""
    return Rich({name: value for name, value in body.items() if name != "is_main"}, bool(body.get("is_main")))


def code_error(body: Mapping[str, Any] | None) -> CodeError | None:
    """Read what was raised."""
    if body is None:
        return None
    lines = tuple(str(line) for line in answers.optional(body, "traceback", list) or ())
    return CodeError(answers.string(body, "name"), answers.string(body, "value"), lines)


def assembled(result: results.ExecResult, frames: Sequence[results.Frame]) -> CodeResult:
    """Put a result together from an exec and its frames of type `result`: values, and what was raised."""
    shown: list[Rich] = []
    error: CodeError | None = None
    count: int | None = None
    for frame in frames:
        body = answers.document(frame.data)
        if "error" in body:
            error = code_error(answers.optional(body, "error", dict))
        elif "execution_count" in body and len(body) == 1:
            count = answers.optional(body, "execution_count", int)
        else:
            shown.append(rich(body))
    return CodeResult(result, tuple(shown), error, count)

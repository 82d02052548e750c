"""What every process answers: its health, and errors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from traforo.api.schemas import fields


class Health(fields.AnswerModel):
    """The process answers."""

    status: Literal["ok"]


class ProblemDetails(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    code: Annotated[str, Field(examples=["not_found"])]
    """Stable name."""
    message: Annotated[str, Field(examples=["no sandbox 'sbx_…'"])]
    """For people."""
    request_id: Annotated[str, Field(examples=["01K6Z8Q4T3V7WXYZ0123456789"])]
    """Finds the request in the log."""
    hint: str | None = None
    """What the caller can do about it; absent where there is nothing."""


class Problem(BaseModel):
    """An error. Fields beside those of `error` depend on its code."""

    model_config = ConfigDict(extra="forbid")

    error: ProblemDetails

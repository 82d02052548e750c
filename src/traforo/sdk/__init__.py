"""The Python client: `Sandbox` for plain threads, `AsyncSandbox` for asyncio, and what they return and raise.

It speaks HTTP to any server of the same API and imports nothing of the server. A name is loaded when it is first used,
so that whoever needs one client does not pay for the other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traforo.sdk import errors as errors
    from traforo.sdk._async.attachments import AsyncAttachment as AsyncAttachment
    from traforo.sdk._async.clients import AsyncClient as AsyncClient
    from traforo.sdk._async.contexts import AsyncContext as AsyncContext
    from traforo.sdk._async.execs import AsyncExec as AsyncExec
    from traforo.sdk._async.files import AsyncFiles as AsyncFiles
    from traforo.sdk._async.sandboxes import AsyncSandbox as AsyncSandbox
    from traforo.sdk._sync.attachments import Attachment as Attachment
    from traforo.sdk._sync.clients import Client as Client
    from traforo.sdk._sync.contexts import Context as Context
    from traforo.sdk._sync.execs import Exec as Exec
    from traforo.sdk._sync.files import Files as Files
    from traforo.sdk._sync.sandboxes import Sandbox as Sandbox
    from traforo.sdk.cells import CodeResult as CodeResult
    from traforo.sdk.observations import Event as Event
    from traforo.sdk.observations import LogEntry as LogEntry
    from traforo.sdk.observations import Metrics as Metrics
    from traforo.sdk.places import Change as Change
    from traforo.sdk.places import PortUrl as PortUrl
    from traforo.sdk.results import ExecResult as ExecResult
    from traforo.sdk.results import FileEntry as FileEntry
    from traforo.sdk.results import FileStat as FileStat
    from traforo.sdk.results import Frame as Frame
    from traforo.sdk.results import SandboxInfo as SandboxInfo

_HOMES = {
    "AsyncAttachment": "traforo.sdk._async.attachments",
    "AsyncClient": "traforo.sdk._async.clients",
    "AsyncContext": "traforo.sdk._async.contexts",
    "AsyncExec": "traforo.sdk._async.execs",
    "AsyncFiles": "traforo.sdk._async.files",
    "AsyncSandbox": "traforo.sdk._async.sandboxes",
    "Attachment": "traforo.sdk._sync.attachments",
    "Change": "traforo.sdk.places",
    "Client": "traforo.sdk._sync.clients",
    "CodeResult": "traforo.sdk.cells",
    "Context": "traforo.sdk._sync.contexts",
    "Event": "traforo.sdk.observations",
    "Exec": "traforo.sdk._sync.execs",
    "ExecResult": "traforo.sdk.results",
    "FileEntry": "traforo.sdk.results",
    "FileStat": "traforo.sdk.results",
    "Files": "traforo.sdk._sync.files",
    "Frame": "traforo.sdk.results",
    "LogEntry": "traforo.sdk.observations",
    "Metrics": "traforo.sdk.observations",
    "PortUrl": "traforo.sdk.places",
    "Sandbox": "traforo.sdk._sync.sandboxes",
    "SandboxInfo": "traforo.sdk.results",
}

__all__ = [*_HOMES, "errors"]  # noqa: PLE0604 - every key is a string


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "errors":
        return importlib.import_module("traforo.sdk.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

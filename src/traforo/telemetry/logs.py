"""Structured log lines: JSON, one event a line, on stderr or in a file that rotates.

Secrets are taken out by the name of their key, whatever wrote them. What belongs to a request (`CONTEXT_KEYS`) is bound
once and appears in every line of it. A log that cannot be written loses lines; it never fails the caller.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import sys
import time
import traceback
import types
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import structlog

from traforo.domain import clocks
from traforo.telemetry import sinks

CONTEXT_KEYS = ("request_id", "trace_id", "span_id", "worker_id", "sandbox_id", "exec_id", "auth_mode")
"""What `bind` and `scope` are for."""
REDACTED = "[redacted]"
"""Stands in for a secret."""

_SECRETS = (
    "token",
    "secret",
    "authorization",
    "password",
    "passwd",
    "jwt",
    "cookie",
    "credential",
    "api_key",
    "apikey",
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_EMPTY: Mapping[str, object] = types.MappingProxyType({})
_context: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("traforo_log", default=_EMPTY)


class Settings(Protocol):
    """What `configure` has to know; `traforo.settings.groups.LogSettings` is one."""

    @property
    def level(self) -> str:
        """`debug`, `info`, `warning` or `error`."""
        ...

    @property
    def file(self) -> Path | None:
        """File to write to; None is stderr."""
        ...

    @property
    def rotate_size(self) -> int:
        """Bytes after which the file is rotated."""
        ...

    @property
    def max_rotations(self) -> int:
        """Rotated files to keep."""
        ...


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger: `log.info("sandbox ready", sandbox_id=...)`. Cheap to call, fine to keep."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(component=name))


def bind(**fields: object) -> contextvars.Token[Mapping[str, object]]:
    """Add fields to every later line of this task (and of tasks it starts); give the token to `unbind`."""
    return _context.set({**_context.get(), **fields})


def unbind(token: contextvars.Token[Mapping[str, object]]) -> None:
    """Undo one `bind`."""
    _context.reset(token)


def bound() -> Mapping[str, object]:
    """Return the fields that are bound now."""
    return _context.get()


@contextlib.contextmanager
def scope(**fields: object) -> Iterator[None]:
    """Bind fields for a block."""
    token = bind(**fields)
    try:
        yield
    finally:
        unbind(token)


def configure(settings: Settings, service: str) -> None:
    """Direct every log line of this process, those of libraries too. Call once at start; a later call replaces it.

    Raises OSError when the file cannot be opened.
    """
    level = _LEVELS[settings.level]
    sink = sinks.Sink(settings.file, settings.rotate_size, settings.max_rotations)
    _direct(sink, service, level)
    handler = _Bridge(sink, service)
    root = logging.getLogger()
    for old in [found for found in root.handlers if isinstance(found, _Bridge)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    logging.getLogger("traforo").setLevel(level)
    # It warns of every malformed request, which anyone can send, and repeats errors that are logged already.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def redact(fields: MutableMapping[str, Any]) -> None:
    """Replace the values of keys that name a secret, at any depth."""
    for key, value in fields.items():
        if _is_secret(key):
            if value:  # "no token" is worth knowing, and no secret
                fields[key] = REDACTED
        elif isinstance(value, dict):
            fields[key] = inner = dict(value)
            redact(inner)


def _direct(sink: sinks.Sink, service: str, level: int) -> None:
    structlog.configure(
        processors=[_Finish(service), _render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(sink),
        cache_logger_on_first_use=False,
    )


class _Lines:
    """The innermost logger of structlog: takes a rendered line."""

    def __init__(self, sink: sinks.Sink) -> None:
        self._write = sink.write

    def msg(self, line: bytes) -> None:
        """Write one line."""
        self._write(line)

    debug = info = warning = error = critical = exception = msg


class _Finish:
    """Adds time, level, service and context to an event, and takes secrets out."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _: object, level: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        finished: dict[str, Any] = {
            "ts": clocks.rfc3339(time.time()),
            "level": "error" if level == "exception" else level,
            "service": self._service,
            **_context.get(),
            **event,
        }
        exception = finished.pop("exc_info", None)
        if exception:
            finished["exception"] = _traceback(exception)
        redact(finished)
        return finished


class _Bridge(logging.Handler):
    """Takes the lines of libraries that use the logging of the standard library."""

    def __init__(self, sink: sinks.Sink, service: str) -> None:
        super().__init__()
        self._sink = sink
        self._finish = _Finish(service)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            event = {"component": record.name, "event": record.getMessage(), "exc_info": record.exc_info}
            self._sink.write(_render(None, "", self._finish(None, record.levelname.lower(), event)))
        except Exception:  # noqa: BLE001 - whatever a library tried to log, the caller goes on
            self.handleError(record)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
        super().close()


@functools.lru_cache(maxsize=1024)
def _is_secret(key: object) -> bool:
    text = str(key).lower().replace("-", "_")
    return any(word in text for word in _SECRETS)


def _traceback(exception: Any) -> str:
    """Format what `exc_info` may be: an exception, its triple, or True for the one being handled."""
    if isinstance(exception, BaseException):
        lines = traceback.format_exception(exception)
    elif isinstance(exception, tuple):
        lines = traceback.format_exception(*exception)
    else:
        lines = traceback.format_exception(*sys.exc_info())
    return "".join(lines).rstrip()


def _render(_: object, __: str, event: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr) + b"\n"
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        plain = {str(key): repr(value) for key, value in event.items()}
        return msgspec.json.encode(plain | {"ts": event.get("ts"), "level": event.get("level")}) + b"\n"


_direct(
    sinks.Sink(), "traforo", logging.INFO
)  # until `configure`: the same lines on stderr, as tests and scripts get them

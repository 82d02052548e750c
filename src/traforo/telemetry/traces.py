"""W3C trace context: read it, continue it, write it on. https://www.w3.org/TR/trace-context/

A caller's trace goes through a redirect and to the control plane, so that one create can be followed across processes.
Nothing is recorded here: ids appear in the log lines, and the flags say whether somebody else records.
"""

from __future__ import annotations

import contextvars
import os
import re
from dataclasses import dataclass

SAMPLED = 0x01
"""Flag: the caller records this trace."""
SAMPLE_RATIO = 0.10
"""Part of the traces begun here that ask to be recorded; a caller's own decision is kept."""
MAX_STATE_BYTES = 512
"""Longest `tracestate` that is passed on, as the specification demands at least."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_LIMIT = int(SAMPLE_RATIO * 2**56)
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one request is in its trace."""

    trace_id: str
    """32 hex digits, the same from end to end."""
    span_id: str
    """16 hex digits, of this process's part."""
    flags: int
    """One byte; bit 0 is `SAMPLED`."""
    state: str = ""
    """`tracestate` of other vendors, passed on untouched."""

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


_current: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("traforo_trace", default=None)


def parse(traceparent: str, tracestate: str = "") -> Trace | None:
    """Read the two headers; None when `traceparent` is not valid, as the specification says to go on without it."""
    match = _PARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    state = tracestate if len(tracestate) <= MAX_STATE_BYTES and tracestate.isascii() else ""
    return Trace(trace_id, span_id, int(flags, 16) & SAMPLED, state)


def new() -> Trace:
    """Begin a trace."""
    data = os.urandom(24)
    sampled = int.from_bytes(data[9:16], "big") < _LIMIT
    return Trace(data[:16].hex(), data[16:].hex(), SAMPLED if sampled else 0)


def child(parent: Trace) -> Trace:
    """Continue a trace with a span of our own."""
    return Trace(parent.trace_id, os.urandom(8).hex(), parent.flags, parent.state)


def current() -> Trace | None:
    """Return the trace of the request that is being handled, if any."""
    return _current.get()


def enter(trace: Trace) -> contextvars.Token[Trace | None]:
    """Make a trace the current one; give the token to `leave`."""
    return _current.set(trace)


def leave(token: contextvars.Token[Trace | None]) -> None:
    """Undo `enter`."""
    _current.reset(token)


def headers(trace: Trace | None = None) -> dict[str, str]:
    """Return the headers that pass a trace on (the current one by default); empty where there is none."""
    trace = trace or _current.get()
    if trace is None:
        return {}
    return {"traceparent": str(trace)} | ({"tracestate": trace.state} if trace.state else {})

"""What an exec's log looks like in an answer: its whole result, or some frames as text or base64.

Everything here reads a `logviews.View`, which may be done in any thread, and returns values that are ready to be
encoded. It refuses to wait: whether there is enough to answer is decided in `traforo.worker.execs.execs`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from traforo.domain import clocks
from traforo.worker.outputs import frames, logviews

INLINE_BYTES = 64 * 1024
"""A log up to this size is read on the event loop: the thread would cost more than the reading."""
PAGE_BYTES = 1024 * 1024
"""Bytes of output in one page of frames; a page always has a frame if there is one."""
_CHUNK_FRAMES = 1000
_STREAMS = frames.STREAMS
_NAMES = {kind: kind.name.lower() for kind in frames.Kind}

Encoding = Literal["utf8", "base64"]


@dataclass(frozen=True, slots=True)
class Output:
    """The text of an exec's output, each stream from its start up to a limit."""

    stdout: str = ""
    stderr: str = ""
    output: str = ""
    """Both streams in the order in which they arrived."""
    stdout_truncated: bool = False
    stderr_truncated: bool = False


NO_OUTPUT = Output()


class ShownFrame(msgspec.Struct, frozen=True):
    """One frame of an answer."""

    cursor: int
    type: str
    data: str
    ts: str


def collect(view: logviews.View, max_bytes: int, gone: frames.Amounts, *, ended: bool) -> Output:
    """Return the output, at most `max_bytes` of each stream. `gone`: what the log does not hold any more.

    A code point that the limit cuts is left out; one that the command left unfinished is replaced when it has `ended`.
    """
    held = view.held
    left = {kind: min(held.of(kind), max_bytes) for kind in _STREAMS}
    truncated = {kind: gone.of(kind) > 0 or held.of(kind) > max_bytes for kind in _STREAMS}
    texts = frames.Texts()
    pieces: list[tuple[frames.Kind, str]] = []
    cursor = 0
    while any(left.values()) and (found := view.read(cursor, _CHUNK_FRAMES, PAGE_BYTES)):
        for frame in found:
            kind = frame.header.kind
            if kind not in left:
                continue  # a result is no output
            if truncated[kind] and not left[kind]:
                continue  # what the limit cut may be half a character, which is not the command's mistake
            payload = frame.payload[: left[kind]]
            left[kind] -= len(payload)
            pieces.append((kind, texts.decode(frames.Frame(frame.header, payload))))
        cursor = found[-1].header.number + 1
    if ended:
        pieces += [(kind, texts.flush(kind)) for kind in _STREAMS if not truncated[kind]]
    stdout, stderr = ("".join(text for kind, text in pieces if kind is wanted) for wanted in _STREAMS)
    output = "".join(text for _, text in pieces) if stdout and stderr else stdout or stderr
    return Output(stdout, stderr, output, *(truncated[kind] for kind in _STREAMS))


def page(view: logviews.View, cursor: int, limit: int, encoding: Encoding) -> list[ShownFrame]:
    """Return at most `limit` frames of output from `cursor` on, at most about `PAGE_BYTES` together."""
    found = view.read(cursor, limit, PAGE_BYTES)
    if encoding == "base64":
        return [_shown(frame, base64.b64encode(frame.payload).decode()) for frame in found]
    carries: dict[frames.Kind, bytes] = {}
    for frame in found:
        if frame.header.kind not in carries:
            carries[frame.header.kind] = view.carry(frame)
    texts = frames.Texts(carries)
    return [_shown(frame, texts.decode(frame)) for frame in found]


class Shower:
    """Shows frames of one exec batch by batch, in order, as `page` would show them."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._texts = frames.Texts()
        self._begun: set[frames.Kind] = set()

    def show(self, view: logviews.View, found: Sequence[frames.Frame], *, anew: bool) -> list[ShownFrame]:
        """Return the next frames; `anew` when some before them are missing."""
        if self._encoding == "base64":
            return [_shown(frame, base64.b64encode(frame.payload).decode()) for frame in found]
        if anew:
            self._texts, self._begun = frames.Texts(), set()
        return [self._text(view, frame) for frame in found]

    def exit(self, cursor: int, data: bytes, ms: int) -> ShownFrame:
        """Return the last frame."""
        return exit_frame(cursor, data, ms, self._encoding)

    def _text(self, view: logviews.View, frame: frames.Frame) -> ShownFrame:
        kind = frame.header.kind
        if kind not in self._begun:
            self._begun.add(kind)
            self._texts.begin(kind, view.carry(frame))
        return _shown(frame, self._texts.decode(frame))


def exit_frame(cursor: int, data: bytes, ms: int, encoding: Encoding) -> ShownFrame:
    """Return the last frame of an exec; `data` is its JSON text."""
    text = data if encoding == "utf8" else base64.b64encode(data)
    return ShownFrame(cursor, "exit", text.decode(), clocks.rfc3339(ms / 1000))


def _shown(frame: frames.Frame, data: str) -> ShownFrame:
    return ShownFrame(frame.header.number, _NAMES[frame.header.kind], data, clocks.rfc3339(frame.header.ms / 1000))

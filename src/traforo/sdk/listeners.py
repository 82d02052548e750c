"""Output handed on as text while it comes. Pure: a character that is split between two frames is told once, whole."""

from __future__ import annotations

import codecs

from traforo.sdk import results


class Text:
    """Text of one stream: UTF-8 with U+FFFD for what is not."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, frame: results.Frame, kind: str) -> str:
        """Return the text that a frame adds to the stream `kind`, the rest of it at the end."""
        if frame.type == "exit":
            return self._decoder.decode(b"", final=True)
        return self._decoder.decode(frame.data) if frame.type == kind else ""

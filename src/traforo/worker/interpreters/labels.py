"""What the runtime keeps of an interpreter, so that the worker that comes after a restart finds it and goes on with it.

Small and complete: everything by which it was started, and the mark by which its answers are known. The runtime keeps
it outside of the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traforo.domain import errors
from traforo.worker.runtimes import contract

VERSION = 1


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One interpreter."""

    interpreter: int
    """Version of this form; a label of another kind has no such field."""
    context_id: str
    runtime: str
    nonce: str
    created_at: float
    """Of the context, Unix seconds."""
    name: str | None = None
    cwd: str | None = None
    """As asked for; None is the user's home directory."""
    user: str | None = None
    """As asked for; None is the image's default user."""
    env: Mapping[str, str] = {}
    prepared: bool = False
    """It was started before anybody asked."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Label)


def encode(label: Label) -> bytes:
    """Return the bytes that the runtime keeps. Raises `TooLarge`."""
    data = _encoder.encode(label)
    if len(data) > contract.MAX_LABEL_BYTES:
        raise errors.TooLarge(
            f"cannot create the context: its environment has more than {contract.MAX_LABEL_BYTES} bytes",
            limit=contract.MAX_LABEL_BYTES,
            field="env",
        )
    return data


def decode(data: bytes) -> Label | None:
    """Read a label; None if it is of something else."""
    try:
        label = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return label if label.interpreter == VERSION else None

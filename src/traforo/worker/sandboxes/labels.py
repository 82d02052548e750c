"""The label of a sandbox: what the runtime keeps for us outside of this process, and gives back after a crash.

It holds whatever an acknowledged sandbox needs to be served again by a worker that knows nothing else: what was asked
for, whose it is, until when, with which token it was paid and what its image says about commands. Labels of later
versions and damaged ones are refused, never guessed at.
"""

from __future__ import annotations

import msgspec

from traforo.domain import errors, specs
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

VERSION = 1
"""Of the form below. A worker adopts labels of its own version and says so when it meets another."""


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sandbox as it was acknowledged. Times are Unix seconds."""

    v: int
    spec: specs.SandboxSpec
    owner: str | None
    created_at: float
    expires_at: float
    jti: str | None = None
    jti_expires_at: float = 0.0
    repeat_key: str | None = None
    repeat_fingerprint: str | None = None
    idle_seconds: float | None = None
    """Seconds without use after which it ends."""
    spare: bool = False
    """It was made ahead of demand, and is nobody's."""
    image: contract.Rootfs | None = None
    """None where it did not fit; then it is asked for again."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Label)


def encode(entry: entries.Entry, *, expires_at: float, idle_seconds: float | None, spare: bool = False) -> bytes:
    """Return the label of a sandbox with this end of its lease and this idle limit. Raises `TooLarge`."""
    label = Label(
        v=VERSION,
        spec=entry.spec,
        owner=entry.owner,
        created_at=entry.created_at,
        expires_at=expires_at,
        jti=entry.jti,
        jti_expires_at=entry.jti_expires_at,
        repeat_key=entry.repeat_key,
        repeat_fingerprint=entry.repeat_fingerprint,
        idle_seconds=idle_seconds,
        spare=spare,
        image=entry.rootfs,
    )
    data = _encoder.encode(label)
    if len(data) > contract.MAX_LABEL_BYTES:
        data = _encoder.encode(msgspec.structs.replace(label, image=None))
    if len(data) > contract.MAX_LABEL_BYTES:
        raise errors.TooLarge(
            "cannot keep the sandbox's env and metadata: they are too large together", limit=contract.MAX_LABEL_BYTES
        )
    return data


def decode(data: bytes) -> Label:
    """Read a label. Raises `InvalidRequest` if it is none of ours."""
    try:
        label = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise errors.InvalidRequest(f"cannot read the label of a sandbox: {error}") from error
    if label.v != VERSION:
        raise errors.InvalidRequest(f"cannot read a label of version {label.v}: this worker writes {VERSION}")
    return label

"""Names of things. A sandbox id routes by itself: it carries the md5 of its worker's host name and a ULID.

Two spellings of one sandbox id exist and every route takes both: `sbx_<md5 hex>_<ulid>` and, for host names, the DNS
form: base32 of the md5 (26 characters, no padding) followed by the ULID, lower case, `[a-z0-9]`, 52 characters.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from dataclasses import dataclass

import ulid

from traforo.domain import errors

_CANONICAL = re.compile(r"sbx_([0-9a-f]{32})_([0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25})", re.ASCII)
_DNS = re.compile(r"([a-z2-7]{26})([0-7][0-9a-hjkmnp-tv-z]{25})", re.ASCII)
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_SHIFTS = range(120, -1, -10)
_EXEC = re.compile(r"exec_([0-7][0-9A-HJKMNP-TV-Z]{25})", re.ASCII)


def worker_hash(hostname: str) -> str:
    """Return the 32 hex digits by which a worker's host name appears in its sandboxes' ids."""
    return hashlib.md5(hostname.lower().encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class SandboxId:
    """A sandbox's id: who owns it and which one it is."""

    worker: str
    """md5 of the worker's lower-case host name, 32 hex digits."""
    ulid: str
    """26 characters of Crockford base32, upper case; sorts by time of creation."""

    def __str__(self) -> str:
        return f"sbx_{self.worker}_{self.ulid}"

    @property
    def dns(self) -> str:
        """The same id as one DNS label of 52 characters."""
        return base64.b32encode(bytes.fromhex(self.worker)).decode().rstrip("=").lower() + self.ulid.lower()


def new_sandbox_id(worker: str) -> SandboxId:
    """Make an id that no other sandbox has. `worker` is a `worker_hash`."""
    return SandboxId(worker, str(ulid.ULID()))


def parse_sandbox_id(text: str) -> SandboxId:
    """Read either spelling. Raises `MalformedId`."""
    if match := _CANONICAL.fullmatch(text):
        return SandboxId(match[1], match[2].upper())
    if match := _DNS.fullmatch(text):
        digest = base64.b32decode(match[1].upper() + "======")
        found = SandboxId(digest.hex(), match[2].upper())
        if found.dns == text:  # the last base32 digit of the md5 has two unused bits: one spelling only
            return found
    raise errors.MalformedId(f"malformed sandbox id {text[:80]!r}")


def new_exec_id() -> str:
    """Make the id of an exec, `exec_<ulid>`."""
    return f"exec_{ulid.ULID()}"


def parse_exec_id(text: str) -> str:
    """Check the id of an exec. Raises `MalformedId`."""
    if not _EXEC.fullmatch(text):
        raise errors.MalformedId(f"malformed exec id {text[:80]!r}")
    return text


def new_request_id() -> str:
    """Make a request id (a bare ULID), used where the caller sent no `X-Request-Id`.

    Every request needs one, so it is written two digits at a time.
    """
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])

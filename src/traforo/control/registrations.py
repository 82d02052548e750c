"""What a worker may say of itself: checked here, field by field, before any of it is used or shown.

A base URL decides where clients are sent, so nothing but scheme, host and port is taken from it.
"""

from __future__ import annotations

import re

from traforo.api import schemas
from traforo.domain import errors, workers

MAX_PORT = 65535

_WORKER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/+-]{0,127})", re.ASCII)
_BASE_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)


def worker_id(text: str) -> str:
    """Check the id in a path. Raises `InvalidRequest`."""
    return _matching(_WORKER_ID, text, "worker_id", "it is 1 to 64 of A-Z a-z 0-9 _ -")


def base_url(text: str) -> str:
    """Return a base URL without a slash at its end. Raises `InvalidRequest`."""
    match = _BASE_URL.fullmatch(text)
    if match is None or int(match["port"] or 1) not in range(1, MAX_PORT + 1):
        raise _invalid("base_url", text, "it is 'http[s]://host[:port]' without user, path and query")
    return text.removesuffix("/")


def worker(name: str, body: schemas.Registration) -> workers.Worker:
    """Return what a worker said as a record. Raises `InvalidRequest`, which names the field."""
    if not body.virtualizations:
        raise _invalid("virtualizations", "[]", "a worker offers at least one")
    if body.hardware_sku:
        _matching(_WORD, body.hardware_sku, "hardware_sku", "it is 1 to 128 of A-Z a-z 0-9 . _ : / + -")
    for one in body.virtualizations:
        _matching(_WORD, one, "virtualizations", "it is 1 to 64 of A-Z a-z 0-9 . _ : / + -")
    return workers.Worker(
        worker_id=worker_id(name),
        hostname=_matching(_HOSTNAME, body.hostname, "hostname", "it is 1 to 253 of A-Z a-z 0-9 . _ -"),
        base_url=base_url(body.base_url),
        hardware_sku=body.hardware_sku,
        virtualizations=tuple(sorted(set(body.virtualizations))),
        total_cores=body.total_cores,
        total_memory_mib=body.total_memory_mib,
        max_live_sandboxes=body.max_live_sandboxes,
    )


def _matching(pattern: re.Pattern[str], text: str, field: str, rule: str) -> str:
    if not pattern.fullmatch(text):
        raise _invalid(field, text, rule)
    return text


def _invalid(field: str, text: str, rule: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"cannot register a worker: {field} {text[:80]!r} is not valid", field=field, hint=rule
    )

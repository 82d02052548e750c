"""Asks servers over HTTP whether they are there, with nothing but the standard library: it runs before they answer."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
from urllib.parse import urlsplit

_SECONDS = 2.0
_NO_ULID = "0" * 26


def status(url: str, path: str) -> int | None:
    """Return the status of a GET, or None when there is no answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def healthy(url: str) -> bool:
    """Return whether a control plane or a worker serves there."""
    return status(url, "/healthz") == http.HTTPStatus.OK


def registered(control_url: str, hostname: str) -> bool:
    """Return whether a control plane knows the worker of this host name.

    Asked by the id of a sandbox that cannot exist: where it would be, the control plane tells from the id alone.
    """
    digest = hashlib.md5(hostname.lower().encode(), usedforsecurity=False).hexdigest()
    return status(control_url, f"/sandboxes/sbx_{digest}_{_NO_ULID}") == http.HTTPStatus.TEMPORARY_REDIRECT


def require_free(host: str, port: int) -> None:
    """Raise OSError if nothing can listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise OSError(f"cannot listen on {host}:{port}: {reason} (--free-ports takes others)") from error


def free_ports(host: str, count: int) -> list[int]:
    """Return ports that nobody listens on at this moment."""
    sockets = []
    try:
        for _ in range(count):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sockets.append(socket.socket(family))
            sockets[-1].bind((host, 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()

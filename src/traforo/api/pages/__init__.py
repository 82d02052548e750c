"""Web pages that come with the API: the documentation, made in the browser from openapi.json.

Files of this package and nothing from elsewhere: the policy that is sent with them forbids everything but this origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FIRST = "/docs"
"""Path of the page that the others belong to."""
_FILES = {
    FIRST: ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent."""

    content: bytes
    headers: Mapping[str, str]


def _headers(kind: str) -> dict[str, str]:
    return {
        "content-type": kind,
        "content-security-policy": _POLICY,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _load() -> dict[str, Page]:
    base = resources.files(__name__)
    return {path: Page(base.joinpath(name).read_bytes(), _headers(kind)) for path, (name, kind) in _FILES.items()}


ALL: Mapping[str, Page] = _load()
"""Every page by its path; read with the code, so that no request waits for a file."""

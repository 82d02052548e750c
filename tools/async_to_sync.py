#!/usr/bin/env python3
"""Writes the SDK for plain threads from the one for asyncio: each `_sync` from the `_async` beside it, tests included.

    tools/async_to_sync.py [--check]

Words are replaced in code and docstrings alike, so comments stay and examples stay right. `--check` writes nothing and
exits with 1 if a file differs from what would be written. `edges.py` and `sockets.py` are written by hand on both
sides.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = (ROOT / "src" / "traforo" / "sdk", ROOT / "tests" / "unit" / "sdk")
BY_HAND = {"__init__.py", "edges.py", "sockets.py"}
MARK = "# Written by tools/async_to_sync.py. Change {source} instead.\n"

WORDS = {
    "_async": "_sync",
    "AsyncGenerator": "Generator",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncAttachment": "Attachment",
    "AsyncClient": "Client",
    "AsyncContext": "Context",
    "AsyncContexts": "Contexts",
    "AsyncExec": "Exec",
    "AsyncFiles": "Files",
    "AsyncPorts": "Ports",
    "AsyncSandbox": "Sandbox",
    "AsyncTerminals": "Terminals",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_raw": "iter_raw",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
}
_WORD = re.compile(rf"\b({'|'.join(WORDS)})\b")
_KEYWORD = re.compile(r"\b(?:async(?= (?:def|for|with)\b)|await) ")
_LEFT_OVER = re.compile(r"\b(?:async|await|asyncio|a(?:sync)?[A-Z]\w*|Async\w*)\b")


def converted(text: str, source: str) -> str:
    """Return the synchronous form of a source text. Raises ValueError if something asynchronous is left."""
    text = _WORD.sub(lambda match: WORDS[match[1]], _KEYWORD.sub("", text))
    if left := _LEFT_OVER.search(text):
        line = text.count("\n", 0, left.start()) + 1
        raise ValueError(f"{source}:{line}: {left[0]!r} has no synchronous form")
    return _tidied(MARK.format(source=source) + text)


def _tidied(text: str) -> str:
    """Sort imports and format, as the words have other lengths now, and simplify what waits for nothing any more."""
    beside = Path(sys.executable).with_name("ruff")
    ruff = str(beside) if beside.exists() else shutil.which("ruff")
    if ruff is None:
        raise FileNotFoundError("ruff is not installed: run `make setup`")
    for arguments in (
        ["check", "--fix-only", "--quiet", "--unsafe-fixes", "--select=C416,I,SIM117,UP028,UP034", "-"],
        ["format", "--quiet", "-"],
    ):
        name = ["--stdin-filename", str(PLACES[0] / "_sync" / "any.py")]
        command = [ruff, *arguments[:-1], *name, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def updated(place: Path, *, write: bool) -> list[Path]:
    """Return the files in `place` that are not what they should be; write those that have a source."""
    sources = {path.name: path for path in sorted((place / "_async").glob("*.py")) if path.name not in BY_HAND}
    stale = []
    for name, path in sources.items():
        target = place / "_sync" / name
        wanted = converted(path.read_text(), f"_async/{name}")
        if target.exists() and target.read_text() == wanted:
            continue
        stale.append(target)
        if write:
            target.write_text(wanted)
    return stale + [path for path in (place / "_sync").glob("*.py") if path.name not in sources.keys() | BY_HAND]


def main(arguments: list[str]) -> int:
    """Write, or check, every file. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = [str(path.relative_to(ROOT)) for place in PLACES for path in updated(place, write=not arguments)]
    if stale and arguments:
        print(f"not up to date: {', '.join(stale)}: run tools/async_to_sync.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

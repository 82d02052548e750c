"""The files of a fake server: those below the directory of a "sandbox", as the routes of files answer them."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tarfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes import commands


def answer(asked: commands.Asked, sandbox: commands.FakeSandbox, parts: list[str]) -> tuple[int, Any]:
    if parts[:1] == ["watches"] and len(parts) == 2:
        return _watch(asked, sandbox, parts[1])
    if parts in (["move"], ["copy"]):
        return _between(asked.json, sandbox, parts[0])
    in_body = asked.method == "PATCH" or parts in (["mkdir"], ["watches"], ["signed-url"])
    given: Any = asked.json if in_body else asked.query
    shown = base64.b64decode(given["path_b64"]) if "path_b64" in given else given["path"].encode()
    if not shown.startswith(b"/"):
        raise commands.Refusal(400, "invalid_request", "the path is not absolute", field="path")
    path = Path(os.fsdecode(os.fsencode(sandbox.root) + shown))
    facts = {"sandbox_id": sandbox.sandbox_id, **_name("path", shown)}
    if parts == ["find"]:
        found = [item for item in sorted(path.rglob("*")) if item.match(asked.query["pattern"].replace("**/", ""))]
        return 200, {"entries": [_entry(sandbox, item) for item in found], "next_cursor": None}
    if parts == ["search"]:
        return 200, {"matches": _matches(sandbox, path, asked.query["text"]), "truncated": False}
    if parts == ["signed-url"]:
        url = f"http://signed.example/{given['method']}{given['path']}?signature=abc"
        return 200, {"url": url, "expires_at": "2026-01-02T04:00:00.000Z"}
    if parts == ["watches"]:
        if not path.is_dir():
            raise commands.Refusal(404, "not_found", f"no file {given.get('path')!r}", kind="file")
        watch_id = f"watch_{len(sandbox.watches)}"
        sandbox.watches[watch_id] = Watch(path, _snapshot(path))
        return 201, {"watch_id": watch_id}
    if parts == ["tar"] and asked.method == "GET":
        return 200, _tar(path)
    if parts == ["tar"]:
        path.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(asked.body), mode="r:*") as archive:
            archive.extractall(path, filter="tar")
        return 200, facts
    if parts == ["mkdir"]:
        created = not path.exists()
        path.mkdir(parents=given["recursive"], exist_ok=True)
        return 200, {**facts, "created": created}
    if parts == ["stat"]:
        return 200, {**facts, **_stat(path)}
    if asked.method == "PATCH":
        if "mode" in given:
            path.chmod(int(given["mode"], 8))
        return 200, facts
    if asked.method == "PUT":
        if asked.headers.get("if-none-match") == "*" and path.exists():
            raise commands.Refusal(412, "precondition_failed", "it is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asked.body)
        return 200, {**facts, "bytes_written": len(asked.body), "bytes": len(asked.body)}
    if asked.method == "DELETE":
        return _remove(path, asked.query)
    if not path.exists():
        raise commands.Refusal(404, "not_found", f"no file {given.get('path')!r}", kind="file")
    if parts == ["list"]:
        return 200, {**facts, **_list(sandbox, path, asked.query)}
    if path.is_dir():
        raise commands.Refusal(400, "invalid_request", "a directory")
    return 200, Content(path.read_bytes(), f'"{path.stat().st_mtime_ns:x}"' if sandbox.etags else None)


def _between(given: dict[str, Any], sandbox: commands.FakeSandbox, what: str) -> tuple[int, Any]:
    source, target = (sandbox.root / given[name].lstrip("/") for name in ("from", "to"))
    if not source.exists():
        raise commands.Refusal(404, "not_found", "no such file", kind="file")
    if target.exists() and not given.get("overwrite"):
        raise commands.Refusal(409, "conflict", "it is there already")
    if what == "move":
        source.rename(target)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    return 200, {"sandbox_id": sandbox.sandbox_id}


def _tar(path: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(path, arcname=path.name if path.is_file() else ".")
    return content.getvalue()


def _matches(sandbox: commands.FakeSandbox, path: Path, text: str) -> list[dict[str, Any]]:
    found = []
    for item in sorted(path.rglob("*")):
        for number, line in enumerate(item.read_text().splitlines() if item.is_file() else (), 1):
            if text in line:
                name = f"/{item.relative_to(sandbox.root)}"
                found.append({"path": name, "line": number, "column": line.index(text) + 1, "text": line})
    return found


def _snapshot(path: Path) -> dict[str, int]:
    return {str(item): item.stat().st_mtime_ns for item in sorted(path.rglob("*"))}


def _watch(asked: commands.Asked, sandbox: commands.FakeSandbox, watch_id: str) -> tuple[int, Any]:
    if watch_id not in sandbox.watches:
        raise commands.Refusal(404, "not_found", "no such watch", kind="watch")
    if asked.method == "DELETE":
        del sandbox.watches[watch_id]
        return 204, None
    watch, cursor = sandbox.watches[watch_id], int(asked.query["cursor"])
    deadline = time.monotonic() + float(asked.query["wait"])
    while len(watch.changes) <= cursor and time.monotonic() < deadline and sandbox.state == "running":
        time.sleep(0.005)
        new = _snapshot(watch.path)
        for name in [name for name in new if new[name] != watch.known.get(name)]:
            kind = "modified" if name in watch.known else "created"
            path = f"/{Path(name).relative_to(sandbox.root)}"
            number = len(watch.changes) + 1
            watch.changes.append({"cursor": number, "kind": kind, "path": path, "type": "file", "moved_from": None})
        watch.known = new
    changes = watch.changes[cursor:]
    return 200, {"changes": changes, "next_cursor": cursor + len(changes), "overflow": False}


def _remove(path: Path, query: dict[str, str]) -> tuple[int, Any]:
    if not path.exists():
        if query.get("force") != "true":
            raise commands.Refusal(404, "not_found", "no such file", kind="file")
    elif not path.is_dir():
        path.unlink()
    elif query.get("recursive") == "true":
        shutil.rmtree(path)
    elif any(path.iterdir()):
        raise commands.Refusal(409, "conflict", "directory is not empty")
    else:
        path.rmdir()
    return 204, None


def _name(key: str, raw: bytes) -> dict[str, str]:
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        shown = "".join(c if c.isprintable() else f"%{ord(c) & 0xFF:02X}" for c in raw.decode(errors="surrogateescape"))
        return {key: shown, f"{key}_b64": base64.b64encode(raw).decode()}


def _stat(path: Path) -> dict[str, Any]:
    if not path.exists() and not path.is_symlink():
        return {"exists": False}
    facts = path.lstat()
    kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
    modified = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    size = facts.st_size if kind == "file" else 0
    ids = {"uid": facts.st_uid, "gid": facts.st_gid, "mode": facts.st_mode & 0o7777}
    return {"exists": True, "type": kind, "size": size, **ids, "modified_at": modified, "target": None}


def _list(sandbox: commands.FakeSandbox, path: Path, query: dict[str, str]) -> dict[str, Any]:
    found = sorted(path.rglob("*") if query.get("recursive") == "true" else path.iterdir())
    start_at = int(query.get("cursor", 0))
    page = found[start_at : start_at + 3]
    entries = [_entry(sandbox, item) for item in page]
    end = start_at + len(page)
    return {"entries": entries, "next_cursor": str(end) if end < len(found) else None}


def _entry(sandbox: commands.FakeSandbox, item: Path) -> dict[str, Any]:
    raw = b"/" + os.fsencode(item.relative_to(sandbox.root))
    return {**_stat(item), **_name("name", os.fsencode(item.name)), **_name("path", raw)}


@dataclass
class Content:
    """The content of a file, which may be asked for in parts."""

    data: bytes
    etag: str | None

    def answer(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        named = {"ETag": self.etag} if self.etag else {}
        wanted = headers.get("range", "").removeprefix("bytes=")
        if not wanted or headers.get("if-range", self.etag) != self.etag:
            return 200, named, self.data
        first, _, last = wanted.partition("-")
        part = self.data[int(first) : int(last) + 1 if last else None]
        if not part:
            raise commands.Refusal(416, "range_not_satisfiable", "it ends before that", size=len(self.data))
        return 206, named, part


@dataclass
class Watch:
    """A directory that is watched, by looking again and again."""

    path: Path
    known: dict[str, int]
    changes: list[dict[str, Any]] = field(default_factory=list)

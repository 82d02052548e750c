"""Files and directories of a sandbox."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from traforo.api.schemas import fields

MAX_MODE = 0o7777
"""Permission bits, set-id and sticky bits included."""
MAX_WAIT_SECONDS = 60.0
"""Longest wait for a change."""
MAX_URL_SECONDS = 7 * 24 * 3600
"""Longest life of a signed URL: seven days."""


def _mode(value: object) -> object:
    """Read octal digits; a number is one already."""
    if isinstance(value, str):
        if not value or len(value) > 5 or set(value) - set("01234567"):
            raise ValueError("a mode is octal digits such as '0644', or a number")
        return int(value, 8)
    return value


Mode = Annotated[int, BeforeValidator(_mode), Field(ge=0, le=MAX_MODE, examples=["0644"])]
Kind = Literal["file", "directory", "symlink", "other"]
Owner = Annotated[str | int, BeforeValidator(fields.check_owner), Field(examples=["user"])]


class _PathQuery(fields.QueryModel):
    path: fields.Path | None = None
    """Absolute path in the sandbox."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class FileQuery(_PathQuery):
    """Which file."""


class FileWriteQuery(_PathQuery):
    """Which file to write, and how."""

    mode: Mode | None = None
    """Permission bits as octal digits; by default those of the file that is replaced, or `0644`."""
    signature: fields.Token | None = None
    """Of a signed URL, in place of path, user and credential."""


class FileReadQuery(_PathQuery):
    """Which file to read, and how."""

    encoding: fields.Encoding | None = None
    """Answer with JSON and the content in this encoding; raw bytes by default."""
    signature: fields.Token | None = None
    """Of a signed URL, in place of path, user and credential."""


class FileDeleteQuery(_PathQuery):
    """What to delete."""

    recursive: bool = False
    """A directory with all that is in it."""
    force: bool = False
    """A path that does not exist is fine."""


class FileListQuery(_PathQuery):
    """Which directory to list."""

    recursive: bool = False
    """Everything below it; links are not followed."""
    limit: fields.Limit = fields.MAX_PAGE
    """Most entries to return."""
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | None = None
    """`next_cursor` of the page before."""


class FileWrite(fields.RequestModel):
    """Content of a file, where it is not sent raw."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "aGVsbG8K", "encoding": "base64"}]})

    content: str
    """At most 10 MiB after decoding."""
    encoding: fields.Encoding = "base64"
    """How `content` is written."""
    append: bool = False
    """Add to the end instead of replacing."""


class FileWritten(fields.AnswerModel):
    """A file was written."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user/hello.txt"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    bytes_written: Annotated[int, Field(examples=[6])]
    bytes: Annotated[int, Field(examples=[6])]
    """Size of the file now."""
    etag: Annotated[str | None, Field(examples=['"187a3f2c1d9e4b00-6-2a"'])] = None
    """Names this version of its content."""


class FileContent(fields.AnswerModel):
    """A file as JSON."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user/hello.txt"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    type: Literal["file"]
    encoding: fields.Encoding
    content: Annotated[str, Field(examples=["hello\n"])]
    bytes: Annotated[int, Field(examples=[6])]


class FileStat(fields.AnswerModel):
    """Facts about a path; every one but the first three is null where nothing exists."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user/hello.txt"])]
    exists: Annotated[bool, Field(examples=[True])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    type: Literal["file", "directory", "symlink", "other"] | None = None
    size: int | None = None
    mode: Annotated[int | None, Field(examples=[420])] = None
    """Permission bits, set-id and sticky bits included."""
    uid: int | None = None
    gid: int | None = None
    modified_at: fields.Timestamp | None = None
    target: str | None = None
    """Where a symbolic link points."""
    etag: Annotated[str | None, Field(examples=['"187a3f2c1d9e4b00-6-2a"'])] = None
    """Names this version of a file's content, as `ETag` of reading it does; null for what is not a file."""


class FileEntry(fields.AnswerModel):
    """One entry of a directory."""

    name: Annotated[str, Field(examples=["hello.txt"])]
    path: Annotated[str, Field(examples=["/home/user/hello.txt"])]
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: Annotated[int, Field(examples=[420])]
    modified_at: Annotated[fields.Timestamp, Field(examples=[fields.CREATED_AT])]
    name_b64: str | None = None
    """Only where the name is not UTF-8."""
    path_b64: str | None = None
    """Only where the path is not UTF-8."""


class FileListing(fields.AnswerModel):
    """Entries below a directory, sorted by path."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user"])]
    entries: list[FileEntry]
    next_cursor: str | None
    """Gives the next page; null on the last."""


class DirectoryCreate(fields.RequestModel):
    """A directory to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/user/a/b", "recursive": True}]})

    path: fields.Path | None = None
    """Absolute path in the sandbox."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    recursive: bool = False
    """Make missing parents."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class DirectoryMade(fields.AnswerModel):
    """A directory is there."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user/a/b"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    created: Annotated[bool, Field(examples=[True])]
    """False when it was there before."""


class FileMove(fields.RequestModel):
    """What to move where."""

    model_config = ConfigDict(
        serialize_by_alias=True, json_schema_extra={"examples": [{"from": "/home/user/a", "to": "/home/user/b"}]}
    )

    from_: Annotated[fields.Path | None, Field(alias="from")] = None
    """Absolute path in the sandbox of what is moved; a link is moved itself."""
    from_b64: fields.PathB64 | None = None
    to: fields.Path | None = None
    """Its new path."""
    to_b64: fields.PathB64 | None = None
    overwrite: bool = False
    """Replace a file that is there, or an empty directory."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class FileMoved(fields.AnswerModel):
    """Something was moved."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user/b"])]
    """Where it is now."""
    path_b64: str | None = None
    """Only where the path is not UTF-8."""


class FileCopy(fields.RequestModel):
    """What to copy where."""

    model_config = ConfigDict(
        serialize_by_alias=True,
        json_schema_extra={"examples": [{"from": "/home/user/a", "to": "/home/user/b", "recursive": True}]},
    )

    from_: Annotated[fields.Path | None, Field(alias="from")] = None
    """Absolute path in the sandbox of what is copied; a link is followed."""
    from_b64: fields.PathB64 | None = None
    to: fields.Path | None = None
    """Path of the copy."""
    to_b64: fields.PathB64 | None = None
    recursive: bool = False
    """A directory with all that is in it."""
    overwrite: bool = False
    """Replace files that are there; directories are put together."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class FileCopied(FileMoved):
    """Something was copied."""

    entries: Annotated[int, Field(examples=[3])]
    """Files, links and directories that were made."""
    bytes: Annotated[int, Field(examples=[4096])]
    """Of content."""
    skipped: Annotated[int, Field(examples=[0])]
    """Devices, FIFOs and sockets, and what was removed meanwhile."""


class FileChange(fields.RequestModel):
    """What to change of a file or directory; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/home/user/data", "owner": "user", "recursive": True}]}
    )

    path: fields.Path | None = None
    """Absolute path in the sandbox; a link is followed."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    mode: Mode | None = None
    """Permission bits: octal digits as text, or a number."""
    owner: Owner | None = None
    """User of the sandbox, by name or id."""
    group: Owner | None = None
    """Group of the sandbox, by name or id."""
    modified_at: fields.Timestamp | None = None
    """Time of the last change, RFC 3339."""
    recursive: bool = False
    """All that is below a directory too; links are not followed there."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class FileChanged(FileMoved):
    """Something was changed."""

    changed: Annotated[int, Field(examples=[1])]
    """How many files, links and directories."""


class FileFindQuery(_PathQuery):
    """What to find below a directory."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024, examples=["**/*.py"])] = "**"
    """`*`, `?` and `[…]` within a name, `**` for any directories. Without a slash it is about names anywhere."""
    type: Kind | None = None
    """Only what is of this type."""
    limit: fields.Limit = fields.MAX_PAGE
    """Most entries to return."""
    cursor: Annotated[str, Field(max_length=2 * fields.MAX_PATH_BYTES)] | None = None
    """`next_cursor` of the page before."""


class FileSearchQuery(_PathQuery):
    """What to search for in files."""

    text: Annotated[str, Field(min_length=1, max_length=1024, examples=["TODO"])]
    """Text as it stands; no expression."""
    pattern: Annotated[str, Field(min_length=1, max_length=1024, examples=["*.py"])] | None = None
    """Only files that fit, as in `find`."""
    ignore_case: bool = False
    limit: fields.Limit = 100
    """Most lines to return."""


class FileMatch(fields.AnswerModel):
    """A line that has the text."""

    path: Annotated[str, Field(examples=["/home/user/main.py"])]
    line: Annotated[int, Field(examples=[3])]
    """From 1."""
    column: Annotated[int, Field(examples=[7])]
    """Of the first occurrence, in characters from 1."""
    text: Annotated[str, Field(examples=["    # TODO: more"])]
    """The line, cut to 500 characters."""
    path_b64: str | None = None
    """Only where the path is not UTF-8."""


class FileMatches(fields.AnswerModel):
    """Lines that have a text, by path and line."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    matches: list[FileMatch]
    truncated: bool
    """There may be more: `limit`, or a limit of bytes or of time, was reached."""


class TarQuery(_PathQuery):
    """Which tree to pack."""

    compression: Literal["none", "gzip"] = "none"
    skip_unreadable: bool = False
    """Leave out what the user may not read; by default it breaks the archive off."""


class TarExtractQuery(_PathQuery):
    """Where to extract."""

    links: Literal["refuse", "keep"] = "refuse"
    """What becomes of symbolic links that lead out of the directory. `keep` makes them as they are; nothing is ever
    written through one."""


class TarExtracted(fields.AnswerModel):
    """An archive was extracted."""

    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    entries: Annotated[int, Field(examples=[12])]
    bytes: Annotated[int, Field(examples=[40960])]
    """Of content."""


class WatchCreate(fields.RequestModel):
    """A directory to watch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/user", "recursive": True}]})

    path: fields.Path | None = None
    """Absolute path in the sandbox."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    recursive: bool = False
    """Everything below it, directories that are made later included."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class WatchQuery(_PathQuery):
    """Which directory to watch over a WebSocket."""

    recursive: bool = False
    """Everything below it, directories that are made later included."""


class WatchStarted(fields.AnswerModel):
    """A directory is watched."""

    watch_id: Annotated[str, Field(examples=["watch_01K6Z8Q4T3V7WXYZ0123456789"])]
    sandbox_id: Annotated[str, Field(examples=[fields.SANDBOX_ID])]
    path: Annotated[str, Field(examples=["/home/user"])]
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    recursive: bool
    poll_url: Annotated[str, Field(examples=[f"/sandboxes/{fields.SANDBOX_ID}/files/watches/watch_01K6Z8Q4T3V7WXYZ01"])]


class WatchReadQuery(fields.QueryModel):
    """From where to read what changed."""

    cursor: Annotated[int, Field(ge=0, le=1 << 62)] = 0
    """`next_cursor` of the page before."""
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0.0
    """Seconds to wait for a change if there is none."""
    limit: fields.Limit = fields.MAX_PAGE
    """Most changes to return."""


class WatchedChange(fields.AnswerModel):
    """Something changed."""

    cursor: Annotated[int, Field(examples=[0])]
    kind: Literal["created", "modified", "attributes", "deleted"]
    path: Annotated[str, Field(examples=["/home/user/main.py"])]
    type: Annotated[Literal["directory", "other"], Field(examples=["other"])]
    """Whether it is a directory; what else it is shows only when one looks."""
    moved_from: str | None
    """Where it was before, if it was moved within what is watched."""
    path_b64: str | None = None
    """Only where the path is not UTF-8."""
    moved_from_b64: str | None = None
    """Only where that path is not UTF-8."""


class WatchedChanges(fields.AnswerModel):
    """What changed, in order."""

    changes: list[WatchedChange]
    next_cursor: int
    overflow: bool
    """Changes before these are lost: look at everything again."""
    ended: bool
    """There will be no more: the directory is gone."""


class SignedUrlCreate(fields.RequestModel):
    """A URL to sign."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/home/user/out.zip", "method": "GET", "expires_in_seconds": 3600}]}
    )

    path: fields.Path | None = None
    """Absolute path in the sandbox."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    method: Literal["GET", "PUT"] = "GET"
    """Whether the file is read or written."""
    expires_in_seconds: Annotated[int, Field(ge=1, le=MAX_URL_SECONDS)] = 3600
    """It ends with the sandbox at the latest."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""
    max_bytes: Annotated[int, Field(ge=0, le=1 << 50)] | None = None
    """Most bytes that may be written."""


class SignedUrl(fields.AnswerModel):
    """A URL that opens one file, for one method, without any other credential."""

    url: Annotated[str, Field(examples=["http://127.0.0.1:8081/sandboxes/sbx_…/files?signature=eyJ…"])]
    method: Literal["GET", "PUT"]
    expires_at: Annotated[fields.Timestamp, Field(examples=[fields.EXPIRES_AT])]

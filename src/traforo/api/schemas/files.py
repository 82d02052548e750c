"""Files and directories of a sandbox."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from traforo.api.schemas import fields


class _PathQuery(fields.QueryModel):
    path: fields.Path | None = None
    """Absolute path in the sandbox."""
    path_b64: fields.PathB64 | None = None
    """The same in base64, for a path that is not UTF-8."""
    user: fields.User | None = None
    """Whose rights to use; the image's default user by default."""


class FileQuery(_PathQuery):
    """Which file."""


class FileReadQuery(_PathQuery):
    """Which file to read, and how."""

    encoding: fields.Encoding | None = None
    """Answer with JSON and the content in this encoding; raw bytes by default."""


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
    cursor: Annotated[str, Field(max_length=3 * fields.MAX_PATH_BYTES)] | None = None
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

# Written by tools/async_to_sync.py. Change _async/files.py instead.
"""Files of a sandbox. Paths are those inside of it, resolved there with the rights of the user in the sandbox."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable

from traforo.sdk import answers, disks, errors, requests, results
from traforo.sdk._sync import clients, edges

SandboxPath = str | bytes | os.PathLike[str]
"""A path in a sandbox; bytes, or text with surrogate escapes, name what is not UTF-8."""
READ_LIMIT = 256 * 1024 * 1024
"""Bytes that `read` takes into memory at most, because the sandbox decides how large its files are."""


class Files:
    """The files of one sandbox, as `sandbox.files`.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            sandbox.files.write("/tmp/greeting.txt", "hello")
            print(sandbox.files.read_text("/tmp/greeting.txt"))
            for entry in sandbox.files.list("/tmp"):
                print(entry.path, entry.type, entry.size)
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/files"

    def read(self, path: SandboxPath, *, user: str | None = None, limit: int = READ_LIMIT) -> bytes:
        """Return the content of a file.

        Args:
            path: Absolute path in the sandbox.
            user: Whose rights count, a name or number; None is the image's default user.
            limit: Bytes to accept at most.

        Raises:
            NotFound, Forbidden, InvalidRequest: No file there, no right to read it, not a regular file.
            TooLarge: It has more than `limit` bytes.
        """
        content = bytearray()
        with contextlib.closing(self.stream(path, user=user)) as blocks:
            for block in blocks:
                content += block
                if len(content) > limit:
                    raise errors.TooLarge(
                        f"cannot read {path!r}: larger than {limit} bytes",
                        hint="use `download` or `stream`, or raise the limit",
                        fields={"limit": limit},
                    )
        return bytes(content)

    def read_text(self, path: SandboxPath, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """Return the content of a file as text. Raises what `read` raises, and UnicodeDecodeError."""
        return (self.read(path, user=user)).decode(encoding)

    def stream(self, path: SandboxPath, *, user: str | None = None) -> Generator[bytes]:
        """Read a file of any size piece by piece. Raises what `read` raises, save for the limit."""
        query = requests.query_string(requests.path_query(path, user=user))
        token = self._client.credential(self._place)
        with self._client.stream(self._url + query, token=token) as blocks:
            yield from blocks

    def write(self, path: SandboxPath, content: str | bytes | Iterable[bytes], *, user: str | None = None) -> int:
        """Write a file, replacing what it held and making its parents.

        Args:
            path: Absolute path in the sandbox.
            content: Text (as UTF-8), bytes, or an iterable of bytes for what does not fit into memory.
            user: Whose rights count and who owns what is made; None is the image's default user.

        Returns:
            The number of bytes written.

        Raises:
            DiskFull: The sandbox's disk limit.
            Forbidden, InvalidRequest: No right to write there; a directory.
        """
        data = content.encode() if isinstance(content, str) else content
        return self._put(path, data, None, user)

    def upload(self, local: str | os.PathLike[str], path: SandboxPath, *, user: str | None = None) -> int:
        """Copy a local file into the sandbox, of any size. Returns the bytes written; raises OSError and as `write`."""
        source = edges.run(disks.source, local)
        try:
            return self._put(path, edges.blocks(source.file), source.size, user)
        finally:
            edges.run(source.file.close)

    def download(self, path: SandboxPath, local: str | os.PathLike[str], *, user: str | None = None) -> int:
        """Copy a file out of the sandbox, of any size.

        The local file appears when it is complete: a failure leaves what was there before.

        Returns:
            The number of bytes.

        Raises:
            OSError: The local file cannot be written.
            TraforoError: As `read`.
        """
        target = edges.run(disks.target, local)
        try:
            size = 0
            with contextlib.closing(self.stream(path, user=user)) as blocks:
                for block in blocks:
                    edges.run(target.file.write, block)
                    size += len(block)
            edges.run(target.commit)
        except BaseException:
            edges.run(target.discard)
            raise
        return size

    def list(
        self, path: SandboxPath, *, recursive: bool = False, user: str | None = None
    ) -> tuple[results.FileEntry, ...]:
        """Return what a directory holds, sorted by path, links not followed. Raises `NotFound`, `Forbidden`."""
        found: tuple[results.FileEntry, ...] = ()
        cursor: str | None = None
        while True:
            query = requests.path_query(path, recursive=recursive, user=user, cursor=cursor)
            page, cursor = answers.entries(answers.document(self._get("/list", query)))
            found += tuple(page)
            if cursor is None or not page:
                return found

    def stat(self, path: SandboxPath, *, user: str | None = None) -> results.FileStat:
        """Return facts about a path; one that is missing has `exists` False."""
        return answers.stat(answers.document(self._get("/stat", requests.path_query(path, user=user))))

    def exists(self, path: SandboxPath, *, user: str | None = None) -> bool:
        """Return whether there is anything at a path."""
        return (self.stat(path, user=user)).exists

    def mkdir(self, path: SandboxPath, *, parents: bool = True, user: str | None = None) -> bool:
        """Make a directory.

        Returns:
            True if it was made, False if it was there.

        Raises:
            NotFound: A parent is missing and `parents` is False.
        """
        body = {**requests.path_query(path, user=user), "recursive": parents}
        token = self._client.credential(self._place)
        response = self._client.call("POST", f"{self._url}/mkdir", token=token, body=body)
        return bool(answers.field(answers.document(response.content), "created", bool))

    def remove(
        self, path: SandboxPath, *, recursive: bool = False, missing_ok: bool = False, user: str | None = None
    ) -> None:
        """Remove a file, a link, or a directory.

        Args:
            path: Absolute path in the sandbox.
            recursive: Remove what a directory holds as well.
            missing_ok: Be content if there is nothing.
            user: Whose rights count.

        Raises:
            Conflict: A directory that is not empty.
            NotFound: Nothing there.
        """
        query = requests.query_string(requests.path_query(path, recursive=recursive, force=missing_ok, user=user))
        token = self._client.credential(self._place)
        self._client.call("DELETE", self._url + query, token=token)

    def _get(self, route: str, query: dict[str, str]) -> bytes:
        token = self._client.credential(self._place)
        url = self._url + route + requests.query_string(query)
        return (self._client.call("GET", url, token=token, repeat=True)).content

    def _put(self, path: SandboxPath, content: bytes | Iterable[bytes], size: int | None, user: str | None) -> int:
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        url = self._url + requests.query_string(requests.path_query(path, user=user))
        token = self._client.credential(self._place)
        response = self._client.call("PUT", url, token=token, content=content, headers=headers)
        return int(answers.field(answers.document(response.content), "bytes_written", int))

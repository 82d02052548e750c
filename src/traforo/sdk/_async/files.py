"""Files of a sandbox. Paths are those inside of it, resolved there with the rights of the user in the sandbox."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from datetime import datetime
from typing import Any, Literal

from traforo.sdk import answers, archives, disks, downloads, errors, pauses, places, requests, results
from traforo.sdk._async import clients, edges, watches

SandboxPath = str | bytes | os.PathLike[str]
"""A path in a sandbox; bytes, or text with surrogate escapes, name what is not UTF-8."""
READ_LIMIT = 256 * 1024 * 1024
"""Bytes that `read` takes into memory at most, because the sandbox decides how large its files are."""


class AsyncFiles:
    """The files of one sandbox, as `sandbox.files`.

    Example:
        ```python
        async with await AsyncSandbox.create() as sandbox:
            await sandbox.files.write("/tmp/greeting.txt", "hello")
            print(await sandbox.files.read_text("/tmp/greeting.txt"))
            for entry in await sandbox.files.list("/tmp"):
                print(entry.path, entry.type, entry.size)
        ```
    """

    def __init__(self, client: clients.AsyncClient, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/files"

    async def read(self, path: SandboxPath, *, user: str | None = None, limit: int = READ_LIMIT) -> bytes:
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
        async with contextlib.aclosing(self.stream(path, user=user)) as blocks:
            async for block in blocks:
                content += block
                if len(content) > limit:
                    raise errors.TooLarge(
                        f"cannot read {path!r}: larger than {limit} bytes",
                        hint="use `download` or `stream`, or raise the limit",
                        fields={"limit": limit},
                    )
        return bytes(content)

    async def read_text(self, path: SandboxPath, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """Return the content of a file as text. Raises what `read` raises, and UnicodeDecodeError."""
        return (await self.read(path, user=user)).decode(encoding)

    async def stream(
        self, path: SandboxPath, *, user: str | None = None, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes]:
        """Read a file of any size piece by piece, going on where a connection broke if the file is still the same.

        Args:
            path: Absolute path in the sandbox.
            user: Whose rights count.
            start: First byte to read, counted from 0.
            end: First byte not to read; None reads to the end of the file.

        Raises:
            NotFound, Forbidden, InvalidRequest: No file there, no right to read it, not a regular file.
            RangeNotSatisfiable: It ends before `start`.
            ConnectionFailed: The connection broke and could not be made anew, or the file was changed meanwhile.
        """
        url = self._url + requests.query_string(requests.path_query(path, user=user))
        async with contextlib.aclosing(self._content(url, start, end)) as blocks:
            async for block in blocks:
                yield block

    async def _content(self, url: str, start: int, end: int | None) -> AsyncGenerator[bytes]:
        span, outage = downloads.Span(start, end), pauses.Outage()
        while True:
            try:
                token = await self._client.credential(self._place)
                async with self._client.stream(url, token=token, headers=span.headers()) as response:
                    span.check(response.status_code, response.headers)
                    async for block in response.aiter_raw():
                        outage.over()
                        span.read += len(block)
                        yield block
                    return
            except errors.RangeNotSatisfiable:
                if span.read:  # the connection broke after the last byte
                    return
                raise
            except errors.ConnectionFailed:
                pause = outage.pause(time.monotonic())
                if pause is None or not span.resumable:
                    raise
                await edges.sleep(pause)

    async def write(
        self,
        path: SandboxPath,
        content: str | bytes | AsyncIterable[bytes],
        *,
        user: str | None = None,
        mode: int | None = None,
        new: bool = False,
        if_match: str | None = None,
    ) -> int:
        """Write a file, replacing what it held and making its parents.

        Args:
            path: Absolute path in the sandbox.
            content: Text (as UTF-8), bytes, or an iterable of bytes for what does not fit into memory.
            user: Whose rights count and who owns what is made; None is the image's default user.
            mode: Permission bits of the file.
            new: Only if there is nothing at `path`.
            if_match: Only if the file has this ETag: nobody has changed it since.

        Returns:
            The number of bytes written.

        Raises:
            DiskFull: The sandbox's disk limit.
            Forbidden, InvalidRequest: No right to write there; a directory.
            PreconditionFailed: With `new` or `if_match`; nothing was written.
        """
        data = content.encode() if isinstance(content, str) else content
        return await self._put(path, data, None, user, mode=mode, headers=downloads.conditions(new, if_match))

    async def upload(
        self,
        local: str | os.PathLike[str],
        path: SandboxPath,
        *,
        user: str | None = None,
        mode: int | None = None,
        progress: disks.Progress = None,
    ) -> int:
        """Copy a local file, or a directory with all that is below it, into the sandbox. Any size is streamed.

        A directory becomes the one at `path`, which is made; what is there already stays, unless a file of the same
        name takes its place. Modes, times and links go along, links as they are; devices, FIFOs and sockets do not.

        Args:
            local: Path here.
            path: Absolute path in the sandbox: where the copy is, not a directory to put it into.
            user: As for `write`.
            mode: As for `write`; for a file alone.
            progress: Called as `progress(done, size)` in bytes of content as it goes, maybe in another thread; size is
                None where only the end tells.

        Returns:
            The number of bytes of content that were written.

        Raises:
            OSError: Something here cannot be read. Of a directory, what came before is in the sandbox.
            TraforoError: As `write`, and for a directory as `untar`.

        Example:
            ```python
            from pathlib import Path

            Path("project/src").mkdir(parents=True, exist_ok=True)
            Path("project/src/main.py").write_text("print('hello')")
            async with await AsyncSandbox.create() as sandbox:
                await sandbox.files.upload("project", "/tmp/project")
                await sandbox.exec("python3 src/main.py > out.txt", cwd="/tmp/project", check=True)
                await sandbox.files.download("/tmp/project", "result")
                print(Path("result/out.txt").read_text())
            ```
        """
        if await edges.run(os.path.isdir, local):
            return await self._upload_tree(local, path, user, mode, progress)
        source = await edges.run(disks.source, local)
        try:
            content = edges.blocks(disks.watched(source.file, source.size, progress))
            return await self._put(path, content, source.size, user, mode=mode)
        finally:
            await edges.run(source.file.close)

    async def download(
        self,
        path: SandboxPath,
        local: str | os.PathLike[str],
        *,
        user: str | None = None,
        progress: disks.Progress = None,
        skipped: Callable[[str], object] | None = None,
    ) -> int:
        """Copy a file, or a directory with all that is below it, out of the sandbox. Any size is streamed.

        A local file appears when it is complete: a failure leaves what was there before, and a connection that broke is
        made anew. A directory becomes the one at `local`, which is made; what is there already stays, unless a file of
        the same name takes its place. It comes over one connection, and a failure leaves what came before it.

        The sandbox is not trusted: nothing is written outside of `local`, through a link, or as a device, and no file
        gets more than permission bits.

        Args:
            path: Absolute path in the sandbox. A link to a directory is followed if the path ends with `/.`.
            local: Path here: where the copy is, not a directory to put it into.
            user: Whose rights count.
            progress: Called as `progress(done, size)` in bytes of content as it goes; size is None for a directory.
            skipped: Links of a directory that lead out of it, as that of a virtual environment to its interpreter does,
                are left out and told to this at the end. Without it they are refused.

        Returns:
            The number of bytes of content.

        Raises:
            OSError: Something here cannot be written.
            NotFound, Forbidden, InvalidRequest: Nothing there, no right to read it, neither a file nor a directory.
            UnsafeArchive: The directory holds what would lead out of `local`.
            ConnectionFailed: The connection broke and could not be made anew, or broke while a directory came.
        """
        facts = await self.stat(path, user=user)
        if facts.type == "directory":
            return await self._download_tree(path, local, user, progress, skipped)
        target = await edges.run(disks.target, local)
        try:
            size = 0
            whole = facts.size if facts.type == "file" else None
            async with contextlib.aclosing(self.stream(path, user=user)) as blocks:
                async for block in blocks:
                    await edges.run(target.file.write, block)
                    size += len(block)
                    if progress:
                        progress(size, whole)
            await edges.run(target.commit)
        except BaseException:
            await edges.run(target.discard)
            raise
        return size

    async def list(
        self, path: SandboxPath, *, recursive: bool = False, user: str | None = None
    ) -> tuple[results.FileEntry, ...]:
        """Return what a directory holds, sorted by path, links not followed. Raises `NotFound`, `Forbidden`."""
        found: tuple[results.FileEntry, ...] = ()
        cursor: str | None = None
        while True:
            query = requests.path_query(path, recursive=recursive, user=user, cursor=cursor)
            page, cursor = answers.entries(answers.document(await self._get("/list", query)))
            found += tuple(page)
            if cursor is None or not page:
                return found

    async def stat(self, path: SandboxPath, *, user: str | None = None) -> results.FileStat:
        """Return facts about a path; one that is missing has `exists` False."""
        return answers.stat(answers.document(await self._get("/stat", requests.path_query(path, user=user))))

    async def exists(self, path: SandboxPath, *, user: str | None = None) -> bool:
        """Return whether there is anything at a path."""
        return (await self.stat(path, user=user)).exists

    async def mkdir(self, path: SandboxPath, *, parents: bool = True, user: str | None = None) -> bool:
        """Make a directory.

        Returns:
            True if it was made, False if it was there.

        Raises:
            NotFound: A parent is missing and `parents` is False.
        """
        body = {**requests.path_body(path, user), "recursive": parents}
        return bool(answers.field(answers.document(await self._post("/mkdir", body)), "created", bool))

    async def remove(
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
        token = await self._client.credential(self._place)
        await self._client.call("DELETE", self._url + query, token=token)

    async def move(
        self, source: SandboxPath, target: SandboxPath, *, overwrite: bool = False, user: str | None = None
    ) -> None:
        """Move or rename within the sandbox. Raises `NotFound`, and `Conflict` where something is in the way."""
        await self._post("/move", requests.pair(source, target, overwrite=overwrite, user=user))

    async def copy(
        self,
        source: SandboxPath,
        target: SandboxPath,
        *,
        recursive: bool = False,
        overwrite: bool = False,
        user: str | None = None,
    ) -> None:
        """Copy within the sandbox: a file, or with `recursive` a directory and all below it."""
        await self._post("/copy", requests.pair(source, target, recursive=recursive, overwrite=overwrite, user=user))

    async def change(
        self,
        path: SandboxPath,
        *,
        mode: int | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        modified_at: datetime | None = None,
        recursive: bool = False,
        user: str | None = None,
    ) -> None:
        """Change permission bits, owner, group or time of modification; None leaves one as it is.

        Args:
            path: Absolute path in the sandbox.
            mode: Permission bits, such as `0o755`.
            owner: Name or number inside the sandbox.
            group: Name or number.
            modified_at: With a time zone.
            recursive: All that is below a directory as well.
            user: Whose rights count.
        """
        facts = requests.given(mode=requests.octal(mode), owner=owner, group=group, recursive=recursive or None)
        if modified_at is not None:
            facts["modified_at"] = results.as_json(modified_at)
        body = {**requests.path_body(path, user), **facts}
        token = await self._client.credential(self._place)
        await self._client.call("PATCH", self._url, token=token, body=body, timeout=None)

    async def find(
        self,
        path: SandboxPath,
        pattern: str = "**",
        *,
        type: Literal["file", "directory", "symlink", "other"] | None = None,  # noqa: A002 - the API's word
        limit: int | None = None,
        user: str | None = None,
    ) -> tuple[results.FileEntry, ...]:
        """Return what lies below a directory and matches a pattern, sorted by path.

        Args:
            path: Absolute path of the directory.
            pattern: With `*`, `?` and `[…]` within one name and `**` for any number of them: `**/*.py`.
            type: Only this kind.
            limit: At most so many.
            user: Whose rights count.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                await sandbox.files.write("/tmp/src/a.py", "print(1)")
                for entry in await sandbox.files.find("/tmp/src", "**/*.py"):
                    print(entry.path)
            ```
        """
        found: tuple[results.FileEntry, ...] = ()
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = requests.page_size(limit, len(found))
            query = requests.path_query(path, pattern=pattern, type=type, limit=size, cursor=cursor, user=user)
            page, cursor = answers.entries(answers.document(await self._get("/find", query)))
            found += tuple(page)
            if cursor is None:
                break
        return found[:limit]

    async def search(
        self,
        path: SandboxPath,
        text: str,
        *,
        pattern: str | None = None,
        ignore_case: bool = False,
        limit: int | None = None,
        user: str | None = None,
    ) -> places.Matches:
        """Return the lines below a directory that hold a text, as it stands: it is no pattern. Binary files are passed
        over; `truncated` of the answer says whether there was more.

        Args:
            path: Absolute path of the directory.
            text: What to look for.
            pattern: Only in files whose path matches, as for `find`.
            ignore_case: Whether `a` is `A`.
            limit: At most so many matches.
            user: Whose rights count.
        """
        query = requests.path_query(
            path, text=text, pattern=pattern, ignore_case=ignore_case or None, limit=limit, user=user
        )
        return places.matches(answers.document(await self._get("/search", query)))

    async def tar(
        self, path: SandboxPath, *, compression: Literal["none", "gzip"] = "none", user: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Read a file or a whole directory as a tar stream, piece by piece: links, modes and times included.

        It begins and ends with this one connection: a stream that is made while the directory lives cannot go on later.

        Raises:
            ConnectionFailed: The connection broke; what was read is not whole.
        """
        query = requests.query_string(requests.path_query(path, compression=compression, user=user))
        token = await self._client.credential(self._place)
        async with self._client.stream(f"{self._url}/tar{query}", token=token) as response:
            async for block in response.aiter_raw():
                yield block

    async def untar(
        self,
        path: SandboxPath,
        content: bytes | AsyncIterable[bytes],
        *,
        links: Literal["refuse", "keep"] = "refuse",
        user: str | None = None,
    ) -> None:
        """Unpack a tar stream, plain or gzip, below a directory, which is made if it is missing.

        Args:
            path: Absolute path of the directory.
            content: The stream; `upload` makes one of a local directory by itself.
            links: Whether symbolic links that lead out of `path` are refused, or made as they are.
            user: Whose rights count.

        Raises:
            InvalidRequest: It is no tar, or it names something outside of `path`.
            DiskFull: The sandbox's disk limit. What came before is there.
        """
        query = requests.query_string(requests.path_query(path, user=user, links="keep" if links == "keep" else None))
        headers = {"Content-Type": "application/x-tar"}
        token = await self._client.credential(self._place)
        url = f"{self._url}/tar{query}"
        await self._client.call("PUT", url, token=token, content=content, headers=headers, timeout=None)

    async def watch(
        self, path: SandboxPath, *, recursive: bool = False, user: str | None = None
    ) -> AsyncGenerator[places.Change]:
        """Give out what happens below a directory from now on, until the loop is left or the directory is gone.

        Changes are kept at the worker while a connection is made anew. When some are lost, one change of kind
        `overflow` says so: then look at everything again. That is when more happens than the worker keeps, when nobody
        asks for changes for five minutes, and when the worker is started again: the directory is watched anew then.

        Args:
            path: Absolute path of the directory.
            recursive: Whatever is below it too, directories that are made later included.
            user: Whose rights count.

        Raises:
            NotFound, Forbidden: No such directory, or no right to read it.
            RateLimited: Too much is watched already.

        Example:
            ```python
            async with await AsyncSandbox.create() as sandbox:
                await sandbox.files.mkdir("/tmp/inbox")
                await sandbox.start("for n in 1 2 3; do sleep 0.1; echo > $n; done", cwd="/tmp/inbox")
                async for change in sandbox.files.watch("/tmp/inbox"):
                    print(change.kind, change.path)
                    if change.path.endswith("3"):
                        break
            ```
        """
        watch = watches.Watch(self._client, self._place, path, recursive=recursive, user=user)
        await watch.open()
        try:
            async with contextlib.aclosing(watch.changes()) as changes:
                async for change in changes:
                    yield change
        finally:
            await watch.close()

    async def signed_url(
        self,
        path: SandboxPath,
        *,
        method: Literal["GET", "PUT"] = "GET",
        expires_in_seconds: int = 3600,
        user: str | None = None,
        max_bytes: int | None = None,
    ) -> places.SignedUrl:
        """Return a URL that opens one path for one method without any other credential, for as long as it says.

        Args:
            path: Absolute path in the sandbox.
            method: `GET` to read, `PUT` to write.
            expires_in_seconds: Up to 7 days; it ends with the sandbox in any case.
            user: Whose rights it has.
            max_bytes: Most bytes that may be written with it.
        """
        more = requests.given(method=method, expires_in_seconds=expires_in_seconds, max_bytes=max_bytes)
        body = {**requests.path_body(path, user), **more}
        return places.signed_url(answers.document(await self._post("/signed-url", body)))

    async def _upload_tree(
        self,
        local: str | os.PathLike[str],
        path: SandboxPath,
        user: str | None,
        mode: int | None,
        progress: disks.Progress,
    ) -> int:
        if mode is not None:
            raise errors.InvalidRequest(
                "cannot give a directory a mode: each file keeps its own", fields={"field": "mode"}
            )
        packing = archives.Packing(local, progress)
        await self.untar(path, edges.pieces(packing.blocks()), links="keep", user=user)
        return packing.done

    async def _download_tree(
        self,
        path: SandboxPath,
        local: str | os.PathLike[str],
        user: str | None,
        progress: disks.Progress,
        skipped: Callable[[str], object] | None,
    ) -> int:
        tree = archives.Unpacking(local, skip_links=skipped is not None)
        try:
            async with contextlib.aclosing(self.tar(path, user=user)) as blocks:
                async for block in blocks:
                    await edges.run(tree.write, block)
                    if progress:
                        progress(tree.done, None)
            await edges.run(tree.finish)
        except BaseException:
            await edges.run(tree.discard)
            raise
        for name in tree.skipped:
            if skipped:
                skipped(name)
        return tree.done

    async def _post(self, route: str, body: dict[str, Any]) -> bytes:
        token = await self._client.credential(self._place)
        return (await self._client.call("POST", self._url + route, token=token, body=body, timeout=None)).content

    async def _get(self, route: str, query: dict[str, str]) -> bytes:
        token = await self._client.credential(self._place)
        url = self._url + route + requests.query_string(query)
        return (await self._client.call("GET", url, token=token, repeat=True)).content

    async def _put(
        self,
        path: SandboxPath,
        content: bytes | AsyncIterable[bytes],
        size: int | None,
        user: str | None,
        *,
        mode: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> int:
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        if size is not None:
            sent["Content-Length"] = str(size)
        url = self._url + requests.query_string(requests.path_query(path, user=user, mode=requests.octal(mode)))
        token = await self._client.credential(self._place)
        response = await self._client.call("PUT", url, token=token, content=content, headers=sent)
        return int(answers.field(answers.document(response.content), "bytes_written", int))

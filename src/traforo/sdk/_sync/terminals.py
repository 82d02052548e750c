# Written by tools/async_to_sync.py. Change _async/terminals.py instead.
"""Terminals of a sandbox: commands that somebody types to. A terminal is an exec; it goes on when nobody looks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from traforo.sdk import answers, requests, results
from traforo.sdk._sync import attachments, clients, execs


class Terminals:
    r"""The terminals of one sandbox, as `sandbox.terminals`.

    Example:
        ```python
        with Sandbox.create() as sandbox:
            terminal = sandbox.terminals.create(["sh", "-c", "read name; echo hello $name"])
            with sandbox.terminals.attach(terminal.id) as attached:
                attached.write("world\r")
                for frame in attached.output():
                    if frame.type == "stdout":
                        print(frame.text, end="")
        ```
    """

    def __init__(self, client: clients.Client, place: requests.Place) -> None:
        self._client = client
        self._place = place
        self._url = f"{place.url}/terminals"

    def create(
        self,
        command: str | Sequence[str] | None = None,
        *,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        tag: str | None = None,
        timeout: float | None = None,
    ) -> execs.Exec:
        """Start a command on a terminal of its own and return its handle; `attach` types to it.

        Args:
            command: A string for `/bin/sh -c`, or a sequence of arguments; None is the user's login shell.
            rows: Height in characters.
            columns: Width in characters.
            env: Added to the sandbox's environment; `TERM` is `xterm-256color` unless it is given.
            cwd: Absolute path; None is the user's home directory.
            user: Name or number; None is the image's default user.
            tag: A name to find it by.
            timeout: Seconds after which it is killed.

        Raises:
            StartFailed: No such command, directory or permission.
        """
        words = None if command is None else requests.command(command)
        body = requests.given(command=words, rows=rows, columns=columns, tag=tag)
        body |= requests.surroundings(env, cwd, user, timeout)
        response = self._client.call("POST", self._url, token=self._token(), body=body)
        exec_id = answers.field(answers.document(response.content), "exec_id", str)
        return execs.Exec(self._client, self._place, exec_id)

    def list(self) -> tuple[results.ExecResult, ...]:
        """Return the terminals, without their output."""
        response = self._client.call("GET", self._url, token=self._token(), repeat=True)
        return tuple(answers.terminals(answers.document(response.content)))

    def attach(self, exec_id: str, *, cursor: int = 0) -> attachments.Attachment:
        """Connect to a terminal, or to any command, to read its output and write its input.

        Args:
            exec_id: Of the command.
            cursor: Where its output begins: 0 is the start of what the server keeps.

        Raises:
            NotFound: No such command.
            BadAnswer: No WebSocket can be had: an older server, or a proxy in between.
        """
        return attachments.Attachment(self._client, self._place, exec_id, cursor).open()

    def delete(self, exec_id: str) -> None:
        """Kill a terminal and all that runs on it; one that has ended already is fine."""
        url = f"{self._url}/{requests.checked_id(exec_id)}"
        self._client.call("DELETE", url, token=self._token(), repeat=True)

    def _token(self) -> str | None:
        return self._client.credential(self._place)

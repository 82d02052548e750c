"""A talk with a kernel as a plain process of the host: what the worker does with pipes, without a worker."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import ulid

from traforo.worker.interpreters import languages, marks, messages

SECONDS = 30.0
_LANGUAGES = languages.load()


@dataclass
class Told:
    """What a run came to."""

    stdout: bytes = b""
    stderr: bytes = b""
    results: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    exit_code: int | None = None
    order: list[str] = field(default_factory=list)
    """What came, in its order."""

    @property
    def text(self) -> str | None:
        """The text of the only result."""
        assert len(self.results) <= 1, self
        return self.results[0]["text/plain"] if self.results else None


class Talk:
    """One kernel that runs."""

    def __init__(self, runtime: str, program: str | None = None, **env: str) -> None:
        language = _LANGUAGES[runtime]
        self.language = language
        nonce = marks.nonce()
        self.parser = marks.Parser(nonce)
        self.process = subprocess.Popen(
            [program or language.programs[0], *language.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={"PATH": os.environ["PATH"], "HOME": "/tmp", **language.env, **env},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._out, self._err = self.process.stdout.fileno(), self.process.stderr.fileno()
        self._waiting: list[bytes | marks.Message] = []
        self._write(language.first(nonce))
        hello = self.answer(Told())
        assert isinstance(hello, messages.Hello)
        self.version = hello.version
        if runtime == "bash":
            self._errors(Told(), 0.05)  # that it has no terminal

    def _write(self, pieces: Iterator[bytes]) -> None:
        assert self.process.stdin is not None
        # It has ended, which is seen where its answers are read, or nobody wants it any more.
        with contextlib.suppress(BrokenPipeError, ValueError):
            for piece in pieces:
                assert len(piece) <= marks.MAX_PIECE_BYTES
                self.process.stdin.write(piece)

    def begin(self, code: str | bytes, env: Mapping[str, str] | None = None) -> str:
        """Ask for a run and return its number."""
        data = code if isinstance(code, bytes) else code.encode("utf-8", "surrogatepass")
        pairs = {name.encode(): value.encode() for name, value in (env or {}).items()}
        run = str(ulid.ULID())
        threading.Thread(target=self._write, args=(self.language.run(run, data, pairs),)).start()
        return run

    def run(self, code: str | bytes, env: Mapping[str, str] | None = None) -> Told:
        """Run code to its end."""
        return self.finish(self.begin(code, env))

    def finish(self, number: str) -> Told:
        """Return what a run that was begun came to."""
        told = Told()
        while True:
            found = self.answer(told)
            if isinstance(found, messages.Result) and found.run == number:
                value = json.loads(found.data)
                if "error" in value:
                    told.error = value["error"]
                else:
                    told.results.append(value)
                told.order.append("result")
            if isinstance(found, messages.Done) and found.run == number:
                self._errors(told, 0.0)
                told.exit_code = found.exit_code
                assert found.results == len(told.results) + (told.error is not None)
                return told

    def again(self, number: str, seen: int) -> None:
        """Ask for a run again."""
        self._write(self.language.again(number, seen))

    def answer(self, told: Told) -> messages.Answer | None:
        """Return the next answer; output goes into `told`."""
        deadline = time.monotonic() + SECONDS
        out = self._out
        while True:
            while self._waiting:
                item = self._waiting.pop(0)
                if isinstance(item, marks.Message):
                    return messages.read(item)
                told.stdout += item
                told.order.append(item.decode("utf-8", "replace"))
            self._errors(told, 0.0)
            if time.monotonic() > deadline:
                pytest.fail(f"no answer; so far {told}")
            if not select.select([out, self._err], [], [], 0.5)[0]:
                continue
            if select.select([out], [], [], 0)[0]:
                data = os.read(out, 1 << 20)
                if not data:
                    raise EOFError(self.process.wait(SECONDS))
                self._waiting += self.parser.feed(data, more=len(data) == 1 << 20)

    def _errors(self, told: Told, wait: float) -> None:
        err = self._err
        while select.select([err], [], [], wait)[0]:
            data = os.read(err, 1 << 20)
            if not data:
                return
            told.stderr += data

    def until(self, text: bytes) -> Told:
        """Return when a run that was begun has printed something."""
        told = Told()
        out = self._out
        while text not in told.stdout:
            assert select.select([out], [], [], SECONDS)[0]
            for item in self.parser.feed(os.read(out, 1 << 20), more=False):
                assert isinstance(item, bytes)
                told.stdout += item
        return told

    def interrupt(self, *, tree: bool = False) -> None:
        """Send SIGINT to the interpreter, or to all its processes."""
        os.kill(self.process.pid, signal.SIGINT)
        if tree:
            time.sleep(0.05)  # the worker's own pause: the interpreter has to see it before what it waits for ends
            os.killpg(self.process.pid, signal.SIGINT)

    def interrupted(self, number: str) -> Told:
        """Interrupt a run until it has ended, and return what it came to.

        Python looks for signals between instructions: one that comes just before a call that blocks is seen after it.
        """
        over = threading.Event()

        def insist() -> None:
            self.interrupt()
            while not over.wait(1.0):
                self.interrupt()

        thread = threading.Thread(target=insist)
        thread.start()
        try:
            return self.finish(number)
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()


@contextlib.contextmanager
def talk(runtime: str, program: str | None = None, **env: str) -> Iterator[Talk]:
    """Give a kernel that is ready."""
    found = Talk(runtime, program, **env)
    try:
        yield found
    finally:
        found.close()

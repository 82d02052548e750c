"""A command between the request and the runtime: checked, given its environment, and labelled.

Pure. It refuses whatever the kernel would refuse later or understand differently (a NUL, an endless argv, a relative
directory), so that a runtime is never asked for something that cannot be.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from traforo.domain import errors, specs
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

MAX_ARGUMENTS = 4096
"""Most strings of one argv."""
MAX_TIMEOUT_MS = 7 * 24 * 3600 * 1000
"""Longest deadline: seven days."""
MAX_SHOWN = 4096
"""Most characters of a command that are remembered."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH where neither image nor caller has one."""
DEFAULT_TERM = "xterm-256color"
"""TERM of a command on a terminal where neither image nor caller has one."""
LABEL_VERSION = 1

_TAG = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[^=\0]+", re.DOTALL)
_MAX_BYTES_PER_CHARACTER = 4


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the runtime keeps of an exec for the worker that comes after a crash. Small: no argv, no environment."""

    v: int
    exec_id: str
    command: str | list[str]
    started_at: float
    """Unix seconds."""
    runtime: str | None = None
    timeout_ms: int | None = None
    hidden: bool = False
    """One of our own, which no list shows."""
    tag: str | None = None
    background: bool = False
    tty: bool = False
    stdin_given: bool = False
    """Its whole input came with the request that started it."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Label)


def spec(
    command: str | Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    timeout_ms: int | None = None,
    runtime: str | None = None,
    stdin_open: bool = False,
    stdin_data: bytes | None = None,
    terminal: specs.Terminal | None = None,
    tag: str | None = None,
    background: bool = False,
) -> specs.ExecSpec:
    """Check what a caller asks for; text is for `/bin/sh -c`. Raises `InvalidRequest` and `TooLarge`."""
    argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
    env = env or {}
    if not argv or not argv[0]:
        raise errors.InvalidRequest("cannot start the command: it names no program", field="command")
    if len(argv) > MAX_ARGUMENTS:
        raise errors.TooLarge(
            f"cannot start the command: more than {MAX_ARGUMENTS} arguments", limit=MAX_ARGUMENTS, field="command"
        )
    _check_strings("command", argv)
    _check_strings("env", env.values())
    for name in env:
        if not _NAME.fullmatch(name):
            raise errors.InvalidRequest(
                f"cannot set the variable {name[:80]!r}: a name is not empty and has neither '=' nor NUL", field="env"
            )
    _check_size(argv, env)
    if cwd is not None:
        _check_cwd(cwd)
    if user is not None and (not user or "\0" in user):
        raise errors.InvalidRequest("cannot start the command: no such user can be", field="user")
    if timeout_ms is not None and not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise errors.InvalidRequest(
            f"cannot set the deadline: 'timeout_ms' is 1 to {MAX_TIMEOUT_MS}", field="timeout_ms"
        )
    if tag is not None and not _TAG.fullmatch(tag):
        raise errors.InvalidRequest("cannot start the command: 'tag' is 1 to 64 of A-Z a-z 0-9 . _ -", field="tag")
    stdin_open = stdin_open or terminal is not None
    return specs.ExecSpec(
        argv,
        env,
        cwd,
        user,
        timeout_ms,
        stdin=stdin_open or stdin_data is not None,
        command=command if isinstance(command, str) else "",
        runtime=runtime,
        stdin_data=stdin_data,
        stdin_open=stdin_open,
        terminal=terminal,
        tag=tag,
        background=background,
    )


def start(wanted: specs.ExecSpec, entry: entries.Entry, label: bytes) -> contract.ExecStart:
    """Return what the runtime of `entry` is asked for: image, sandbox and exec each add to the environment.

    Raises `TooLarge` when all of it together is more than the kernel would take.
    """
    image = entry.rootfs
    env = {"PATH": DEFAULT_PATH, **image.env, **entry.spec.env, **wanted.env}
    size = None
    if wanted.terminal is not None:
        env.setdefault("TERM", DEFAULT_TERM)
        size = contract.TerminalSize(wanted.terminal.rows, wanted.terminal.columns)
    _check_size(wanted.argv, env)
    return contract.ExecStart(
        label, wanted.argv, env, wanted.cwd or image.cwd, wanted.user or image.user, wanted.stdin, size
    )


def shown(wanted: specs.ExecSpec) -> str | list[str]:
    """Return the command as its caller wrote it, cut to `MAX_SHOWN` characters."""
    return cut(wanted.command or wanted.argv)


def cut(command: str | Sequence[str]) -> str | list[str]:
    """Return a command cut to `MAX_SHOWN` characters."""
    if isinstance(command, str):
        return _cut(command, MAX_SHOWN)
    room = MAX_SHOWN
    parts: list[str] = []
    for part in command:
        parts.append(_cut(part, room))
        room -= len(part) + 1
        if room <= 0:
            break
    return parts


def encode(label: Label) -> bytes:
    """Return the bytes that the runtime keeps; far below its limit, because the command is cut."""
    return _encoder.encode(label)


def decode(data: bytes) -> Label:
    """Read a label. Raises `InvalidRequest` if it is none of ours."""
    try:
        label = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise errors.InvalidRequest(f"cannot read the label of an exec: {error}") from error
    if label.v != LABEL_VERSION:
        raise errors.InvalidRequest(f"cannot read a label of version {label.v}: this worker writes {LABEL_VERSION}")
    return label


def signal_number(signal: str | int) -> int:
    """Return the number of a signal: a number itself, or a name with or without `SIG`. Raises `InvalidRequest`."""
    if isinstance(signal, int):
        if 1 <= signal < signals.NSIG:
            return signal
    else:
        name = signal.upper()
        found = signals.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if found is not None:
            return int(found)
    raise errors.InvalidRequest(f"cannot send the signal {signal!r:.40}: there is none", field="signal")


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 0)] + "…"


def _check_strings(field: str, texts: Iterable[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise errors.InvalidRequest(f"cannot start the command: a NUL character in {field!r}", field=field)


def _check_size(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise `TooLarge` when argv and env, each string with its end, have too many bytes."""
    characters = sum(map(len, argv)) + sum(len(name) + len(value) for name, value in env.items())
    strings = len(argv) + 2 * len(env)
    if characters * _MAX_BYTES_PER_CHARACTER + strings <= contract.MAX_COMMAND_BYTES:
        return
    size = strings + sum(_bytes(text) for text in [*argv, *env, *env.values()])
    if size > contract.MAX_COMMAND_BYTES:
        raise errors.TooLarge(
            f"cannot start the command: with its environment it has more than {contract.MAX_COMMAND_BYTES} bytes",
            limit=contract.MAX_COMMAND_BYTES,
            field="command",
        )


def _check_cwd(cwd: str) -> None:
    if not cwd.startswith("/") or "\0" in cwd:
        raise errors.InvalidRequest("cannot start the command: 'cwd' is an absolute path without NUL", field="cwd")
    if _bytes(cwd) > contract.MAX_PATH_BYTES:
        raise errors.TooLarge(
            f"cannot start the command: 'cwd' has more than {contract.MAX_PATH_BYTES} bytes",
            limit=contract.MAX_PATH_BYTES,
            field="cwd",
        )


def _bytes(text: str) -> int:
    try:
        return len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest("cannot start the command: a part of it is not text") from error

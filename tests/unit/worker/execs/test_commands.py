"""Commands: what is accepted, what is refused and why, and what the runtime is asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, ids, specs, states
from traforo.worker.execs import commands
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5000)


def entry(**rootfs: Any) -> entries.Entry:
    resources = specs.Resources(cpu=1, memory_mib=1, disk_mib=1, pids=1)
    return entries.Entry(
        id=ids.new_sandbox_id(ids.worker_hash("here")),
        spec=specs.SandboxSpec("host", "container", resources, 60.0, env={"A": "sandbox", "B": "sandbox"}),
        owner=None,
        rootfs=contract.Rootfs("host", (), **rootfs),
        state=states.SandboxState.RUNNING,
        created_at=0.0,
        expires_at=60.0,
    )


def test_text_goes_to_the_shell() -> None:
    """A string is for the shell, a list is argv as it is."""
    assert commands.spec("echo $HOME").argv == ("/bin/sh", "-c", "echo $HOME")
    assert commands.spec(["echo", "$HOME"]).argv == ("echo", "$HOME")


@pytest.mark.parametrize(
    "options, kind",
    [
        ({"command": []}, errors.InvalidRequest),
        ({"command": ["", "x"]}, errors.InvalidRequest),
        ({"command": "a\0"}, errors.InvalidRequest),
        ({"command": ["a", "\0"]}, errors.InvalidRequest),
        ({"command": ["a"] * 4097}, errors.TooLarge),
        ({"command": "x" * (128 * 1024)}, errors.TooLarge),
        ({"command": "é" * (64 * 1024)}, errors.TooLarge),
        ({"command": "\ud800" * 40_000}, errors.InvalidRequest),
        ({"command": "a", "env": {"": "x"}}, errors.InvalidRequest),
        ({"command": "a", "env": {"A=": "x"}}, errors.InvalidRequest),
        ({"command": "a", "env": {"A\0": "x"}}, errors.InvalidRequest),
        ({"command": "a", "env": {"A": "x\0"}}, errors.InvalidRequest),
        ({"command": "a", "env": {"A": "x" * (128 * 1024)}}, errors.TooLarge),
        ({"command": "a", "cwd": "a"}, errors.InvalidRequest),
        ({"command": "a", "cwd": ""}, errors.InvalidRequest),
        ({"command": "a", "cwd": "/\0"}, errors.InvalidRequest),
        ({"command": "a", "cwd": "/" + "é" * 2048}, errors.TooLarge),
        ({"command": "a", "user": ""}, errors.InvalidRequest),
        ({"command": "a", "timeout_ms": 0}, errors.InvalidRequest),
        ({"command": "a", "timeout_ms": 7 * 86_400_000 + 1}, errors.InvalidRequest),
    ],
)
def test_refusals(options: dict[str, Any], kind: type[errors.TraforoError]) -> None:
    """What no kernel would start, or would understand differently, is refused."""
    with pytest.raises(kind) as caught:
        commands.spec(**options)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "options",
    [
        {"command": ["a"] * 4096},
        {"command": ["x" * (128 * 1024 - 1)]},
        {"command": "a", "env": {"A\n": "="}},
        {"command": "a", "cwd": "/" + "x" * 4094},
        {"command": "a", "timeout_ms": 1},
        {"command": "a", "timeout_ms": 7 * 86_400_000},
    ],
)
def test_limits_are_inclusive(options: dict[str, Any]) -> None:
    """What is just within the limits is accepted."""
    assert commands.spec(**options).argv


def test_environment_is_layered() -> None:
    """The exec wins over the sandbox, which wins over the image; there is always a PATH."""
    image = entry(env={"A": "image", "B": "image", "C": "image"})
    start = commands.start(commands.spec("true", env={"A": "exec"}), image, b"label")
    assert start.env == {"PATH": commands.DEFAULT_PATH, "A": "exec", "B": "sandbox", "C": "image"}
    assert commands.start(commands.spec("true"), entry(env={"PATH": "/p"}), b"").env["PATH"] == "/p"
    assert start.label == b"label"


def test_image_has_the_defaults() -> None:
    """User and directory are the image's unless the exec names others."""
    image = entry(user="app", cwd="/srv")
    wanted = [commands.spec("x"), commands.spec("x", user="u", cwd="/c")]
    found = [commands.start(spec, image, b"") for spec in wanted]
    assert [(start.user, start.cwd) for start in found] == [("app", "/srv"), ("u", "/c")]


def test_everything_together_has_to_fit() -> None:
    """Command and environment may fit each alone and not together."""
    half = "x" * (70 * 1024)
    with pytest.raises(errors.TooLarge):
        commands.start(commands.spec(["a", half]), entry(env={"X": half}), b"")


@given(st.one_of(text, st.lists(text, min_size=1, max_size=50)))
def test_label_stays_small(command: str | list[str]) -> None:
    """Whatever the command, its label fits and comes back; a short command comes back whole."""
    argv = [command] if isinstance(command, str) else command
    wanted = specs.ExecSpec(tuple(argv), command=command if isinstance(command, str) else "")
    shown = commands.shown(wanted)
    label = commands.Label(v=1, exec_id="exec_1", command=shown, started_at=1.5, runtime=None, timeout_ms=7)
    data = commands.encode(label)
    assert len(data) <= contract.MAX_LABEL_BYTES
    assert commands.decode(data) == label
    if sum(map(len, argv)) + len(argv) < commands.MAX_SHOWN and command not in ("", [""]):
        assert shown == command


@pytest.mark.parametrize("command", ["\x01" * 10_000, ["\x01"] * 4096, [""] * 4096, ["\x01" * 5000, "x"]])
def test_label_of_the_worst_command(command: str | list[str]) -> None:
    """Characters that JSON spells longest still make a label that fits."""
    argv = (command,) if isinstance(command, str) else tuple(command)
    wanted = specs.ExecSpec(argv, command=command if isinstance(command, str) else "")
    label = commands.Label(v=1, exec_id="exec_1", command=commands.shown(wanted), started_at=0.0)
    assert len(commands.encode(label)) <= contract.MAX_LABEL_BYTES


@pytest.mark.parametrize("data", [b"", b"?", b"{}", b'{"v":2,"exec_id":"e","command":"c","started_at":1}', b"[]"])
def test_foreign_labels(data: bytes) -> None:
    """A label of another version, or none at all, is refused and not guessed at."""
    with pytest.raises(errors.InvalidRequest):
        commands.decode(data)


@pytest.mark.parametrize("signal", ["TERM", "SIGTERM", "term", "sigterm", 15])
def test_signals(signal: str | int) -> None:
    """A signal has many spellings."""
    assert commands.signal_number(signal) == 15


@pytest.mark.parametrize("signal", ["", "SIG", "NOPE", "15", "SIG_DFL", 0, -1, 65, 1 << 40])
def test_no_signals(signal: str | int) -> None:
    """What is no signal is refused."""
    with pytest.raises(errors.InvalidRequest):
        commands.signal_number(signal)

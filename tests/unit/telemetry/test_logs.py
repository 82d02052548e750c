import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from traforo.settings import groups
from traforo.telemetry import logs, sinks


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    names = ("traforo", "uvicorn.error")
    levels = [logging.getLogger(name).level for name in names]
    saved = structlog.get_config()
    yield
    structlog.configure(**saved)
    for handler in [found for found in root.handlers if found not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, found in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(found)


class Log:
    """Where the lines of one test go."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def configure(self, **options: Any) -> None:
        logs.configure(groups.LogSettings.model_validate({"file": self.path, **options}), "worker")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "logs" / "worker.log")


def test_line_is_json_with_time_level_and_service(log: Log) -> None:
    """Every line says when, how bad, who and what."""
    log.configure()
    logs.get("traforo.x").info("sandbox ready", ms=1.5)
    [line] = log.lines()
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "info", "service": "worker", "component": "traforo.x", "event": "sandbox ready", "ms": 1.5}


def test_level_filters(log: Log) -> None:
    """What is below the level is not written."""
    log.configure(level="warning")
    found = logs.get("x")
    found.debug("a")
    found.info("b")
    found.warning("c")
    found.error("d")
    assert [line["event"] for line in log.lines()] == ["c", "d"]


async def test_context_belongs_to_its_task(log: Log) -> None:
    """Lines of one request carry its ids; those of another, at the same time, do not."""

    async def handle(request_id: str) -> None:
        logs.bind(request_id=request_id)
        await asyncio.sleep(0)
        logs.get("x").info("handled")

    sink = _Collected()
    _direct(sink)
    with logs.scope(worker_id="w"):
        await asyncio.gather(handle("one"), handle("two"))
        assert logs.bound() == {"worker_id": "w"}
    assert logs.bound() == {}
    assert [(line["worker_id"], line["request_id"]) for line in sink.lines] == [("w", "one"), ("w", "two")]


class _Collected:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def msg(self, line: bytes) -> None:
        self.lines.append(json.loads(line))

    info = error = msg


def _direct(sink: _Collected) -> None:
    structlog.configure(
        processors=[logs._Finish("worker"), logs._render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: sink,
    )


@pytest.mark.parametrize(
    "key",
    ["token", "Authorization", "jwt_secret", "password", "X-Api-Key", "set-cookie", "sandbox_token", "credential"],
)
def test_secrets_are_taken_out(log: Log, key: str) -> None:
    """Whoever logs a secret by mistake logs its name only, at any depth."""
    log.configure()
    logs.get("x").info("made", **{key: "hunter2"}, inner={"deeper": {key: "hunter2"}}, other="seen")
    text = log.path.read_text()
    assert "hunter2" not in text
    [line] = log.lines()
    assert (line[key], line["inner"]["deeper"][key], line["other"]) == (logs.REDACTED, logs.REDACTED, "seen")


def test_redaction_leaves_the_callers_values_alone() -> None:
    """Logging a mapping does not change it."""
    inner = {"token": "t"}
    logs.redact({"inner": inner})
    assert inner == {"token": "t"}


def test_absence_of_a_secret_is_told() -> None:
    """`token=None` is no secret, and worth knowing."""
    fields = {"token": None}
    logs.redact(fields)
    assert fields == {"token": None}


def test_exception_is_part_of_the_line(log: Log) -> None:
    """A traceback is one field, not many lines."""
    log.configure()
    try:
        int("why")
    except ValueError as error:
        logs.get("x").error("failed", exc_info=error)
        logs.get("x").exception("failed again")
    first, second = log.lines()
    assert first["exception"].endswith("invalid literal for int() with base 10: 'why'")
    assert (second["level"], second["exception"]) == ("error", first["exception"])


def test_libraries_log_to_the_same_place(log: Log) -> None:
    """Warnings of libraries come as lines like all others; their chatter does not."""
    log.configure()
    logging.getLogger("asyncio").warning("slow %s", "task")
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("traforo.settings").info("ours")
    assert [(line["component"], line["event"]) for line in log.lines()] == [
        ("asyncio", "slow task"),
        ("traforo.settings", "ours"),
    ]


def test_library_that_cannot_be_formatted_harms_nobody(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong format in a library's log call does not reach whoever made the call."""
    log.configure()
    [bridge] = [found for found in logging.getLogger().handlers if isinstance(found, logs._Bridge)]
    bridge.handle(logging.LogRecord("asyncio", logging.WARNING, "f", 1, "%d", ("x",), None))
    assert log.lines() == []
    assert "Logging error" in capsys.readouterr().err


def test_configuring_again_replaces(log: Log, tmp_path: Path) -> None:
    """A second configuration does not double the lines."""
    log.configure()
    other = Log(tmp_path / "other.log")
    other.configure()
    logging.getLogger("asyncio").warning("once")
    logs.get("x").info("once")
    assert (log.lines(), len(other.lines())) == ([], 2)


@pytest.mark.parametrize("value", ["\udcff", b"\xff", {1, 2}, object(), float("nan"), 2**80, {"a": {3: "\udc80"}}])
def test_whatever_is_logged_becomes_a_line(log: Log, value: object) -> None:
    """Text from a sandbox may be anything; a line is lost to none of it."""
    log.configure()
    logs.get("x").info("seen", value=value)
    assert [json.loads(line)["event"].strip("'") for line in log.path.read_bytes().splitlines()] == ["seen"]


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists), max_size=4)
)
def test_line_is_always_one_line(fields: dict[str, Any]) -> None:
    """Nothing that is logged can forge another line."""
    line = logs._render(None, "", {"event": "e", "level": "info", "ts": "t", **fields})
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


def test_file_rotates_and_old_ones_go(log: Log) -> None:
    """Logs take a bounded amount of disk: the newest lines, in order, over a fixed number of files."""
    log.configure(rotate_size=4096, max_rotations=2)
    for number in range(300):
        logs.get("x").info("event", number=number)
    files = sorted(log.path.parent.iterdir())
    assert [path.name for path in files] == ["worker.log", "worker.log.1", "worker.log.2"]
    assert [path.name for path in files if path.stat().st_size > 4096] == []
    kept = [json.loads(line)["number"] for path in reversed(files) for line in path.read_text().splitlines()]
    assert kept == list(range(300 - len(kept), 300))


def test_no_rotated_file_is_kept_when_none_is_wanted(log: Log) -> None:
    """`max-rotations: 0` starts over."""
    log.configure(rotate_size=4096, max_rotations=0)
    for _ in range(100):
        logs.get("x").info("event", text="x" * 100)
    assert [path.name for path in log.path.parent.iterdir()] == ["worker.log"]


def test_file_is_continued(log: Log) -> None:
    """A restart appends, and counts what is there."""
    log.configure(rotate_size=4096)
    logs.get("x").info("before")
    log.configure(rotate_size=4096)
    logs.get("x").info("after")
    assert [line["event"] for line in log.lines()] == ["before", "after"]


def test_log_is_not_for_everyone(log: Log) -> None:
    """Other users of the host do not read it."""
    log.configure()
    assert log.path.stat().st_mode & 0o007 == 0


def test_stderr_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager keeps what is written there."""
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure(groups.LogSettings(), "control")
    logs.get("x").info("hello")
    stream.seek(0)
    assert json.loads(stream.read())["service"] == "control"


def test_log_that_cannot_be_written_stops_nobody(log: Log) -> None:
    """A full disk or a closed descriptor loses lines and nothing else."""
    sink = sinks.Sink(log.path, 4096, 1)
    sink.close()
    sink.write(b"lost\n")
    assert log.path.read_bytes() == b""

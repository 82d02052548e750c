import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from traforo.cli import children

READY = "import signal, sys, time; {}; print('ready', flush=True); time.sleep(60)"
IGNORING = READY.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
OBEDIENT = READY.format("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))")


@pytest.fixture
def stopping() -> Iterator[children.StopSignals]:
    signals = children.StopSignals()
    with signals.installed():
        yield signals


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[str, str], children.Child]]:
    made: list[children.Child] = []

    def start(name: str, code: str) -> children.Child:
        words = tmp_path / f"{name}.err"
        with words.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=file, stderr=file)
        made.append(children.Child(name, process, words, tmp_path / f"{name}.log"))
        while not words.read_bytes() and process.poll() is None:
            time.sleep(0.005)
        return made[-1]

    yield start
    for item in made:
        item.process.kill()
        item.process.wait()


Make = Callable[[str, str], children.Child]


def test_stop_asks_the_last_one_first(child: Make, stopping: children.StopSignals) -> None:
    """And tells whether all went well."""
    both = [child("a", OBEDIENT), child("b", OBEDIENT)]
    assert children.stop(both, 20, stopping)
    assert [item.process.returncode for item in both] == [0, 0]


def test_stop_kills_what_does_not_end(child: Make, stopping: children.StopSignals) -> None:
    """After its time, without harm to the others."""
    both = [child("a", OBEDIENT), child("b", IGNORING)]
    assert not children.stop(both, 0.05, stopping)
    assert [item.process.returncode for item in both] == [0, -signal.SIGKILL]


def test_stop_knows_an_end_that_was_not_clean(child: Make, stopping: children.StopSignals) -> None:
    """Whoever had ended before, with an error, did not end cleanly."""
    failed = child("a", "raise SystemExit(3)")
    failed.process.wait()
    assert not children.stop([failed], 1, stopping)
    assert failed.ended() == "the a process ended with exit code 3"


def test_an_impatient_person_is_heard(
    child: Make, stopping: children.StopSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C some time after the first kills; two at once, as some tools send, do not."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    assert (stopping.count, stopping.urgent) == (2, False)
    monkeypatch.setattr(children, "_IMPATIENCE_SECONDS", 0.0)
    os.kill(os.getpid(), signal.SIGINT)
    assert stopping.urgent
    assert not children.stop([child("a", IGNORING)], 20, stopping)


def test_sigterm_is_never_impatient(stopping: children.StopSignals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager that repeats itself gets the same clean stop."""
    monkeypatch.setattr(children, "_IMPATIENCE_SECONDS", 0.0)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert (stopping.count, stopping.urgent) == (3, False)


def test_wait_returns_for_each_reason(child: Make, stopping: children.StopSignals) -> None:
    """A signal, the end of a child, and the time."""
    stopping.wait([child("a", OBEDIENT)], 0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    stopping.wait([], None)
    ended = child("b", "")
    stopping.wait([ended], None)
    ended.process.wait()
    stopping.wait([ended], None)


def test_handlers_come_back() -> None:
    """The program is as it was before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with children.StopSignals().installed():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    "written,said",
    [
        ("warning\nerror: it cannot be\nhint: try harder\n", ("it cannot be", "try harder")),
        ("Traceback (most recent call last):\n  File x\nValueError: no\n", ("ValueError: no", "")),
        ('{"level": "error", "event": "a line of the log"}\n\n', ("", "")),
        ("\xff\n", ("\xff", "")),
        ("", ("", "")),
    ],
)
def test_what_it_said_is_its_error(written: str, said: tuple[str, str], child: Make) -> None:
    """With its hint; else the last line, which of a traceback says the most."""
    ended = child("a", f"print({written!r}, end='')")
    ended.process.wait()
    assert ended.said() == said


def test_the_last_error_of_its_log_is_in_words(child: Make) -> None:
    """Of the log of this process alone; other lines are passed over, and so is what is no log."""
    ended = child("a", "")
    ended.process.wait()
    assert ended.last_error() == ""
    earlier = '{"ts":"1","level":"error","event":"of_another_process"}\n'
    ended.log.write_text(earlier)
    ended = dataclasses.replace(ended, log_size=len(earlier))
    assert ended.last_error() == ""
    with ended.log.open("a") as log:
        log.write('{"ts":"2","level":"error","event":"journal_write_failed","exception":"Trace\\nOSError: full"}\n')
        log.write('{"ts":"3","level":"info","event":"stopping"}\n[]\nno json\n')
    assert ended.last_error() == "2: journal write failed: OSError: full"
    with ended.log.open("a") as log:
        log.write('{"ts":"4","level":"error","event":"image_not_ready","error":"gone"}\n')
    assert ended.last_error() == "4: image not ready: gone"
    ended.log.write_text('{"ts":"5","level":"error","event":"rotated"}\n')
    assert ended.last_error() == "5: rotated"


def test_a_child_is_a_process_of_ours(tmp_path: Path) -> None:
    """With its words in files, in a process group of its own, told not to outlive us."""
    started = children.start("version", ["--json"], tmp_path / "logs")
    group = os.getpgid(started.process.pid)
    assert started.process.wait(30) == 0
    assert group == started.process.pid
    assert b'"version"' in started.words.read_bytes()
    killed = children.start("version", [], tmp_path / "logs")
    killed.process.kill()
    killed.process.wait()
    assert killed.ended() in {
        "the version process ended by signal 9 (SIGKILL)",
        "the version process ended with exit code 0",
    }

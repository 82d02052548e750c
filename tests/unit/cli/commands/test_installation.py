"""`doctor` and `bench`."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import traforo as traforo_package
from tests.unit.cli.conftest import Done
from traforo.cli.commands import doctor
from traforo.worker import doctors

Run = Callable[..., Done]


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    detail: str = ""
    cost: str = ""


GOOD = [Finding("runtime container", ok=True), Finding("overlay", ok=False, detail="old kernel", cost="slower")]


@pytest.mark.parametrize(
    "findings,code",
    [
        (GOOD, 0),
        ([Finding("runtime container", ok=False), *GOOD[1:]], 1),
        ([Finding("runtime container", ok=False), Finding("runtime vm", ok=True)], 0),
        ([Finding("kernel", ok=False)], 0),
    ],
)
def test_doctor_fails_only_where_nothing_can_run(
    findings: list[Finding], code: int, traforo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack with a cost is no failure."""
    monkeypatch.setattr(doctors, "report", lambda: findings)
    assert traforo("doctor").code == code
    done = traforo("doctor", "--json")
    assert done.code == code
    assert [finding["name"] for finding in json.loads(done.out)["findings"]] == [f.name for f in findings]


def test_doctor_says_it_in_words(traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ok` or `no` for each, and what a lack costs."""
    monkeypatch.setattr(doctors, "report", lambda: GOOD)
    lines = traforo("doctor").text.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["runtime", "container", "ok", "-"],
        ["overlay", "no", "old", "kernel:", "slower"],
    ]


def test_doctor_takes_plain_mappings() -> None:
    """Whatever form a finding has."""
    assert doctor._records([{"name": "x", "ok": True}]) == [{"name": "x", "ok": True}]


def test_bench_runs_that_of_the_checkout(tmp_path: Path, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the arguments after `--`, and with its exit code."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "src" / "traforo").mkdir(parents=True)
    (tmp_path / "bench" / "__main__.py").write_text("import sys; print(sys.argv[1:]); sys.exit(5)")
    monkeypatch.chdir(tmp_path)
    done = traforo("bench", "--", "--help", "x")
    assert (done.code, done.text) == (5, "['--help', 'x']\n")


def test_bench_needs_a_checkout(tmp_path: Path, traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(traforo_package, "__file__", str(tmp_path / "site-packages" / "traforo" / "__init__.py"))
    done = traforo("bench")
    assert (done.code, done.out) == (1, b"")
    assert "checkout" in done.said
    assert "bench" not in sys.modules

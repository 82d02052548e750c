"""Rules for every test: a marker by directory, no missing package in CI, no blocking call in the event loop.

Skip reasons follow one form. `needs <package>` names what an installation can supply: where `CI` is set it has to be
there, and the skip counts as a failure. Any other reason names what the host itself cannot do.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from blockbuster import BlockBuster

TESTS = Path(__file__).parent
# Durations belong to the benchmarks: a busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
KINDS = ("unit", "contract", "integration", "e2e", "security", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        if kind not in KINDS:
            raise pytest.UsageError(f"cannot place {item.nodeid!r}: tests live in one of {', '.join(KINDS)}")
        item.add_marker(kind)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_missing_package(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_missing_package(report)
    return report


def _refuse_missing_package(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that says `needs …` into a failure where CI is set."""
    if not os.environ.get("CI") or report.outcome != "skipped" or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith("needs "):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped in CI, where nothing may be missing: {reason}"


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make a blocking call that our own code makes in the event loop an error, in unit tests."""
    node = request.node
    if node.get_closest_marker("unit") is None or node.get_closest_marker("may_block") is not None:
        yield
        return
    guard = BlockBuster(scanned_modules=["traforo"])
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()

"""Budgets: the logs of one sandbox together keep to a limit."""

import os
from pathlib import Path

from traforo.worker.outputs import budgets, framelogs
from traforo.worker.outputs.frames import Amounts, Kind

LIMITS = framelogs.Limits(max_bytes=1 << 20, segment_bytes=1 << 14)


def log(directory: Path, name: str, budget: budgets.Budget) -> framelogs.FrameLog:
    return framelogs.FrameLog(str(directory / name), LIMITS, None, budget)


def fill(one: framelogs.FrameLog, count: int) -> None:
    for _ in range(count):
        one.append(Kind.STDOUT, os.urandom(1000), 0)


def held(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def test_ended_logs_go_first(tmp_path: Path) -> None:
    """The oldest log of an ended exec makes room for those that run, and says what it lost."""
    budget = budgets.Budget(100_000)
    first, second, running = (log(tmp_path, name, budget) for name in ("a", "b", "c"))
    for one in (first, second):
        fill(one, 30)
        one.finish(b"{}", 0)
    fill(running, 60)
    assert budget.used == held(tmp_path) <= budget.limit
    assert (first.empty, first.dropped) == (True, Amounts(stdout=30_000))
    assert (second.empty, second.dropped, running.dropped) == (False, Amounts(), Amounts())
    assert first.view().read(0, 99, 1 << 20) == []
    running.close()


def test_running_logs_lose_their_oldest_part(tmp_path: Path) -> None:
    """Where nothing has ended the largest log shrinks; the newest output of everybody is kept."""
    budget = budgets.Budget(100_000)
    large, small = log(tmp_path, "a", budget), log(tmp_path, "b", budget)
    fill(small, 5)
    fill(large, 300)
    fill(small, 5)
    assert budget.used == held(tmp_path) <= budget.limit + LIMITS.segment_bytes
    assert small.dropped == Amounts()
    assert large.dropped.stdout + large.held == 300_000
    assert large.held > 50_000
    large.close()
    small.close()


def test_many_small_logs(tmp_path: Path) -> None:
    """Logs that have one part each begin anew when there are too many of them; the limit is kept all the same."""
    budget = budgets.Budget(50_000)
    logs = [log(tmp_path, str(number), budget) for number in range(20)]
    for _ in range(30):
        for one in logs:
            fill(one, 1)
    assert budget.used == held(tmp_path)
    assert budget.used <= budget.limit + 20 * 2000
    for one in logs:
        assert one.dropped.stdout + one.held == 30_000
        one.close()


def test_forgotten_logs_give_room_back(tmp_path: Path) -> None:
    """What is forgotten counts no more; what is recovered counts again."""
    budget = budgets.Budget(100_000)
    one = log(tmp_path, "a", budget)
    fill(one, 10)
    one.close()
    size = budget.used
    assert size == held(tmp_path) > 10_000
    again = framelogs.FrameLog.recover(str(tmp_path / "a"), LIMITS, [0], None, budgets.Budget(1))
    other = budgets.Budget(100_000)
    again._budget = other
    again.count_in(finished=True)
    assert other.used == size
    one.detach()
    assert (budget.used, budget._logs) == (0, {})


def test_log_that_is_gone_says_so(tmp_path: Path) -> None:
    """A log whose files vanished with a failure of power does not pass for one without output."""
    one = framelogs.FrameLog(str(tmp_path / "a"), LIMITS)
    one.missing(Amounts(10, 5), 3)
    assert (one.dropped, one.count, one.oldest) == (Amounts(10, 5), 3, 3)


def test_who_has_most_loses_first(tmp_path: Path) -> None:
    """All sandboxes share one limit: a loud one, whether it has ended or not, takes nothing from a quiet one."""
    total = budgets.Total(200_000)
    loud, quiet = budgets.Budget(1_000_000, total), budgets.Budget(1_000_000, total)
    small = log(tmp_path, "quiet", quiet)
    fill(small, 20)
    small.finish(b"{}", 0)
    for name in ("a", "b", "c", "d", "e"):
        one = log(tmp_path, name, loud)
        fill(one, 60)
        one.finish(b"{}", 0)
    assert total.used == loud.used + quiet.used == held(tmp_path) <= total.limit + LIMITS.segment_bytes
    assert small.dropped == Amounts()
    assert small.view().read(0, 99, 1 << 20) != []
    small.detach()
    assert (quiet.used, total.used) == (0, loud.used)

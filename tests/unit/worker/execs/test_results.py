"""Results and pages of frames, made from logs."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.worker.execs import results
from traforo.worker.outputs import framelogs, frames
from traforo.worker.outputs.frames import Amounts, Kind

pieces = st.lists(
    st.tuples(
        st.sampled_from([Kind.STDOUT, Kind.STDERR]),
        st.one_of(st.binary(min_size=1, max_size=6), st.text(min_size=1, max_size=4).map(str.encode)),
    ),
    max_size=12,
)


def log(directory: Path, written: list[tuple[Kind, bytes]], *, end: bool = True) -> framelogs.FrameLog:
    found = framelogs.FrameLog(str(directory / "exec_x"), framelogs.Limits())
    for number, (kind, data) in enumerate(written):
        found.append(kind, data, number)
    if end:
        found.finish(b"{}", 99)
    return found


@given(written=pieces, limit=st.integers(1, 20))
def test_result_is_the_start_of_each_stream(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[Kind, bytes]], limit: int
) -> None:
    """Each stream is kept from its start up to the limit, and a character that the limit cuts is left out."""
    found = log(tmp_path_factory.mktemp("log"), written)
    output = results.collect(found.view(), limit, Amounts(), ended=True)
    for kind, text, truncated in (
        (Kind.STDOUT, output.stdout, output.stdout_truncated),
        (Kind.STDERR, output.stderr, output.stderr_truncated),
    ):
        whole = b"".join(data for other, data in written if other is kind)
        assert truncated == (len(whole) > limit)
        start = whole[:limit]
        kept = start[: len(start) - len(frames.tail(start))] if truncated else start
        assert text == kept.decode(errors="replace")
    assert sorted(output.output) == sorted(output.stdout + output.stderr)


def test_output_is_in_order(tmp_path: Path) -> None:
    """Both streams together come in the order in which they were written."""
    found = log(tmp_path, [(Kind.STDOUT, b"1"), (Kind.STDERR, b"2"), (Kind.STDOUT, b"3")])
    output = results.collect(found.view(), 100, Amounts(), ended=True)
    assert (output.stdout, output.stderr, output.output) == ("13", "2", "123")


def test_running_command_may_finish_its_character(tmp_path: Path) -> None:
    """Half a character at the end is left out while the rest may still come, and replaced when it cannot."""
    found = log(tmp_path, [(Kind.STDOUT, b"caf\xc3")], end=False)
    assert results.collect(found.view(), 100, Amounts(), ended=False).stdout == "caf"
    assert results.collect(found.view(), 100, Amounts(), ended=True).stdout == "caf\ufffd"
    found.close()


def test_what_is_gone_is_told() -> None:
    """A stream whose start was dropped is not whole, though nothing else was cut off."""
    empty = framelogs.FrameLog("/nowhere", framelogs.Limits())
    output = results.collect(empty.view(), 100, Amounts(stderr=1), ended=True)
    assert (output.stdout_truncated, output.stderr_truncated) == (False, True)


@given(written=pieces, start=st.integers(0, 12))
def test_pages_say_the_same_from_any_cursor(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[Kind, bytes]], start: int
) -> None:
    """A page that starts in the middle has the frames that a page from the start has."""
    found = log(tmp_path_factory.mktemp("log"), written)
    whole = results.page(found.view(), 0, 1000, "utf8")
    assert results.page(found.view(), start, 1000, "utf8") == whole[start:]
    assert [frame.cursor for frame in whole] == list(range(found.count))


def test_pages_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has a limit in bytes too, and always one frame."""
    monkeypatch.setattr(results, "PAGE_BYTES", 250)
    found = log(tmp_path, [(Kind.STDOUT, os.urandom(100)) for _ in range(5)] + [(Kind.STDOUT, b"x" * 1000)])
    sizes = [len(results.page(found.view(), cursor, 1000, "base64")) for cursor in range(6)]
    assert sizes == [2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("encoding, data", [("utf8", "{}"), ("base64", "e30=")])
def test_exit_frame(encoding: results.Encoding, data: str) -> None:
    """The end is a frame like the others, in the encoding that was asked for."""
    frame = results.exit_frame(7, b"{}", 1500, encoding)
    assert frame == results.ShownFrame(7, "exit", data, "1970-01-01T00:00:01.500Z")

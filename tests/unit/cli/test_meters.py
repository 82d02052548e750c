import pytest

from traforo.cli import meters


@pytest.mark.parametrize(
    "count,text",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 << 40, "5.0 TiB"),
        (9 << 50, "9216.0 TiB"),
    ],
)
def test_amounts(count: int, text: str) -> None:
    """In the largest unit that leaves a number above one."""
    assert meters.amount(count) == text


def test_a_line_tells_how_far_it_is() -> None:
    """With a bar where the end is known."""
    assert meters.line("f", 512, 1024, 1) == f"f  [{'#' * 15}{' ' * 15}]  50%  512 B of 1.0 KiB  512 B/s"
    assert meters.line("f", 2048, None, 2) == "f  2.0 KiB  1.0 KiB/s"
    assert "100%" in meters.line("f", 9, 5, 1)
    assert meters.line("f", 0, 0, 0) == "f  0 B  "


def test_nothing_is_shown_to_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal."""
    with meters.Meter("f", 10) as meter:
        meter.add(5)
        meter.set(10, 10)
    assert capsys.readouterr().err == ""


def test_somebody_sees_the_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once anything was shown."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(meters, "_LEAST_SECONDS", 0.0)
    with meters.Meter("bad\x1bname") as meter:
        meter.set(5, 10)
        meter.set(10, 10)
    said = capsys.readouterr().err
    assert "100%" in said
    assert said.endswith("\n")
    assert "bad\\x1bname" in said

from pathlib import Path

import pytest

from tools import write_references


@pytest.mark.parametrize("path", write_references.pages(), ids=lambda path: path.name)
def test_reference_is_up_to_date(path: Path) -> None:
    """What is written about settings and metrics is what the code has; `tools/write_references.py` writes it anew."""
    assert path.read_text() == write_references.pages()[path]


def test_check_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names what would change and fails; without it the pages are written."""
    monkeypatch.setattr(write_references, "REFERENCE", tmp_path / "docs" / "reference")
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    assert write_references.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/reference/settings.md\ndocs/reference/metrics.md\n"
    assert list((tmp_path / "docs" / "reference").iterdir()) == []
    assert write_references.main([]) == 0
    assert write_references.main(["--check"]) == 0

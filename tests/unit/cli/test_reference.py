import subprocess
import sys
from pathlib import Path

from traforo import cli
from traforo.settings import control, sources, worker

ROOT = Path(__file__).parents[3]


def test_the_reference_is_up_to_date() -> None:
    """It is what the tool writes; run tools/cli_reference.py after a change."""
    argv = [sys.executable, str(ROOT / "tools" / "cli_reference.py"), "--check"]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reference_names_every_command_and_setting() -> None:
    """Nothing that can be asked for is left out."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    headings = [line.removeprefix("## traforo ") for line in page.splitlines() if line.startswith("## ")]
    assert headings == [command.name for command in cli.COMMANDS]
    for kind in (control.ControlSettings, worker.WorkerSettings):
        flags = {f"--{leaf.key.replace('.', '-')}" for leaf in sources.leaves(kind) if "secret" not in leaf.key}
        assert {flag for flag in flags if f"`{flag} " not in page} == set()

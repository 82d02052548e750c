"""What must hold for the repository as a whole."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import traforo

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "traforo"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Put together here so that this file passes its own check.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    ]
)


def tracked_texts() -> list[tuple[str, str]]:
    """Path and text of each file that git tracks or would track."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    argv = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [
        (str(path.relative_to(ROOT)), data.decode(errors="replace"))
        for path in paths
        if path.is_file() and b"\0" not in (data := path.read_bytes())
    ]


def mentions(needles: tuple[str, ...]) -> list[str]:
    return [f"{path}: {needle}" for path, text in tracked_texts() for needle in needles if needle in text]


def test_no_file_names_a_package_registry() -> None:
    """Each machine installs from the registry it is configured for; the project names none."""
    assert mentions(REGISTRY_HOSTS) == []


def test_no_file_names_the_checkout() -> None:
    """A path of the machine on which a file was written means nothing on any other."""
    if len(ROOT.parts) < 3:
        pytest.skip("the checkout is too near the root to be told from other paths")
    assert mentions((f"{ROOT}/",)) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_pins_and_hashes_every_package(lock: Path) -> None:
    """A lock says exactly what is installed, and not where it comes from."""
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    requirements = " ".join(line.removesuffix("\\").strip() for line in lines)
    packages = re.split(r" (?=[a-z0-9._\[\],-]+==)", requirements)
    assert [package for package in packages if not re.match(r"\S+==\S+.* --hash=sha256:[0-9a-f]{64}", package)] == []
    assert not re.search(r"://|index-url|find-links", requirements)


@pytest.mark.parametrize("room", sorted(PACKAGE.rglob("__init__.py")), ids=lambda room: str(room.parent.name))
def test_package_says_why_it_exists(room: Path) -> None:
    """Each package opens with a docstring: its purpose, and what it refuses to do."""
    assert ast.get_docstring(ast.parse(room.read_text())), f"{room.relative_to(ROOT)} has no module docstring"


def test_every_task_has_help() -> None:
    """`make` alone lists every task, so each target a person may call carries its `##` line."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = {name for line in lines if line.startswith(".PHONY:") for name in line.split()[1:]}
    helped = {match[1] for line in lines if (match := re.match(r"([a-z0-9-]+):.*## \S", line))}
    assert phony == helped


def test_contributing_lists_the_tasks() -> None:
    """The guide names no task that is gone, and leaves none out."""
    tasks = {m[1] for m in re.finditer(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    told = set(re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert told == tasks - {"help"}


def test_changelog_has_a_place_for_what_is_new() -> None:
    """There is always an Unreleased section, above every release."""
    sections = re.findall(r"^## \[?([^\]\n]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"


def test_version_is_the_same_everywhere() -> None:
    """The package and its metadata agree on the version."""
    assert f'version = "{traforo.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_ci_calls_the_test_task_alone() -> None:
    """CI runs what a person runs."""
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "make" in line and line[0] != "#"]
    assert commands == ["exec make test"]

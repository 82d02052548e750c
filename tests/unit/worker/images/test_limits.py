"""The page about images and the code agree."""

from pathlib import Path

import pytest

from traforo.worker.images import hosts
from traforo.worker.images.limits import Limits
from traforo.worker.images.references import Kind

PAGE = (Path(__file__).parents[4] / "docs/concepts/images.md").read_text()
MIB, GIB = 1024**2, 1024**3
DEFAULTS = Limits()


@pytest.mark.parametrize(
    "what, value",
    [
        ("bytes of all layers, unpacked", f"{DEFAULTS.unpacked_bytes // GIB} GiB"),
        (f"growth of one layer, beyond the first {DEFAULTS.ratio_free_bytes // MIB} MiB", f"{DEFAULTS.ratio} times"),
        ("entries, implied directories included", f"{DEFAULTS.entries:,}"),
        ("bytes of their names", f"{DEFAULTS.name_bytes // MIB} MiB"),
        ("layers", f"{DEFAULTS.layers}"),
        ("members of an archive", f"{DEFAULTS.members:,}"),
        ("bytes of a JSON document", f"{DEFAULTS.document_bytes // MIB} MiB"),
        ("room that stays free on the disk", f"{DEFAULTS.free_bytes // MIB} MiB"),
    ],
)
def test_every_limit_is_told(what: str, value: str) -> None:
    """With its default."""
    assert f"| {what} | {value} |" in PAGE


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_told(kind: Kind) -> None:
    """As a row of the table of references."""
    assert f"\n| `{kind}" in PAGE


@pytest.mark.parametrize("name", hosts.MASKABLE)
def test_every_place_that_may_be_hidden_is_told(name: str) -> None:
    """So that operators know where settings may stand."""
    assert f"`/{name}`" in PAGE

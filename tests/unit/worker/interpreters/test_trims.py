"""Code without annotations and docstrings does what it did."""

from __future__ import annotations

from traforo.worker.interpreters import trims

TEXT = '''
"""Module."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nowhere import Thing


class Box:
    """A box."""

    size: Thing
    kind: Thing = "small"

    def open(self, lid: Thing, *rest: Thing, deep: Thing = 1, **more: Thing) -> Thing:
        """Open it."""
        self.lid: Thing = lid

        def inner(a: Thing) -> Thing:
            "Only this."

        text = "kept"
        return (lid, rest, deep, more, text, inner(1))


found = Box().open(1, 2, x=3)
'''


def test_it_does_the_same() -> None:
    """Nothing but annotations, docstrings and what they import is gone."""
    trimmed = trims.trim(TEXT)
    assert "Thing" not in trimmed
    assert '"""' not in trimmed
    assert "__future__" not in trimmed
    names: dict[str, object] = {}
    exec(compile(trimmed, "trimmed", "exec", dont_inherit=True), names)
    assert names["found"] == (1, (2,), 1, {"x": 3}, "kept", None)
    assert names["Box"].kind == "small"  # type: ignore[attr-defined]

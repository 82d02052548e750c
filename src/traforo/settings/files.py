"""Configuration files: YAML with one document, no key twice, and nothing but plain values."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from traforo.domain import errors

MAX_BYTES = 1024 * 1024
"""Largest configuration file; a bigger one is a mistake."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself lets the last of two equal keys win."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a file of settings needs none, and they can make it endless
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping. Raises `InvalidRequest`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise errors.InvalidRequest(f"cannot read settings from '{path}': {error.strerror}", field="file") from error
    if len(data) > MAX_BYTES:
        raise errors.InvalidRequest(f"cannot read settings from '{path}': larger than {MAX_BYTES} bytes", field="file")
    return parse(data, str(path))


def parse(data: bytes, source: str) -> dict[str, Any]:
    """Return the mapping in a YAML text; `source` names it in errors. Raises `InvalidRequest`."""
    try:
        found = yaml.load(data, _Loader)  # noqa: S506 - derived from the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise errors.InvalidRequest(f"cannot read settings from {source!r}: {error.problem}{where}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"cannot read settings from {source!r}: not YAML") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise errors.InvalidRequest(f"cannot read settings from {source!r}: the top level is not a mapping")
    return found

"""From flags, environment and file to one frozen group of settings: flag > environment > file > default.

The environment is handed in, never read here. An empty variable counts as not set, since that is how container tools
spell "none". Every contradiction is an `InvalidRequest` that names the key as the operator wrote it.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from traforo.domain import errors
from traforo.settings import files, groups

_log = logging.getLogger(__name__)

SHARED_ENV = {
    "auth.jwt_secret": "TRAFORO_JWT_SECRET",
    "auth.jwt_issuer": "TRAFORO_JWT_ISSUER",
    "auth.jwt_audience": "TRAFORO_JWT_AUDIENCE",
}
"""Variables that both processes read, by dotted field name."""
FILE_ALIASES = {"broker-control-url": "control-url"}
"""Keys of traforato's worker files that mean one of ours."""
FILE_IGNORED = {"broker-id": "ids here name the worker alone"}
"""Keys of traforato's worker files that mean nothing here, with the reason."""

Settings = TypeVar("Settings", bound=groups.ProcessSettings)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting and its three names."""

    name: str
    """Dotted field name: `log.level`. Flags use it."""
    key: str
    """Key in the file: `log.level`, each part in kebab case."""
    variable: str
    """Environment variable: `TRAFORO_WORKER_LOG_LEVEL`."""
    field: FieldInfo
    """Type, limits, default and description."""


def leaves(kind: type[groups.ProcessSettings]) -> tuple[Leaf, ...]:
    """Return every setting of a process, in order of declaration."""
    return tuple(_leaves(kind, kind.env_prefix, ()))


def load(
    kind: type[Settings],
    flags: Mapping[str, object],
    file: Path | None,
    environ: Mapping[str, str],
    *,
    uid: int | None = None,
) -> Settings:
    """Read the settings of a process.

    Args:
        kind: `ControlSettings` or `WorkerSettings`.
        flags: Values by dotted field name (`{"listen": ":80", "log.level": "debug"}`); None means "not given".
        file: YAML file, or None.
        environ: Environment variables; the process hands in `os.environ`.
        uid: Effective user id for the default directories; None is that of this process.

    Raises:
        InvalidRequest: A key that does not exist, a value that does not fit; field `field` names it.
    """
    known = leaves(kind)
    values = kind.places(environ, os.geteuid() if uid is None else uid)
    origins: dict[str, str] = {}
    for found in (
        _from_file(known, file) if file is not None else (),
        _from_environ(known, environ),
        _from_flags(known, flags),
    ):
        for leaf, value, origin in found:
            _put(values, leaf.name, value)
            origins[leaf.name] = origin
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _translated(error, origins) from error


def _leaves(group: type[groups.Group], prefix: str, path: tuple[str, ...]) -> Iterator[Leaf]:
    for name, field in group.model_fields.items():
        parts = (*path, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, groups.Group):
            yield from _leaves(field.annotation, prefix, parts)
            continue
        dotted = ".".join(parts)
        variable = SHARED_ENV.get(dotted) or prefix + "_".join(parts).upper()
        yield Leaf(dotted, dotted.replace("_", "-"), variable, field)


def _from_file(known: tuple[Leaf, ...], path: Path) -> Iterator[tuple[Leaf, object, str]]:
    by_key = {leaf.key: leaf for leaf in known}
    seen: dict[str, str] = {}
    for written, value in _flat(files.read(path), {leaf.key.partition(".")[0] for leaf in known if "." in leaf.key}):
        if written in FILE_IGNORED:
            _log.warning("ignored %r in '%s': %s", written, path, FILE_IGNORED[written])
            continue
        key = FILE_ALIASES.get(written, written)
        leaf = by_key.get(key)
        if leaf is None:
            raise _unknown("key", written, f" in '{path}'", by_key)
        if key in seen:
            raise errors.InvalidRequest(
                f"cannot read settings: {written!r} and {seen[key]!r} in '{path}' are the same setting", field=written
            )
        seen[key] = written
        if value is not None:  # an empty value in YAML: left at its default
            yield leaf, value, f"{written!r} in '{path}'"


def _flat(mapping: Mapping[str, Any], sections: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if not prefix and key in sections and isinstance(value, dict):
            yield from _flat(value, sections, f"{key}.")
        elif not prefix and key in sections and value is not None:
            raise errors.InvalidRequest(f"cannot read settings: {key!r} is a mapping of settings", field=key)
        elif prefix or key not in sections:
            yield prefix + key, value


def _from_environ(known: tuple[Leaf, ...], environ: Mapping[str, str]) -> Iterator[tuple[Leaf, object, str]]:
    for leaf in known:
        if text := environ.get(leaf.variable):
            yield leaf, _listed(leaf, text) if _is_list(leaf.field) else text, leaf.variable


def _from_flags(known: tuple[Leaf, ...], flags: Mapping[str, object]) -> Iterator[tuple[Leaf, object, str]]:
    by_name = {leaf.name: leaf for leaf in known}
    for name, value in flags.items():
        leaf = by_name.get(name)
        if leaf is None:
            raise _unknown("flag", name, "", by_name)
        if value is not None:
            yield leaf, value, f"'--{leaf.key.replace('.', '-')}'"


def _is_list(field: FieldInfo) -> bool:
    annotation = field.annotation
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return any(get_origin(option) is tuple for option in options)


def _listed(leaf: Leaf, text: str) -> list[str]:
    """Read a list from a variable: JSON, or items with commas between them."""
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        message = f"cannot read settings: {leaf.variable} is not a JSON list"
        raise errors.InvalidRequest(message, field=leaf.variable) from error
    return list(found)


def _put(values: dict[str, Any], name: str, value: object) -> None:
    *path, last = name.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _unknown(what: str, name: str, where: str, known: Mapping[str, object]) -> errors.InvalidRequest:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else None
    return errors.InvalidRequest(f"cannot read settings: unknown {what} {name!r}{where}", hint=hint, field=name)


def _translated(error: ValidationError, origins: Mapping[str, str]) -> errors.InvalidRequest:
    """Tell of the first contradiction, in the words of whoever wrote the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    parts = [str(part) for part in first["loc"]]
    name = next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in origins), None)
    reason = first["msg"].removeprefix("Value error, ")
    if not parts:  # settings that contradict each other
        return errors.InvalidRequest(f"cannot read settings: {reason}")
    origin = origins[name] if name else ".".join(parts)
    return errors.InvalidRequest(f"cannot read settings: {origin}: {reason}", field=name or ".".join(parts))

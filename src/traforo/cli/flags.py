"""Flags made from settings: one for each field, so that the command line can never know fewer than the file.

Secrets have no flag: what is on a command line can be read by everybody on the machine.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import SecretStr

from traforo.settings import groups, sources

File = Annotated[Path | None, Parameter(help="YAML file of settings; its keys are the names of the flags.")]


def command(
    kind: type[groups.ProcessSettings], run: Callable[[Mapping[str, object], Path | None], int], about: str
) -> Callable[..., int]:
    """Return a command with a flag for every setting of a process, which calls `run` with what was given."""
    names = {leaf.name.replace(".", "_"): leaf for leaf in sources.leaves(kind) if not _secret(leaf)}

    def call(**given: Any) -> int:
        file = given.pop("file", None)
        return run({names[name].name: value for name, value in given.items() if value is not None}, file)

    flags = {"file": File, **{name: _annotation(leaf) for name, leaf in names.items()}}
    call.__doc__ = about
    call.__annotations__ = {**flags, "return": int}
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions may have one
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in flags.items()
        ],
        return_annotation=int,
    )
    return call


def _secret(leaf: sources.Leaf) -> bool:
    return leaf.field.annotation is SecretStr


def _annotation(leaf: sources.Leaf) -> Any:
    about = " ".join((leaf.field.description or "").split())
    text: Any = list[str] | None if _many(leaf.field.annotation) else str | None
    return Annotated[text, Parameter(help=about + _default(leaf.field.default), negative="")]


def _default(value: object) -> str:
    """Return what to say of a default; nothing where it depends on the machine or is nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in {"", 0}:
        return ""
    return f" [default: {value:g}]" if isinstance(value, float) else f" [default: {value}]"


def _many(annotation: Any) -> bool:
    options = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    return any(typing.get_origin(option) is tuple for option in options)

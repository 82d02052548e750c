"""Wrong usage in plain words: what the parser found, and what was meant instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

import cyclopts
from cyclopts import exceptions

_NUMBER = re.compile(r"-[\d.]")


def explained(app: cyclopts.App, arguments: Sequence[str], error: cyclopts.CycloptsError) -> tuple[str, str]:
    """Return the message and the hint for an error of the parser."""
    chain, names = _known(app, arguments)
    if isinstance(error, exceptions.UnknownOptionError):
        return _unknown(chain, names, error.token.keyword or error.token.value)
    if isinstance(error, exceptions.UnusedCliTokensError):
        if (option := next(_strangers(arguments[len(chain) :], names), None)) is not None:
            return _unknown(chain, names, option)
        return f"unexpected argument {(error.unused_tokens or ['?'])[0]!r}", _help(chain)
    if isinstance(error, exceptions.UnknownCommandError):
        word = (error.unused_tokens or ["?"])[0]
        return f"unknown command {word!r}{_meant(word, _commands(error.app))}", _help(chain)
    if type(error) is exceptions.MissingArgumentError and error.argument is not None:
        name = error.keyword or error.argument.name
        return f"{name} needs a value" if name.startswith("-") else f"{name} is missing", _help(chain)
    if isinstance(error, exceptions.CoercionError) and error.token is not None and error.target_type in {int, float}:
        name = error.token.keyword or (error.argument.name if error.argument is not None else "an argument")
        kind = "a whole number" if error.target_type is int else "a number"
        return f"{name} is not {kind}: {error.token.value!r}", _help(chain)
    text = str(error)
    return text[:1].lower() + text[1:].removesuffix("."), _help(chain)


def unknown_option(app: cyclopts.App, arguments: Sequence[str], word: str) -> tuple[str, str]:
    """Return the message and the hint for a word that looks like an option and stands where there is none."""
    chain, names = _known(app, arguments)
    return _unknown(chain, names, word)


def _known(app: cyclopts.App, arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the words that name the command, and its options."""
    chain, apps, _ = app.parse_commands(list(arguments))
    found = apps[-1].assemble_argument_collection() if apps[-1].default_command else ()
    return chain, [name for argument in found if argument.parse for name in argument.names if name.startswith("-")]


def _unknown(chain: Sequence[str], names: Sequence[str], word: str) -> tuple[str, str]:
    option = word.partition("=")[0]
    return f"unknown option {option}{_meant(option, names)}", _help(chain)


def _strangers(words: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    """Give out what looks like an option and is none."""
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0]
        together = not word.startswith("--") and all(f"-{letter}" in names for letter in word[1:])
        if word.startswith("-") and word != "-" and not _NUMBER.match(word) and option not in names and not together:
            yield option


def _meant(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    longer = [name for name in known if len(word.strip("-")) > 1 and name.startswith(word)]
    near = longer or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _commands(app: cyclopts.App | None) -> Iterable[str]:
    return () if app is None else [name for name in app if not name.startswith("-")]


def _help(chain: Sequence[str]) -> str:
    return f"see `{' '.join(['traforo', *chain])} --help`"

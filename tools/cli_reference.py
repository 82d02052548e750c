#!/usr/bin/env python3
"""Writes docs/reference/cli.md from the command line itself.

    tools/cli_reference.py [--check]

`--check` writes nothing and exits with 1 if the page is not what would be written.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from traforo import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
HEAD = """\
# Command line

<!-- Written by tools/cli_reference.py. Change the commands in src/traforo/cli instead. -->

Data goes to stdout and all else to stderr; `--json` prints JSON. After an error there is one line that begins with
`error:` and, where something can be done, one that begins with `hint:`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error: the server refused, nobody answered, a file cannot be read; 125 from what runs a command |
| 2 | wrong usage |
| 130, 143, 129 | Ctrl-C, SIGTERM, SIGHUP: `run` has deleted its sandbox then, `exec` has killed its command |
| 141 | whoever read the output has gone |

What runs a command (`run`, `exec`, `shell`, `attach`, `code`) exits with the code of the command in the sandbox: 128 +
signal if it was killed, 124 if its timeout or the lease of its sandbox passed, 127 if there is no such command, 126 if
it cannot be run, 125 after an error, if it was lost otherwise, or if it exited with 0 and some of its output had to go
before it could be read. `attach`, and a shell that was left with Ctrl-P Ctrl-Q, end nothing in the sandbox.

| variable | meaning |
|---|---|
| `TRAFORO_URL` | URL of the control plane or worker; default `http://127.0.0.1:8080` |
| `TRAFORO_TOKEN` | token for a server in `prod` mode; each creates one sandbox; `traforo token` signs one |
| `TRAFORO_CONTROL_…`, `TRAFORO_WORKER_…` | settings of the two: the name of the flag in capitals |
| `TRAFORO_JWT_SECRET` | secret of both: `prod` mode; there is no flag for it, as others can read command lines |

| command | |
|---|---|
"""


def page() -> str:
    """Return the whole page."""
    rows = [f"| [`{c.name}`](#traforo-{c.name}) | {c.summary} |\n" for c in cli.COMMANDS]
    return HEAD + "".join(rows) + "".join(f"\n{section(command.name)}\n" for command in cli.COMMANDS)


def section(name: str) -> str:
    """Return the part about one command."""
    app = cli.build(name)[name]
    text = app.generate_docs(heading_level=2, usage_name=f"traforo {name}")
    text = re.sub(r"^## .*$", f"## traforo {name}", text, count=1, flags=re.MULTILINE)
    # A command that consists of commands: the list of them has links, so another one would only repeat it.
    text = re.sub(r"^## Table of Contents\n\n(?:- .*\n)+\n", "", text, flags=re.MULTILINE)
    text = re.sub(rf"^### {name} ", f"### traforo {name} ", text, flags=re.MULTILINE)
    text = text.replace(f"](#{name}-", f"](#traforo-{name}-")
    text = text.replace("\\[", "[").replace("```console\n", "```\n")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def main(arguments: list[str]) -> int:
    """Write, or check, the page. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = page()
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    if arguments:
        print(f"not up to date: {PAGE.name}: run tools/cli_reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

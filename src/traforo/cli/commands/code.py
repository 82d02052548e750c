"""`traforo code`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from traforo.cli import interrupts, names, options, printers, streams

Code = Annotated[str | None, Parameter(name=["--code", "-c"])]


def code(
    sandbox: options.SandboxId,
    file: options.Words | None = None,
    /,
    *,
    code: Code = None,
    language: Literal["python", "node", "bash"] = "python",
    start: options.Start = options.Start(),  # noqa: B008 - frozen
    env: options.Env = (),
    url: options.Url = None,
) -> int:
    """Run code in a sandbox.

    From a file of this machine, from stdin with `-`, or as it stands: `traforo code $ID -c 'print(6 * 7)'`. Each time
    in a fresh interpreter; `traforo context` keeps one. The exit code is that of the interpreter, 1 if it does not
    compile.

    Args:
        sandbox: Id of the sandbox.
        file: File with the code, `-` for stdin.
        code: The code itself.
        language: What it is written in.
        start: How it starts; its timeout is 30 s unless another is given.
        env: Environment of the code.
        url: URL of the server.
    """
    from traforo.sdk import Client, errors

    text = source(file, code, "traforo code ID -c 'print(1)'")
    with interrupts.handled(), Client(url) as client:
        try:
            limit: dict[str, Any] = {} if start.timeout is None else {"timeout": start.timeout}
            found = names.sandbox(sandbox, client)
            result = found.run_code(text, language, env=options.variables(env), cwd=start.cwd, user=start.user, **limit)
            reason = streams.end_reason(found) if result.end == "lost" else None
        except errors.SyntaxRejected as error:
            sys.stderr.write(error.fields.get("stderr") or f"{error.message}\n")
            return 1
        except interrupts.Interrupted as error:
            return error.exit_code
    sys.stdout.write(result.stdout)
    sys.stdout.flush()
    sys.stderr.write(result.stderr)
    return streams.exit_code(result.end, result.exit_code, reason)


def source(file: str | None, text: str | None, example: str) -> str:
    """Return code that was given as a file or as it stands. Raises OSError, `UsageError`."""
    name = None if file is None else options.name(file)
    if (name is None) == (text is None):
        raise printers.UsageError("give the code once: as a file, or with -c", f"write `{example}`")
    if text is not None:
        return text
    try:
        return sys.stdin.read() if name == "-" else Path(name or "").read_text()
    except UnicodeDecodeError as error:
        raise OSError(f"cannot read {file!r}: it is not UTF-8") from error

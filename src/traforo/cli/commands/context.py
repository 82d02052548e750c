"""`traforo context` and its commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from cyclopts import Parameter

from traforo import cli
from traforo.cli import durations, interrupts, names, options, printers
from traforo.cli.commands import code as codes

if TYPE_CHECKING:
    from traforo.sdk import CodeResult

COLUMNS = ("context id", "name", "language", "status", "runs", "user", "cwd")
ContextId = Annotated[str, Parameter(help="Id of the context.")]


def create(
    sandbox: options.SandboxId,
    /,
    *,
    language: Literal["python", "node", "bash"] = "python",
    cwd: str | None = None,
    user: str | None = None,
    name: str | None = None,
    env: options.Env = (),
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Start an interpreter and print the id of its context.

    `CTX=$(traforo context create $ID)`, `traforo context run $ID $CTX -c 'x = 1'`.

    Args:
        sandbox: Id of the sandbox.
        language: What it understands.
        cwd: Directory to start in [default: the user's home].
        user: User, a name or a number [default: the image's].
        name: A name for people.
        env: Environment of the interpreter.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        contexts = names.sandbox(sandbox, client).contexts
        made = contexts.create(language, cwd=cwd, user=user, name=name, env=options.variables(env) or None)
        if json:
            printers.document(results.as_json(made.info()))
        else:
            print(made.id)


def list_(sandbox: options.SandboxId, /, *, url: options.Url = None, json: options.Json = False) -> None:
    """List the contexts of a sandbox.

    Args:
        sandbox: Id of the sandbox.
        url: URL of the server.
        json: Print JSON.
    """
    from traforo.sdk import Client, results

    with Client(url) as client:
        found = names.sandbox(sandbox, client).contexts.list()
    if json:
        printers.document({"contexts": results.as_json(found)})
        return
    rows = [(c.context_id, c.name, c.runtime, c.status, c.execution_count, c.user, c.cwd) for c in found]
    printers.table(COLUMNS, rows)


def run(
    sandbox: options.SandboxId,
    context: ContextId,
    file: options.Words | None = None,
    /,
    *,
    code: codes.Code = None,
    timeout: durations.Option = None,
    url: options.Url = None,
    json: options.Json = False,
) -> int:
    """Run code in a context, where what was defined before is still there.

    Output passes through as it comes; then the value of the last expression is printed to stdout, or the traceback of
    what was raised to stderr. The exit code is 1 after an error, 124 when the timeout passed, and else what the code
    gave to `sys.exit` or its like. Ctrl-C interrupts the code and keeps the context.

    Args:
        sandbox: Id of the sandbox.
        context: Id of the context.
        file: File with the code, `-` for stdin.
        code: The code itself.
        timeout: Time after which it is interrupted, such as `90` or `5m` [default: 30].
        url: URL of the server.
        json: Print the whole result as JSON, in place of all else.
    """
    from traforo.sdk import Client, results

    text = codes.source(file, code, "traforo context run ID CONTEXT -c 'print(1)'")
    limit: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    with interrupts.handled(), Client(url) as client, _dead_is_told(sandbox, context):
        found = names.sandbox(sandbox, client).contexts.get(context)
        try:
            if json:
                result = found.run(text, **limit)
                printers.document(results.as_json(result))
                return _exit_code(result)
            result = found.run(text, on_stdout=_write(sys.stdout), on_stderr=_write(sys.stderr), **limit)
            exit_code = _shown(result)
            if exit_code and result.error is None and found.info().status == "dead":
                again = f"`traforo context restart {sandbox} {context}` begins anew"
                printers.note(f"note: the interpreter has ended: {again}")
            return exit_code
        except interrupts.Interrupted as error:
            found.interrupt()
            return error.exit_code


@contextlib.contextmanager
def _dead_is_told(sandbox: str, context: str) -> Iterator[None]:
    """Say how a context whose interpreter has ended begins anew, in place of what the API says."""
    from traforo.sdk import errors

    try:
        yield
    except errors.Conflict as error:
        if error.hint is not None and error.hint.startswith("restart the context"):
            error.hint = f"`traforo context restart {sandbox} {context}` begins anew"
        raise


def _write(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write


def _shown(result: CodeResult) -> int:
    for rich in result.results:
        if rich.text is not None:
            print(rich.text)
        else:
            printers.note(f"note: a result without text: {', '.join(sorted(rich.data))} (--json has it)")
    if result.error is not None:
        error = result.error
        print("\n".join(error.traceback) or f"{error.name}: {error.value}", file=sys.stderr)
    if result.exec.end == "timed_out":
        printers.note("note: the code was ended: its timeout passed")
    return _exit_code(result)


def _exit_code(result: CodeResult) -> int:
    """Return the code's own exit code, and never 0 for code that did not come to its end."""
    return 0 if result.ok else (result.exec.exit_code or 0) & 0xFF or 1


def interrupt(sandbox: options.SandboxId, context: ContextId, /, *, url: options.Url = None) -> None:
    """Interrupt what runs in a context; what was defined stays.

    Args:
        sandbox: Id of the sandbox.
        context: Id of the context.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client, _dead_is_told(sandbox, context):
        names.sandbox(sandbox, client).contexts.get(context).interrupt()


def restart(sandbox: options.SandboxId, context: ContextId, /, *, url: options.Url = None) -> None:
    """Begin anew with a fresh interpreter under the same id.

    Args:
        sandbox: Id of the sandbox.
        context: Id of the context.
        url: URL of the server.
    """
    from traforo.sdk import Client

    with Client(url) as client:
        names.sandbox(sandbox, client).contexts.get(context).restart()


def delete(sandbox: options.SandboxId, /, *contexts: ContextId, url: options.Url = None) -> None:
    """End contexts, and all that they started.

    Args:
        sandbox: Id of the sandbox.
        contexts: Ids of the contexts.
        url: URL of the server.
    """
    from traforo.sdk import Client

    if not contexts:
        raise printers.UsageError("nothing to delete", "name contexts by id: `traforo context list` has them")
    with Client(url) as client:
        found = names.sandbox(sandbox, client).contexts
        for context_id in contexts:
            found.get(context_id).delete()


context = cli.family("context", create, list_, run, interrupt, restart, delete)

"""The command line: `traforo`, one command a module, and how each of them fails.

Only the command that was asked for is imported, so `traforo --help` is quick and a client needs nothing of the server.
Data goes to stdout and all else to stderr. Exit codes: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C; what
runs a command exits as the command in the sandbox did, and with 125 for an error.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cyclopts

import traforo
from traforo.cli import printers, problems, streams, usages

ERROR = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""As a shell reports SIGPIPE: whoever read the output has gone."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the function of its name in the module of its name, or an application with commands of its own."""

    name: str
    group: cyclopts.Group
    summary: str
    """First line of its help, here so that the list of commands needs no module."""
    error: int = ERROR
    """Exit code after an error: another one where 1 may be that of a command in a sandbox."""

    @property
    def module(self) -> str:
        """Name of its module, and of what is in it."""
        return self.name.replace("-", "_")


SANDBOXES = cyclopts.Group("Sandboxes", sort_key=1)
COMMANDS_IN = cyclopts.Group("Commands and code in a sandbox", sort_key=2)
INSIDE = cyclopts.Group("Files and ports of a sandbox", sort_key=3)
SEEN = cyclopts.Group("What a sandbox does", sort_key=4)
SERVERS = cyclopts.Group("Servers", sort_key=5)
OTHER = cyclopts.Group("This installation", sort_key=6)
COMMANDS = (
    Command("up", SERVERS, "Run a control plane and a worker on this machine."),
    Command("control", SERVERS, "Run a control plane."),
    Command("worker", SERVERS, "Run a worker."),
    Command("token", SERVERS, "Sign a token for a server in prod mode."),
    Command("run", SANDBOXES, "Run a command in a new sandbox, and delete the sandbox.", streams.FAILED),
    Command("create", SANDBOXES, "Create a sandbox and print its id."),
    Command("list", SANDBOXES, "List your sandboxes, newest first."),
    Command("get", SANDBOXES, "Show one sandbox."),
    Command("renew", SANDBOXES, "Let a sandbox live longer, or shorter."),
    Command("delete", SANDBOXES, "Delete sandboxes."),
    Command("exec", COMMANDS_IN, "Run a command in a sandbox.", streams.FAILED),
    Command("shell", COMMANDS_IN, "Open a shell in a sandbox, or in a new one.", streams.FAILED),
    Command("attach", COMMANDS_IN, "Connect this terminal to a command that runs.", streams.FAILED),
    Command("ps", COMMANDS_IN, "List the commands of a sandbox."),
    Command("kill", COMMANDS_IN, "Send a signal to commands of a sandbox."),
    Command("code", COMMANDS_IN, "Run code in a sandbox.", streams.FAILED),
    Command("context", COMMANDS_IN, "Use interpreters that keep what was defined."),
    Command("cp", INSIDE, "Copy files and directories into a sandbox or out of it."),
    Command("files", INSIDE, "Look at and change the files of a sandbox."),
    Command("watch", INSIDE, "Print what happens to the files of a sandbox."),
    Command("port-forward", INSIDE, "Make ports of a sandbox ports of this machine."),
    Command("port", INSIDE, "Tell how ports of a sandbox are reached."),
    Command("logs", SEEN, "Print what the commands of a sandbox wrote."),
    Command("events", SEEN, "Print what happened to a sandbox."),
    Command("stats", SEEN, "Print what sandboxes use."),
    Command("doctor", OTHER, "Say what this machine can run, and what it lacks."),
    Command("bench", OTHER, "Measure, in a checkout of the repository."),
    Command("version", OTHER, "Print the version."),
)


def build(wanted: str | None = None) -> cyclopts.App:
    """Return the application; the command `wanted` is loaded, the others are known by name and summary."""
    app = cyclopts.App(
        name="traforo",
        help="Sandboxes that start cold as quickly as others start warm.",
        help_epilogue="`traforo COMMAND --help` tells more. TRAFORO_URL names the server, TRAFORO_TOKEN holds a token.",
        version=traforo.__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for command in COMMANDS:
        home = f"traforo.cli.commands.{command.module}"
        if command.name == wanted:
            found = getattr(importlib.import_module(home), command.module)
            if isinstance(found, cyclopts.App):
                app.command(found, name=command.name)
            else:
                app.command(found, name=command.name, group=command.group, help=description(found))
        else:
            path = f"{home}:{command.module}"
            app.command(path, name=command.name, help=command.summary, group=command.group)
    return app


def family(name: str, *members: Callable[..., object]) -> cyclopts.App:
    """Return a command that consists of commands, each a function whose name may end with `_`."""
    summary = next(command for command in COMMANDS if command.name == name)
    app = cyclopts.App(name=name, help=summary.summary, group=summary.group, help_format="plaintext")
    for member in members:
        own = member.__name__.rstrip("_").replace("_", "-")
        app.command(member, name=own, help=description(member))
    return app


def description(function: Callable[..., object]) -> str:
    """Return what a command's docstring says above its arguments, one line for each paragraph."""
    text = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:")[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would meet the closed pipe once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    from traforo.domain.errors import TraforoError as ServerError
    from traforo.sdk.errors import TraforoError as ClientError

    failed = next((command.error for command in COMMANDS if command.name in arguments[:1]), ERROR)
    try:
        code = _called(arguments)
        sys.stdout.flush()
    except printers.UsageError as error:
        printers.error(str(error), error.hint)
        return USAGE
    except ClientError as error:
        printers.error(*problems.told(error))
        return failed
    except ServerError as error:
        printers.error(error.message, error.hint)
        return failed
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "traforo":
            raise
        printers.error(f"this command needs {error.name!r}", "install the server: pip install 'traforo[server]'")
        return failed
    except BrokenPipeError:
        raise
    except streams.Left as left:
        return left.exit_code
    except OSError as error:
        printers.error(_system(error))
        return failed
    return code if isinstance(code, int) else 0


def _called(arguments: list[str]) -> object:
    app = build(arguments[0] if arguments else None)
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        raise printers.UsageError(*usages.explained(app, arguments, error)) from error
    except printers.UnknownOption as error:
        raise printers.UsageError(*usages.unknown_option(app, arguments, error.option)) from error


def _system(error: OSError) -> str:
    where = f" {error.filename!r}" if error.filename is not None else ""
    return f"cannot use{where}: {(error.strerror or str(error)).lower()}" if where else str(error)

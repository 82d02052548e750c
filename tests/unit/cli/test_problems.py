import pytest

from traforo.cli import problems
from traforo.sdk import errors


def test_a_defect_of_the_server_names_the_request() -> None:
    """The id leads to the line in the server's log; for errors of the caller it would only be noise."""
    assert problems.told(errors.Internal("cannot", status=500, request_id="01R")) == ("cannot (request 01R)", None)
    assert problems.told(errors.NotFound("cannot", status=404, request_id="01R")) == ("cannot", None)
    assert problems.told(errors.Internal("cannot", status=500)) == ("cannot", None)
    assert problems.told(errors.PortUnreachable("cannot", status=502, request_id="01R")) == ("cannot", None)


@pytest.mark.parametrize(
    "error,message",
    [
        (errors.Conflict("it is stopped", fields={"reason": "deleted"}), "it is stopped (deleted)"),
        (errors.Conflict("it is stopped", fields={"reason": "out_of_memory"}), "it is stopped (out of memory)"),
        (errors.Conflict("it is stopped (deleted)", fields={"reason": "deleted"}), "it is stopped (deleted)"),
        (errors.Conflict("it is stopping", fields={"reason": None}), "it is stopping"),
        (errors.Unauthenticated("the token is old", fields={"reason": "expired"}), "the token is old"),
    ],
)
def test_the_reason_of_an_end_is_told(error: errors.TraforoError, message: str) -> None:
    """Where the answer has it."""
    assert problems.told(error)[0] == message


@pytest.mark.parametrize(
    "field,message,said",
    [
        ("ttl_seconds", "cannot read 'ttl_seconds' in the body: it is too long", "cannot use --ttl: it is too long"),
        ("memory_mib", "cannot read 'memory_mib' in the body: no", "cannot use --memory-mib: no"),
        ("path", "cannot read 'path' in the query: a path is absolute", "cannot use the path: a path is absolute"),
        ("cpu", "cannot use cpu 9: this machine has 2", "cannot use cpu 9: this machine has 2"),
        ("frob", "cannot read 'frob' in the body: no", "cannot read 'frob' in the body: no"),
        (None, "cannot read the body: no", "cannot read the body: no"),
    ],
)
def test_a_field_is_named_as_its_option(field: str | None, message: str, said: str) -> None:
    """Where there is one, and the server says that it is the field."""
    assert problems.told(errors.InvalidRequest(message, fields={"field": field})) == (said, None)


@pytest.mark.parametrize(
    "error,hint",
    [
        (errors.TraforoError("no"), None),
        (errors.TraforoError("no", hint="try again"), "try again"),
        (
            errors.TraforoError("no", hint="ask with 'overwrite': true to replace it"),
            "ask with --overwrite to replace it",
        ),
        (errors.TraforoError("no", hint="ask with 'recursive': true"), "ask with --recursive"),
        (
            errors.TraforoError("no", hint="ask for disk_kind 'disk', or for more memory_mib"),
            "ask for --disk-kind disk, or for more --memory-mib",
        ),
        (
            errors.ConnectionFailed("no", hint="it may run: `list_execs()` shows it"),
            "it may run: `traforo ps ID` shows it",
        ),
        (
            errors.Unauthenticated("no"),
            "TRAFORO_TOKEN holds the token, and each creates one sandbox; `traforo token` signs one with the secret",
        ),
        (errors.MalformedId("malformed sandbox id 'x'"), "`traforo list` shows the ids of yours"),
        (errors.MalformedId("malformed exec id 'x'"), None),
        (
            errors.ConnectionFailed("no", hint="`get_exec('exec_1')`", fields={"exec_id": "exec_1"}),
            "it may still run: `traforo attach ID exec_1` comes back to it",
        ),
    ],
)
def test_hints_are_in_the_words_of_the_command_line(error: errors.TraforoError, hint: str | None) -> None:
    """What the API calls a field is an option here."""
    assert problems.told(error)[1] == hint

"""`token`: signed with the secret of the settings, as a server reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from tests.unit.cli.conftest import Done
from traforo.api import tokens
from traforo.domain import clocks
from traforo.settings import groups

Run = Callable[..., Done]
SECRET = "s" * 32


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ISSUER", "AUDIENCE"):
        monkeypatch.delenv(f"TRAFORO_JWT_{name}", raising=False)
    monkeypatch.setenv("TRAFORO_JWT_SECRET", SECRET)


def read(token: str, **more: str) -> tokens.Claims:
    settings = groups.AuthSettings(jwt_secret=pydantic.SecretStr(SECRET), **more)
    return tokens.Authority(settings, clocks.SystemClock()).verify_client(f"Bearer {token}")


def test_a_server_takes_it(traforo: Run) -> None:
    """It is all that is printed, and says who calls and for how long; no two are the same."""
    first, second = traforo("token", "me"), traforo("token", "me", "--ttl", "5m")
    assert [(done.code, done.err, done.text.count("\n")) for done in (first, second)] == [(0, b"", 1)] * 2
    said = [read(done.text.strip()) for done in (first, second)]
    assert [claims.client_id for claims in said] == ["me", "me"]
    assert [claims.expires_at - claims.issued_at for claims in said] == [3600, 300]
    assert said[0].jti != said[1].jti


def test_the_file_of_a_control_plane_says_the_rest(
    traforo: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secret, issuer and audience."""
    monkeypatch.delenv("TRAFORO_JWT_SECRET")
    file = tmp_path / "control.yaml"
    file.write_text(json.dumps({"auth": {"jwt-secret": SECRET, "jwt-issuer": "i", "jwt-audience": "a"}}))
    done = traforo("token", "me", "--file", str(file))
    assert read(done.text.strip(), jwt_issuer="i", jwt_audience="a").client_id == "me"


def test_without_a_secret_there_is_no_token(traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where it looks for one; there is no flag that others could read."""
    monkeypatch.delenv("TRAFORO_JWT_SECRET")
    done = traforo("token", "me")
    assert (done.code, done.out, "TRAFORO_JWT_SECRET" in done.said) == (2, b"", True)
    assert "secret" not in {word.strip("-") for word in traforo("token", "--help").text.split() if word[:2] == "--"}


@pytest.mark.parametrize(
    "arguments,said", [(["me", "--ttl", "0"], "expired"), (["x" * 129], "client_id"), (["a\nb"], "client_id")]
)
def test_no_token_is_printed_that_is_refused(arguments: list[str], said: str, traforo: Run) -> None:
    """What is wrong with it is told instead."""
    done = traforo("token", *arguments)
    assert (done.code, done.out, said in done.said) == (1, b"", True)
    assert SECRET not in done.said


def test_a_secret_that_is_too_short_is_told(traforo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not shown."""
    monkeypatch.setenv("TRAFORO_JWT_SECRET", "too-short-a-secret")
    done = traforo("token", "me")
    assert (done.code, done.out, "32 bytes" in done.said, "too-short" in done.said) == (1, b"", True, False)

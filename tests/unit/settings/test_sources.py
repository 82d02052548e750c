import logging
from pathlib import Path

import pytest

from traforo.domain import errors
from traforo.settings import control, sources, worker

SECRET = "s" * 32


def write(path: Path, text: str) -> Path:
    file = path / "settings.yaml"
    file.write_text(text)
    return file


def load(
    flags: dict[str, object] | None = None, file: Path | None = None, environ: dict[str, str] | None = None
) -> worker.WorkerSettings:
    return sources.load(worker.WorkerSettings, flags or {}, file, {"HOME": "/h", **(environ or {})}, uid=1000)


def test_defaults_are_complete() -> None:
    """A worker starts without any configuration."""
    settings = load()
    assert settings.listen == "127.0.0.1:8081"
    assert settings.base_url == "http://127.0.0.1:8081"
    assert settings.auth.mode == "dev"
    assert settings.state_dir == Path("/h/.local/state/traforo/worker")
    assert settings.live_limit == 1024


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each source hides those below it, setting by setting."""
    file = write(tmp_path, "default-ttl: 1m\nmax-ttl: 1h\ndefault-pids: 10\n")
    environ = {"TRAFORO_WORKER_DEFAULT_TTL": "2m", "TRAFORO_WORKER_MAX_TTL": "2h"}
    settings = load({"default_ttl": "3m"}, file, environ)
    assert (settings.default_ttl, settings.max_ttl, settings.default_pids) == (180.0, 7200.0, 10)
    assert settings.result_max_bytes == 8 * 1024 * 1024


def test_flag_that_was_not_given_hides_nothing() -> None:
    """A command line hands in None for what its user left out."""
    assert load({"listen": None}, None, {"TRAFORO_WORKER_LISTEN": ":99"}).listen == ":99"


def test_empty_variable_counts_as_not_set() -> None:
    """Compose files write `NAME=` for "none"; that must not turn a default off, nor fail."""
    settings = load(environ={"TRAFORO_JWT_SECRET": "", "TRAFORO_WORKER_DEFAULT_TTL": ""})
    assert settings.auth.mode == "dev"
    assert settings.default_ttl == 1800.0


def test_secret_is_shared_by_both_processes() -> None:
    """One variable configures control plane and worker alike."""
    environ = {"TRAFORO_JWT_SECRET": SECRET, "TRAFORO_JWT_ISSUER": "me", "TRAFORO_JWT_AUDIENCE": "you", "HOME": "/h"}
    for kind in (control.ControlSettings, worker.WorkerSettings):
        auth = sources.load(kind, {}, None, environ, uid=1).auth
        assert (auth.mode, auth.jwt_secret.get_secret_value(), auth.jwt_issuer, auth.jwt_audience) == (
            "prod",
            SECRET,
            "me",
            "you",
        )


def test_groups_are_reached_from_every_source(tmp_path: Path) -> None:
    """A nested setting has a name in each source."""
    file = write(tmp_path, "log:\n  rotate-size: 1MiB\npre-pull:\n  images: [host]\n  warmup-timeout-seconds: 5\n")
    settings = load({"log.level": "debug"}, file, {"TRAFORO_WORKER_LOG_MAX_ROTATIONS": "2"})
    assert (settings.log.level, settings.log.rotate_size, settings.log.max_rotations) == ("debug", 1024 * 1024, 2)
    assert (settings.pre_pull.images, settings.pre_pull.warmup_timeout_seconds) == (("host",), 5.0)


@pytest.mark.parametrize("text", ["/a,/b", " /a , /b ,", '["/a", "/b"]'])
def test_list_in_a_variable(text: str) -> None:
    """A variable holds a list as JSON, or as items with commas between them."""
    assert load(environ={"TRAFORO_WORKER_IMAGE_ROOTS": text}).image_roots == (Path("/a"), Path("/b"))


def test_list_that_is_no_json() -> None:
    """The error names the variable."""
    with pytest.raises(errors.InvalidRequest, match="TRAFORO_WORKER_IMAGE_ROOTS is not a JSON list"):
        load(environ={"TRAFORO_WORKER_IMAGE_ROOTS": "[/a"})


def test_file_of_traforato_is_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every key of its worker file works; the id of a broker means nothing here, and a warning says so."""
    file = write(
        tmp_path,
        """
broker-id: broker_local
broker-control-url: http://control:8080
worker-id: worker_7
hostname: host-7
hardware-sku: big
virtualization: container
total-cores: 8
total-memory-mib: 16384
max-live-sandboxes: 100
default-ttl: 30m
registration-heartbeat: 30s
registration-jitter-percent: 20
log: {level: info, file: /tmp/w.log, rotate-size: 10MB, max-rotations: 3}
pre-pull: {images: [], warmup-script: 'true', warmup-timeout-seconds: 120}
""",
    )
    with caplog.at_level(logging.WARNING):
        settings = load(file=file)
    assert settings.control_url == "http://control:8080"
    assert (settings.worker_id, settings.total_cores, settings.max_live_sandboxes) == ("worker_7", 8.0, 100)
    assert [record.getMessage() for record in caplog.records] == [
        f"ignored 'broker-id' in '{file}': ids here name the worker alone"
    ]


def test_setting_given_under_two_names(tmp_path: Path) -> None:
    """An alias beside its own name would make one of them silently win."""
    file = write(tmp_path, "control-url: http://a\nbroker-control-url: http://b\n")
    with pytest.raises(errors.InvalidRequest, match="are the same setting") as caught:
        load(file=file)
    assert caught.value.fields == {"field": "broker-control-url"}


@pytest.mark.parametrize(
    "text, field, hint",
    [
        ("lisen: ':80'\n", "lisen", "did you mean 'listen'?"),
        ("log: {levle: info}\n", "log.levle", "did you mean 'log.level'?"),
        ("max_ttl: 3\n", "max_ttl", "did you mean 'max-ttl'?"),
        ("zzzzzz: 1\n", "zzzzzz", None),
    ],
)
def test_unknown_key_in_the_file(tmp_path: Path, text: str, field: str, hint: str | None) -> None:
    """A typing error never passes for a default; the error suggests what was meant."""
    with pytest.raises(errors.InvalidRequest, match="unknown key") as caught:
        load(file=write(tmp_path, text))
    assert (caught.value.fields["field"], caught.value.hint) == (field, hint)


def test_group_that_is_no_mapping(tmp_path: Path) -> None:
    """A value where a group belongs is an error."""
    with pytest.raises(errors.InvalidRequest, match="'log' is a mapping of settings"):
        load(file=write(tmp_path, "log: debug\n"))


def test_empty_group_and_empty_value_are_defaults(tmp_path: Path) -> None:
    """A key whose value is commented out changes nothing."""
    assert load(file=write(tmp_path, "log:\nlisten:\n")) == load()


def test_unknown_flag() -> None:
    """A flag that no setting has is a defect of the command, and is told as plainly."""
    with pytest.raises(errors.InvalidRequest, match="unknown flag 'lisen'"):
        load({"lisen": ":80"})


@pytest.mark.parametrize(
    "environ, words",
    [
        ({"TRAFORO_WORKER_DEFAULT_TTL": "soon"}, ["TRAFORO_WORKER_DEFAULT_TTL", "a duration is"]),
        ({"TRAFORO_WORKER_LISTEN": "here"}, ["TRAFORO_WORKER_LISTEN", "cannot read address"]),
        ({"TRAFORO_WORKER_CPU_OVERCOMMIT": "0.5"}, ["TRAFORO_WORKER_CPU_OVERCOMMIT", "greater than or equal to 1"]),
        ({"TRAFORO_WORKER_STOP_POLICY": "run"}, ["TRAFORO_WORKER_STOP_POLICY", "'drain' or 'keep'"]),
        ({"TRAFORO_WORKER_BASE_URL": "http://x/path"}, ["TRAFORO_WORKER_BASE_URL", "no path"]),
        ({"TRAFORO_WORKER_CONTROL_URL": "control"}, ["TRAFORO_WORKER_CONTROL_URL", "http://host"]),
        ({"TRAFORO_WORKER_STATE_DIR": "relative"}, ["TRAFORO_WORKER_STATE_DIR", "absolute"]),
        ({"TRAFORO_WORKER_WORKER_ID": "a b"}, ["TRAFORO_WORKER_WORKER_ID", "pattern"]),
        ({"TRAFORO_WORKER_TOTAL_CORES": "nan"}, ["TRAFORO_WORKER_TOTAL_CORES", "finite"]),
    ],
)
def test_value_that_does_not_fit(environ: dict[str, str], words: list[str]) -> None:
    """The error names the variable as the operator wrote it, and what would fit."""
    with pytest.raises(errors.InvalidRequest, match="cannot read settings") as caught:
        load(environ=environ)
    assert [word for word in words if word not in caught.value.message] == []


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"default_ttl": "2d", "max_ttl": "1d"}, "'default-ttl' is longer than 'max-ttl'"),
        ({"exec_log_max_bytes": "1MiB"}, "'exec-log-segment-bytes' is more than 'exec-log-max-bytes'"),
    ],
)
def test_settings_that_contradict_each_other(flags: dict[str, object], words: str) -> None:
    """What could never work together is refused at the start."""
    with pytest.raises(errors.InvalidRequest, match=words):
        load(flags)


def test_value_of_the_wrong_type_in_the_file(tmp_path: Path) -> None:
    """The error names key and file."""
    file = write(tmp_path, "pre-pull: {images: host}\n")
    with pytest.raises(errors.InvalidRequest, match=r"'pre-pull\.images' in") as caught:
        load(file=file)
    assert caught.value.fields == {"field": "pre_pull.images"}


def test_secret_is_never_told() -> None:
    """Neither an error nor a printed setting shows it."""
    with pytest.raises(errors.InvalidRequest, match="at least 32 bytes") as caught:
        load(environ={"TRAFORO_JWT_SECRET": "tooshort"})
    assert "tooshort" not in repr(caught.value) + repr(caught.value.__cause__) + str(caught.value.fields)
    assert SECRET not in repr(load(environ={"TRAFORO_JWT_SECRET": SECRET}))


def test_audience_of_clients_is_not_that_of_workers() -> None:
    """Else a client's token would open the internal routes."""
    with pytest.raises(errors.InvalidRequest, match="which workers use"):
        load(environ={"TRAFORO_JWT_AUDIENCE": "traforo-internal"})


def test_every_setting_has_a_description() -> None:
    """The reference is made from them."""
    kinds = (control.ControlSettings, worker.WorkerSettings)
    assert [leaf.name for kind in kinds for leaf in sources.leaves(kind) if not leaf.field.description] == []


def test_names_of_settings_are_distinct() -> None:
    """No two settings share a variable or a key."""
    for kind in (control.ControlSettings, worker.WorkerSettings):
        leaves = sources.leaves(kind)
        assert len({leaf.variable for leaf in leaves}) == len({leaf.key for leaf in leaves}) == len(leaves)


def test_settings_are_frozen() -> None:
    """What was read at the start holds until the end."""
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = ":1"


@pytest.mark.parametrize(
    "secret, given, expected", [("", None, False), ("s" * 32, None, True), ("s" * 32, "false", False), ("", "1", True)]
)
def test_limits_are_required_where_clients_are_told_apart(secret: str, given: str | None, expected: bool) -> None:
    """Unless it is said otherwise."""
    environ = {"HOME": "/h", "TRAFORO_JWT_SECRET": secret}
    environ |= {} if given is None else {"TRAFORO_WORKER_REQUIRE_LIMITS": given}
    assert sources.load(worker.WorkerSettings, {}, None, environ).limits_required is expected

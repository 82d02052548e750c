"""Labels: what is written before a create is acknowledged, and read by the worker after a crash."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traforo.domain import errors, ids, specs, states
from traforo.worker.runtimes import contract
from traforo.worker.sandboxes import entries, labels

RESOURCES = specs.Resources(cpu=0.25, memory_mib=64, disk_mib=32, pids=10, disk_kind=states.DiskKind.DISK)
texts = st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5)


def entry(**changes: object) -> entries.Entry:
    values: dict[str, object] = {
        "id": ids.new_sandbox_id(ids.worker_hash("here")),
        "spec": specs.SandboxSpec("host", "container", RESOURCES, 60.0),
        "owner": None,
        "rootfs": contract.Rootfs("host", (contract.Lower("/x", "/"),), {"PATH": "/bin"}, "user", "/srv"),
        "state": states.SandboxState.STARTING,
        "created_at": 10.0,
        "expires_at": 70.0,
    }
    return entries.Entry(**{**values, **changes})  # type: ignore[arg-type]  # a builder for tests


@given(env=texts, metadata=texts, owner=st.none() | st.text(max_size=20), name=st.none() | st.text(max_size=20))
def test_a_label_says_all_there_is(
    env: dict[str, str], metadata: dict[str, str], owner: str | None, name: str | None
) -> None:
    """Spec, owner, times, token, key, idle limit and image come back as they were."""
    spec = specs.SandboxSpec("host", "container", RESOURCES, 60.0, env=env, metadata=metadata, name=name)
    original = entry(spec=spec, owner=owner, jti="j", jti_expires_at=99.0, repeat_key="k", repeat_fingerprint="f")
    found = labels.decode(labels.encode(original, expires_at=123.0, idle_seconds=7.0))
    assert found == labels.Label(
        v=1,
        spec=spec,
        owner=owner,
        created_at=10.0,
        expires_at=123.0,
        jti="j",
        jti_expires_at=99.0,
        repeat_key="k",
        repeat_fingerprint="f",
        idle_seconds=7.0,
        image=original.rootfs,
    )


def test_a_large_image_is_left_out() -> None:
    """What can be asked for again makes room for what cannot."""
    rootfs = contract.Rootfs("host", (), {"BIG": "x" * contract.MAX_LABEL_BYTES})
    data = labels.encode(entry(rootfs=rootfs), expires_at=1.0, idle_seconds=None)
    assert len(data) <= contract.MAX_LABEL_BYTES
    assert labels.decode(data).image is None


def test_what_does_not_fit_is_refused() -> None:
    """Control characters take six bytes each: within the limit of the request, beyond that of the label."""
    spec = specs.SandboxSpec("host", "container", RESOURCES, 60.0, env={"A": "\x01" * 20_000})
    with pytest.raises(errors.TooLarge) as caught:
        labels.encode(entry(spec=spec), expires_at=1.0, idle_seconds=None)
    assert caught.value.fields == {"limit": contract.MAX_LABEL_BYTES}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """A label may be anybody's: what is not ours is an error of ours."""
    try:
        labels.decode(data)
    except errors.InvalidRequest:
        return
    raise AssertionError(f"{data!r} passed for a label")


def test_another_version_is_refused() -> None:
    """What a later worker wrote may mean something else."""
    values = msgspec.json.decode(labels.encode(entry(), expires_at=1.0, idle_seconds=None))
    with pytest.raises(errors.InvalidRequest, match="version 2"):
        labels.decode(msgspec.json.encode({**values, "v": 2}))

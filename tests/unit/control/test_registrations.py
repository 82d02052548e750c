from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control import planes
from traforo.api import schemas
from traforo.control import registrations
from traforo.domain import errors, workers


def body(**changes: Any) -> schemas.Registration:
    return schemas.Registration(**planes.REGISTRATION | changes)


def refused(worker_id: str = "w1", **changes: Any) -> object:
    with pytest.raises(errors.InvalidRequest) as caught:
        registrations.worker(worker_id, body(**changes))
    return caught.value.fields["field"]


def test_every_field_is_taken() -> None:
    found = registrations.worker(
        "w-1_A", body(hardware_sku="m5.large", virtualizations=["gvisor", "container", "gvisor"])
    )
    assert found == workers.Worker(
        worker_id="w-1_A",
        hostname="one.example",
        base_url="http://one.example:8081",
        hardware_sku="m5.large",
        virtualizations=("container", "gvisor"),
        total_cores=2.0,
        total_memory_mib=4096,
        max_live_sandboxes=10,
    )


@pytest.mark.parametrize("worker_id", ["", "a" * 65, "a b", "a/b", "..", "a.b", "é", "a\n", "a\0"])
def test_worker_ids(worker_id: str) -> None:
    assert refused(worker_id) == "worker_id"


@pytest.mark.parametrize("hostname", ["-a", ".a", "a b", "a/b", "é", "a\n", "a\r\nb", "a:1", "a@b", "\0"])
def test_hostnames(hostname: str) -> None:
    assert refused(hostname=hostname) == "hostname"


def test_longest_hostname_is_taken() -> None:
    assert registrations.worker("w", body(hostname="a" * 253)).hostname == "a" * 253


@pytest.mark.parametrize(
    "base_url, expected",
    [
        ("http://a", "http://a"),
        ("https://a.b-c_d.example:443/", "https://a.b-c_d.example:443"),
        ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_base_urls(base_url: str, expected: str) -> None:
    assert registrations.base_url(base_url) == expected


@pytest.mark.parametrize(
    "base_url",
    [
        "a",
        "//a",
        "ftp://a",
        "javascript://a",
        "HTTP://a",
        "http://",
        "http:///a",
        "http://a/b",
        "http://a//",
        "http://a?b",
        "http://a#b",
        "http://user@a",
        "http://a@b:1",
        "http://a:0",
        "http://a:65536",
        "http://a:",
        "http://a:1:2",
        "http://a\r\nSet-Cookie: x",
        "http://a\n",
        "http://a b",
        "http://a\\b",
        "http://é",
        "http://[::1",
        "http://-a",
    ],
)
def test_base_urls_that_are_more_than_an_address(base_url: str) -> None:
    """Scheme, host and port are all that a base URL may be: it becomes the beginning of a location."""
    assert refused(base_url=base_url) == "base_url"


@given(text=st.text(max_size=40))
def test_base_urls_never_carry_anything_else(text: str) -> None:
    """What is accepted is printable and has no character that could lead elsewhere."""
    try:
        found = registrations.base_url("http://" + text)
    except errors.InvalidRequest:
        return
    assert found.isascii()
    assert not set(found.removeprefix("http://")) & set("/?#@\\ \r\n\t\0%")


@pytest.mark.parametrize("sku", ["a b", "a\tb", "a\n", "-a", "é", "a;b", "a,b", '"'])
def test_hardware_skus(sku: str) -> None:
    assert refused(hardware_sku=sku) == "hardware_sku"


@pytest.mark.parametrize("found", [[], [""], ["a b"], ["container", "x\n"]])
def test_virtualizations(found: list[str]) -> None:
    try:
        assert refused(virtualizations=found) == "virtualizations"
    except ValueError:
        assert found == [""]  # the schema has refused it already

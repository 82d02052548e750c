import pytest

from traforo.sdk import downloads, errors


def test_the_whole_file_is_asked_for_without_a_range() -> None:
    """So that any server can answer."""
    span = downloads.Span(0, None)
    assert span.headers() == {}
    span.check(200, {"etag": '"a"'})
    assert span.resumable


def test_what_is_missing_is_asked_for_of_the_same_version() -> None:
    """From where reading stopped, to where it was to end."""
    span = downloads.Span(10, 20)
    assert span.headers() == {"Range": "bytes=10-19"}
    span.check(206, {"etag": '"a"'})
    span.read = 4
    assert span.headers() == {"Range": "bytes=14-19", "If-Range": '"a"'}


@pytest.mark.parametrize("status,etag", [(200, '"a"'), (206, '"b"'), (206, None)])
def test_a_file_that_was_changed_meanwhile_is_told(status: int, etag: str | None) -> None:
    """Two versions are never put together."""
    span = downloads.Span(0, None)
    span.check(200, {"etag": '"a"'})
    span.read = 4
    with pytest.raises(errors.ConnectionFailed, match="was changed"):
        span.check(status, {} if etag is None else {"etag": etag})
    assert not span.resumable


@pytest.mark.parametrize("etag", [None, 'W/"a"'])
def test_a_version_without_a_name_cannot_go_on(etag: str | None) -> None:
    """A weak name says too little."""
    span = downloads.Span(0, None)
    span.check(200, {} if etag is None else {"etag": etag})
    assert not span.resumable


def test_a_server_without_ranges_is_told() -> None:
    """The whole file is not what was asked for."""
    with pytest.raises(errors.BadAnswer):
        downloads.Span(5, None).check(200, {})


@pytest.mark.parametrize("start,end", [(-1, None), (5, 5), (5, 4)])
def test_a_span_that_is_none_is_refused(start: int, end: int | None) -> None:
    """Before anything is asked."""
    with pytest.raises(errors.InvalidRequest):
        downloads.Span(start, end)


def test_conditions_of_a_write() -> None:
    """In the words of HTTP."""
    assert downloads.conditions(new=False, if_match=None) == {}
    assert downloads.conditions(new=True, if_match='"a"') == {"If-None-Match": "*", "If-Match": '"a"'}

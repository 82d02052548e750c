from hypothesis import given
from hypothesis import strategies as st

from traforo.sdk import listeners, results


@given(st.text(max_size=40), st.integers(1, 5))
def test_text_is_told_whole(text: str, size: int) -> None:
    """Wherever a frame ends, no character is torn apart."""
    data, found = text.encode(), listeners.Text()
    pieces = [data[n : n + size] for n in range(0, len(data), size)]
    told = [found.take(results.Frame(0, "stdout", piece, None), "stdout") for piece in pieces]
    told.append(found.take(results.Frame(0, "exit", b"{}", None), "stdout"))
    assert "".join(told) == text


def test_what_is_no_text_is_told_too() -> None:
    """As U+FFFD, also at the end."""
    found = listeners.Text()
    assert found.take(results.Frame(0, "stdout", b"a\xff\xc3", None), "stdout") == "a\ufffd"
    assert found.take(results.Frame(0, "stderr", b"other", None), "stdout") == ""
    assert found.take(results.Frame(0, "exit", b"{}", None), "stdout") == "\ufffd"

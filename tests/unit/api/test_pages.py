import re

import pytest

from traforo.api import pages


def text(path: str) -> str:
    return pages.ALL[path].content.decode()


@pytest.mark.parametrize("path", pages.ALL)
def test_page_loads_nothing_from_elsewhere(path: str) -> None:
    """It works without any network but the one to this process."""
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text(path)) == []
    assert "@import" not in text(path)


def test_page_refers_to_pages_that_exist() -> None:
    """Style and script are where the page looks for them."""
    found = set(re.findall(r'(?:href|src)="(/[^"]*)"', text("/docs")))
    assert found == (set(pages.ALL) - {"/docs"}) | {"/openapi.json"}


def test_script_makes_no_markup_out_of_text() -> None:
    """Text of the document stays text, so a description cannot bring a script."""
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text("/docs/docs.js"))
        == []
    )


def test_page_has_no_inline_script_or_style() -> None:
    """The policy would refuse them."""
    assert re.findall(r"<script(?![^>]*src=)|<style|\son[a-z]+=|\sstyle=", text("/docs")) == []


def test_both_themes_have_every_colour() -> None:
    """A colour that only one theme sets would be unreadable in the other."""
    light, dark = re.findall(r":root(?:\[data-theme=\"dark\"\])? \{(.*?)\}", text("/docs/docs.css"), re.DOTALL)
    names = [set(re.findall(r"--([a-z]+):", block)) for block in (light, dark)]
    assert names[0] - names[1] == {"mono"}

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
    style = text("/docs/docs.css")
    [block] = re.findall(r":root \{(.*?)\n\}", style, re.DOTALL)
    named = re.findall(r"--([a-z-]+): light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\);", block)
    assert set(re.findall(r"--([a-z-]+):", block)) - set(named) == {"mono"}
    assert re.findall(r"#[0-9a-f]{3,8}\b(?=[;, ])", style.replace(block, "")) == []


def test_every_colour_that_is_used_exists() -> None:
    """A misspelt name would show nothing at all."""
    style = text("/docs/docs.css")
    assert set(re.findall(r"var\(--([a-z-]+)", style)) <= set(re.findall(r"--([a-z-]+):", style))


def test_theme_of_the_reader_wins() -> None:
    """What the button sets is what the style knows."""
    assert set(re.findall(r'data-theme="([a-z]+)"\] \{ color-scheme: ([a-z]+)', text("/docs/docs.css"))) == {
        ("light", "light"),
        ("dark", "dark"),
    }
    assert 'dataset.theme = shown === "dark" ? "light" : "dark"' in text("/docs/docs.js")


def test_code_is_never_broken_within_a_word() -> None:
    """A box scrolls; a command that is broken anywhere cannot be read, nor copied by hand."""
    style = text("/docs/docs.css")
    rules = re.findall(r"([^{}]*pre[^{}]*)\{([^}]*)\}", style)
    assert [rule for selector, rule in rules if "overflow-wrap" in rule and ":not(pre)" not in selector] == []
    assert re.search(r"^pre \{[^}]*overflow: auto", style, re.MULTILINE)


def test_ids_of_the_page_are_those_that_the_script_asks_for() -> None:
    """A misspelt one would leave the page empty."""
    assert set(re.findall(r'getElementById\("([a-z]+)"\)', text("/docs/docs.js"))) <= set(
        re.findall(r'id="([a-z]+)"', text("/docs"))
    )


def test_calls_use_no_variable_of_the_shell_itself() -> None:
    """`$PATH` in a command that is copied would be the list of directories of programs."""
    assert 'parameter.name === "path" ? ""' in text("/docs/docs.js")

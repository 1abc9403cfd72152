"""Every page but the chapters by axe-core, in both themes and on a phone: nothing serious, contrast included."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe import COLOURS, VIEWS, check, colours, serious
from descent.book.sources.project import find_project

pytestmark = [pytest.mark.browser, pytest.mark.slow]
BOOK = find_project(Path(__file__).parent)
PAGES = [page for page in BOOK.pages if page not in BOOK.notebooks]


@VIEWS
@pytest.mark.parametrize("shown", [*PAGES, "search", "404", "code/descent.stats.intervals"], indirect=True)
def test_nothing_serious(shown, theme, width):
    check(shown, theme, width)


@pytest.mark.parametrize(
    ("planted", "rule"),
    [
        ('<p style="color: #bbb; background: #fff">too faint to read</p>', "color-contrast"),
        ('<img src="_static/favicon.svg">', "image-alt"),
        ('<input type="range">', "label"),
        ('<button type="button"></button>', "button-name"),
    ],
)
def test_a_planted_fault_is_found(tab, planted, rule):
    page = tab().open("notation.html")
    page.locator("article").evaluate("(node, html) => node.insertAdjacentHTML('beforeend', html)", planted)
    assert any(fault.startswith(rule) for fault in serious(page))


def test_faint_words_among_a_thousand_alike_are_found(tab):
    page = tab().open("rules.html")
    faint = '<p>as before, <span style="color: #bbb; background: #fff">too faint to read</span></p>'
    page.locator("article").evaluate("(node, html) => node.insertAdjacentHTML('beforeend', html)", faint)
    (found,) = colours(page)
    assert "too faint to read" in found
    assert page.locator("article tr:visible").count() > 100  # all are shown again


def test_colours_alone_are_asked_for_and_found(tab):
    page = tab().open("notation.html")
    faint = '<p style="color: #bbb; background: #fff">too faint to read</p><button type="button"></button>'
    page.locator("article").evaluate("(node, html) => node.insertAdjacentHTML('beforeend', html)", faint)
    assert {fault.partition(":")[0] for fault in serious(page, only=COLOURS)} == {"color-contrast"}


def test_what_two_nodes_are_named_is_told(tab):
    opened = tab()
    opened.open("notation.html").locator("article").evaluate(
        "node => node.insertAdjacentHTML('beforeend', '<p id=\"twin\" hidden></p><p id=\"twin\"></p>')"
    )
    opened.name = "notation"
    with pytest.raises(AssertionError, match="two nodes are named twin"):
        check(opened, "light", 1280)

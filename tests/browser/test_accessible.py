"""Every page by axe-core, in both themes and on a phone: nothing serious, contrast included."""

from __future__ import annotations

from pathlib import Path

import pytest
from descent.book.sources.project import find_project

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PAGES = [*find_project(Path(__file__).parent).pages, "search", "404", "code/descent.stats.intervals"]


def serious(page):
    """Return the violations that keep somebody out, each with its first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_nothing_serious(tab, name, theme, width):
    page = tab(theme, width).open(f"{name}.html")
    for details in page.locator("article details").all()[:3]:
        details.evaluate("node => { node.open = true; }")
    page.wait_for_timeout(600)  # what opens fades in
    assert serious(page) == []


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

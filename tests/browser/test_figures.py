"""Figures as a reader sees them: in the theme's colours, no text shrunk, whole on a phone, larger by a tap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from descent.book.sources.project import find_project
from descent.figures import DARK, INK, TEXT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHAPTERS = find_project(Path(__file__).parent).notebooks
DRAWN = "article figure img.dark-light"
BOXES = """figures => figures.map(figure => {
    const image = [...figure.querySelectorAll("img.dark-light")].find(i => i.offsetParent);
    return {shown: image.getBoundingClientRect().width, own: Number(image.getAttribute("width")),
        inner: figure.scrollWidth, outer: figure.clientWidth, left: figure.getBoundingClientRect().left,
        right: figure.getBoundingClientRect().right, flow: getComputedStyle(figure).overflowX,
        hint: getComputedStyle(figure, "::before").content};
})"""


@pytest.mark.parametrize(("theme", "kind"), [("light", "on-light"), ("dark", "on-dark")])
def test_a_page_shows_the_drawings_of_its_theme_alone(tab, theme, kind):
    page = tab(theme).open("saddles.html")
    pictures = page.locator(DRAWN)
    assert pictures.count() % 2 == 0 < pictures.count()
    for picture in pictures.all():
        assert picture.is_visible() == (kind in picture.get_attribute("class"))
    source = page.locator(f"{DRAWN}.{kind}").first.get_attribute("src")
    drawing = page.request.get(page.url.rpartition("/")[0] + "/" + source).text()
    ink = {"light": INK, "dark": DARK[INK]}
    assert ink[theme] in drawing
    assert ink["dark" if theme == "light" else "light"] not in drawing


@pytest.mark.parametrize("shown", CHAPTERS, indirect=True)
def test_no_text_of_a_figure_is_shown_smaller_than_it_was_drawn(shown):
    found = shown.page.eval_on_selector_all("article figure:has(img.dark-light)", BOXES)
    assert found
    for box in found:
        assert box["shown"] >= 0.98 * box["own"], f"{TEXT} points become {TEXT * box['shown'] / box['own']:.1f}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_on_a_phone_a_figure_scrolls_inside_its_box_and_says_so(tab, name):
    page = tab(width=390).open(f"{name}.html")
    for box in page.eval_on_selector_all("article figure:has(img.dark-light)", BOXES):
        assert box["shown"] >= 0.98 * box["own"]
        assert box["inner"] >= box["shown"] > box["outer"]
        assert box["flow"] == "auto"
        assert 0 <= box["left"] < box["right"] <= 390
        assert "swipe" in box["hint"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 391


def test_a_tap_shows_the_drawing_by_itself_and_a_link_takes_it_along(tab):
    page = tab(width=390).open("saddles.html")
    link = page.locator("a.enlarge.on-light").first
    assert link.get_attribute("aria-label")
    vector = page.locator("a.vector").first
    assert re.fullmatch(r"fig-saddles-[\w-]+\.svg", vector.get_attribute("download"))
    link.click()
    page.wait_for_url("**/*.svg")
    assert page.evaluate("document.documentElement.nodeName") == "svg"

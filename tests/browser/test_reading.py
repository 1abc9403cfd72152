"""The built site in a real browser: quiet, self-contained, readable in both themes, on a phone, without scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from descent.book.project import find_project

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PAGES = find_project(Path(__file__).parent).pages


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_page_is_quiet_self_contained_and_fits(tab, name, theme, width):
    opened = tab(theme, width)
    page = opened.open(f"{name}.html")
    assert opened.faults == []
    assert opened.foreign == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 1
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    silent = "images => images.filter(i => !i.alt.trim() && i.role !== 'presentation').map(i => i.src)"
    assert page.eval_on_selector_all("img", silent) == []


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_rendered(tab, name):
    page = tab().open(f"{name}.html")
    sources = page.locator(".math").count()
    assert page.locator("mjx-container").count() == sources
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("width", [1280, 360])
def test_one_search_field(tab, width):
    page = tab(width=width).open("index.html")
    fields = page.locator(".search-button-field, .search-button, input[type=search]")
    assert sum(fields.nth(i).is_visible() for i in range(fields.count())) == 1


def test_ledger_is_sorted_by_keyboard(tab):
    page = tab().open("ledger.html")
    claims = "bodies => bodies.map(b => b.id)"
    before = page.eval_on_selector_all("table.ledger tbody", claims)
    header = page.locator("table.ledger th", has_text="claim").first
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    after = page.eval_on_selector_all("table.ledger tbody", claims)
    assert sorted(after) == sorted(before)
    assert after[-1] == min(before, key=lambda id: (id.split("-")[0], id.split("-")[1][0], int(id.split("-")[1][1:])))


def test_ledger_sorts_numbers_as_numbers(tab):
    page = tab().open("ledger.html")
    page.locator("table.ledger th", has_text="seconds").locator("button").click()
    seconds = page.eval_on_selector_all(
        "table.ledger tbody", "bodies => bodies.map(b => JSON.parse(b.dataset.sort)[6])"
    )
    assert seconds == sorted(seconds)


def test_claim_has_a_permanent_address(tab):
    page = tab().open("ledger.html")
    last = page.locator("table.ledger tbody").last.get_attribute("id")
    page = tab().open(f"ledger.html#{last}")
    assert page.locator(f"#{last}").bounding_box()["y"] < 900


def test_site_reads_without_scripts(tab):
    page = tab(scripts=False).open("ledger.html")
    assert page.locator("table.ledger tbody .verdict").count() > 0
    assert page.locator("table.ledger th button").count() == 0
    assert page.locator("a[href='ledger.json']").is_visible()


def test_figures_have_no_light_tile_on_a_dark_page(tab, book):
    for name in book.notebooks:
        page = tab("dark").open(f"{name}.html")
        background = "images => images.map(i => getComputedStyle(i).backgroundColor)"
        grounds = page.eval_on_selector_all("div.cell_output img", background)
        assert set(grounds) <= {"rgba(0, 0, 0, 0)"}


def test_downloads_are_there(tab, book):
    for name in book.notebooks:
        page = tab().open(f"{name}.html")
        links = page.eval_on_selector_all(".provenance a", "links => links.map(a => a.href)")
        assert len(links) >= 2
        for link in links:
            assert page.request.get(link).ok, link

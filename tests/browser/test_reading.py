"""The built site in a real browser: quiet, self-contained, readable in both themes, on a phone, without scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from descent.book.sources.project import find_project

pytestmark = [pytest.mark.browser, pytest.mark.slow]
BOOK = find_project(Path(__file__).parent)
PAGES = BOOK.pages
CHAPTERS = pytest.mark.parametrize("shown", BOOK.notebooks, indirect=True)
SILENT = "images => images.filter(i => !i.alt.trim() && i.role !== 'presentation').map(i => i.src)"
OVER = "document.documentElement.scrollWidth - window.innerWidth"


def complaints(opened):
    """Return everything that is wrong with an open page as a browser shows it."""
    page = opened.page
    found = [*opened.faults, *(f"asks another host: {address}" for address in opened.foreign)]
    found += [f"image without alt text: {source}" for source in page.eval_on_selector_all("img", SILENT)]
    return found + (["wider than the window"] if page.evaluate(OVER) > 1 else [])


def check(opened, theme):
    """Refuse a page that is not quiet, self-contained, of that theme, and as wide as its window."""
    assert complaints(opened) == []
    if opened.name in PAGES:
        assert opened.page.evaluate("document.documentElement.dataset.theme") == theme
    for width in (768, 360, 1440):
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert opened.page.evaluate(OVER) <= 1, f"wider than a window of {width}"


@pytest.mark.parametrize("shown", [*PAGES, "search", "404", "code/index"], indirect=True)
def test_page_is_quiet_self_contained_and_fits(shown):
    check(shown, "light")


@pytest.mark.parametrize("dark", [*PAGES, "search", "404", "code/index"], indirect=True)
def test_so_it_is_in_the_dark(dark):
    check(dark, "dark")


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ('<img src="_static/favicon.svg">', "image without alt text"),
        ('<script src="https://example.org/x.js"></script>', "asks another host"),
        ("<script>undefinedFunction()</script>", "undefinedFunction is not defined"),
        ('<div style="width: 3000px">wide</div>', "wider than the window"),
    ],
)
def test_a_planted_fault_is_noticed(tab, planted, expected):
    opened = tab()

    def spoil(route):
        text = route.fetch().text()
        route.fulfill(body=text.replace("</main>", f"{planted}</main>"), content_type="text/html")

    opened.page.route("**/notation.html", spoil)
    opened.open("notation.html")
    assert any(expected in fault for fault in complaints(opened))


@pytest.mark.parametrize("shown", PAGES, indirect=True)
def test_mathematics_is_rendered(shown):
    page = shown.page
    sources = page.locator(".math").count()
    assert page.locator("mjx-container").count() == sources
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("width", [1280, 360])
def test_one_search_field(tab, width):
    page = tab(width=width).open("index.html")
    fields = page.locator(".search-button-field, .search-button, input[type=search]")
    assert sum(fields.nth(i).is_visible() for i in range(fields.count())) == 1


@pytest.mark.parametrize("name", PAGES)
def test_reads_without_scripts(tab, name):
    page = tab(scripts=False).open(f"{name}.html")
    assert len(page.locator("article").inner_text()) > 200
    for selector in ("article figure img:not(.on-dark)", "article table", ".explorer noscript img", ".explorer img"):
        unfolded = f"{selector}:not(details:not([open]) *)"  # what is folded opens without scripts
        for shown in page.locator(unfolded).all():
            assert shown.is_visible(), selector
    formulas = page.locator(".math")
    assert all("\\" in text for text in formulas.all_inner_texts() if len(text) > 40)


def test_the_first_window_holds_the_question_the_effective_step_and_the_drawing(tab):
    page = tab().open("index.html")
    assert "effective step" in page.locator("article section > p:not(.edition)").first.inner_text()
    root = page.locator(".explorer")
    box = root.locator("canvas").bounding_box()
    assert box["y"] + box["height"] <= 900
    controls = root.locator(".explorer-controls > *")
    assert [control.is_visible() for control in controls.all()] == [True, True, False, False, False]


def test_three_findings_have_a_number_a_picture_and_a_way_on(tab, base):
    page = tab().open("index.html")
    cards = page.locator(".sd-card")
    assert cards.count() == 3
    for card in cards.all():
        picture = card.locator("img.on-light")
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth > 300", arg=picture.element_handle())
        assert card.locator("a[href*='ledger.html#']").count() >= 1
        assert re.search(r"\d\.\d+", card.inner_text())
        assert page.request.get(base + card.locator(".sd-card-footer a").get_attribute("href")).ok


@CHAPTERS
def test_every_chapter_ends_with_what_follows_for_training(shown):
    assert shown.page.locator("article a[href='in-practice.html']").count() >= 1


def test_search_finds_the_meaning_of_a_word_first(tab):
    page = tab().open("search.html?q=effective+step")
    page.wait_for_selector("#search-results li a", timeout=20000)
    assert "notation.html" in page.locator("#search-results li a").first.get_attribute("href")


def test_search_finds_a_claim(tab):
    page = tab().open("search.html?q=P3-C1")
    page.wait_for_selector("#search-results li a", timeout=20000)
    assert page.locator("#search-results a[href*='saddles'], #search-results a[href*='ledger']").count() > 0


@pytest.mark.parametrize("shown", PAGES, indirect=True)
def test_first_load_is_light(shown):
    sizes = shown.sizes
    print(f"{shown.name}: {sum(sizes.values()) / 1e6:.2f} MB")
    assert sum(sizes.values()) < 1.5e6, sorted(sizes.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("shown", ["saddles"], indirect=True)
def test_card_and_addresses_for_other_sites(shown, base):
    page = shown.page
    read = "name => document.querySelector(`meta[property='og:${name}']`).content"
    assert "Saddles" in page.evaluate(read, "title")
    assert len(page.evaluate(read, "description")) > 40
    for name in ("sitemap.xml", "_static/card.png", "_static/favicon.svg"):
        assert page.request.get(base + name).ok
    assert all(f"{name}.html" in page.request.get(base + "sitemap.xml").text() for name in PAGES)


def test_a_lost_reader_is_led_back(tab, base):
    opened = tab()
    answer = opened.page.goto(base + "no-such-page.html")
    assert answer.status == 404
    opened.page.get_by_role("link", name="Ledger of claims").click()
    assert opened.page.title().startswith("Ledger")


def test_print_shows_figures_and_hides_controls(tab):
    page = tab().open("margins.html")
    page.emulate_media(media="print")
    assert not page.locator(".explorer-controls").first.is_visible()
    assert page.locator("article figure img").first.is_visible()
    assert page.locator(".explorer canvas").first.is_visible()


@pytest.mark.parametrize("dark", BOOK.notebooks, indirect=True)
def test_figures_have_no_light_tile_on_a_dark_page(dark):
    background = "images => images.map(i => getComputedStyle(i).backgroundColor)"
    grounds = dark.page.eval_on_selector_all("div.cell_output img", background)
    assert set(grounds) <= {"rgba(0, 0, 0, 0)"}


@CHAPTERS
def test_downloads_are_there(shown):
    page, name = shown.page, shown.name
    links = page.eval_on_selector_all("a[download]", "links => links.map(a => a.href)")
    assert {f"{name}.ipynb", f"{name}.plain.ipynb", f"{name}.md"} <= {link.rpartition("/")[2] for link in links}
    for link in set(links):
        assert page.request.get(link).ok, link


@CHAPTERS
def test_every_figure_says_where_it_comes_from(shown):
    page = shown.page
    figures, strips = page.locator("article figure:has(img.dark-light)"), page.locator(".strip")
    assert figures.count() == strips.count() > 0
    for strip in strips.all():
        code = strip.locator("a[href^='code/']")
        computed = strip.locator("a[href$='.csv']").count() > 0
        assert code.count() >= 1 + computed  # what drew it, and what computed it unless it is a formula
        address = code.last.get_attribute("href")
        source = page.request.get(f"{page.url.rpartition('/')[0]}/{address}").text()
        assert f'id="{address.rpartition("#")[2]}"' in source

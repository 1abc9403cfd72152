"""A claim's neighbourhood and its citation in a real browser: drawn, walked, kept in the address, copied."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DRAWN = "svg.around"


def test_a_neighbourhood_is_drawn_walked_and_kept_in_the_address(tab):
    page = tab().open("ledger.html#P3-C1")
    page.locator("#P3-C1 button.around").click()
    assert page.locator(DRAWN).count() == 1
    assert page.url.endswith("ledger.html?around=P3-C1#P3-C1")
    said = page.eval_on_selector("#P3-C1 ul.around", "list => list.textContent")
    chips = page.eval_on_selector_all(f"{DRAWN} a", "links => links.map(a => a.querySelector('text').textContent)")
    assert chips[0] == "P3-C1"
    assert len(chips) > 3
    assert all(chip in said for chip in chips[1:])
    page.locator(f"{DRAWN} a", has_text="P3-X9").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(f"#P3-X9 {DRAWN}").count() == page.locator(DRAWN).count() == 1
    page.go_back()
    assert page.locator(f"#P3-C1 {DRAWN}").count() == 1


@pytest.mark.parametrize("width", [360, 1280])
def test_an_address_opens_it_and_it_fits(tab, width):
    page = tab(width=width).open("ledger.html?around=P3-C1#P3-C1")
    box = page.locator(DRAWN).bounding_box()
    assert box["height"] > 60
    assert box["x"] + box["width"] <= width


def test_without_scripts_the_lists_say_it(tab):
    page = tab(scripts=False).open("ledger.html#P3-C1")
    assert "point to it" in page.locator("#P3-C1 ul.around").text_content()
    assert page.locator("button.around").count() == 0


def test_a_click_copies_a_citation(tab):
    page = tab(permissions=["clipboard-read", "clipboard-write"]).open("ledger.html#P3-C1")
    cite = page.locator("#P3-C1 .cite")
    cite.get_by_text("BibTeX").click()
    cite.locator("output").wait_for()
    assert cite.locator("output").inner_text() == "BibTeX copied"
    assert page.evaluate("navigator.clipboard.readText()").startswith("@misc{what-momentum-does-P3-C1-")
    cite.get_by_text("address").click()
    page.wait_for_function("document.querySelector('#P3-C1 .cite output').value === 'address copied'")
    assert page.evaluate("navigator.clipboard.readText()").endswith("/ledger.html#P3-C1")

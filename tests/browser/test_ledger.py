"""The ledger in a real browser: sorting, selecting, opening, permanent addresses."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN = "bodies => bodies.filter(b => !b.hidden).map(b => b.id)"


def in_order(claim):
    """Return what claims are sorted by: paper, letter, number; those of the synthesis have no letter."""
    paper, letter, number = re.fullmatch(r"(\w+)-([A-Z]?)(\d+)", claim).groups()
    return paper, letter, int(number)


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
    assert after[-1] == min(before, key=in_order)


def test_ledger_sorts_numbers_as_numbers(tab):
    page = tab().open("ledger.html")
    page.locator("table.ledger th", has_text="seconds").locator("button").click()
    seconds = page.eval_on_selector_all(
        "table.ledger tbody", "bodies => bodies.map(b => JSON.parse(b.dataset.sort)[5])"
    )
    assert seconds == sorted(seconds)


def test_claim_has_a_permanent_address(tab):
    page = tab().open("ledger.html")
    last = page.locator("table.ledger tbody").last.get_attribute("id")
    page = tab().open(f"ledger.html#{last}")
    assert page.locator(f"#{last}").bounding_box()["y"] < 900


def test_its_details_stand_open_there(tab):
    page = tab().open("ledger.html#P3-C1")
    row = page.locator("tbody#P3-C1")
    assert row.locator("details").get_attribute("open") is not None
    assert row.locator(".tests svg.outcome").count() >= 1
    assert row.locator("a[href^='saddles.html#']").count() == 1
    assert row.locator("a[href^='downloads/saddles/']").count() >= 1
    assert row.locator("a[href^='code/descent.experiments.saddles']").count() >= 1


@pytest.mark.parametrize(
    ("field", "value"), [("paper", "P3"), ("source", "identities"), ("verdict", "fails"), ("scale", "cpu")]
)
def test_it_selects(tab, field, value):
    page = tab().open("ledger.html")
    page.locator(f'.ledger-filter select[name="{field}"]').select_option(value)
    chosen = page.eval_on_selector_all("table.ledger tbody", SHOWN)
    rows = f"table.ledger tbody[data-{field}*='{value}']"
    wanted = page.eval_on_selector_all(rows, "bodies => bodies.map(b => b.id)")
    assert chosen == wanted != []
    assert page.locator(".ledger-filter output").inner_text().startswith(f"{len(wanted)} of")
    assert page.url.endswith(f"?{field}={value}")
    again = tab().open(f"ledger.html?{field}={value}")
    assert again.eval_on_selector_all("table.ledger tbody", SHOWN) == wanted


def test_it_finds_words_typed_on_the_keyboard(tab):
    page = tab().open("ledger.html")
    page.get_by_label("words").focus()
    page.keyboard.type("ghost of no claim")
    assert page.eval_on_selector_all("table.ledger tbody", SHOWN) == []
    page.get_by_label("words").fill("P2-X5")
    assert "P2-X5" in page.eval_on_selector_all("table.ledger tbody", SHOWN)


def test_without_scripts_all_of_it_stands_and_opens(tab):
    page = tab(scripts=False).open("ledger.html")
    assert page.locator("table.ledger tbody .verdict").count() > 0
    assert page.locator("table.ledger th button").count() == 0
    page.locator("tbody#P3-C1 summary").click()
    assert page.locator("tbody#P3-C1 dl").is_visible()
    assert page.locator("a[href='ledger.json']").is_visible()


def test_what_did_not_hold_is_all_of_it(tab, base):
    page = tab().open("not-held.html")
    records = page.request.get(base + "ledger.json").json()["records"]
    expected = [record["id"] for record in records if record["verdict"] != "holds"]
    listed = page.eval_on_selector_all(".not-held > p:first-child a", "links => links.map(a => a.textContent)")
    assert listed == expected

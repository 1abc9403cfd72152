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


def test_it_opens_with_one_paper_and_shows_all_when_asked(tab):
    page = tab().open("ledger.html")
    shown = page.eval_on_selector_all("table.ledger tbody", SHOWN)
    papers = page.eval_on_selector_all("table.ledger tbody", "bodies => bodies.map(b => b.dataset.paper)")
    assert {claim.split("-")[0] for claim in shown} == {min(paper for paper in papers if paper.startswith("P"))}
    page.get_by_role("button", name="show all").click()
    assert len(page.eval_on_selector_all("table.ledger tbody", SHOWN)) == len(papers)
    assert page.url.endswith("?paper=all")
    again = tab().open("ledger.html?paper=all")
    assert len(again.eval_on_selector_all("table.ledger tbody", SHOWN)) == len(papers)
    assert not again.get_by_role("button", name="show all").is_visible()


def test_it_opens_with_the_paper_of_the_claim_in_the_address(tab):
    page = tab().open("ledger.html#P3-C1")
    shown = page.eval_on_selector_all("table.ledger tbody", SHOWN)
    assert {claim.split("-")[0] for claim in shown} == {"P3"}


def test_every_number_below_a_bar_is_that_of_its_selection(tab):
    page = tab().open("index.html")
    links = page.locator("ul.bars a.verdict")
    asked = {links.nth(i).get_attribute("href"): links.nth(i).inner_text() for i in range(links.count())}
    assert len({address.partition("&")[0] for address in asked if "paper=" in address}) >= 6
    for address, said in list(asked.items())[::5]:
        found = tab().open(address).eval_on_selector_all("table.ledger tbody", SHOWN)
        assert str(len(found)) == re.search(r"\d+", said)[0], address


CUT = """() => {
    const scrolls = '.math, svg, pre, table.table, .wide:not(:has(table.ledger, table.rules))'
    return [...document.querySelectorAll('article :is(td, th, li, p, summary)')]
        .filter(node => node.checkVisibility() && !node.closest(scrolls))
        .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
        .map(node => node.textContent.slice(0, 60))
}"""


@pytest.mark.parametrize("name", ["ledger", "not-held", "rules", "in-practice", "index"])
def test_no_word_is_cut_on_a_phone(tab, name):
    """What is read stands inside the window; formulas, code and wide tables scroll in boxes of their own."""
    page = tab(width=390).open(f"{name}.html")
    assert page.evaluate(CUT) == []


def test_a_verdict_comes_second_on_a_phone(tab):
    page = tab(width=390).open("ledger.html#P3-C1")
    row = page.locator("tbody#P3-C1")
    heights = [row.locator(part).first.bounding_box()["y"] for part in ("th", ".verdict", ".statement", ".estimate")]
    assert heights == sorted(heights)


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
    links = "links => links.map(a => a.textContent)"
    assert page.eval_on_selector_all("details:not(.by-night) > .not-held > p:first-child a", links) == expected
    assert "P3-X11" in page.eval_on_selector_all(".by-night > .not-held > p:first-child a", links)
    surprising = page.locator("section#five-that-surprise-most li")
    assert surprising.count() == 5
    assert not page.locator(".not-held").first.is_visible()  # folded: it opens gently
    for place in surprising.locator("a[href*='ledger.html#']").all():
        assert place.get_attribute("href").partition("#")[2] in expected

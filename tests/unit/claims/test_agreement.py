"""What other seeds said: counted against today's verdict, stale under other rules, refused by name when damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from descent import claims
from descent.claims import Verdict, restated
from descent.claims.agreement import Agreement, Redrawn, agreed, load_agreement, save_agreement
from descent.claims.registry import form_digest
from test_claims import filled, paper_text, write_paper

HOLDS, FAILS, OPEN, ABSENT = Verdict


@pytest.fixture
def record(tmp_path):
    """Return a claim that holds by two tests; a third is for paper scale alone."""
    return filled(tmp_path).record("P9-C1")


def drawn(record, faster, order, **changes):
    """Return the claim's two tests at as many other seeds as there are verdicts."""
    verdicts = {"faster": faster, "order": order}
    tests = {
        f"P9-C1.{each.test.key}": Redrawn(
            form_digest(each.test), each.family, "a" * 16, each.verdict,
            dict(enumerate(verdicts[each.test.key], start=1)),
        )
        for each in record.outcomes
        if each.estimates
    }  # fmt: skip
    return Agreement("roads", "2026-01-01", "1.0.0", 0, tests) if not changes else _changed(tests, changes)


def _changed(tests, changes):
    first = "P9-C1.faster"
    return Agreement("roads", "2026-01-01", "1.0.0", 0, tests | {first: replace(tests[first], **changes)})


def test_the_seeds_that_give_a_claims_verdict_are_counted(record):
    assert agreed(record, drawn(record, [HOLDS] * 5, [HOLDS] * 5), {}) == "5 of 5 other seeds agree"
    mixed = drawn(record, [HOLDS, FAILS, OPEN, HOLDS, HOLDS], [HOLDS, HOLDS, HOLDS, FAILS, HOLDS])
    said = "2 of 5 other seeds agree; faster: fails at 1; faster: inconclusive at 1; 1 more"
    assert agreed(record, mixed, {}) == said
    other = drawn(record, [HOLDS, HOLDS], [OPEN, OPEN])
    assert agreed(record, other, {}) == "0 of 2 other seeds agree; order: inconclusive at 2"


def test_a_claim_of_which_nothing_was_drawn_says_nothing(record, tmp_path):
    other = filled(tmp_path).record("P9-X1")
    assert agreed(other, drawn(record, [HOLDS], [HOLDS]), {}) == ""


@pytest.mark.parametrize(
    "changes",
    [{"rule": "0" * 16}, {"family": 7}, {"published": FAILS}],
    ids=["another rule", "another family", "another verdict"],
)
def test_what_was_drawn_under_other_rules_is_stale(record, changes):
    found = drawn(record, [HOLDS] * 5, [HOLDS] * 5, **changes)
    assert agreed(record, found, {}) == "other seeds: stale, of 2026-01-01 under other rules"


def test_another_registration_is_stale_and_the_same_is_not(record):
    found = drawn(record, [HOLDS], [HOLDS])
    assert agreed(record, found, {"race": "a" * 16}) == "1 of 1 other seeds agree"
    assert agreed(record, found, {"weigh": "b" * 16}) == "1 of 1 other seeds agree"
    assert "stale" in agreed(record, found, {"race": "b" * 16})


def test_a_test_that_was_not_drawn_makes_it_stale(record):
    found = drawn(record, [HOLDS], [HOLDS])
    assert "stale" in agreed(record, replace(found, tests={"P9-C1.faster": found.tests["P9-C1.faster"]}), {})


def test_today_is_what_the_claims_say_not_what_the_record_remembers(record, tmp_path):
    """A record keeps no `needs`, which are registered: under today's claims it answers, alone it would look stale."""
    content = paper_text()
    content["claims"][0]["tests"][0]["needs"] = ["momentum"]
    claim = claims.load_paper(write_paper(tmp_path, content)).claim("P9-C1")
    today = restated(record, claim, record.outcomes[0].family)
    found = drawn(today, [HOLDS], [HOLDS])
    assert agreed(today, found, {}) == "1 of 1 other seeds agree"
    assert "stale" in agreed(record, found, {})


def test_it_comes_back_as_it_was(record, tmp_path):
    found = drawn(record, [HOLDS, FAILS], [OPEN, ABSENT])
    path = tmp_path / "agreement" / "roads.json"
    path.parent.mkdir()
    save_agreement(path, found)
    assert load_agreement(path) == found
    assert load_agreement(path).others == [1, 2]
    content = json.loads(path.read_text())
    assert content["tests"]["P9-C1.faster"]["others"] == {"1": "holds", "2": "fails"}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text[:-40], "damaged or not JSON"),
        (lambda text: "[]", "no fields with values"),
        (lambda text: "{}", "schema None"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema 2, this library reads 1"),
        (lambda text: text.replace('"family"', '"size"'), "incomplete or malformed"),
        (lambda text: text.replace('"1": "holds"', '"1": "seems fine"'), "'seems fine' is not a valid Verdict"),
        (lambda text: text.replace('"1": "holds"', '"one": "holds"'), "invalid literal for int"),
        (lambda text: text.replace('"1": "holds"', '"1": "fails"'), "changed after it was written"),
    ],
)
def test_a_bad_file_is_refused_by_name(record, tmp_path, spoil, why):
    path = tmp_path / "roads.json"
    save_agreement(path, drawn(record, [HOLDS], [HOLDS]))
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=rf"roads\.json .*{why}.*descent check roads --save` again, or remove"):
        load_agreement(path)


def test_a_file_of_another_chapter_is_refused(record, tmp_path):
    save_agreement(tmp_path / "rails.json", drawn(record, [HOLDS], [HOLDS]))
    with pytest.raises(ValueError, match=r"rails\.json in .*: it is of chapter 'roads'"):
        load_agreement(tmp_path / "rails.json")

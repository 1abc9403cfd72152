"""Counts of verdicts by whose sentences the claims are, and what is left out of them."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from descent import claims
from descent.claims import (
    SOURCES,
    Direction,
    Ledger,
    Outcome,
    Record,
    Verdict,
    by_source,
    counted,
    identities,
    load_papers,
    load_records,
    restated,
    spell,
    standing,
    tally,
)
from descent.claims.paper import KNOWN, Claim
from descent.claims.registry import form_digest
from descent.claims.schema import ledger_schema
from descent.claims.tallies import source_of
from descent.stats import exact
from descent.stats.estimate import Estimate
from test_claims import filled, made, paper_text, write_paper

HOLDS, FAILS, OPEN, ABSENT = Verdict


def record(id, known, *verdicts, identity=()):
    """Return a claim with one test per verdict; those of the places in `identity` are identities."""
    places = {HOLDS: 2.0, FAILS: 0.0}
    outcomes = tuple(
        Outcome(
            claims.Test(f"t{i}", "quantity", Direction(above=1.0), ("cpu",), identity=i in identity), 1,
            (Estimate(places[verdict], places[verdict] - 0.1, places[verdict] + 0.1, 40, "Student t", 39),),
        )
        for i, verdict in enumerate(verdicts)
    )  # fmt: skip
    claim = Claim(id, "abstract", known, "A sentence.", ("cpu",), tuple(each.test for each in outcomes))
    return Record(claim, "P9", "roads", outcomes, made())


@pytest.fixture
def several():
    return (
        record("P9-C1", "read", HOLDS),
        record("P9-C2", "secondary", FAILS),
        record("P9-C3", "recalled", HOLDS, FAILS, identity=(0,)),
        record("P9-X1", "derived", HOLDS, HOLDS, identity=(0, 1)),
        record("P9-X2", "derived", HOLDS),
    )


def test_every_word_of_known_has_one_source_and_a_meaning():
    words = [word for source in SOURCES for word in source.known]
    assert sorted(words) == sorted(KNOWN)
    assert all(meaning for source in SOURCES for meaning in source.known.values())
    assert [source_of(record("P9-C1", word, HOLDS).claim).key for word in KNOWN] == [
        "papers", "papers", "reconstructed", "ours",
    ]  # fmt: skip


def test_a_claim_is_an_identity_if_all_its_tests_are(several):
    assert [each.claim.id for each in identities(several)] == ["P9-X1"]
    assert [each.claim.id for each in counted(several)] == ["P9-C1", "P9-C2", "P9-C3", "P9-X2"]


def test_identities_are_in_no_count(several):
    assert tally(several) == {HOLDS: 2, FAILS: 2, OPEN: 0, ABSENT: 0}
    assert sum(tally(several).values()) == len(several) - 1
    found = {source.key: count for source, count in by_source(several).items()}
    assert {key: (count[HOLDS], count[FAILS]) for key, count in found.items()} == {
        "papers": (1, 1), "reconstructed": (0, 1), "ours": (1, 0),
    }  # fmt: skip
    assert sum(sum(count.values()) for count in found.values()) == sum(tally(several).values())


def test_a_test_that_is_an_identity_still_decides_its_claim():
    mixed = record("P9-C1", "read", FAILS, HOLDS, identity=(0,))
    assert mixed.verdict is FAILS
    assert not mixed.claim.identity


def test_the_standing_in_words(several):
    assert standing(several) == "4 claims: 2 hold, 2 fail; and 1 identity"
    assert standing(several, sources=True) == (
        "4 claims; what papers say: 1 hold, 1 fail; what we reconstruct: 1 fail; what we add: 1 hold; and 1 identity"
    )
    assert standing(several[:1]) == "1 claim: 1 hold"
    assert standing(several[3:4]) == "0 claims; and 1 identity"
    assert spell(tally(several)) == "2 hold, 2 fail, 0 inconclusive, 0 not tested here"


def with_identity(value=True):
    content = paper_text()
    content["claims"][1]["tests"][0]["identity"] = value
    return content


def test_it_is_read_from_the_claims_and_kept_in_the_record(tmp_path):
    paper = claims.load_paper(write_paper(tmp_path, with_identity()))
    assert [claim.identity for claim in paper.claims] == [False, True]
    ledger = Ledger(paper, made(), tmp_path)
    ledger.add({"P9-X1.size": exact(1.0)}, experiment="weigh", config="c0ffee" + 10 * "0", seconds=1.0)
    found = json.loads(json.dumps(ledger.record("P9-X1").to_json()))
    assert found["tests"][0]["identity"] is True
    assert Record.from_json(found).claim.identity
    jsonschema.validate({"schema": 1, "records": [found]}, json.loads(ledger_schema()))
    assert "0 hold" in ledger.summary()  # it is measured, and not counted


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_what_is_neither_true_nor_false_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"P9\.yaml: P9-X1: size: identity: .* write true, or leave it out"):
        claims.load_paper(write_paper(tmp_path, with_identity(value)))


def test_a_record_of_before_answers_a_claim_that_became_an_identity(tmp_path):
    path = filled(tmp_path).save()
    (_, old) = load_records(path)
    assert "identity" not in old.to_json()["tests"][0]
    paper = claims.load_paper(write_paper(tmp_path, with_identity()))
    assert claims.faults(load_records(path), [paper]) == []
    today = restated(old, paper.claim("P9-X1"), paper.family_at("cpu"))
    assert (old.claim.identity, today.claim.identity) == (False, True)
    assert today.outcomes[0].test.identity
    assert today.verdict is old.verdict


def test_being_an_identity_is_not_registered():
    test = claims.Test("size", "value", Direction(above=1.0), ("cpu",))
    assert form_digest(test) == form_digest(replace(test, identity=True))


def test_the_identities_of_the_book_are_numbers_that_no_sample_stands_behind():
    """Exact, or of exact parts: two that average round-off have an interval as narrow as that."""
    marked = {key for paper in load_papers() for key, test in paper.tests.items() if test.identity}
    assert {"S-1.covariance", "S-2.operator", "S-4.commuting", "S-27.lag", "S-32.limits", "P2-C7.limit"} <= marked
    assert {"P5-X3.identity", "P5-X3.bounds"} <= marked
    assert not {"S-3.search", "S-4.bound", "S-26.gap", "P2-C4.bound", "P5-C5.bound", "P2-X6.sharpness_silent"} & marked
    files = sorted((claims.paper.project_root() / "data" / "published" / "records").glob("*.json"))
    found = {
        f"{each.claim.id}.{outcome.test.key}": outcome
        for file in files
        for each in load_records(file)
        for outcome in each.outcomes
    }
    widths = {key: max(one.high - one.low for one in found[key].estimates) for key in marked & set(found)}
    assert len(widths) > 20
    assert [key for key, width in widths.items() if width > 1e-12] == []

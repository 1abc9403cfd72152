"""Claims: the file's schema, error rates of verdicts, the ledger's refusals, records that recompute."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import scipy
import yaml
from descent import claims
from descent.claims import Direction, Equivalence, Ledger, Ordering, Scaling, Verdict, judge, verdict
from descent.claims import record as record_module
from descent.claims.schema import ledger_schema
from descent.results import Kind, Provenance
from descent.stats import intervals

HOLDS, FAILS, OPEN, ABSENT = Verdict.HOLDS, Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.NOT_TESTED
BOTH = ("cpu", "gpu")


def paper_text(**changes):
    """A private paper: two claims, four tests, one of them at gpu scale only."""
    first = {
        "id": "P9-C1", "place": "abstract", "known": "read", "statement": "Red is faster than blue.",
        "scales": ["cpu", "gpu"], "see": ["P9-X1"], "conditions": "On dry roads.",
        "tests": [
            {"key": "faster", "by": "race", "quantity": "time",
             "rule": {"kind": "direction", "above": 1.0, "margin": 0.1}},
            {"key": "order", "by": "race", "quantity": "drops", "rule": {"kind": "ordering"}},
            {"key": "large", "by": "race", "quantity": "time", "scales": ["gpu"],
             "rule": {"kind": "direction", "below": 3.0}},
        ],
    }  # fmt: skip
    second = {
        "id": "P9-X1", "place": "not in the paper", "known": "derived", "statement": "Green equals one.",
        "scales": ["cpu", "gpu"], "paper_shape": "1",
        "tests": [{"key": "size", "by": "weigh", "quantity": "value",
                   "rule": {"kind": "equivalence", "target": 1.0, "tolerance": 0.2}}],
    }  # fmt: skip
    content = {"schema": 1, "paper": "P9", "chapter": "roads", "title": "Roads", "arxiv": "1802.05155",
               "claims": [first, second]}  # fmt: skip
    return content | changes


def write_paper(folder, content=None):
    path = folder / "P9.yaml"
    path.write_text(yaml.safe_dump(content or paper_text()), encoding="utf-8")
    return path


def made(**changes):
    fixed = Provenance(
        scale="cpu", device_class="cpu", dtype="float64", threads=1, instructions="any", matmul="highest",
        convolution="ieee", python="3.11", torch="2.15", numpy="2.4", seed=0, replicas=100, library="0" * 16,
        date="2026-01-01",
    )  # fmt: skip
    return replace(fixed, **changes)


def estimate(value, half=0.01, n=100):
    return intervals.Estimate(value, value - half, value + half, n, "Student t", n - 1)


def filled(folder, faster=1.5, size=1.0, **changes):
    ledger = Ledger(claims.load_paper(write_paper(folder)), made(**changes), folder)
    ledger.add({"P9-C1.faster": estimate(faster), "P9-C1.order": [estimate(0.5), estimate(0.2)]},
               experiment="race", config="c0ffee", seconds=2.0)  # fmt: skip
    ledger.add({"P9-X1.size": estimate(size)}, experiment="weigh", config="c0ffee", seconds=1.0)
    return ledger


# --- verdicts ---------------------------------------------------------------------------------------------


def a_test(rule):
    return claims.Test("key", "quantity", rule, BOTH)


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        (Direction(above=1.0, margin=0.1), 1.11, 2.0, HOLDS),
        (Direction(above=1.0, margin=0.1), 1.1, 1.1, FAILS),  # "more than" excludes the end
        (Direction(above=1.0, margin=0.1), 1.05, 2.0, OPEN),
        (Direction(above=1.0, margin=0.1), 1.2, math.inf, HOLDS),
        (Direction(below=1.0, margin=0.1), 0.5, 0.89, HOLDS),
        (Direction(below=1.0, margin=0.1), 0.9, 1.5, FAILS),
        (Direction(below=0.0), -2.0, -1.0, HOLDS),
        (Equivalence(1.0, 0.25), 0.75, 1.25, HOLDS),  # "within" includes the ends
        (Equivalence(1.0, 0.25), 1.25, 1.5, OPEN),
        (Equivalence(1.0, 0.25), 1.26, 1.5, FAILS),
        (Equivalence(1.0, 0.25), 0.5, 1.5, OPEN),
        (Scaling(0.9, 1.1), 0.95, 1.05, HOLDS),
        (Scaling(0.9, 1.1), 0.2, 0.89, FAILS),
        (Ordering(), 0.0, 0.0, FAILS),
        (Ordering(), 0.1, 0.2, HOLDS),
    ],
)
def test_an_interval_is_compared_with_the_region(rule, low, high, expected):
    assert rule.region.judge(low, high) is expected


def test_the_widening_covers_the_family_and_the_members_of_an_ordering():
    # A half-width of 1 at 95 % is 1.27 for two tests and 1.49 for 2 × 2 of them (normal law).
    narrow = intervals.Estimate(1.2, 0.2, 2.2, 9, "Student t")
    assert judge(a_test(Direction(above=0.0)), narrow, 1) is HOLDS
    assert judge(a_test(Direction(above=0.0)), narrow, 2) is HOLDS
    assert judge(a_test(Direction(above=0.0)), narrow, 4) is OPEN
    assert judge(a_test(Ordering()), [narrow], 2) is HOLDS
    assert judge(a_test(Ordering()), [narrow, narrow], 2) is OPEN


def test_a_claim_holds_if_all_tests_hold_and_fails_if_one_fails():
    assert claims.combine([HOLDS, HOLDS]) is HOLDS
    assert claims.combine([HOLDS, OPEN]) is OPEN
    assert claims.combine([HOLDS, OPEN, FAILS]) is FAILS
    assert claims.combine([HOLDS, ABSENT]) is HOLDS
    assert claims.combine([FAILS, ABSENT]) is FAILS
    assert claims.combine([ABSENT, ABSENT]) is ABSENT


EXPERIMENTS, REPLICAS, FAMILY = 2000, 32, 4


def student_t(replicas):
    return scipy.stats.t.ppf(0.975, replicas - 1)


def rates(rule, truth, family=FAMILY, spread=0.3, seed=1):
    """Verdict frequencies over simulated experiments; `truth` may be a list for an ordering."""
    rng, centre = np.random.default_rng(seed), np.atleast_1d(np.asarray(truth, dtype=float))
    samples = rng.normal(centre, spread, (EXPERIMENTS, REPLICAS, len(centre)))
    values, halves = samples.mean(1), student_t(REPLICAS) * samples.std(1, ddof=1) / math.sqrt(REPLICAS)
    found: Counter[Verdict] = Counter()
    for row in zip(values, halves, strict=True):
        estimates = [estimate(value, half, REPLICAS) for value, half in zip(*row, strict=True)]
        found[judge(a_test(rule), estimates, family)] += 1
    return {word: found[word] / EXPERIMENTS for word in Verdict}


@pytest.mark.parametrize(
    ("rule", "truth"),
    [
        (Direction(above=1.0, margin=0.1), 1.1),  # the boundary itself
        (Direction(above=1.0, margin=0.1), 1.12),
        (Direction(below=1.0), 1.0),
        (Equivalence(1.0, 0.1), 1.1),
        (Equivalence(1.0, 0.1), 0.92),
        (Equivalence(1.0, 0.1), 1.0),
        (Scaling(0.9, 1.2), 0.9),
        (Scaling(0.9, 1.2), 1.05),
        (Ordering(), [0.0, 0.0, 0.0]),
        (Ordering(), [0.02, 0.5, 0.1]),
    ],
)
def test_a_true_claim_is_rarely_called_failing(rule, truth):
    assert rates(rule, truth)[FAILS] <= 0.01


@pytest.mark.parametrize(
    ("rule", "truth"),
    [
        (Direction(above=1.0, margin=0.1), 1.1),
        (Direction(above=1.0, margin=0.1), 1.08),
        (Direction(below=1.0), 1.0),
        (Equivalence(1.0, 0.4), 1.4),
        (Equivalence(1.0, 0.4), 0.58),
        (Equivalence(1.0, 0.1), 1.5),
        (Scaling(0.5, 1.2), 1.2),
        (Scaling(0.5, 1.2), 1.5),
        (Ordering(), [0.0, 0.9, 0.9]),
        (Ordering(), [-0.02, 0.9, 0.9]),
        (Ordering(margin=0.1), [0.1, 0.1, 0.9]),
    ],
)
def test_a_false_claim_rarely_holds(rule, truth):
    assert rates(rule, truth)[HOLDS] <= 0.01


def test_the_error_rate_at_the_boundary_is_the_one_that_was_chosen():
    # 2.5 % per end without widening, 2.5 %/4 with it; 4 standard errors of a frequency in 2000.
    for family in (1, FAMILY):
        nominal = 0.025 / family
        error = math.sqrt(nominal * (1 - nominal) / EXPERIMENTS)
        assert rates(Direction(above=1.0), 1.0, family)[HOLDS] == pytest.approx(nominal, abs=4 * error)
        assert rates(Equivalence(1.0, 0.5), 1.5, family)[FAILS] == pytest.approx(nominal, abs=4 * error)


def test_clear_effects_are_decided():
    assert rates(Direction(above=1.0), 1.5)[HOLDS] > 0.99
    assert rates(Direction(above=1.0), 0.5)[FAILS] > 0.99
    assert rates(Equivalence(1.0, 0.4), 1.0)[HOLDS] > 0.99
    assert rates(Scaling(0.9, 1.1), 0.3)[FAILS] > 0.99
    assert rates(Ordering(), [0.5, 0.5])[HOLDS] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "truth"), [(Scaling(0.9, 1.5), 0.9), (Scaling(0.5, 1.1), 1.1)])
def test_error_rates_of_bootstrapped_exponents(rule, truth):
    # Extrapolated percentiles of 32 replicas are not exact: the false verdicts stay below 2 %.
    rng, x = np.random.default_rng(3), np.array([1.0, 2.0, 4.0, 8.0])
    found: Counter[Verdict] = Counter()
    for seed in range(EXPERIMENTS):
        y = x**truth * np.exp(0.1 * rng.normal(size=(REPLICAS, 4)))
        found[judge(a_test(rule), intervals.slope(x, y, seed), FAMILY)] += 1
    assert found[HOLDS] / EXPERIMENTS <= 0.02
    assert found[FAILS] / EXPERIMENTS <= 0.02


def test_too_few_replicas_decide_nothing_whatever_they_say():
    for few, enough in ((estimate(5.0, n=4), estimate(5.0, n=5)),
                        (replace(estimate(5.0, n=40), draws=4), replace(estimate(5.0, n=40), draws=5))):  # fmt: skip
        assert judge(a_test(Direction(above=1.0)), few, 1) is judge(a_test(Direction(below=1.0)), few, 1) is OPEN
        assert judge(a_test(Direction(above=1.0)), enough, 1) is HOLDS
    assert judge(a_test(Ordering()), [estimate(5.0, n=4), estimate(-5.0)], 1) is FAILS
    assert judge(a_test(Direction(below=1.0)), replace(estimate(0.5), method="bootstrap", n=9), 1) is OPEN
    few = claims.Outcome(a_test(Direction(above=1.0)), 1, (estimate(5.0, n=2),))
    assert few.text == "5.000 [4.990, 5.010], 2 replicas; not decided: too few replicas: 2, at least 5"
    assert (few.undecided, few.replicas_to_settle) == ("too few replicas: 2, at least 5", 5)
    straddling = claims.Outcome(a_test(Direction(above=5.0)), 1, (estimate(5.0),))
    assert (straddling.verdict, straddling.undecided) == (OPEN, "")


@pytest.mark.parametrize("make", [intervals.mean, lambda x: intervals.median(x, 0), lambda x: intervals.mean(0.1 * x)])
def test_a_constant_sample_is_no_certainty(make):
    found = make(np.ones(40))
    assert judge(a_test(Direction(above=0.0)), found, 1) is judge(a_test(Direction(above=2.0)), found, 92) is OPEN
    outcome = claims.Outcome(a_test(Direction(above=0.0)), 92, (found,))
    assert outcome.undecided == "40 replicas show no spread: up to 7.2 % of others may differ"
    assert outcome.replicas_to_settle is None
    assert judge(a_test(Direction(above=0.0)), intervals.exact(found.value), 92) is HOLDS


@pytest.mark.parametrize(
    ("rule", "estimates"),
    [
        (Ordering(), []),
        (Direction(above=0.0), []),
        (Direction(above=0.0), [estimate(1.0), estimate(2.0)]),
        (Direction(above=0.0), estimate(1.0).widened(3)),
    ],
)
def test_an_estimate_that_does_not_suit_the_rule_is_refused(rule, estimates):
    with pytest.raises(ValueError, match=r"judged by|95 % interval"):
        judge(a_test(rule), estimates, 3)


@pytest.mark.parametrize(
    ("rule", "text", "inside", "outside"),
    [
        (Direction(above=1.0, margin=0.1, each=True), "each > 1.1", 1.5, 1.0),
        (Direction(below=1.0, each=True), "each < 1", 0.5, 1.5),
        (Equivalence(1.0, 0.05, each=True), "each 1 ± 0.05", 1.01, 1.2),
        (Scaling(0.9, 1.1, each=True), "each 0.9 to 1.1", 1.0, 1.2),
        (Ordering(), "each > 0", 0.5, -0.5),
    ],
)
def test_a_rule_over_each_holds_if_all_lie_inside_and_fails_if_one_lies_outside(rule, text, inside, outside):
    assert str(rule) == text
    test, good, bad = a_test(rule), estimate(inside), estimate(outside)
    edge = next(end for end in rule.region[:2] if math.isfinite(end))
    assert judge(test, [good, good, good], 3) is HOLDS
    assert judge(test, [good, bad, estimate(edge, 0.1)], 3) is FAILS
    assert judge(test, [good, estimate(edge, 0.001), good], 3) is OPEN
    assert judge(test, [good, replace(good, n=2)], 3) is OPEN
    shown = claims.Outcome(test, 1, (good, bad, good))
    assert shown.text == f"weakest of 3: {bad}, 100 replicas"
    assert shown.family_estimates[0] == good.widened(3)


def test_a_logarithm_can_be_quoted_as_the_factor_it_stands_for():
    log = replace(a_test(Direction(below=0.0)), unit="log sharpness")
    found = claims.Outcome(log, 1, (estimate(math.log(2.0), 0.01),))
    assert found.quoted == {"key": found.quote, "key.factor": "2.000 [1.980, 2.020]"}
    assert claims.Outcome(log, 1).quoted == {"key": "not tested here", "key.factor": "not tested here"}
    assert set(claims.Outcome(replace(log, unit="ratio"), 1).quoted) == {"key"}


def test_of_several_inside_the_one_closest_to_an_end_is_shown():
    found = [estimate(1.0), estimate(1.04), estimate(0.97)]
    assert claims.Outcome(a_test(Equivalence(1.0, 0.1, each=True)), 1, tuple(found)).quote == str(found[1])
    assert claims.Outcome(a_test(Direction(below=2.0, each=True)), 1, tuple(found)).quote == str(found[1])


def test_a_rule_over_each_is_read_written_and_kept_in_records(tmp_path):
    stated = {"kind": "equivalence", "target": 1.0, "tolerance": 0.2, "each": True}
    assert verdict.rule_to(verdict.rule_from(stated)) == stated
    assert verdict.rule_to(verdict.rule_from({"kind": "ordering", "each": True})) == {"kind": "ordering", "margin": 0.0}
    assert "each" not in verdict.rule_to(Direction(above=1.0))
    content = paper_text()
    content["claims"][1]["tests"][0]["rule"] = stated
    ledger = Ledger(claims.load_paper(write_paper(tmp_path, content)), made(), tmp_path)
    ledger.add(
        {"P9-X1.size": [estimate(1.0), estimate(1.5)]}, experiment="weigh", config="c0ffee" * 2 + "c0ff", seconds=1.0
    )
    ledger.skip("P9-C1", "no cars")
    assert (ledger.verdict("P9-X1"), ledger.text("P9-X1")[:22]) == ("fails", "weakest of 2: 1.500 [1")
    assert claims.load_records(ledger.save()) == ledger.records
    assert list(ledger.record("P9-X1").measured()) == ["P9-X1.size[0]", "P9-X1.size[1]"]
    assert jsonschema_faults(json.loads(ledger.save().read_text(encoding="utf-8"))) == []


def jsonschema_faults(content):
    return [
        fault.message for fault in jsonschema.Draft202012Validator(json.loads(ledger_schema())).iter_errors(content)
    ]


def test_a_list_of_one_is_as_good_as_one():
    assert judge(a_test(Ordering()), estimate(1.0), 3) is judge(a_test(Ordering()), [estimate(1.0)], 3)
    assert judge(a_test(Direction(above=0.0)), [estimate(1.0)], 3) is Verdict.HOLDS


# --- the file of claims -----------------------------------------------------------------------------------


def test_a_paper_is_read_with_its_family_and_scales(tmp_path):
    paper = claims.load_paper(write_paper(tmp_path))
    assert (paper.paper, paper.chapter) == ("P9", "roads")
    assert (paper.family_at("cpu"), paper.family_at("gpu")) == (3, 4)
    first = paper.claim("P9-C1")
    assert [test.scales for test in first.tests] == [BOTH, BOTH, ("gpu",)]
    assert first.tests[0].rule == Direction(above=1.0, margin=0.1)
    assert (first.conditions, first.see) == ("On dry roads.", ("P9-X1",))
    with pytest.raises(ValueError, match="P9 has no claim 'P9-C7'"):
        paper.claim("P9-C7")


def headlined(folder, key, **changes):
    """The private paper with a headline named; its second test asks the same as the first, of drops."""
    content = paper_text()
    first = content["claims"][0]
    first["headline"] = key
    first["tests"][1] |= {"quantity": "drops", "rule": {"kind": "direction", "above": 0.0}}
    first["tests"][2] |= {"quantity": "the same on a track"} | changes
    ledger = Ledger(claims.load_paper(write_paper(folder, content)), made(), folder)
    return ledger


@pytest.mark.parametrize(
    ("drops", "verdict", "told"), [(0.5, HOLDS, "order"), (0.0, OPEN, "order"), (-0.5, FAILS, "order")]
)
def test_a_claim_is_told_by_its_headline_test(tmp_path, drops, verdict, told):
    ledger = headlined(tmp_path, "order")
    entries = {"P9-C1.faster": estimate(1.5), "P9-C1.order": estimate(drops)}
    ledger.add(entries, experiment="race", config="c0ffee" * 2 + "c0ff", seconds=1.0)
    ledger.skip("P9-X1", "no scales at hand")
    record = ledger.record("P9-C1")
    assert (record.verdict, record.headline.test.key) == (verdict, told)
    assert ledger.text("P9-C1") == ledger.text(f"P9-C1.{told}")
    again, _ = claims.load_records(ledger.save())
    assert (again.claim.headline, again.headline) == (told, record.headline)


def test_where_the_headline_has_another_verdict_the_first_test_that_has_it_tells_the_claim(tmp_path):
    ledger = headlined(tmp_path, "order")
    entries = {"P9-C1.faster": estimate(1.0), "P9-C1.order": estimate(0.5)}
    ledger.add(entries, experiment="race", config="c0ffee" * 2 + "c0ff", seconds=1.0)
    record = ledger.record("P9-C1")
    assert (record.verdict, record.headline.test.key) == (FAILS, "faster")


def test_a_headline_is_no_part_of_a_rule_and_without_one_the_first_test_is_it(tmp_path):
    named = headlined(tmp_path, "order").paper
    first = headlined(tmp_path, "faster").paper
    assert named.claims == first.claims
    assert claims.load_paper(write_paper(tmp_path)).claim("P9-C1").headline == "faster"


def test_a_quantity_that_is_the_same_says_as_what(tmp_path):
    claim = headlined(tmp_path, "order").paper.claim("P9-C1")
    told = ["time", "drops", "the same on a track, as “drops”"]
    assert [claim.quantity(test.key) for test in claim.tests] == told
    with pytest.raises(ValueError, match="P9-C1 has no test 'speed'; it has faster, order, large"):
        claim.quantity("speed")


def test_what_the_statement_says_tells_it_not_a_condition_of_it():
    told = {claim.id: claim.headline for paper in claims.load_papers() for claim in paper.claims}
    assert (told["P3-C3"], told["P4-C5"], told["S-16"]) == ("recovers", "errs", "crosses")


def test_every_published_paper_is_valid():
    papers = claims.load_papers()
    assert {"P3"} <= {paper.paper for paper in papers}


def broken(change):
    content = json.loads(json.dumps(paper_text()))
    change(content, content["claims"][0], content["claims"][0]["tests"][0])
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, c, t: p.update(schema=2), r"P9.yaml: schema: 2 .*reads 1"),
        (lambda p, c, t: p.update(arxiv=1802.05155), r"arxiv: .*put it in quotes"),
        (lambda p, c, t: p.update(year="2018"), r"year: .*whole number"),
        (lambda p, c, t: p.update(claims=[]), r"claims: .*at least one"),
        (lambda p, c, t: c.pop("place"), r"P9.yaml: P9-C1: place: is missing; add it"),
        (lambda p, c, t: c.update(verdict="holds"), r"P9-C1: verdict: is unknown; allowed are"),
        (lambda p, c, t: c.update(headline="quick"), r"P9-C1: headline: 'quick' is no test .*; name one of faster"),
        (lambda p, c, t: t.update(quantity="the same"), r"nothing stands before faster that is 'the same'; say what"),
        (lambda p, c, t: c.update(id="P8-C1"), r"id: 'P8-C1'"),
        (lambda p, c, t: c.update(id="P9-X1"), r"claims: id 'P9-X1' occurs 2 times"),
        (lambda p, c, t: c.update(known="guessed"), r"known: 'guessed' .*read, secondary"),
        (lambda p, c, t: c.update(scales=["tpu"]), r"scales: .*choose from cpu, gpu"),
        (lambda p, c, t: c.update(scales=[]), r"scales: "),
        (lambda p, c, t: c.update(statement="  "), r"statement: "),
        (lambda p, c, t: c.update(see=["P9-C44"]), r"P9-C1: see: 'P9-C44' is not another claim"),
        (lambda p, c, t: c.update(tests="none"), r"tests: must be a list"),
        (lambda p, c, t: t.update(key="Faster!"), r"P9-C1: Faster!: key: "),
        (lambda p, c, t: t.update(key="order"), r"tests: key 'order' occurs 2 times"),
        (lambda p, c, t: t.update(rule="up"), r"P9-C1: faster: rule: 'up'"),
        (lambda p, c, t: t["rule"].update(kind="vibe"), r"faster: rule: `kind` must be one of direction"),
        (lambda p, c, t: t["rule"].update(below=2.0), r"faster: rule: .*exactly one of"),
        (lambda p, c, t: t["rule"].update(each="yes"), r"`each` must be true or false, got 'yes'"),
        (lambda p, c, t: t.update(rule={"kind": "ordering", "each": False}), r"leave `each` out"),
        (lambda p, c, t: t["rule"].update(margin="1e-4"), r"`margin` must be a number.*1.0e-4"),
        (lambda p, c, t: t["rule"].update(margin=-1.0), r"`margin` must not be negative"),
        (lambda p, c, t: t["rule"].update(tolerance=1.0), r"unknown tolerance; kind direction has"),
        (lambda p, c, t: t.update(rule={"kind": "equivalence", "target": 1.0}), r"needs target, tolerance"),
        (lambda p, c, t: t.update(rule={"kind": "scaling", "low": 2.0, "high": 1.0}), r"`low` must be"),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_place_and_remedy(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        claims.load_paper(write_paper(tmp_path, broken(change)))


def test_links_between_papers_are_checked_where_the_other_paper_is_present(tmp_path):
    write_paper(tmp_path, broken(lambda p, c, t: c.update(see=["P8-C1"])))
    assert len(claims.load_papers(tmp_path)) == 1
    renamed = json.dumps(paper_text(paper="P8")).replace("P9-C1", "P8-C2").replace("P9-X1", "P8-X1")
    other = json.loads(renamed)
    (tmp_path / "P8.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    with pytest.raises(ValueError, match="P9-C1: see: 'P8-C1' is not another claim"):
        claims.load_papers(tmp_path)


# --- the ledger -------------------------------------------------------------------------------------------


def test_the_ledger_gives_finished_strings_and_computed_words(tmp_path):
    ledger = filled(tmp_path, size=1.4)
    assert ledger.text("P9-C1") == ledger.text("P9-C1.faster") == "1.500 [1.490, 1.510], 100 replicas"
    assert ledger.text("P9-C1.order") == "weakest of 2: 0.200 [0.190, 0.210], 100 replicas"
    assert ledger.text("P9-C1.large") == "not tested here: stated for scale gpu only"
    assert (ledger.verdict("P9-C1"), ledger.verdict("P9-X1")) == ("holds", "fails")
    assert ledger.verdict("P9-C1.large") == "not tested here"
    assert ledger.summary() == "1 hold, 1 fail, 0 inconclusive, 0 not tested here"
    assert ledger.record("P9-C1").notes == "large not tested here: stated for scale gpu only"
    assert (ledger.record("P9-C1").seconds, ledger.record("P9-X1").seconds) == (2.0, 1.0)


def test_a_deterministic_number_says_so(tmp_path):
    ledger = Ledger(claims.load_paper(write_paper(tmp_path)), made(), tmp_path)
    ledger.add({"P9-X1.size": intervals.exact(1.25)}, experiment="weigh", config="c0ffee", seconds=0.0)
    assert ledger.text("P9-X1") == "1.25, deterministic"
    assert ledger.verdict("P9-X1") == "fails"


def test_the_table_is_rounded_text(tmp_path):
    table = filled(tmp_path).table()
    columns = ["claim", "statement", "quantity", "estimate", "family interval", "demanded", "verdict"]
    assert list(table.columns) == columns
    assert list(table["demanded"]) == ["> 1.1", "1 ± 0.2"]
    assert list(table["quantity"]) == ["time", "value"]
    assert table["family interval"][0] == "1.500 [1.488, 1.512]"
    moved = filled(tmp_path, faster=1.5 + 1e-9).table()
    assert table.equals(moved)
    assert list(filled(tmp_path).table(tests=True)["test"])[-1] == "P9-X1.size"


def test_the_ledger_refuses_what_the_claims_do_not_know(tmp_path):
    ledger = filled(tmp_path)
    more = {"experiment": "race", "config": "c0ffee", "seconds": 0.0}
    with pytest.raises(ValueError, match=r"no test 'P9-C1.quicker'; .*P9-C1.faster"):
        ledger.add({"P9-C1.quicker": estimate(1.0)}, **more)
    with pytest.raises(ValueError, match="already in the ledger"):
        ledger.add({"P9-C1.faster": estimate(1.0)}, **more)
    with pytest.raises(ValueError, match="already in the ledger"):
        ledger.skip("P9-X1", "no time")
    with pytest.raises(ValueError, match="stated for scale gpu only"):
        ledger.add({"P9-C1.large": estimate(1.0)}, **more)
    with pytest.raises(ValueError, match="say why"):
        ledger.skip("P9-C1.large", " ")


def test_a_refused_entry_leaves_nothing_behind(tmp_path):
    ledger = Ledger(claims.load_paper(write_paper(tmp_path)), made(), tmp_path)
    with pytest.raises(ValueError, match="no test"):
        ledger.add({"P9-X1.size": estimate(1.0), "P9-X1.none": estimate(1.0)},
                   experiment="a", config="c0ffee", seconds=0.0)  # fmt: skip
    ledger.skip("P9-X1.size", "no scales at hand")
    assert ledger.verdict("P9-X1") == "not tested here"


def test_an_incomplete_ledger_is_not_saved(tmp_path):
    ledger = Ledger(claims.load_paper(write_paper(tmp_path)), made(), tmp_path)
    ledger.add({"P9-C1.faster": estimate(2.0)}, experiment="race", config="c0ffee", seconds=1.0)
    assert len(ledger.table()) == 0
    with pytest.raises(ValueError, match=r"P9-C1.order.*skip it with a reason"):
        ledger.verdict("P9-C1")
    with pytest.raises(ValueError, match=r"P9-C1.order has no estimate yet"):
        ledger.text("P9-C1.order")
    with pytest.raises(ValueError, match=r"not complete: P9-C1.order, P9-X1.size"):
        ledger.save()
    assert not (tmp_path / "records.json").exists()
    ledger.skip("P9-C1.order", "one colour only")
    ledger.skip("P9-X1", "no scales at hand")
    assert [record.verdict for record in claims.load_records(ledger.save())] == [HOLDS, ABSENT]


def test_what_is_stated_for_paper_scale_alone_is_due_or_has_its_reason(tmp_path):
    paper = claims.load_paper(write_paper(tmp_path))
    due = Ledger(paper, made(scale="gpu"), tmp_path)
    apart = Ledger(paper, made(scale="gpu"), tmp_path, apart="not run here")
    assert set(due.lacking) - set(apart.lacking) == {"P9-C1.large"}
    assert apart.text("P9-C1.large") == "not tested here: not run here"
    assert "P9-C1.large" in apart.due("race")  # whoever measures it all the same may enter it
    apart.add({"P9-C1.large": estimate(2.0)}, experiment="race", config="c0ffee", seconds=1.0)
    assert apart.verdict("P9-C1.large") == "holds"


def test_reading_a_ledger_writes_nothing(tmp_path):
    ledger = filled(tmp_path)
    before = set(tmp_path.iterdir())
    assert len(ledger.table()) == len(ledger.records) == 2
    assert ledger.summary()
    assert set(tmp_path.iterdir()) == before
    assert ledger.save() not in before


def test_at_the_other_scale_the_other_test_is_due(tmp_path):
    ledger = filled(tmp_path, scale="gpu")
    with pytest.raises(ValueError, match=r"not complete: P9-C1\.large"):
        ledger.save()


# --- records ----------------------------------------------------------------------------------------------


def saved(tmp_path, **changes):
    path = filled(tmp_path, **changes).save()
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_records_come_back_as_they_were(tmp_path):
    ledger = filled(tmp_path)
    assert claims.load_records(ledger.save()) == ledger.records


def test_infinite_ends_are_valid_json(tmp_path):
    ledger = Ledger(claims.load_paper(write_paper(tmp_path)), made(), tmp_path)
    unseen = intervals.censored_mean([5.0, 5.0], [False, False])
    ledger.add({"P9-C1.faster": unseen}, experiment="race", config="c0ffee", seconds=1.0)
    ledger.skip("P9-C1.order", "one colour only")
    ledger.skip("P9-X1", "no scales at hand")
    path = ledger.save()
    assert "Infinity" not in path.read_text(encoding="utf-8")
    assert claims.load_records(path) == ledger.records


def test_a_record_carries_what_the_public_ledger_needs(tmp_path):
    record = saved(tmp_path)[1]["records"][0]
    expected = {
        "schema", "id", "paper", "chapter", "place", "known", "statement", "verdict", "scale", "device_class",
        "estimate", "interval", "family_interval", "predicted", "rule", "replicas", "seed", "config",
        "library", "torch", "seconds", "conditions", "notes", "tests", "sha256",
    }  # fmt: skip
    assert expected <= set(record)
    assert record["predicted"] == {"text": "> 1.1", "low": 1.1, "high": None}
    assert record["interval"] == pytest.approx([1.49, 1.51])
    assert record["family_interval"][0] < record["interval"][0]
    assert [test["verdict"] for test in record["tests"]] == ["holds", "holds", "not tested here"]


def test_an_inconclusive_record_says_how_many_replicas_would_settle_it(tmp_path):
    ledger = filled(tmp_path, faster=1.105)
    outcome = ledger.record("P9-C1").headline
    widening = outcome.estimates[0].widened(3)
    needed = 100 * ((widening.high - widening.value) / 0.005) ** 2
    assert ledger.verdict("P9-C1.faster") == "inconclusive"
    assert outcome.replicas_to_settle == math.ceil(needed) > 100
    assert ledger.record("P9-C1").outcomes[1].replicas_to_settle is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(verdict="fails"), "P9-C1: verdict: stored 'fails'.*give 'holds'"),
        (lambda r: r["tests"][0].update(verdict="inconclusive"), "faster: verdict: stored 'inconclusive'"),
        (lambda r: r["tests"][0]["estimates"][0].update(value=1.504), "P9-C1: "),
        (lambda r: r["tests"][0]["estimates"][0].update(low=1.0), "P9-C1: .*verdict"),
        (lambda r: r.update(estimate=1.6), "P9-C1: estimate: stored 1.6"),
        (lambda r: r["interval"].__setitem__(0, 1.3), "P9-C1: interval"),
        (lambda r: r["tests"][0]["rule"].update(margin=0.2), "P9-C1: "),
        (lambda r: r["tests"][0].update(family=1), "P9-C1: "),
        (lambda r: r["tests"][0].update(undecided="too few"), "P9-C1: faster: undecided: stored 'too few'"),
        (lambda r: r["provenance"].update(seed=5), "P9-C1: seed: stored 0"),
        (lambda r: r.update(statement="Red is slower than blue."), "changed after it was written"),
        (lambda r: r["tests"][2].update(reason="forgot"), "P9-C1: "),
        (lambda r: r.pop("tests"), "incomplete or malformed"),
        (lambda r: r.pop("sha256"), "changed after it was written"),
        (lambda r: r["provenance"].update(host="a"), r"provenance: fields \['host'\]"),
        (lambda r: r.update(schema=0), "schema 0, this library reads 1 and 2"),
        (lambda r: r.update(rank=1), "P9-C1: rank"),
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path, change, message):
    path, content = saved(tmp_path)
    change(content["records"][0])
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        claims.load_records(path)


def test_a_change_with_all_its_consequences_is_still_refused(tmp_path):
    path, content = saved(tmp_path)
    other = filled(tmp_path, faster=1.6).record("P9-C1").to_json()
    content["records"][0] = other | {"sha256": content["records"][0]["sha256"]}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="changed after it was written"):
        claims.load_records(path)


def test_the_hash_moves_with_the_numbers_and_not_with_time(tmp_path):
    def fingerprint(**changes):
        return filled(tmp_path, **changes).record("P9-C1").to_json()["sha256"]

    ledger = filled(tmp_path)
    slower = replace(ledger.record("P9-C1").outcomes[0], seconds=99.0)
    record = ledger.record("P9-C1")
    assert replace(record, outcomes=(slower, *record.outcomes[1:])).to_json()["sha256"] == fingerprint()
    assert fingerprint(date="2027-07-07") == fingerprint()
    assert fingerprint(faster=1.5000001) != fingerprint()


def test_claims_and_records_must_match(tmp_path):
    papers = claims.load_papers(write_paper(tmp_path).parent)
    records = filled(tmp_path).records
    assert claims.faults(records, papers) == []
    assert claims.faults(records[:1], papers) == ["P9-X1: a claim without a record"]
    stray = replace(records[0], claim=replace(records[0].claim, id="P9-C5"))
    assert "P9-C5: a record without a claim" in claims.faults([*records, stray], papers)
    reworded = replace(records[0], claim=replace(records[0].claim, statement="Other."))
    assert "another wording" in claims.faults([reworded, records[1]], papers)[0]


def test_two_runs_are_compared_estimate_by_estimate(tmp_path):
    ours, theirs = filled(tmp_path).records, filled(tmp_path, faster=1.515, size=1.2, seed=1).records
    lines = {line.key: line for line in claims.compare_records(ours, theirs)}
    assert list(lines) == ["P9-C1.faster", "P9-C1.order[0]", "P9-C1.order[1]", "P9-X1.size"]
    assert {line.kind for line in lines.values()} == {Kind.STATISTICAL}
    assert lines["P9-C1.faster"].compatible is True
    assert lines["P9-X1.size"].compatible is False
    alone = claims.compare_records(ours, theirs[:1])[-1]
    assert (alone.kind, alone.yours, alone.answer) == (Kind.INCOMPATIBLE, "—", "measured in one run only")


def test_numbers_and_verdicts_of_chaotic_runs_are_compared_as_draws_between_two_kinds_of_arithmetic(tmp_path):
    content = paper_text()
    content["claims"][1]["tests"][0]["chaotic"] = True

    def run(size, **changes):
        ledger = Ledger(claims.load_paper(write_paper(tmp_path, content)), made(**changes), tmp_path)
        ledger.add({"P9-X1.size": estimate(size, 0.03)}, experiment="weigh", config="c0ffee", seconds=1.0)
        ledger.skip("P9-C1", "not on this road")
        return claims.load_records(ledger.save())

    published = run(1.15)
    assert published[1].outcomes[0].test.chaotic
    assert [record.verdict for record in (published[1], run(1.19)[1])] == [HOLDS, OPEN]
    assert claims.disagreements(published, run(1.19, instructions="another processor")) == []
    assert len(claims.disagreements(published, run(1.19))) == 2
    (far,) = claims.disagreements(published, run(1.3, instructions="another processor"))
    assert far.endswith("(statistical)")


# --- draws of data ----------------------------------------------------------------------------------------


def drawn(folder, draws):
    ledger = Ledger(claims.load_paper(write_paper(folder)), made(), folder)
    size = replace(estimate(1.0, n=40), dof=9, draws=draws)
    ledger.add({"P9-X1.size": size}, experiment="weigh", config="c0ffee", seconds=1.0)
    ledger.skip("P9-C1.faster", "no cars")
    ledger.skip("P9-C1.order", "no cars")
    return ledger


def test_draws_stand_beside_the_replicas_in_text_and_record(tmp_path):
    ledger = drawn(tmp_path, 10)
    assert ledger.text("P9-X1") == "1.000 [0.990, 1.010], 10 draws × 4"
    (record,) = [record for record in claims.load_records(ledger.save()) if record.claim.id == "P9-X1"]
    assert record.outcomes[0].estimates[0].draws == record.to_json()["tests"][0]["estimates"][0]["draws"] == 10
    assert drawn(tmp_path, 7).text("P9-X1").endswith(", 7 draws, 40 replicas")
    assert drawn(tmp_path, 0).text("P9-X1").endswith(", 40 replicas")


def test_a_record_from_before_there_were_draws_still_loads(tmp_path):
    content = json.loads(drawn(tmp_path, 0).save().read_text(encoding="utf-8"))
    for old in content["records"]:
        old["schema"] = 1
        for test in old["tests"]:
            for one in test["estimates"]:
                one.pop("draws")
            for later in ("undecided", "unit", "because"):
                test.pop(later)
        old["sha256"] = record_module._hash({name: value for name, value in old.items() if name != "sha256"})
    (tmp_path / "records.json").write_text(json.dumps(content), encoding="utf-8")
    assert claims.load_records(tmp_path / "records.json") == drawn(tmp_path, 0).records
    content["records"][1]["statement"] = "Green equals two."
    (tmp_path / "records.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="changed after it was written"):
        claims.load_records(tmp_path / "records.json")

"""Whether a rule can fail: planted tests whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from descent import claims
from descent.claims import Claim, Direction, Equivalence, Ordering, Outcome, Record, Scaling, judge
from descent.claims.margins import Unit
from descent.claims.power import chances, only_hold, power_of, table
from descent.claims.verdict import Region
from descent.stats import exact, mean, proportion
from descent.stats.estimate import STUDENT, Estimate, critical_t
from test_claims import made

SHARE = Unit("share", 0.05, "One in twenty.", low=0.0, high=1.0)


def found(value, error=0.1, n=40):
    half = error * critical_t(0.95, n - 1)
    return Estimate(value, value - half, value + half, n, STUDENT, n - 1)


def planted(rule, estimate, family=10, unit=""):
    estimates = tuple(estimate) if isinstance(estimate, list) else (estimate,)
    return power_of(
        "k", Outcome(claims.Test("k", "quantity", rule, ("cpu",), unit=unit), family, estimates), {"share": SHARE}
    )


def test_at_the_edge_of_a_region_each_verdict_has_the_share_that_was_chosen():
    half = 0.1 * critical_t(1 - 0.05 / 10, 39)
    assert chances(Region(1.0, math.inf), 1.0, 0.1, half, 39) == pytest.approx((0.0025, 0.0025))
    assert chances(Region(-math.inf, math.inf), 1.0, 0.1, half) == (1.0, 0.0)
    assert chances(Region(0.0, 0.1), 0.05, 0.1, half) == pytest.approx((0.0, 0.001), abs=2e-3)  # too wide to hold
    assert [chances(Region(0.0, 1.0), x, 0.0, 0.0) for x in (0.5, 2.0)] == [(1.0, 0.0), (0.0, 1.0)]


@pytest.mark.parametrize("truth", [1.0, 1.15, 1.3, 1.6])
def test_the_chances_are_those_of_simulated_experiments(truth):
    rng, rule = np.random.default_rng(4), Direction(above=1.0, margin=0.1)
    test = claims.Test("k", "quantity", rule, ("cpu",))
    verdicts = [str(judge(test, mean(row), 10)) for row in truth + 0.5 * rng.normal(size=(2000, 25))]
    half = 0.1 * critical_t(1 - 0.05 / 10, 24)
    expected = chances(rule.region, truth, 0.1, half, 24)
    shares = [verdicts.count(word) / 2000 for word in ("holds", "fails")]
    assert shares == pytest.approx(expected, abs=0.03)


def test_a_strong_effect_would_not_hold_without_and_a_weak_one_fails_at_half():
    strong = planted(Direction(above=1.0, margin=0.1), found(3.0))
    assert strong.holds_without < 0.003
    assert (strong.fails_at_half, strong.only_holds) == (pytest.approx(0.0, abs=1e-3), False)
    demanding = planted(Direction(above=1.0, margin=1.5), found(3.0))
    assert demanding.fails_at_half > 0.9  # half of 2 falls short of 1.5
    assert planted(Direction(below=0.0), found(-1.0)).holds_without == pytest.approx(0.0025, abs=1e-3)


def test_no_effect_is_the_closer_end_of_a_region_and_zero_of_an_ordering():
    for rule in (Equivalence(1.0, 1.0), Scaling(0.0, 2.0)):
        assert planted(rule, found(1.9)).holds_without == pytest.approx(0.0025, abs=1e-3)
    assert planted(Equivalence(1.0, 0.1), exact(1.0)).holds_without == 0.0
    assert planted(Ordering(), [found(5.0), found(0.8)], family=5).found == 0.8
    assert planted(Ordering(margin=0.2), found(5.0)).holds_without < 0.001


def test_a_rule_that_can_only_hold_is_found():
    assert planted(Direction(above=0.0), proportion(30, 40)).only_holds  # a share is never below nothing
    assert not planted(Direction(above=0.5), proportion(30, 40)).only_holds
    assert planted(Scaling(-0.5, 2.0), found(0.7, 0.05), unit="share").only_holds
    assert not planted(Scaling(-0.5, 2.0), found(0.7, 0.05)).only_holds  # who knows where it ends
    assert planted(Direction(below=0.9), found(0.5, 0.3), unit="share").only_holds  # too few to see it fail
    fact = planted(Direction(above=1.0), exact(2.0))
    assert (fact.holds_without, fact.fails_at_half, fact.only_holds) == (0.0, 0.0, False)


def test_the_table_names_each_measured_test_and_those_that_can_only_hold_first(record):
    rows = table([record], {})
    assert list(rows["test"]) == ["P9-C1.share", "P9-C1.size"]
    assert list(rows["can only hold"]) == [True, False]
    assert rows["found"][1] == "3 ± 0.1"
    assert only_hold([record], {}) == ("P9-C1.share",)


@pytest.fixture
def record():
    tests = {
        "size": (Direction(above=1.0, margin=0.1), (found(3.0),)),
        "share": (Direction(above=0.0), (proportion(30, 40),)),
        "few": (Direction(above=0.0), (replace(found(3.0), n=2),)),
        "absent": (Direction(above=0.0), ()),
    }
    outcomes = tuple(
        Outcome(claims.Test(key, "quantity", rule, ("cpu",)), 3, several, reason="" if several else "no time")
        for key, (rule, several) in tests.items()
    )
    claim = Claim("P9-C1", "abstract", "read", "A sentence.", ("cpu",), tuple(o.test for o in outcomes))
    return Record(claim, "P9", "roads", outcomes, made())

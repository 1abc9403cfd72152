"""Bounded quantities without spread: what n replicas that agree allow, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from descent.claims import Equivalence, Verdict, judge
from descent.claims.verdict import Test as Stated
from descent.stats import bounded_difference, bounded_mean, mean


def test_all_alike_allow_what_a_binomial_does():
    found = bounded_mean(np.zeros(240), 0.0, 1.0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 240))
    assert not found.insufficient
    inside = bounded_mean(np.full(40, 0.25), 0.0, 1.0)
    share = 1 - 0.05 ** (1 / 40)
    assert (inside.low, inside.high) == pytest.approx((0.25 - 0.25 * share, 0.25 + 0.75 * share))


def test_it_is_widened_exactly():
    for differing in (0, 2):
        x = np.append(np.ones(100 - differing), np.zeros(differing))
        wide = bounded_mean(x, 0.0, 1.0).widened(40)
        again = bounded_mean(x, 0.0, 1.0, level=1 - 0.05 / 40)
        assert (wide.value, wide.low, wide.high) == pytest.approx((1.0, again.low, 1.0))


def test_with_spread_it_is_students():
    x = np.random.default_rng(0).uniform(size=30)
    assert bounded_mean(x, 0.0, 1.0) == mean(x)
    assert bounded_mean(x[:3], 0.0, 1.0) == mean(x[:3])


@pytest.mark.parametrize("share", [0.002, 0.01, 0.03])
def test_it_covers_a_mean_that_rests_on_few(share):
    """As exact as promised where Student's t misses most of the time."""
    rng = np.random.default_rng(1)
    drawn = (rng.uniform(size=(2000, 100)) < share).astype(float)
    found = [bounded_mean(x, 0.0, 1.0) for x in drawn if x.sum() < 5]
    missed = sum(not one.low <= share <= one.high for one in found)
    assert missed / len(drawn) < 0.05


def test_enough_sets_that_agree_decide_and_few_do_not():
    test = Stated("a", "difference", Equivalence(0.0, 0.05), ("cpu",))
    few, many = (bounded_difference(np.zeros(n), np.zeros(n)) for n in (40, 240))
    assert judge(test, few, family=48) is Verdict.INCONCLUSIVE
    assert judge(test, many, family=48) is Verdict.HOLDS
    one = bounded_difference(np.append(1.0, np.zeros(239)), np.zeros(240))
    assert judge(test, one, family=48) is Verdict.HOLDS


def test_what_lies_outside_its_ends_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounded_mean([0.0, 1.5], 0, 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounded_mean([0.0, float("nan")], 0, 1)
    with pytest.raises(ValueError, match="equal shapes"):
        bounded_difference([0.0, 1.0], [0.0])

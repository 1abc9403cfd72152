"""Which of several estimates decides."""

from __future__ import annotations

import numpy as np
import pytest
from descent.stats import Estimate, exact, furthest, largest, magnitude, mean, proportion, smallest


def estimates(*values):
    return [Estimate(value, value - 0.5, value + 1, 9, "Student t", 8) for value in values]


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_the_extreme_of_a_list_or_of_an_array(shape):
    found = estimates(0.5, 3.0, -4.0, 2.0)
    array = np.array(found, dtype=object).reshape(shape)
    for several in (found, array):
        assert (smallest(several).value, largest(several).value) == (-4.0, 3.0)
        assert (furthest(several).value, furthest(several, -4.0).value) == (-4.0, 3.0)


def test_the_interval_knows_that_it_was_picked():
    found = estimates(2.0, 1.9, -0.3)
    wide = [one.widened(3) for one in found]
    top, bottom, far = largest(found), smallest(found), furthest(found, 0.0)
    assert (top.low, top.high) == (wide[0].low, found[0].high)
    assert (bottom.low, bottom.high) == (found[2].low, wide[2].high)
    assert (far.low, far.high) == (wide[0].low, found[0].high)  # the other side is certainly closer to 0
    assert (top.method, top.law, top.n, top.insufficient) == ("largest of 3: Student t", "Student t", 9, "")
    assert largest(found[:1]) == found[0]
    close = estimates(2.0, -1.9)
    both = furthest(close, 0.0)
    assert (both.low, both.high) == (close[1].low, close[0].high)
    wider = top.widened(20)
    assert wider.low <= max(one.widened(60).low for one in found) < top.low


def test_extremes_of_facts_are_facts_and_of_constants_nothing():
    facts = [exact(1.0), exact(3.0)]
    assert largest(facts) == facts[1]
    assert largest([*facts, *estimates(2.0)]).method == "largest of 3: Student t"
    constant = mean([2.0] * 9)
    assert largest([constant, *estimates(5.0)]).insufficient.startswith("9 replicas show no spread")


@pytest.mark.slow
@pytest.mark.parametrize("truths", [(0.0, 0.0, 0.0, 0.0), (0.0, 1.0, 2.0, 9.0), (-3.0, 0.0, 0.0, 3.1)])
def test_the_intervals_of_extremes_cover(truths):
    rng, hits = np.random.default_rng(2), np.zeros(3)
    for _ in range(400):
        found = [mean(row) for row in np.array(truths)[:, None] + rng.normal(size=(4, 12))]
        top, bottom, far = largest(found), smallest(found), abs(np.array(truths)).max()
        out = furthest(found, 0.0)
        hits += [top.low <= max(truths) <= top.high, bottom.low <= min(truths) <= bottom.high,
                 out.low <= far <= out.high or out.low <= -far <= out.high]  # fmt: skip
    assert (hits / 400 > 0.93).all()


def test_a_share_or_a_mean_of_waiting_times_is_not_computed_anew_once_picked():
    picked = largest([proportion(0, 40), proportion(10, 40)])
    assert picked.law == "Clopper-Pearson"
    assert picked.widened(9).low < picked.low < proportion(10, 40).low


def test_a_magnitude_is_turned_round_with_its_interval():
    (below,) = estimates(-2.0)
    assert (magnitude(below).value, magnitude(below).low, magnitude(below).high) == (2.0, 1.0, 2.5)
    assert magnitude(magnitude(below)) == magnitude(below)

"""Two-level intervals: replicas of one draw of the data count once, however alike they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent.stats import (
    draw_difference,
    draw_fraction,
    draw_mean,
    draw_ratio,
    draw_share,
    draw_statistic,
    mean,
    proportion,
)

NAN = math.nan


def sample(rng, replicas, between, skewed=False):
    """Return ten draws (10, replicas) of unit variance, of which `between` is the draws' share; mean 10, or e^0.32."""
    noise = rng.normal(size=(10, replicas)) + math.sqrt(between / (1 - between)) * rng.normal(size=(10, 1))
    unit = noise * math.sqrt(1 - between)
    return np.exp(0.8 * unit) if skewed else 10 + unit


SPREADS = [(replicas, between) for replicas in (2, 4, 8) for between in (0.0, 0.2, 0.5, 0.9)]


def covered(make, truth, skewed=False, experiments=2004):
    """Return how often an interval covers, over draws from all alike to nothing alike."""
    rng, hits = np.random.default_rng(11), 0
    for replicas, between in SPREADS:
        for _ in range(experiments // len(SPREADS)):
            found = make(sample(rng, replicas, between, skewed), sample(rng, replicas, between, skewed))
            hits += found.low <= truth <= found.high
    return hits / experiments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "truth", "skewed_truth", "skewed_least"),
    [
        (lambda a, b: draw_mean(a), 10.0, math.exp(0.32), 0.88),  # 90 % where a lognormal of ten draws is skewed
        (draw_difference, 0.0, 0.0, 0.94),
        (draw_ratio, 1.0, 1.0, 0.93),
        (lambda a, b: draw_statistic(lambda x: np.log(x.mean((1, 2))), a), math.log(10.0), 0.32, 0.88),
    ],
    ids=["mean", "difference", "ratio", "statistic"],
)
def test_the_intervals_cover(make, truth, skewed_truth, skewed_least):
    assert covered(make, truth) == pytest.approx(0.95, abs=0.01)
    assert covered(make, skewed_truth, skewed=True) >= skewed_least


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_a_share_covers_at_least_as_often_as_it_says(p):
    edge = 10.0 + {0.5: 0.0, 0.1: 1.2815515594}[p]
    assert covered(lambda a, b: draw_share(a > edge), p, experiments=804) >= 0.95


def test_pooling_the_replicas_would_not_cover():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(500):
        found = mean(sample(rng, 8, 0.9).ravel())
        hits += found.low <= 10 <= found.high
    assert hits / 500 < 0.6


def test_a_mean_is_one_over_the_means_of_the_draws():
    x = np.random.default_rng(0).normal(size=(10, 4))
    found, flat = draw_mean(x), mean(x.mean(axis=1))
    assert (found.value, found.low, found.high) == (flat.value, flat.low, flat.high)
    assert (found.n, found.draws, found.dof, found.method) == (40, 10, 9, "Student t")
    assert draw_difference(x, x + 1 + 0.1 * x).value == pytest.approx(-1 - 0.1 * found.value)


def test_a_ratio_does_not_depend_on_units_and_turns_round():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 2, (10, 4)), rng.uniform(1, 2, (10, 4))
    found, turned = draw_ratio(x, y), draw_ratio(7 * y, 7 * x)
    assert found.value == pytest.approx(x.mean() / y.mean())
    assert (turned.low, turned.high) == pytest.approx((1 / found.high, 1 / found.low))
    negative = draw_ratio(-x, y)
    assert (negative.value, negative.method) == (pytest.approx(-found.value), "jackknife with Student t")
    with pytest.raises(ValueError, match="denominator is not of one sign"):
        draw_ratio(x, y - 1.5)


def test_the_jackknife_of_a_mean_is_students_interval_and_a_seed_resamples_draws():
    x = np.random.default_rng(2).normal(size=(10, 4))
    found, flat = draw_statistic(lambda a: a.mean((1, 2)), x), draw_mean(x)
    assert (found.low, found.high) == pytest.approx((flat.low, flat.high))
    middle = draw_statistic(lambda a: np.median(a.reshape(len(a), -1), axis=1), x, seed=1)
    assert (middle.value, middle.method, middle.draws) == (pytest.approx(np.median(x)), "bootstrap", 10)
    with pytest.raises(ValueError, match="not finite on all draws"):
        draw_statistic(lambda a: a.mean((1, 2)) * math.inf, np.ones((3, 2)))


def test_shares():
    alike, mixed = np.repeat(np.arange(10) < 5, 4).reshape(10, 4), np.tile([1, 0, 1, 0], (10, 1))
    assert (draw_share(alike).value, draw_share(mixed).value) == (0.5, 0.5)
    width = [found.high - found.low for found in (draw_share(alike), draw_share(mixed), proportion(20, 40))]
    assert width[0] > 1.8 * width[1] > 1.8 * width[2]  # ten trials, not forty
    none = draw_share(np.zeros((10, 4)))
    assert (none.value, none.low, none.high) == (0.0, 0.0, proportion(0, 10).high)
    joint = none.widened(20)
    assert (joint.low, joint.high) == (0.0, proportion(0, 10, level=1 - 0.05 / 20).high)
    half = draw_share(alike)
    assert half.widened(1).high == pytest.approx(half.high)
    with pytest.raises(ValueError, match="counts hits"):
        draw_share(np.full((10, 4), 0.5))


def test_a_replica_that_diverged_is_left_out_and_a_draw_of_none_but_those_is_named():
    x = np.arange(20.0).reshape(5, 4) % 7
    x[1, 2], x[3] = NAN, NAN
    found = draw_mean(x)
    assert found.value == pytest.approx(np.mean([np.nanmean(row) for row in x[[0, 1, 2, 4]]]))
    assert (found.draws, found.n, found.method) == (4, 15, "Student t; draws 3 lost")
    assert found.widened(3).method == found.method
    y = x.copy()
    y[0, 0] = NAN  # a pair of which one diverged is none
    assert draw_difference(x, y).n == draw_ratio(x + 1, y + 1).n == 14
    assert draw_share(np.where(np.isnan(x), NAN, x > 3)).draws == 4
    assert draw_statistic(lambda a: np.nanmean(a, axis=(1, 2)), x).n == 15
    with pytest.raises(ValueError, match=r"at least 2 draws .* \[1, 2, 3, 4\] are lost"):
        draw_mean(np.where(np.arange(5)[:, None] == 0, x, NAN))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_mean([1.0, 2.0]), r"one shape \(draws, replicas\), got \(2,\)"),
        (lambda: draw_difference(np.ones((3, 2)), np.ones((3, 4))), r"\(3, 2\) and \(3, 4\)"),
        (lambda: draw_mean([[1.0, math.inf], [1.0, 2.0]]), "mark one that diverged as nan"),
        (lambda: draw_mean([[1.0, 2.0]]), "at least 2 draws"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_fraction_at_its_end_everywhere_has_the_bound_of_as_many_trials():
    found = draw_fraction(np.zeros((12, 3)))
    assert (found.value, found.low, found.n, found.draws) == (0, 0, 36, 12)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert found.widened(100).high == pytest.approx(1 - 0.00025 ** (1 / 12))
    assert not found.insufficient


def test_a_fraction_that_varies_is_a_mean():
    x = np.random.default_rng(5).random((10, 4))
    assert draw_fraction(x) == draw_mean(x)
    with pytest.raises(ValueError, match="between 0 and 1"):
        draw_fraction(2 * x)

"""Valleys of the cost in gradients: hand-made ones, the exact ones of a quadratic, and runs that never arrive."""

from __future__ import annotations

import numpy as np
import pytest
from descent.engine.rules import sgd
from descent.measure.critical_batch import critical_exponent, valley
from descent.theory.search_noise import virtual_steps
from numpy.testing import assert_allclose

SIZES = 2.0 ** np.arange(3, 13)
SHAPE = SIZES / 300 + 300 / SIZES  # cost with its minimum, 2, at 300


def runs(cost: np.ndarray, spread: float = 0.1, count: int = 40) -> np.ndarray:
    """Steps (R, …, B) of the mean cost given, with a log-normal spread between runs."""
    r = np.random.Generator(np.random.Philox(0))
    factor = np.exp(spread * r.normal(size=(count, *cost.shape)) - spread**2 / 2)
    return factor * cost / SIZES


def test_the_valley_of_a_known_cost():
    found = valley(SIZES, np.stack([SHAPE / SIZES] * 3), 0)
    assert found.sizes == (256,)
    assert found.low.value < 256 < found.high.value
    cost = np.interp(np.log([found.low.value, found.high.value]), np.log(SIZES), np.log(SHAPE))
    assert_allclose(np.exp(cost), 1.05 * SHAPE.min(), rtol=1e-12)
    assert found.centre.value == pytest.approx((found.low.value * found.high.value) ** 0.5)
    assert found.low.low == found.low.high  # all runs alike
    wide = valley(SIZES, np.stack([SHAPE / SIZES] * 3), 0, tolerance=0.3)
    assert wide.sizes == (256, 512)
    assert (wide.open_below, wide.open_above) == (False, False)


def test_the_authors_table_is_flat():
    """SHB, ResNet18 on CIFAR-100, ε = 0.5, read off the public figure of Sato and Iiduka; 10⁶ gradients."""
    sizes = 2 ** np.arange(3, 14)
    cost = np.array([43.28, 32.46, 22.44, 18.31, 17.69, 17.42, 16.50, 16.37, 18.12, 25.13, 48.73])
    both = np.stack([cost, cost]) / sizes
    assert valley(sizes, both, 0).sizes == (512, 1024)
    assert valley(sizes, both, 0, tolerance=0.12).sizes == (64, 128, 256, 512, 1024, 2048)


def test_intervals_cover_the_centre_and_shrink_with_the_runs():
    truth = valley(SIZES, np.stack([SHAPE / SIZES] * 2), 0).centre.value
    few, many = (valley(SIZES, runs(SHAPE, 0.2, count), 0).centre for count in (40, 1000))
    for found in (few, many):
        assert found.low <= truth * 1.05
        assert found.high >= truth * 0.95
    assert np.log(many.high / many.low) < np.log(few.high / few.low)


def test_a_valley_may_reach_the_end_of_the_range():
    falling = np.stack([1 / SIZES] * 2) / SIZES
    found = valley(SIZES, falling, 0)
    assert found.sizes == (4096,)
    assert (found.open_below, found.open_above) == (False, True)
    rising = valley(SIZES, np.ones((2, len(SIZES))), 0)
    assert rising.sizes == (8,)
    assert rising.low.value == pytest.approx(8.0)
    assert (rising.open_below, rising.open_above) == (True, False)


def test_sizes_that_never_arrive_are_out():
    steps = runs(SHAPE, 0.05)
    steps[3, :6] = np.inf  # one run fails at every size up to 256
    found = valley(SIZES, steps, 0)
    assert found.sizes == (512,)
    assert found.low.value == pytest.approx(512, rel=1e-3)
    with pytest.raises(ValueError, match="run longer"):
        valley(SIZES, np.full_like(steps, np.inf), 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="three rising"):
        valley([8, 4, 16], np.ones((2, 3)), 0)
    with pytest.raises(ValueError, match="NaN"):
        valley([4, 8, 16], np.full((2, 3), np.nan), 0)


def test_exponents_of_known_scalings():
    x = np.array([0.5, 0.7, 1.0])
    cost = np.stack([SIZES / b + b / SIZES for b in 60 / x**2])
    found = critical_exponent(x, SIZES, runs(cost), 0)
    assert found.low <= -2 <= found.high
    assert found.high - found.low < 0.5


def test_the_critical_batch_of_a_quadratic_knows_the_rate_under_one_rule_only():
    """Exact T(B): under the inner product B* ∝ lr, under the mini-batch gradient it does not know lr."""
    rates, given = [0.2, 0.1, 0.05], {"variance": 100.0, "start": 3.0, "precision": 0.5}
    sizes = np.unique(np.geomspace(4, 400, 40).round())
    inner = virtual_steps(sgd(rates), sizes, **given)
    found = critical_exponent(rates, sizes, np.stack([inner] * 2), 0)
    assert found.value == pytest.approx(1.0, abs=0.1)
    sizes = np.unique(np.geomspace(420, 3000, 40).round())
    norm = virtual_steps(sgd(rates), sizes, **given, stopping="minibatch_gradient")
    assert critical_exponent(rates, sizes, np.stack([norm] * 2), 0).value == pytest.approx(0.0, abs=0.15)
    centre = valley(sizes, np.stack([norm[1]] * 2), 0).centre.value
    assert 2.0 < centre * 0.25 / 100 < 2.7

"""Thresholds and exponents of single runs: numbers worked out beforehand, closed forms and direct simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.problems.exponents import (
    Features,
    almost_sure_threshold,
    exit_spread,
    exit_time,
    exponent,
    exponent_threshold,
    finite_horizon,
    lyapunov,
    mean_square_threshold,
)
from descent.theory.weights import Gamma, TwoPoint, moment

EXPONENTIAL, SQUARES, COIN = Gamma(1.0), Gamma(0.5), TwoPoint(0.8)
SOLDNER = 1.4513692348833810  # the zero of the logarithmic integral


def test_mean_square_oracles() -> None:
    sizes = (1, 2, 4, 8, 16, 64, 200, 500, 1000)
    expected = [1.219512, 1.515152, 1.724138, 1.851852, 1.923077, 1.980198, 1.993620, 1.997443, 1.998721]
    assert [mean_square_threshold(COIN, k) for k in sizes] == pytest.approx(expected, abs=6e-7)
    assert [mean_square_threshold(EXPONENTIAL, k) for k in sizes] == pytest.approx([2 * k / (k + 1) for k in sizes])
    assert mean_square_threshold(EXPONENTIAL, None) == almost_sure_threshold(EXPONENTIAL, None) == 2
    isotropic = [mean_square_threshold(Features(10), k) for k in (1, 4, 16, 64, 256)]
    assert isotropic == pytest.approx([1 / 6, 0.533333, 1.185185, 1.706667, 1.917603], abs=6e-7)


def test_almost_sure_oracles() -> None:
    sizes = (1, 2, 4, 8, 16, 32, 100, 200)
    expected = [2.684510, 2.662996, 2.492579, 2.299302, 2.151049, 2.068811, 2.020503, 2.010121]
    assert [almost_sure_threshold(EXPONENTIAL, k) for k in sizes] == pytest.approx(expected, abs=6e-7)
    assert almost_sure_threshold(EXPONENTIAL) == pytest.approx(1 / math.log(SOLDNER), abs=1e-11)
    assert almost_sure_threshold(SQUARES) == pytest.approx(2.421250, abs=6e-7)
    assert almost_sure_threshold(COIN) == pytest.approx((2 - math.sqrt(1.12)) / 0.72, abs=1e-11)


def test_exponent_oracles() -> None:
    table = {
        (1, 1.0): 2.0,
        (1, 1.25): 1.344818,
        (1, 1.5): 0.915243,
        (1, 2.0): 0.389747,
        (1, 2.5): 0.082911,
        (4, 1.6): 2.0,
        (4, 1.8): 1.313227,
        (4, 2.0): 0.800124,
        (4, 2.2): 0.411234,
        (16, 2.0): 0.987655,
        (100, 2.0): 1.000000,
    }
    found = [exponent(EXPONENTIAL, lr, k) for k, lr in table]
    assert found == pytest.approx(list(table.values()), abs=6e-7)
    table = {(1, 1.544): 0.4422, (1, 1.9826): 0.1738, (4, 1.9982): 0.6138, (4, 2.3306): 0.2539, (16, 2.1689): 0.3437}
    found = [exponent(SQUARES, lr, k) for k, lr in table]
    assert found == pytest.approx(list(table.values()), abs=2e-4)


@pytest.mark.parametrize("law", [EXPONENTIAL, COIN, Features(3)])
@pytest.mark.parametrize("alpha", [3.7, 2.0, 1.0, 0.3])
def test_exponent_and_its_threshold_are_inverse(law: Gamma | TwoPoint | Features, alpha: float) -> None:
    lr = exponent_threshold(law, 4, alpha)
    assert exponent(law, lr, 4) == pytest.approx(alpha, rel=1e-9)
    assert exponent_threshold(law, 4, 2.0) == pytest.approx(mean_square_threshold(law, 4))


def test_exponents_at_their_ends() -> None:
    assert exponent(EXPONENTIAL, 2.7) == 0
    assert exponent(TwoPoint(0.5), 0.5) == math.inf  # |1 − 0.5·w| never exceeds 1
    assert almost_sure_threshold(COIN, 4) > mean_square_threshold(COIN, 4)


def test_finite_horizon_oracles() -> None:
    """Half-width of the basin of a circle of radius 10, curvature 10 against 1 of the bowl inside it; 2000 steps."""
    radius = 10 - 10 * math.sqrt(10) / (math.sqrt(10) + 1)
    found = [finite_horizon(EXPONENTIAL, k, radius, 0.01, 2000) for k in (1, 2, 4, 8, 32)]
    assert found == pytest.approx([1.230, 1.592, 1.828, 1.943, 1.997], abs=6e-4)
    with pytest.raises(ValueError, match="above jitter"):
        finite_horizon(EXPONENTIAL, 1, 0.01, 0.1, 2000)


def test_the_mean_square_threshold_rules_after_as_many_steps_as_the_squared_room() -> None:
    assert finite_horizon(EXPONENTIAL, 4, 1.0, 0.02, 100**2) == pytest.approx(mean_square_threshold(EXPONENTIAL, 4))


@pytest.mark.parametrize(("dimension", "batch_size"), [(1, 4), (2, 1), (3, 2), (10, 4), (30, 1)])
def test_features_are_plain_descent_on_gaussian_examples(dimension: int, batch_size: int) -> None:
    """One step from a unit vector with k feature vectors drawn in full."""
    law, lr = Features(dimension), 1.1 * mean_square_threshold(Features(dimension), batch_size)
    streams = Streams(replica_seeds(1, 100_000), torch.float64)
    x = streams.normal(Purpose.BATCH, 0, (batch_size, dimension))
    v = -lr / batch_size * torch.einsum("rki,rk->ri", x, x[:, :, 0])
    v[:, 0] += 1
    logs = v.norm(dim=1).log().numpy()
    assert lyapunov(law, lr, batch_size) == pytest.approx(logs.mean(), abs=4 * logs.std() / math.sqrt(len(logs)))
    assert moment(law, lr, batch_size, 1.0) == pytest.approx(np.exp(logs).mean(), rel=0.02)


@pytest.mark.parametrize("dimension", [1, 2, 10, 100])
def test_the_second_moment_of_features(dimension: int) -> None:
    for batch_size, lr in ((1, 0.02), (16, 1.3)):
        expected = (1 - lr) ** 2 + lr**2 * (dimension + 1) / batch_size
        assert moment(Features(dimension), lr, batch_size, 2.0) == pytest.approx(expected, rel=1e-10)


def test_features_in_one_dimension_are_squares() -> None:
    assert almost_sure_threshold(Features(1), 4) == pytest.approx(almost_sure_threshold(SQUARES, 4), rel=1e-12)
    with pytest.raises(ValueError, match="dimension must be at least 1"):
        Features(0)


def test_the_gap_closes_with_the_dimension() -> None:
    """Ratios of the two thresholds; the reference values carry a simulation error of one per cent."""
    table = {1: (3.65, 1.88, 1.48, 1.23, 1.08, 1.01, 0.99), 16: (1.29, 1.23, 1.20, 1.16, 1.10, 1.03, 1.01)}
    for batch_size, expected in table.items():
        laws = [Features(d) for d in (1, 2, 3, 5, 10, 30, 100)]
        gap = [almost_sure_threshold(law, batch_size) / mean_square_threshold(law, batch_size) for law in laws]
        assert gap == pytest.approx(expected, rel=0.013)
        assert (np.diff(gap) < 0).all()
        assert gap[-1] > 1


def test_exit_times_of_a_simulated_walk() -> None:
    lr, widths = 1.3 * almost_sure_threshold(EXPONENTIAL, 4), 40.0
    streams = Streams(replica_seeds(5, 4000), torch.float64)
    steps = 600
    drawn = torch.stack([EXPONENTIAL.batch_mean(streams, t, 4) for t in range(steps)])
    walk = (1 - lr * drawn).abs().log().cumsum(0)
    assert (walk.amax(0) > widths).all()
    times = (walk > widths).double().argmax(0).add(1).double()
    half = (walk > widths / 2).double().argmax(0).add(1).double()
    slope = float((times - half).mean()) / (widths / 2)
    assert slope == pytest.approx(exit_time(EXPONENTIAL, lr, 4, 1.0), rel=0.02)
    assert float(times.std() / times.mean()) == pytest.approx(exit_spread(EXPONENTIAL, lr, 4, widths), rel=0.1)
    with pytest.raises(ValueError, match="single runs shrink"):
        exit_time(EXPONENTIAL, 2.0, 4, 1.0)

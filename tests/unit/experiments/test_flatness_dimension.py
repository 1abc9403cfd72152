"""The gap between the thresholds: measured on runs against quadrature, with momentum and without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from descent.arrays import Array
from descent.engine import heavy_ball
from descent.experiments.flatness import dimension
from descent.experiments.lab import Lab
from descent.figures.flatness.exits import dimension_gap
from descent.measure.growth import crossing, growth_of_runs
from descent.problems.exponents import Minimum, lyapunov
from descent.theory.mode import mode_edge
from descent.theory.weights import Gamma


@pytest.fixture(scope="module")
def result() -> dimension.DimensionResult:
    config = dimension.DIMENSION.small
    measured, ladder = ((1, 1), (10, 1), (10, 4), (30, 1)), (1, 10, 30)
    small = dataclasses.replace(
        config, dimensions=ladder, ladder=ladder, measured=measured, growing=(1, 4), momentum_batches=(1, 16),
        momentum_steps=400,
    )  # fmt: skip
    return dimension.run(small, Lab(replicas=250))


def runs(minimum: Minimum, lr: list[float], momentum: float, replicas: int, steps: int, burn: int = 0) -> Array:
    start, streams = torch.ones(1, 1, dtype=torch.float64), Lab().streams(replicas, torch.float64)
    return growth_of_runs(minimum, heavy_ball(lr, momentum), start, steps, streams, burn=burn)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_growth_of_runs_is_that_of_the_matrices(momentum: float) -> None:
    """Full batch: log of the spectral radius of the companion matrix; overdamped, so that it settles."""
    lr = [2 * (1 + momentum) * 1.1, 2 * (1 + momentum) * 1.3]
    found = runs(Minimum(Gamma(1.0), None), lr, momentum, 2, 100, 100)
    for column, rate in zip(found.T, lr, strict=True):
        companion = np.array([[1 + momentum - rate, -momentum], [1.0, 0.0]])
        assert column == pytest.approx(np.log(np.abs(np.linalg.eigvals(companion)).max()), abs=1e-6)


def test_growth_of_runs_agrees_with_quadrature() -> None:
    found = runs(Minimum(Gamma(0.5), 4), [2.0, 3.0], 0.0, 200, 200)
    for column, lr in zip(found.T, (2.0, 3.0), strict=True):
        assert column.mean() == pytest.approx(lyapunov(Gamma(0.5), lr, 4), abs=4 * column.std() / 200**0.5)


def test_crossing_interpolates_the_inverse() -> None:
    lr = np.array([0.9, 1.0, 1.1])
    growth = np.sqrt(lr - 0.7)[None] - np.sqrt(0.27)  # the inverse is a parabola: exact
    assert crossing(lr, growth) == pytest.approx(0.97, abs=1e-12)


def test_measured_gaps_contain_the_exact_ones(result) -> None:
    for where in result.features:
        exact, found = dimension.exact_gap(*where), result.measured_gap(*where).widened(100)
        assert found.low <= exact <= found.high


def test_the_gap_closes_and_thresholds_rise_with_the_batch(result) -> None:
    found = dimension.estimates(result)
    assert found["P2-X4.one"].low > 3
    assert found["P2-X4.last"].value == pytest.approx(1.012, abs=0.03)
    far, near = found["P2-X4.falls"]
    assert far.value == pytest.approx(dimension.exact_gap(1, 1) - dimension.exact_gap(10, 1), abs=0.1)
    assert near.value == pytest.approx(1.079 - 1.012, abs=0.04)
    (rise,) = found["P2-C9.dimension"]
    assert rise.value == pytest.approx(0.5878 / 0.1799, rel=0.05)  # by quadrature


def test_the_ladder_is_measured() -> None:
    for config in (dimension.DIMENSION.small, dimension.DIMENSION.large):
        assert {(d, 1) for d in config.ladder} | {(config.crowd, k) for k in config.growing} <= set(config.measured)


def test_thresholds_with_momentum(result) -> None:
    """Reference values 0.22 and 1.86 from an independent simulation; never below the mean-square threshold."""
    found = {k: t.almost_sure(0) for k, t in result.momentum.items()}
    assert found[1].value == pytest.approx(0.22, abs=0.015)
    assert found[16].value == pytest.approx(1.86, abs=0.06)
    for k, estimate in found.items():
        assert estimate.low > mode_edge(1.0, dimension.MOMENTUM, 2 / k)
    frame = dimension.tables(result)["momentum_thresholds"]
    assert (frame.almost_sure > frame.mean_square).all()


def test_the_figure_shows_both_panels(result) -> None:
    gap, momenta = dimension_gap(result).axes
    assert gap.get_xscale() == momenta.get_xscale() == "log"
    labels = [text.get_text() for text in momenta.get_legend().get_texts()]
    assert {"momentum 0", "momentum 0.9"} <= set(labels)

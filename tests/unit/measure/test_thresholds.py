"""The step at which half of the runs have left: curves with known medians, scans against single runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.measure.thresholds import Curve, Scan, median_step, median_steps
from descent.problems.circle import Circle, Section
from numpy.testing import assert_allclose

STEPS = np.linspace(0.0, 2.0, 41)


def curve(last: np.ndarray) -> Curve:
    """Return the curve of runs that stay up to a step of their own (N,)."""
    return Curve(STEPS, last[:, None] < STEPS)


def edges(replicas: int, seed: int = 0) -> np.ndarray:
    return 1 + 0.1 * torch.randn(replicas, generator=torch.Generator().manual_seed(seed)).numpy().astype(np.float64)


def test_median_of_a_known_curve() -> None:
    middle = np.array([[0.963], [1.218]])
    share = 1 / (1 + np.exp(-(STEPS - middle) / 0.1))
    assert_allclose(median_step(STEPS, share), middle[:, 0], atol=1e-3)
    assert float(median_step(STEPS, share[0])) == pytest.approx(0.963, abs=1e-3)


def test_a_jagged_curve_is_made_to_rise() -> None:
    assert float(median_step([0.0, 1.0, 2.0, 3.0], [0.0, 0.6, 0.4, 1.0])) == pytest.approx(1.0)
    assert float(median_step([0.0, 1.0, 2.0, 3.0], [0.0, 0.5, 0.3, 1.0])) == pytest.approx(2 + 0.1 / 0.6)


def test_estimate_has_the_median_in_its_interval_as_often_as_it_should() -> None:
    found = [median_steps(lambda c: c, curve(edges(1000, seed)), seed=seed) for seed in range(40)]
    covered = sum(e.low <= 1 <= e.high for e in found)
    assert covered >= 33
    assert found[0].n == 1000
    assert_allclose(np.mean([e.high - e.low for e in found]), 2 * 1.96 * 0.1 * np.sqrt(np.pi / 2 / 1000), rtol=0.15)


def test_pairing_takes_the_noise_out_of_a_comparison() -> None:
    first, second = edges(1000), edges(1000)
    shift = median_steps(lambda a, b: b - a, curve(first), curve(second + 0.2), seed=0)
    assert shift.value == pytest.approx(0.2, abs=0.01)
    assert shift.high - shift.low < 0.02
    other = median_steps(lambda a, b: b / a, curve(first), curve(edges(1000, 9) + 0.2), seed=0)
    assert other.value == pytest.approx(1.2, abs=0.03)


def test_who_left_at_a_step() -> None:
    found = Curve(np.array([1.0, 2.0]), np.array([[False, True], [True, True]]))
    assert found.at(1.0).tolist() == [False, True]
    with pytest.raises(KeyError, match=r"1.5 is not in the scan"):
        found.at(1.5)


@pytest.mark.parametrize("shift", [-1.5, 1.5])
def test_a_scan_that_misses_the_median_says_so(shift: float) -> None:
    with pytest.raises(ValueError, match="scan a wider range"):
        median_steps(lambda c: c, curve(edges(100) + shift), seed=0)


def test_a_scan_is_its_steps_one_by_one() -> None:
    """Also with blocks of replicas at steps of their own, momentum, and points with coordinates."""
    lr = np.array([[0.05, 0.1], [0.15, 0.2]])
    seeds = replica_seeds(1, 6)
    for objective, point in ((Section(Circle(jitter=0.1)), ()), (Circle(jitter=0.1), (2,))):
        start = torch.full((12, 2, *point), -0.1, dtype=torch.float64)
        hyper = repeat(heavy_ball(1.0, 0.5), 12)
        both = train(Scan(objective, lr), start, hyper, 20, Streams(seeds.repeat(2), torch.float64)).params
        for block in range(2):
            for arm in range(2):
                alone = train(
                    objective,
                    start[:6, 0],
                    repeat(heavy_ball(lr[block, arm], 0.5), 6),
                    20,
                    Streams(seeds, torch.float64),
                ).params
                torch.testing.assert_close(both[6 * block : 6 * block + 6, arm], alone)  # type: ignore[index]
    one = train(Scan(Section(Circle()), lr[0]), start[:, :, 0], hyper, 3, Streams(seeds.repeat(2), torch.float64))
    assert one.params.shape == (12, 2)  # type: ignore[union-attr]

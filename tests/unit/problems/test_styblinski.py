"""Styblinski–Tang sums: the landscape, thresholds and growth against closed forms, known numbers and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.problems.styblinski import (
    FLAT,
    SHARP,
    TOP,
    Critical,
    StyblinskiTang,
    crisis,
    cycle,
    descent_edge,
    flip,
    minimisers,
    noise_scale,
    share_flat,
)
from descent.theory.weights import Gamma, TwoPoint, moment
from numpy.testing import assert_allclose

FULL = StyblinskiTang(batch_size=None)


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(3, replicas), torch.float64)


def descend(problem: StyblinskiTang, lr: float, start: list[float], steps: int) -> np.ndarray:
    """Return the path (T, R) of one coordinate from every start."""
    x = torch.tensor(start, dtype=torch.float64)[:, None]
    hyper = repeat(sgd(lr), len(start))
    run = train(problem, x, hyper, steps, streams(len(start)), probes={"x": every(1, lambda x: x[:, 0])})  # type: ignore[index, return-value]
    return run.records["x"].values.numpy()


def test_critical_points_are_the_known_ones() -> None:
    assert_allclose([SHARP.x, TOP.x, FLAT.x], [-2.903534, 0.156731, 2.746803], atol=5e-7)
    assert_allclose([SHARP.curvature, FLAT.curvature], [34.58306, 29.26955], atol=5e-6)
    assert_allclose([SHARP.value, FLAT.value], [-39.166166, -25.029447], atol=5e-7)
    assert_allclose([descent_edge(SHARP), descent_edge(FLAT)], [0.057832, 0.068330], atol=5e-7)


def test_gradient_and_loss_belong_together() -> None:
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).view(8, 3).requires_grad_()
    (slope,) = torch.autograd.grad(FULL.loss(x).sum(), x)
    torch.testing.assert_close(FULL.gradient(x.detach(), streams(8), 0), slope, rtol=1e-13, atol=1e-12)


def test_minimisers_are_all_there_and_only_the_highest_is_flat() -> None:
    points = torch.from_numpy(minimisers(10))
    assert points.shape == (1024, 10)
    assert FULL.gradient(points, streams(1024), 0).abs().max() < 1e-12
    curvature = (6 * points**2 - 16).amax(dim=1)
    assert int((curvature < 30).sum()) == 1
    assert int(curvature.argmin()) == int(FULL.loss(points).argmax()) == 1023
    assert_allclose(float(FULL.loss(points)[-1]), -250.29447, atol=1e-5)
    assert_allclose(float(FULL.loss(points)[0]), -391.66166, atol=1e-5)
    with pytest.raises(ValueError, match="between 1 and 20"):
        minimisers(30)


def test_all_coordinates_share_the_weight_of_a_batch() -> None:
    x = torch.full((500, 3), 1.0, dtype=torch.float64)
    slope = StyblinskiTang(Gamma(1.0), 2).gradient(x, streams(500), 0)
    assert torch.equal(slope[:, 0], slope[:, 1])
    assert torch.equal(slope[:, 0], slope[:, 2])
    weight = slope[:, 0] / -11.5
    assert float(weight.mean()) == pytest.approx(1, abs=4 * math.sqrt(0.5 / 500))
    assert float(weight.var()) == pytest.approx(0.5, rel=0.35)


def test_blocks_of_replicas_have_their_own_batch_size_and_the_same_luck() -> None:
    x, seeds = torch.full((90, 1), 1.0, dtype=torch.float64), replica_seeds(3, 30).repeat(3)
    mixed = StyblinskiTang(TwoPoint(0.5), (1, 4, None), jitter=0.3)
    slope = mixed.gradient(x, Streams(seeds, torch.float64), 5)[:, 0]
    for block, size in zip(slope.chunk(3), (1, 4, None), strict=True):
        alone = StyblinskiTang(TwoPoint(0.5), size, jitter=0.3).gradient(x[:30], streams(30), 5)[:, 0]
        assert torch.equal(block, alone)
    assert torch.equal(slope[60:], torch.full((30,), -11.5, dtype=torch.float64))
    assert noise_scale((1, 4, None), x[:3]).flatten().tolist() == [1.0, 0.5, 0.0]


def test_jitter_has_the_stated_size_and_vanishes_with_the_batch() -> None:
    x = torch.full((20_000, 2), FLAT.x, dtype=torch.float64)
    noise = StyblinskiTang(batch_size=4, jitter=0.1).gradient(x, streams(20_000), 0)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(torch.corrcoef(noise.T)[0, 1])) < 0.03


def test_mean_square_thresholds_are_where_the_mean_square_of_one_step_is_one() -> None:
    assert_allclose(StyblinskiTang().thresholds(4), [0.0544299, 0.0643110], atol=5e-8)
    assert_allclose(StyblinskiTang().thresholds(None), [descent_edge(SHARP), descent_edge(FLAT)], rtol=1e-12)
    for k in (1, 2, 16):
        for edge, well in zip(StyblinskiTang().thresholds(k), (SHARP, FLAT), strict=True):
            assert moment(TwoPoint(0.5), edge * well.curvature, k, 2) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("k", [1, 4])
def test_mean_square_and_logarithmic_growth_of_a_small_distance(k: int) -> None:
    """One step from 1e-6 beside each well, where the third derivative does not matter yet."""
    problem, count = StyblinskiTang(batch_size=k), 200_000
    for well, edge, growth in zip((SHARP, FLAT), problem.thresholds(k), problem.lyapunov(0.05, k), strict=True):
        x = torch.full((count, 1), well.x + 1e-6, dtype=torch.float64)
        slope = problem.gradient(x, streams(count), 0)
        squares = ((x - edge * slope - well.x) / 1e-6).square().flatten()
        logs = ((x - 0.05 * slope - well.x) / 1e-6).abs().log().flatten()
        for found, expected in ((squares, 1.0), (logs, growth)):
            assert float(found.mean()) == pytest.approx(expected, abs=5 * float(found.std()) / count**0.5 + 1e-5)


def test_momentum_moves_the_threshold_as_one_mode_says() -> None:
    plain, momentum = StyblinskiTang().thresholds(1), StyblinskiTang().thresholds(1, 0.9)
    assert momentum.sharp == pytest.approx(2 * 1.9 / (SHARP.curvature * (1 + 19 * 0.25)))
    assert momentum.sharp < plain.sharp
    assert StyblinskiTang().thresholds(64, 0.9).sharp > StyblinskiTang().thresholds(64).sharp


@pytest.mark.parametrize(
    ("k", "known"),
    [
        (1, (-1.268, -0.746, -0.536, -0.4055)),
        (2, (-0.598, -0.284, -0.144, -0.0521)),
        (4, (-0.162, 0.0042, 0.0955, 0.1605)),
        (8, (-0.0035, 0.114, 0.189, 0.245)),
        (None, (0.072, 0.179, 0.249, 0.301)),
    ],
)
def test_growth_at_the_sharp_well_is_the_known_one(k: int | None, known: tuple[float, ...]) -> None:
    found = [StyblinskiTang().lyapunov(lr, k).sharp for lr in (0.06, 0.0635, 0.066, 0.068)]
    assert_allclose(found, known, atol=7e-4)


def test_growth_at_the_flat_well_is_the_known_one() -> None:
    assert [StyblinskiTang().lyapunov(0.068, k).flat for k in (4, 8)] == pytest.approx([-0.372, -0.100], abs=5e-4)
    assert StyblinskiTang().lyapunov(8 / 3 / SHARP.curvature, 1).sharp == pytest.approx(0, abs=1e-12)


def test_the_flip_is_supercritical_and_its_cycle_grows_like_a_square_root() -> None:
    assert flip(SHARP) == pytest.approx(31.10, abs=0.01)
    assert flip(FLAT) > 0
    for well in (SHARP, FLAT):
        edge, excess = descent_edge(well), 1e-6
        found = cycle(edge * (1 + excess), well)
        assert (found.high - found.low) / 2 == pytest.approx(math.sqrt(4 * excess / (edge * flip(well))), rel=1e-3)
        assert found.multiplier == pytest.approx(1 - 8 * excess, abs=1e-8)


@pytest.mark.parametrize("well", [SHARP, FLAT])
def test_full_descent_falls_into_the_cycle(well: Critical) -> None:
    lr = 1.1 * descent_edge(well)
    found = cycle(lr, well)
    path = descend(FULL, lr, [well.x + 1e-3, well.x - 0.1], 400)
    assert_allclose(np.sort(path[-2:], axis=0), np.array([[found.low] * 2, [found.high] * 2]), atol=1e-12)
    with pytest.raises(ValueError, match="a cycle exists above"):
        cycle(0.99 * descent_edge(well), well)


def test_the_period_doubles_where_the_multiplier_passes_minus_one() -> None:
    edge = descent_edge(SHARP)
    assert cycle(1.2366 * edge).multiplier == pytest.approx(-1, abs=1e-3)
    path = descend(FULL, 1.25 * edge, [SHARP.x + 1e-3], 3000)[:, 0]
    assert abs(path[-1] - path[-3]) > 0.1
    assert abs(path[-1] - path[-5]) < 1e-9


@pytest.mark.parametrize("well", [SHARP, FLAT])
def test_the_band_opens_at_the_crisis(well: Critical) -> None:
    side = np.sign(well.x - TOP.x)
    starts = (well.x + np.linspace(-1e-3, 1e-3, 20)).tolist()
    kept, lost = (descend(FULL, share * crisis(well), starts, 4000) for share in (0.9999, 1.003))
    assert (side * (kept - TOP.x) > 0).all()
    assert (side * (lost - TOP.x) < 0).any(axis=0).all()
    assert crisis() / descent_edge(SHARP) == pytest.approx(1.60696, abs=1e-5)


def test_share_flat_counts_basins() -> None:
    x = torch.tensor([[SHARP.x, 0.15, 0.16, FLAT.x]], dtype=torch.float64)
    assert share_flat(x).tolist() == [0.5]

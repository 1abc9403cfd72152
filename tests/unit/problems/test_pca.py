from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.problems.pca import StreamingPCA, error, overlap, radius, travel_steps
from descent.theory.diffusion import (
    diffusion_floor,
    diffusion_growth,
    diffusion_mean,
    diffusion_quantile,
    diffusion_variance,
)
from descent.theory.escape import escape_mean, escape_quantile, variance_from_rest
from descent.theory.mode import growth, stationary_variance

PCA = StreamingPCA()


def streams(replicas: int, dtype: torch.dtype = torch.float64) -> Streams:
    return Streams(replica_seeds(3, replicas), dtype)


@pytest.mark.parametrize("eigenvalues", [(4.0,), (4.0, 4.0, 1.0), (1.0, 2.0), (4.0, 1.0, 2.0), (4.0, 3.0, 0.0)])
def test_refuses_spectra_without_a_first_gap(eigenvalues: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="eigenvalues must"):
        StreamingPCA(eigenvalues)


def test_refuses_unknown_samples() -> None:
    with pytest.raises(ValueError, match="gaussian"):
        StreamingPCA(samples="cauchy")  # type: ignore[arg-type]


def test_gradient_is_the_written_formula() -> None:
    v = torch.tensor([[0.6, 0.8, 0.1, -0.2], [0.3, -0.5, 0.9, 0.4]], dtype=torch.float64)
    given = PCA.gradient(v, streams(2), 7)
    x = streams(2).normal(1, 7, (4,)) * torch.tensor(PCA.eigenvalues, dtype=torch.float64).sqrt()
    for row in range(2):
        projector = torch.eye(4, dtype=torch.float64) - torch.outer(v[row], v[row])
        expected = -projector @ torch.outer(x[row], x[row]) @ v[row]
        torch.testing.assert_close(given[row], expected, rtol=1e-13, atol=1e-13)


def test_one_step_moments_of_gaussian_samples() -> None:
    replicas = 400_000
    v = torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64).expand(replicas, -1)
    ascent = -PCA.gradient(v, streams(replicas), 0)
    for moment, expected in ((ascent, (0.384, -0.288, 0, 0)), (ascent**2, (8.122368, 4.568832, 6.72, 3.36))):
        error_bar = moment.std(dim=0) / replicas**0.5
        assert ((moment.mean(dim=0) - torch.tensor(expected)).abs() < 4.5 * error_bar + 1e-12).all()


def test_noise_free_gradient_is_the_mean_of_both_sample_laws() -> None:
    replicas = 200_000
    v = torch.tensor([0.5, 0.5, -0.5, 0.5], dtype=torch.float64).expand(replicas, -1)
    mean = StreamingPCA(samples="mean").gradient(v[:1], streams(1), 0)[0]
    for samples in ("gaussian", "signs"):
        drawn = StreamingPCA(samples=samples).gradient(v, streams(replicas), 0)  # type: ignore[arg-type]
        assert ((drawn.mean(dim=0) - mean).abs() < 4.5 * drawn.std(dim=0) / replicas**0.5 + 1e-12).all()


def test_critical_points_are_still_without_noise() -> None:
    still = StreamingPCA(samples="mean")
    for index in range(4):
        point = still.at(index, 2, torch.float64)
        assert still.gradient(point, streams(2), 0).abs().max() == 0


def test_noise_at_a_critical_point_has_the_stated_variance() -> None:
    replicas = 200_000
    g = PCA.gradient(PCA.at(1, replicas, torch.float64), streams(replicas), 0)[:, 0]
    assert PCA.noise() == 12.0
    assert float(g.var()) == pytest.approx(12.0, rel=4.5 * float((g**2).std() / g.var()) / replicas**0.5)


def test_constants() -> None:
    assert PCA.gap() == 1.0
    assert PCA.gap(3) == 3.0
    assert PCA.floor(5e-4, [0.0, 0.9]) == pytest.approx([0.0043333333, 0.0433333333], rel=1e-7)
    parts = [diffusion_floor(PCA.gap(i), 5e-4, 0.9, PCA.noise(i)) for i in (1, 2, 3)]
    assert sum(parts) == pytest.approx(float(PCA.floor(5e-4, 0.9)), rel=1e-14)


def test_overlap_and_error_are_complements_and_ignore_the_norm() -> None:
    v = torch.tensor([[0.6, 0.8, 0, 0], [1.2, 1.6, 0, 0], [1.0, 1e-9, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(overlap(v) + error(v), torch.ones(3, dtype=torch.float64))
    assert float(overlap(v)[0]) == pytest.approx(0.36)
    assert float(error(v)[2]) == pytest.approx(1e-18)


def test_radius_is_the_tangent() -> None:
    assert radius([0.5, 0.9]) == pytest.approx([1.0, 3.0])


def test_flow_solves_its_equation() -> None:
    start = np.array([0.1, 0.9, 0.3, 0.3])
    start /= np.linalg.norm(start)
    times = np.linspace(0, 3, 7)
    step = 1e-5
    slope = (PCA.flow(start, times + step) - PCA.flow(start, times - step)) / (2 * step)
    h, eigenvalues = PCA.flow(start, times), np.array(PCA.eigenvalues)
    expected = h * eigenvalues - (h**2 @ eigenvalues)[:, None] * h
    np.testing.assert_allclose(slope, expected, atol=1e-8)
    np.testing.assert_allclose(PCA.flow(start, 0.0), start, atol=1e-15)


def test_flow_reaches_the_optimum_without_overflow() -> None:
    np.testing.assert_allclose(PCA.flow([0.1, 0.9, 0.3, 0.3], 1e4), [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_noise_free_recursion_approaches_the_flow_with_slope_one(momentum: float) -> None:
    still, start = StreamingPCA(samples="mean"), np.array([0.1, 0.9, 0.3, 0.3])
    distances = []
    for effective in (4e-3, 1e-3):
        steps = round(2 / effective)
        hyper = heavy_ball(effective * (1 - momentum), momentum)
        probe = {"v": every(steps // 50, lambda v: v)}
        series = train(still, torch.tensor(start[None]), hyper, steps, streams(1), probes=probe).records["v"]
        flow = still.flow(start, effective * series.steps.numpy())
        distances.append(np.linalg.norm(series.values[:, 0].numpy() - flow, axis=1).max())
    assert np.log(distances[0] / distances[1]) / np.log(4) == pytest.approx(1.0, abs=0.02)


def test_travel_of_two_modes_is_exact_for_the_flow() -> None:
    lr, momentum = 1e-3, 0.9
    steps = float(travel_steps(0.5, 0.9, PCA.gap(), lr, momentum))
    assert steps == pytest.approx((1 - momentum) / lr * np.log(3))
    arrived = PCA.flow(np.array([1, 1, 0, 0]) / np.sqrt(2), lr * steps / (1 - momentum))
    assert arrived[0] ** 2 == pytest.approx(0.9)


def test_exact_and_diffusion_means_of_the_standard_setting() -> None:
    arms = np.array([0.0, 0.9])
    law = (PCA.gap(), 5e-4, arms, PCA.noise())
    assert escape_mean(radius(0.5), *law) == pytest.approx([7085.0, 515.9], abs=0.06)
    assert escape_mean(radius(0.9), *law) == pytest.approx([9280.1, 743.0], abs=0.06)
    assert diffusion_mean(radius(0.5), *law) == pytest.approx([7079.5, 477.7], abs=0.06)
    assert diffusion_quantile([0.1, 0.5, 0.9], 1.0, 1.0, 5e-4, 0.9, 12.0) == pytest.approx([259, 431, 766], abs=1)


def test_diffusion_formulas_are_the_small_step_limits() -> None:
    lr, momentum = 1e-7, 0.5
    assert growth(1.0, lr, momentum) == pytest.approx(float(diffusion_growth(1.0, lr, momentum)), rel=1e-6)
    floor = diffusion_floor(2.0, lr, momentum, 3.0)
    assert stationary_variance(2.0, lr, momentum, 3.0) == pytest.approx(float(floor), rel=1e-6)
    k = round(1 / lr)
    exact = variance_from_rest(k, 1.0, lr, momentum, 3.0)
    assert exact == pytest.approx(float(diffusion_variance(k, 1.0, lr, momentum, 3.0)), rel=1e-5)
    exact = escape_quantile(0.3, 1.0, 1.0, lr, momentum, 3.0)
    assert exact == pytest.approx(float(diffusion_quantile(0.3, 1.0, 1.0, lr, momentum, 3.0)), rel=1e-5)


def test_diffusion_mean_is_the_mean_of_its_quantiles() -> None:
    p = (np.arange(20_000) + 0.5) / 20_000
    times = diffusion_quantile(p, 5.0, 1.0, 1e-4, 0.5)
    assert times.mean() == pytest.approx(float(diffusion_mean(5.0, 1.0, 1e-4, 0.5)), rel=1e-4)

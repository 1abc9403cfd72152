"""Rugged objectives: derivatives, closed forms of smoothing against quadrature and draws, traps against descent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from descent.engine.rules import ema, heavy_ball, repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.problems.smoothed import Rugged, characteristic, rastrigin, second_moment
from numpy.testing import assert_allclose
from scipy import integrate

F64 = torch.float64
LANDSCAPES = pytest.mark.parametrize("f", [Rugged(), rastrigin(), Rugged(1.3, 0.4, 3.0, offset=2.0)])
KERNELS = pytest.mark.parametrize("kernel", ["ball", "gaussian"])


def mean(function, kernel: str) -> float:
    """E function(u) by quadrature."""
    if kernel == "ball":
        return integrate.quad(lambda u: float(function(u)) / 2, -1, 1, limit=200)[0]
    scale = math.sqrt(2 * math.pi)
    return integrate.quad(lambda u: float(function(u)) * math.exp(-(u**2) / 2) / scale, -9, 9, limit=200)[0]


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(2, replicas), F64)


def test_rastrigin_is_written_out():
    x = np.linspace(-2, 2, 17)
    assert_allclose(rastrigin().value(x), x**2 - 10 * np.cos(2 * np.pi * x) + 10, rtol=1e-12)


@LANDSCAPES
def test_gradient_is_the_derivative(f):
    x = torch.linspace(-2, 2, 12, dtype=F64).view(6, 2)
    left, right = (f.value((x + s * 1e-5).numpy()) for s in (-1, 1))
    assert_allclose(f.slope(x.numpy()), (right - left) / 2e-5, atol=1e-6)
    assert_allclose(f.gradient(x, streams(6), 0).numpy(), f.slope(x.numpy()), rtol=1e-12)


def test_noise_may_differ_between_replicas():
    noise = torch.tensor([1.0, 4.0], dtype=F64).repeat_interleave(4000)
    f, x = Rugged(noise=noise), torch.full((8000, 1), 0.3, dtype=F64)
    xi = f.gradient(x, streams(8000), 5) - torch.from_numpy(f.slope(x.numpy()))
    for part, variance in zip(xi.view(2, -1), (1.0, 4.0), strict=True):
        assert part.var().item() == pytest.approx(variance, rel=4 * (2 / 4000) ** 0.5)


def test_smoothed_oracles():
    table = {"gaussian": [12.636624, 11.052397, 10.362224], "ball": [12.984154, 12.078097, 10.173333]}
    for kernel, expected in table.items():
        found = [rastrigin().smoothed(degree, kernel).value(0.3) for degree in (0.1, 0.25, 0.5)]
        assert_allclose(found, expected, atol=5.1e-7)


def test_characteristic_oracles():
    found = [characteristic("ball", 2.0, d) for d in (1, 2, 3, 10, 100)]
    assert_allclose(found, [0.454649, 0.576725, 0.653097, 0.844756, 0.980580], atol=5.1e-7)
    assert characteristic("ball", 0.0, 4) == characteristic("gaussian", 0.0, 4) == 1.0


@LANDSCAPES
@KERNELS
@pytest.mark.parametrize("degree", [0.05, 0.4])
def test_smoothing_by_quadrature(f, kernel, degree):
    smooth = f.smoothed(degree, kernel)
    for x in (-0.7, 0.0, 1.1):
        assert float(smooth.value(x)) == pytest.approx(mean(lambda u, x=x: f.value(x - degree * u), kernel), abs=1e-9)
        assert float(smooth.slope(x)) == pytest.approx(mean(lambda u, x=x: f.slope(x - degree * u), kernel), abs=1e-9)


@KERNELS
@pytest.mark.parametrize("dimension", [2, 5])
def test_smoothing_in_several_dimensions_by_draws(kernel, dimension):
    draws = 200_000
    u = streams(draws).normal(Purpose.PROBE, 0, (dimension,)) / dimension**0.5
    if kernel == "ball":
        radius = streams(draws).uniform(Purpose.PROBE, 1, (1,)) ** (1 / dimension)
        u = u / u.norm(dim=1, keepdim=True) * radius
    f, x, degree = Rugged(), np.linspace(-0.5, 0.9, dimension), 0.3
    samples = f.value(x - degree * u.numpy()).sum(axis=1)
    expected = f.smoothed(degree, kernel, dimension).value(x).sum()
    assert samples.mean() == pytest.approx(expected, abs=4 * samples.std() / draws**0.5)
    assert (u[:, 0] ** 2).mean().item() == pytest.approx(second_moment(kernel, dimension), rel=0.02)


def test_gaussian_smoothing_twice_is_smoothing_once():
    f = rastrigin()
    twice, once = f.smoothed(0.1, "gaussian").smoothed(0.2, "gaussian"), f.smoothed(math.hypot(0.1, 0.2), "gaussian")
    x = np.linspace(-1, 1, 9)
    assert_allclose(twice.value(x), once.value(x), rtol=1e-12)


@LANDSCAPES
@KERNELS
def test_smoothing_moves_a_lipschitz_function_by_at_most_the_degree(f, kernel):
    """A gaussian u has E|u| = √(2/π) < 1, a ball E|u| = ½; the constant is that of the places reached."""
    x = np.linspace(-1, 1, 201)
    for degree in (0.01, 0.1, 0.5):
        slope = np.abs(f.slope(np.linspace(-1 - 6 * degree, 1 + 6 * degree, 20_001))).max()
        assert np.abs(f.smoothed(degree, kernel).value(x) - f.value(x)).max() < degree * slope


def test_trap_threshold_oracles():
    assert Rugged().trap_threshold("gaussian") == pytest.approx(0.1245635, abs=5e-8)
    assert Rugged().trap_threshold("ball") == pytest.approx(0.1986939, abs=5e-8)
    assert Rugged(amplitude=0.04).trap_threshold("ball") == 0.0


@KERNELS
@pytest.mark.parametrize(
    ("f", "start"), [(Rugged(), 0.9), (Rugged(1.0, 0.05, 14.0), 0.9), (Rugged(1.0, 0.25, 5.0), 1.9)]
)
def test_descent_on_the_smoothed_objective_comes_home_from_the_threshold_on(f, start, kernel):
    threshold = f.trap_threshold(kernel)
    for share, home in ((0.995, False), (1.005, True)):
        g = f.smoothed(share * threshold, kernel)
        end = train(g, torch.full((1, 1), start, dtype=F64), sgd(0.5 / (1 + f.roughness)), 4000, streams(1)).params
        assert (abs(end.item()) < f.home) == home


@pytest.mark.parametrize("dimension", [1, 2, 7, 100])
def test_trap_threshold_leaves_the_last_trap(dimension):
    f = Rugged()
    for kernel in ("ball", "gaussian"):
        left = f.smoothed(f.trap_threshold(kernel, dimension), kernel, dimension)
        assert left.roughness == pytest.approx(4.603338848751701, rel=1e-10)


@pytest.mark.parametrize(("rule", "convention", "momentum"), [(heavy_ball, "heavy_ball", 0.6), (ema, "ema", 0.9)])
def test_stability_limit_in_both_conventions(rule, convention, momentum):
    f = Rugged()
    limit = f.stability_limit(momentum, convention)
    rates = [0.98 * limit, 1.02 * limit]
    start = torch.full((2, 1), 1e-9, dtype=F64)
    end = train(f, start, rule(rates, momentum), 2500, streams(2)).params[:, 0].abs()
    assert end[0] < 1e-9 < end[1]
    assert f.stability_limit() == pytest.approx(2 / 11)


def test_temperature_is_the_spread_of_the_density():
    """Small steps: E x² under exp(−f/T), at momentum 0 and 0.8 with equal effective step."""
    f, replicas = Rugged(amplitude=0.02, noise=6.0), 3000
    rates, momenta = [0.02, 0.004], [0.0, 0.8]
    temperature = f.temperature(rates, momenta)
    assert_allclose(temperature, 0.06)
    assert_allclose(f.temperature(0.02, 0.8, "ema"), 0.06)
    hyper = repeat(heavy_ball(rates, momenta), replicas)
    start, probes = torch.zeros(2 * replicas, 1, dtype=F64), {"x2": every(50, lambda x: x[:, 0].square())}
    series = train(f, start, hyper, 700, streams(2 * replicas), probes=probes).records["x2"]
    found = series.values[series.steps >= 300].mean(0).view(2, replicas)
    weight, _ = integrate.quad(lambda x: math.exp(-float(f.value(x)) / 0.06), -3, 3)
    spread, _ = integrate.quad(lambda x: x * x * math.exp(-float(f.value(x)) / 0.06), -3, 3)
    assert_allclose(found.mean(1), spread / weight, rtol=0.04)


def test_what_is_refused():
    with pytest.raises(ValueError, match="kernel must be"):
        Rugged().smoothed(0.1, "cauchy")
    with pytest.raises(ValueError, match="at most 300"):
        characteristic("ball", 1.0, 301)

"""The hyperbola of minimisers: geometry, gradient, thresholds and the conserved quantity of its flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.problems.exponents import almost_sure_threshold
from descent.problems.hyperbola import Hyperbola, flow_sharpness, hessian, minimiser, residual, sharpness
from descent.theory.weights import Gamma, moment
from numpy.testing import assert_allclose


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(4, replicas), torch.float64)


def points(replicas: int = 64) -> torch.Tensor:
    return 2 * streams(replicas).normal(0, 0, (2,))


def test_gradient_is_the_derivative_times_the_weight() -> None:
    x = points().requires_grad_()
    (slope,) = torch.autograd.grad(residual(x).square().sum() / 2, x)
    torch.testing.assert_close(Hyperbola(batch_size=None).gradient(x.detach(), streams(64), 0), slope)
    noisy = Hyperbola(batch_size=3).gradient(x.detach(), streams(64), 0)
    ratio = noisy / slope
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1])
    torch.testing.assert_close(ratio[:, 0], Gamma(0.5).batch_mean(streams(64), 0, 3))


def test_jitter_stays_on_the_hyperbola() -> None:
    x = torch.from_numpy(minimiser(np.full(20_000, 3.0)))
    noise = Hyperbola(batch_size=4, jitter=0.2).gradient(x, streams(20_000), 0)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert Hyperbola(batch_size=4).gradient(x, streams(20_000), 0).abs().max() < 1e-13


def test_minimisers_have_the_curvature_asked_for() -> None:
    s = np.array([2.0, 2.5, 10.0, 300.0])
    at = minimiser(s)
    assert_allclose(at.prod(axis=-1), 1, rtol=1e-13)
    assert_allclose(sharpness(torch.from_numpy(at)).numpy(), s, rtol=1e-13)
    values = np.linalg.eigvalsh(hessian(at))
    assert_allclose(values[:, 1], s, rtol=1e-12)
    assert_allclose(values[:, 0], 0, atol=1e-12)
    with pytest.raises(ValueError, match="below 2"):
        minimiser(1.9)


def test_hessian_is_the_second_derivative() -> None:
    at = minimiser(4.0)
    found = torch.autograd.functional.hessian(lambda x: residual(x).square() / 2, torch.from_numpy(at))
    assert_allclose(found.numpy(), hessian(at), atol=1e-12)


def test_small_steps_end_where_the_flow_does() -> None:
    start = points(40)
    run = train(Hyperbola(batch_size=None), start, repeat(sgd(1e-3), 40), 12_000, streams(40), check=1000)
    assert residual(run.params).abs().max() < 1e-3
    torch.testing.assert_close(sharpness(run.params), flow_sharpness(start), rtol=1e-2, atol=2e-3)


def test_thresholds_are_those_of_one_direction() -> None:
    problem = Hyperbola()
    assert [problem.threshold(k) for k in (1, 2, 4, None)] == pytest.approx([2 / 3, 1.0, 4 / 3, 2.0], abs=1e-12)
    for k in (1, 4, 16):
        assert moment(problem.weights, problem.threshold(k), k, 2) == pytest.approx(1, abs=1e-9)
    assert problem.threshold(1, 0.9) / 0.1 == pytest.approx(0.974, abs=5e-4)  # as an effective step
    assert problem.threshold(None, 0.9) == pytest.approx(3.8)
    assert almost_sure_threshold(problem.weights, 1) == pytest.approx(2.42125, abs=5e-6)


def test_mean_square_growth_across_the_hyperbola_in_simulation() -> None:
    """One step from 1e-6 beside a minimiser of curvature 5 at the threshold of k = 4 keeps E(uv − 1)²."""
    count = 200_000
    at = torch.from_numpy(minimiser(np.full(count, 5.0))) * (1 + 1e-6)
    lr, k = Hyperbola().threshold(4) / 5, 4
    moved = at - lr * Hyperbola(batch_size=k).gradient(at, streams(count), 0)
    ratio = (residual(moved) / residual(at)).square()
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * float(ratio.std()) / count**0.5 + 1e-4)

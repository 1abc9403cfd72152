"""The diagonal linear net: gradients against autograd, noises against their covariance, and the law of flattening."""

from __future__ import annotations

import pytest
import torch
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.problems.diagonal import DiagonalNet, Noise, on_manifold
from torch import Tensor

R, N, D = 4, 12, 3
STREAMS = Streams(replica_seeds(3, R), torch.float64)
INPUTS = STREAMS.normal(Purpose.DATA, 0, (N, D))
SOLUTION = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
PARAMS = STREAMS.normal(Purpose.INIT, 0, (2, D))


def test_gradient_is_that_of_the_loss() -> None:
    problem = DiagonalNet(INPUTS, SOLUTION)
    params = PARAMS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(problem.value(params).sum(), params)
    assert torch.allclose(problem.gradient(PARAMS, STREAMS, 0), expected, rtol=1e-12)


@pytest.mark.parametrize("noise", ["batch", "aligned"])
def test_noise_has_the_covariance_of_a_batch(noise: Noise) -> None:
    """Its trace is `noise_power`, and along every parameter it is that of the examples' gradients."""
    many = 20_000
    streams = Streams(replica_seeds(5, many), torch.float64)
    inputs, params = INPUTS[:1].expand(many, -1, -1), PARAMS[:1].expand(many, -1, -1)
    problem = DiagonalNet(inputs, SOLUTION, noise, batch_size=2)
    drawn = problem.gradient(params, streams, 0).flatten(1)
    each = torch.stack([DiagonalNet(row[None, None], SOLUTION).gradient(PARAMS[:1], STREAMS, 0) for row in INPUTS[0]])
    exact = torch.cov(each.flatten(1).T, correction=0) / 2
    assert torch.allclose(torch.cov(drawn.T), exact, rtol=0.08, atol=0.03 * float(exact.diagonal().max()))
    assert float(problem.noise_power(params)[0]) == pytest.approx(float(exact.trace()), rel=1e-9)


def test_isotropic_noise_has_the_same_trace() -> None:
    many = 20_000
    streams = Streams(replica_seeds(5, many), torch.float64)
    inputs, params = INPUTS[:1].expand(many, -1, -1), PARAMS[:1].expand(many, -1, -1)
    drawn = DiagonalNet(inputs, SOLUTION, "isotropic", batch_size=2).gradient(params, streams, 0).flatten(1)
    power = float(DiagonalNet(inputs, SOLUTION, "batch", batch_size=2).noise_power(params)[0])
    variances = drawn.var(dim=0)
    assert float(variances.sum()) == pytest.approx(power, rel=0.03)
    assert float(variances.max() / variances.min()) < 1.1


def test_imbalance_shrinks_exactly_as_gradient_reaches_it() -> None:
    """u² − v² = 2.65825 after one step from u, v, g, lr = 1.7, 0.3, 0.9, 0.25; and along a run of batches."""
    u, v, g, lr = 1.7, 0.3, 0.9, 0.25
    assert (u - lr * g * v) ** 2 - (v - lr * g * u) ** 2 == pytest.approx(2.65825, rel=1e-9)
    problem = DiagonalNet(INPUTS, SOLUTION, "batch", 2)
    slope = problem.gradient(PARAMS, STREAMS, 0)[:, 0] / PARAMS[:, 1]
    moved = train(problem, PARAMS, repeat(sgd(0.05), R), 1, STREAMS).params
    assert isinstance(moved, Tensor)
    before, after = (p[:, 0].square() - p[:, 1].square() for p in (PARAMS, moved))
    assert torch.allclose(after, before * (1 - 0.05**2 * slope.square()), rtol=1e-12)


def test_on_manifold_has_the_stated_product_and_curvature() -> None:
    curvature = torch.tensor([4.0, 2.0, 1.5], dtype=torch.float64)
    start = on_manifold(SOLUTION, curvature)
    assert torch.allclose(start[0] * start[1], SOLUTION, rtol=1e-12)
    assert torch.allclose(start.square().sum(0), curvature, rtol=1e-12)

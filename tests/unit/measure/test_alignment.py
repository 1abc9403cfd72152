"""Alignment of gradient noise: the Gram formulas against explicit matrices, and their oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.alignment import (
    block_alignment,
    directional_alignment,
    extreme_directions,
    linear_extremes,
    loss_alignment,
    reachable_extremes,
    weighted,
)
from descent.theory.isserlis import (
    expected_alignment,
    population_alignment,
    population_directional,
    population_extremes,
)
from torch import Tensor

X = torch.tensor([[1.0, 0, 2], [0, 1, -1], [1, 1, 0], [2, -1, 1]], dtype=torch.float64)
R = X @ torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64) - torch.tensor([1.0, -1, 0.5, 2], dtype=torch.float64)


def _draw(*shape: int, step: int = 0, replicas: int = 1) -> Tensor:
    return Streams(replica_seeds(3, replicas), torch.float64).normal(Purpose.DATA, step, shape)


def _explicit(jacobian: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = len(jacobian)
    gradients = residuals[:, None] * jacobian
    mean = gradients.mean(dim=0)
    uncentred = gradients.T @ gradients / n
    return jacobian.T @ jacobian / n, uncentred, uncentred - mean.outer(mean)


def test_oracle_of_four_points() -> None:
    found = loss_alignment(X @ X.T, R)
    assert found.scores.tolist() == pytest.approx([11.5, 3.25, 1.75, 14.25])
    assert float(found.uncentred) == pytest.approx(1.4450698353, abs=1e-10)
    assert float(found.centred) == pytest.approx(0.9257869502, abs=1e-10)
    low, high = reachable_extremes(X @ X.T)
    assert (float(low), float(high)) == pytest.approx((0.3029078387, 1.8285358571), abs=1e-10)


def test_unrestricted_extremes_are_those_of_the_scores() -> None:
    scores = loss_alignment(X @ X.T, R).scores
    ends = (float(scores.min() / scores.mean()), float(scores.max() / scores.mean()))
    assert ends == pytest.approx((0.2276422764, 1.8536585366), abs=1e-10)


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (12, 12)])
def test_gram_formulas_equal_explicit_matrices(shape: tuple[int, int]) -> None:
    jacobian, residuals = _draw(*shape)[0], _draw(shape[0], step=1)[0]
    g, uncentred, centred = _explicit(jacobian, residuals)
    scale = residuals.square().mean() * g.square().sum()
    found = loss_alignment(jacobian @ jacobian.T, residuals)
    assert torch.allclose(found.uncentred, (uncentred * g).sum() / scale, rtol=1e-12)
    assert torch.allclose(found.centred, (centred * g).sum() / scale, rtol=1e-12)
    along = directional_alignment(jacobian @ jacobian.T, residuals, keep=5)
    values, vectors = torch.linalg.eigh(g)
    for index in range(5):
        v = vectors[:, -1 - index]
        power = residuals.square().mean() * (v @ g @ v)
        assert torch.allclose(along.curvature[index], values[-1 - index], rtol=1e-11)
        assert torch.allclose(along.uncentred[index], (v @ uncentred @ v) / power, rtol=1e-9)
        assert torch.allclose(along.centred[index], (v @ centred @ v) / power, rtol=1e-9)


def test_bounds_and_invariances() -> None:
    jacobian, residuals = _draw(9, 4, replicas=50), _draw(9, step=1, replicas=50)
    gram = jacobian @ jacobian.mT
    found = loss_alignment(gram, residuals)
    relative = found.scores / found.scores.mean(dim=-1, keepdim=True)
    assert (relative.amin(dim=-1) <= found.uncentred + 1e-12).all()
    assert (found.uncentred <= relative.amax(dim=-1) + 1e-12).all()
    assert (found.centred <= found.uncentred).all()
    scaled = loss_alignment(9 * gram, -3 * residuals)
    assert torch.allclose(scaled.uncentred, found.uncentred, rtol=1e-12)
    single = loss_alignment(gram[:, :1, :1], residuals[:, :1])
    assert single.centred.abs().max() < 1e-12


@pytest.mark.parametrize("centred", [False, True])
def test_reachable_extremes_enclose_and_are_reached(centred: bool) -> None:
    inputs, weights = _draw(10, 4)[0], _draw(4, 2000, step=1)[0]
    gram = inputs @ inputs.T
    low, high = reachable_extremes(gram, centred=centred)
    tried = loss_alignment(gram.expand(2000, 10, 10), (inputs @ weights).T)
    values = tried.centred if centred else tried.uncentred
    assert low <= values.min() + 1e-12
    assert values.max() <= high + 1e-12
    assert values.max() - values.min() > 0.5 * (high - low)


def test_replicas_of_unequal_rank_are_refused() -> None:
    full = _draw(6, 4)[0]
    thin = torch.cat([full[:, :3], torch.zeros(6, 1, dtype=torch.float64)], dim=1)
    both = torch.stack([full, thin])
    with pytest.raises(ValueError, match="ranks 3 to 4"):
        reachable_extremes(both @ both.mT)


def test_extreme_directions_of_few_points_vanish_and_reach_the_leverage() -> None:
    inputs, starts = _draw(14, 8, replicas=3), _draw(24, 8, step=1, replicas=3)
    low, high = extreme_directions(inputs, starts)
    assert low.max() < 1e-8  # n = 2(d − 1): half of the points each
    basis, _ = torch.linalg.qr(inputs)
    leverage = basis.square().sum(dim=-1)
    assert (high >= (14 * leverage.square().amax(dim=-1) - 1) * (1 - 1e-9)).all()


@pytest.mark.parametrize("shape", [(5, 9), (12, 4)])
def test_extremes_of_a_linear_model_by_either_route(shape: tuple[int, int]) -> None:
    inputs = _draw(*shape, replicas=3)
    for found, expected in zip(linear_extremes(inputs), reachable_extremes(inputs @ inputs.mT), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9)


def test_extreme_directions_beat_random_pairs() -> None:
    inputs, starts = _draw(40, 5)[0], _draw(12, 5, step=1)
    low, high = extreme_directions(inputs[None], starts)
    basis, _ = torch.linalg.qr(inputs)
    a, b = (torch.nn.functional.normalize(_draw(5000, 5, step=s)[0], dim=-1) for s in (2, 3))
    tried = 40 * ((a @ basis.T).square() * (b @ basis.T).square()).sum(dim=-1) - (a * b).sum(dim=-1).square()
    assert float(low) <= float(tried.min())
    assert float(high) >= float(tried.max())


def test_logistic_loss_through_weights() -> None:
    jacobian, outputs = _draw(8, 5)[0], _draw(8, step=1)[0]
    labels = torch.tensor([1.0, -1] * 4, dtype=torch.float64)
    slopes = -labels * torch.sigmoid(-labels * outputs)
    curvatures = torch.sigmoid(outputs) * torch.sigmoid(-outputs)
    g = jacobian.T @ (curvatures[:, None] * jacobian) / 8
    gradients = slopes[:, None] * jacobian
    twice = 2 * torch.nn.functional.softplus(-labels * outputs).mean()
    expected = (gradients.T @ gradients / 8 * g).sum() / (twice * g.square().sum())
    gram, residuals = weighted(jacobian @ jacobian.T, slopes, curvatures)
    assert torch.allclose(loss_alignment(gram, residuals, twice).uncentred, expected, rtol=1e-12)
    v = torch.linalg.eigh(g)[1][:, -1]
    along = directional_alignment(gram, residuals, 1, twice).uncentred[0]
    assert torch.allclose(along, (v @ (gradients.T @ gradients / 8) @ v) / (twice * (v @ g @ v)), rtol=1e-9)


@pytest.mark.parametrize("curved", [False, True])
def test_several_outputs_against_explicit_matrices(curved: bool) -> None:
    n, outputs, p = 6, 3, 11
    jacobian, slopes = _draw(n, outputs, p)[0], _draw(n, outputs, step=1)[0]
    root = _draw(n, outputs, outputs, step=2)[0]
    hessians = root @ root.mT if curved else torch.eye(outputs, dtype=torch.float64).expand(n, -1, -1)
    gradients = torch.einsum("ncp,nc->np", jacobian, slopes)
    g = torch.einsum("ncp,ncd,ndq->pq", jacobian, hessians, jacobian) / n
    expected = (gradients.T @ gradients / n * g).sum() / (slopes.square().sum() / n * g.square().sum())
    blocks = torch.einsum("icp,jdp->icjd", jacobian, jacobian)
    found = block_alignment(blocks, slopes, hessians if curved else None)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_one_output_is_a_block_alignment() -> None:
    jacobian, residuals = _draw(6, 9)[0], _draw(6, step=1)[0]
    gram = jacobian @ jacobian.T
    found = block_alignment(gram[:, None, :, None], residuals[:, None])
    assert torch.allclose(found, loss_alignment(gram, residuals).uncentred, rtol=1e-12)


def test_population_oracles() -> None:
    assert population_alignment(np.diag([1, 0.5, 0.25]), [1, -1, 2]) == pytest.approx((1.7238095238, 1.3619047619))
    assert population_directional(np.eye(2), [1, 0], [0.6, 0.8]) == pytest.approx((1.72, 1.36))
    assert population_extremes(np.ones(20)) == pytest.approx((1.1, 1.1))


@pytest.mark.parametrize(
    ("n", "noise", "frobenius"), [(1, 34.21875, 5.6875), (4, 12.796875, 2.40625), (16, 7.44140625, 1.5859375)]
)
def test_expected_moments(n: int, noise: float, frobenius: float) -> None:
    found = expected_alignment(np.diag([1, 0.5, 0.25]), [1, -1, 2], n)
    assert (found.noise, found.frobenius) == pytest.approx((noise, frobenius), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "d", "uncentred", "centred"),
    [
        (20, 200, 1.0191402715, 0.9591131222),
        (50, 20, 1.1309859155, 1.0448732394),
        (1000, 20, 1.1021547502, 1.0500752204),
    ],
)
def test_isotropic_ratio_of_expectations(n: int, d: int, uncentred: float, centred: float) -> None:
    found = expected_alignment(np.eye(d), np.eye(d)[0], n)
    assert (found.uncentred, found.centred) == pytest.approx((uncentred, centred), abs=1e-9)


def test_expectations_against_simulation() -> None:
    root = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64).sqrt()
    u = torch.tensor([1.0, -1, 2], dtype=torch.float64)
    inputs = _draw(4, 3, replicas=40_000) * root
    gram, residuals = inputs @ inputs.mT, inputs @ u
    scores = gram.square().mean(dim=-1)
    expected = expected_alignment(np.diag(root.square().numpy()), u.numpy(), 4)
    drift = ((gram @ residuals[..., None]).squeeze(-1) / 4).square().mean(dim=-1)
    for samples, value in (
        ((residuals.square() * scores).mean(dim=-1), expected.noise),
        (scores.mean(dim=-1), expected.frobenius),
        (drift, expected.drift),
    ):
        error = float(samples.std()) / len(samples) ** 0.5
        assert abs(float(samples.mean()) - value) < 4.5 * error

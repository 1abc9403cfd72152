"""Random quadratics as objectives: which batches they draw, and the mean and covariance of their gradients."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.problems import quadratics
from descent.problems.quadratics import (
    FOUR_ATOMS,
    Ensemble,
    Gaussian,
    GaussianFeatures,
    RandomWeights,
    Weighted,
    noise_floor,
    residuals,
)
from descent.theory.weights import Gamma, TwoPoint
from numpy.testing import assert_allclose
from scipy import stats

ATOMS = np.array(FOUR_ATOMS)
OFFSETS = np.array([[0.3, 0.0], [0.0, -1.0], [1.0, 0.5], [0.2, 0.2]])
POINT = np.array([0.7, -1.1])


def streams(replicas: int, seed: int = 1) -> Streams:
    return Streams(replica_seeds(seed, replicas), torch.float64)


def gradients(objective, replicas: int = 40_000) -> np.ndarray:
    point = torch.as_tensor(POINT).expand(replicas, -1)
    return objective.gradient(point, streams(replicas), 0).numpy()


def close_in_law(found: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Mean within 4.5 standard errors, covariance within 4 % of its size."""
    error = np.sqrt(np.diag(covariance) / len(found))
    assert (np.abs(found.mean(0) - mean) <= 4.5 * error + 1e-12).all()
    assert_allclose(np.cov(found.T), covariance, atol=0.04 * np.abs(covariance).max() + 1e-15)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_ensemble_gradients_have_the_mean_and_the_covariance_of_a_batch(
    replacement: bool, listed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quadratics, "_TABLE", 1 << 16 if listed else 0)
    single = ATOMS * (ATOMS @ POINT)[:, None] + OFFSETS
    for k, share in ((1, 1.0), (3, 1 / 3 if replacement else 1 / 9)):
        found = gradients(Ensemble(ATOMS, k, OFFSETS, replacement))
        close_in_law(found, single.mean(0), share * np.cov(single.T, bias=True))


@pytest.mark.parametrize("replacement", [True, False])
def test_listed_batches_are_all_batches_with_their_chances(replacement: bool):
    draw = itertools.product(range(4), repeat=3) if replacement else itertools.permutations(range(4), 3)
    chance = Counter(tuple(np.bincount(batch, minlength=4)) for batch in draw)
    shares, edges = quadratics._table(4, 3, replacement)
    steps = np.diff(edges.numpy(), prepend=0.0) * sum(chance.values())
    found = {tuple(np.rint(3 * row).astype(int)): step for row, step in zip(shares.numpy(), steps, strict=True)}
    assert found == pytest.approx(dict(chance))


def test_rows_and_their_hessians_are_the_same_ensemble():
    hessians = ATOMS[:, :, None] * ATOMS[:, None, :]
    for k in (1, 4, 300):  # 300: too many batches to list
        rows, full = (gradients(Ensemble(examples, k, OFFSETS), 500) for examples in (ATOMS, hessians))
        assert_allclose(rows, full, atol=1e-12)


def test_blocks_of_replicas_have_their_own_batch_size_and_the_same_luck():
    seeds = replica_seeds(3, 1000)
    both = Streams(seeds.repeat(3), torch.float64)
    point = torch.as_tensor(POINT).expand(3000, -1)
    for objective in (
        Ensemble(ATOMS, (2, 300, None)),
        GaussianFeatures((2.0, 0.5), (2, 300, None)),
        RandomWeights(Gamma(1.0), (2.0, 0.5), (2, 300, None)),
    ):
        few, many, all_of_them = objective.gradient(point, both, 5).view(3, 1000, 2)
        alone = type(objective)(**{**vars(objective), "batch_size": 2})
        assert torch.equal(few, alone.gradient(point[:1000], Streams(seeds, torch.float64), 5))
        assert (few.std(0) > 5 * many.std(0)).all()
        assert all_of_them.std(0).max() < 1e-12
        assert_allclose(few.mean(0), all_of_them[0], atol=4.5 * float(few.std(0).max()) / 1000**0.5)


def test_gaussian_features_draw_a_batch_by_its_exact_law():
    spectrum, k = np.array([2.0, 0.5]), 3
    found = gradients(GaussianFeatures(tuple(spectrum), k))
    problem = Gaussian(tuple(spectrum))
    square = np.outer(POINT, POINT)
    close_in_law(found, spectrum * POINT, problem.spread(square) / k)
    r = np.random.Generator(np.random.Philox(9))
    x = r.normal(size=(40_000, k, 2)) * np.sqrt(spectrum)
    plain = np.einsum("rki,rk->ri", x, x @ POINT) / k
    for direction in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8]):
        assert stats.ks_2samp(found @ direction, plain @ direction).pvalue > 1e-3


def test_random_weights_scale_the_full_gradient():
    for law in (Gamma(0.5), TwoPoint(0.8)):
        found = gradients(RandomWeights(law, (2.0, 0.5), 2))
        full = np.array([2.0, 0.5]) * POINT
        weights = found / full
        assert_allclose(weights[:, 0], weights[:, 1])
        assert weights[:, 0].var() == pytest.approx(law.variance / 2, rel=0.05)
        square = np.outer(POINT, POINT)
        assert_allclose(Weighted((2.0, 0.5), law.variance).spread(square), law.variance * np.outer(full, full))


def test_a_stationary_run_settles_at_the_noise_floor():
    """Two directions, rows and offsets that leave noise at the minimiser, with and without momentum."""
    replicas, steps = 400, 700
    shift = np.linalg.solve(ATOMS.T @ ATOMS / 4, OFFSETS.mean(0))
    for lr, momentum in ((0.3, 0.0), (0.1, 0.8)):
        objective = Ensemble(ATOMS, 2, OFFSETS)
        start = torch.zeros(replicas, 2, dtype=torch.float64)
        hyper = repeat(heavy_ball(lr, momentum), replicas)
        probes = {"x": every(1, lambda params: params)}
        record = train(objective, start, hyper, steps, streams(replicas), probes=probes).records["x"]
        v = record.values[200:].numpy() + shift
        floor = noise_floor(ATOMS, OFFSETS, lr, 2, momentum)
        assert_allclose(np.einsum("tri,trj->ij", v, v) / v[..., 0].size, floor, atol=0.05 * np.abs(floor).max())


def test_residuals_of_an_ensemble_sum_to_zero():
    assert_allclose(residuals(ATOMS, OFFSETS).sum(0), 0, atol=1e-12)


def test_refusals_say_what_to_do():
    with pytest.raises(ValueError, match=r"rows \(n, d\) or Hessians \(n, d, d\), got shape \(4,\)"):
        Ensemble([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match=r"offsets must have shape \(4, 2\)"):
        Ensemble(ATOMS, 1, [1.0])
    with pytest.raises(ValueError, match="between 1 and 4, got 5"):
        Ensemble(ATOMS, 5, replacement=False)
    with pytest.raises(ValueError, match="7 replicas cannot be cut into 2 equal blocks"):
        Ensemble(ATOMS, (1, 2)).gradient(torch.zeros(7, 2), streams(7), 0)

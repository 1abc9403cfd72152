"""Escape from a minimum whose noise vanishes: exact second moments, the aligned closure, and their oracles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from descent.problems.quadratics import Gaussian, moment_operator
from descent.theory.linear import aligned_edge, batch_share, critical_batch, edge_profile, mean_square_edge
from descent.theory.noise_escape import (
    closure_escape,
    closure_step,
    edge_covariance,
    eigen_rows,
    gaussian_escape,
    outside,
    outside_bound,
    second_moment_step,
)

X = torch.tensor([[1.0, 0, 2], [0, 1, -1], [1, 1, 0], [2, -1, 1]], dtype=torch.float64)
SPECTRUM = np.array([4, 2, 1, 0.5])
FIFTY = 1 / np.arange(1, 51.0)


def _after(share: float) -> float:
    curvature, rows = eigen_rows(X)
    basis = torch.linalg.svd(X, full_matrices=False)[2].mT
    start = basis.mT @ torch.diag(torch.tensor([1.0, 2, 3], dtype=torch.float64)) @ basis
    moved = second_moment_step(rows, start, 0.1, share)
    return float((curvature * moved.diagonal()).sum() / 2)


@pytest.mark.parametrize(("batch", "loss"), [(1, 2.5678125), (2, 2.4776953125), (3, 2.44765625), (4, 2.43263671875)])
def test_one_step_with_replacement(batch: int, loss: float) -> None:
    assert _after(1 / batch) == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(("batch", "loss"), [(1, 2.5678125), (2, 2.44765625), (3, 2.4076041667), (4, 2.387578125)])
def test_one_step_without_replacement(batch: int, loss: float) -> None:
    assert _after(float(batch_share(batch, 4))) == pytest.approx(loss, abs=1e-10)


def test_one_step_against_every_batch() -> None:
    curvature, rows = eigen_rows(X)
    start = torch.tensor([0.3, -1, 2], dtype=torch.float64)
    ends = [
        start - 0.2 * (rows[list(batch)] * (rows[list(batch)] @ start)[:, None]).mean(0)
        for batch in itertools.product(range(4), repeat=2)
    ]
    enumerated = sum(end.outer(end) for end in ends) / len(ends)
    assert torch.allclose(second_moment_step(rows, start.outer(start), 0.2, 0.5), enumerated, atol=1e-12)
    still = second_moment_step(rows, start.outer(start), 0.2, 0.0)
    moved = (1 - 0.2 * curvature) * start
    assert torch.allclose(still, moved.outer(moved), atol=1e-12)


def test_spectrum_of_four_points() -> None:
    assert eigen_rows(X)[0].tolist() == pytest.approx([2.6492, 0.7282, 0.3726], abs=1e-4)


@pytest.mark.parametrize(
    ("share", "edge"), [(1.0, 0.3848867499), (1 / 2, 0.5268247638), (1 / 4, 0.6313432400), (1 / 3, 0.5937409482)]
)
def test_exact_edges(share: float, edge: float) -> None:
    assert mean_square_edge(X.numpy(), 0.0, share) == pytest.approx(edge, abs=1e-9)  # 1/3: two of four, put back


def test_second_moment_neither_grows_nor_shrinks_at_the_edge() -> None:
    rows = eigen_rows(X)[1]
    edge = mean_square_edge(X.numpy(), 0.0, 0.5)
    moment = torch.eye(3, dtype=torch.float64)
    for _ in range(400):
        moment = second_moment_step(rows, moment, edge, 0.5)
    settled = second_moment_step(rows, moment, edge, 0.5)
    assert float(settled.trace() / moment.trace()) == pytest.approx(1, abs=1e-8)
    shape = edge_covariance(rows, torch.tensor(edge, dtype=torch.float64), 0.0, 0.5)
    assert torch.allclose(shape, moment / moment.trace(), atol=1e-6)


def test_closure_oracles() -> None:
    assert aligned_edge(SPECTRUM, 0.0) == pytest.approx(0.1896960467, abs=1e-10)
    found = closure_escape(SPECTRUM, 0.3, 1.0)
    assert found.growth == pytest.approx(2.0142559821, abs=1e-9)
    assert found.profile == pytest.approx([0.7293886979, 0.1941479513, 0.0590452005, 0.0174181502], abs=1e-9)
    assert (outside(found.profile, 1), outside(found.profile, 2)) == pytest.approx((0.3710110986, 0.0827940623))
    assert closure_escape(SPECTRUM, 0.3, 0.25).growth == pytest.approx(0.7452204726, abs=1e-9)
    first = closure_step(SPECTRUM, SPECTRUM, 0.3, 1.0)
    assert first == pytest.approx([10.96, 3.02, 1.165, 0.53])
    assert closure_step(SPECTRUM, first, 0.3, 1.0) == pytest.approx([23.0104, 6.1262, 1.9816, 0.7356125])


@pytest.mark.parametrize(("batch", "edge"), [(1, 0.1436866692), (4, 0.3195854622), (16, 0.4423633636)])
def test_gaussian_stream_edges(batch: int, edge: float) -> None:
    assert aligned_edge(SPECTRUM, 0.0, 1 / batch, gaussian=True) == pytest.approx(edge, abs=1e-9)
    assert aligned_edge(np.ones(20), 0.0, 1 / batch, gaussian=True) == pytest.approx(2 * batch / (21 + batch))


@pytest.mark.parametrize(
    ("momentum", "edges"),
    [
        (0.0, (0.1896960467, 0.3768220466, 0.4681158433)),
        (0.5, (0.1180737901, 0.3437017312, 0.6080775417)),
        (0.9, (0.0261446237, 0.0986862284, 0.3188152504)),
    ],
)
def test_heavy_ball_edges_and_their_plain_equivalent(momentum: float, edges: tuple[float, ...]) -> None:
    for batch, edge in zip((1, 4, 16), edges, strict=True):
        assert aligned_edge(SPECTRUM, momentum, 1 / batch) == pytest.approx(edge, abs=1e-9)
        plain = aligned_edge(SPECTRUM, 0.0, (1 + momentum) / (1 - momentum) / batch)
        assert (1 + momentum) * plain == pytest.approx(aligned_edge(SPECTRUM, momentum, 1 / batch), rel=1e-10)
    assert float(critical_batch(SPECTRUM)) == pytest.approx(1.4761904762)


def test_profiles_of_fifty_modes() -> None:
    edge = aligned_edge(FIFTY, 0.0)
    assert edge == pytest.approx(0.4087439343, abs=1e-9)
    assert outside(edge_profile(FIFTY, 0.0), 1) == pytest.approx(2.8930389718)
    assert outside(edge_profile(FIFTY, 0.0), 5) == pytest.approx(0.8509961027)
    beyond = closure_escape(FIFTY, 1.5 * edge, 1.0)
    assert beyond.growth == pytest.approx(1.1158944822, abs=1e-9)
    assert outside(beyond.profile, 1) == pytest.approx(1.5703288739)
    assert closure_escape(FIFTY, edge, 1.0).growth == pytest.approx(1, abs=1e-8)


def test_bound_lies_below_the_closure() -> None:
    for lr in (0.3, 0.6, 1.2):
        losses = FIFTY.copy()
        for _ in range(6):
            losses = closure_step(FIFTY, losses, lr, 1.0)
            for k in (1, 5, 20):
                assert outside(losses, k) >= outside_bound(FIFTY, k, lr, 1.0)


def test_isotropic_noise_of_the_same_power_escapes_along_flat_directions() -> None:
    """The recursion ℓ ← (1 − ηλ)²ℓ + pη²λ·(tr G/d)·Σℓ grows by the stated factor, in the stated profile."""
    h = 1 / np.arange(1, 21)
    edge = aligned_edge(h, 0.0, 1.0)
    found = closure_escape(h, 1.2 * edge, 1.0, isotropic=True)
    losses = np.ones(20)
    for _ in range(3000):
        moved = (1 - 1.2 * edge * h) ** 2 * losses + (1.2 * edge) ** 2 * h * h.mean() * losses.sum()
        growth, losses = moved.sum() / losses.sum(), moved / moved.sum()
    assert growth == pytest.approx(found.growth, rel=1e-9)
    assert losses == pytest.approx(found.profile, rel=1e-6)
    squares, aligned = found.profile / h, closure_escape(h, 1.2 * edge, 1.0).profile / h
    assert squares[-1] > squares[0]
    assert aligned[0] > aligned[-1]


def test_sample_means_miss_the_mean_far_beyond_the_edge() -> None:
    """Rare runs carry it: thirty thousand of them give a third at most of the exact loss, which the operator gets."""
    curvature, rows = eigen_rows(X)
    lr, steps, runs = 1.6 * 0.3848867499, 40, 30_000
    generator = np.random.default_rng(0)
    w, x = np.ones((runs, 3)), rows.numpy()
    moment = torch.ones(3, 3, dtype=torch.float64)
    for _ in range(steps):
        picked = x[generator.integers(4, size=runs)]
        w = w - lr * picked * (picked * w).sum(1, keepdims=True)
        moment = second_moment_step(rows, moment, lr, 1.0)
    exact = float((curvature * moment.diagonal()).sum())
    sampled = float((w**2 @ curvature.numpy()).mean())
    assert 0 < sampled < exact / 3


def test_rounding_feeds_no_antisymmetric_part() -> None:
    _, rows = eigen_rows(X)
    skew = torch.tensor([[0.0, 1e-3, 0.0], [-1e-3, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    moved = second_moment_step(rows, torch.eye(3, dtype=torch.float64) + skew, 0.3, 1.0)
    assert torch.equal(moved, moved.T)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("batch", [1, 8])
def test_escape_on_gaussian_features_follows_the_whole_map_of_second_moments(momentum: float, batch: int) -> None:
    """From x_t = x_{t−1} with independent entries of variance one; the map knows all covariances."""
    h, lr = np.array([2.0, 1.0, 0.3]), 0.4
    operator = moment_operator(Gaussian(tuple(h)), lr, batch, momentum)
    start = np.eye(3) if momentum == 0 else np.kron(np.ones((2, 2)), np.eye(3))
    for steps in (0, 1, 2, 25):
        moved = (np.linalg.matrix_power(operator, steps) @ start.ravel()).reshape(start.shape)
        found = gaussian_escape(h, lr, momentum, 1 / batch, steps)
        assert found == pytest.approx(h * np.diag(moved)[:3], rel=1e-10)


def test_escape_on_gaussian_features_turns_at_the_edge_and_takes_its_profile_there() -> None:
    h = np.arange(1, 21) ** -0.5
    for momentum in (0.0, 0.9):
        edge = aligned_edge(h, momentum, 1 / 8, gaussian=True)
        late, later = (gaussian_escape(h, edge, momentum, 1 / 8, steps) for steps in (3000, 3001))
        assert later.sum() == pytest.approx(late.sum(), rel=1e-7)
        assert late / late.sum() == pytest.approx(edge_profile(h, momentum, 1 / 8, gaussian=True), rel=1e-6)
        below, above = (gaussian_escape(h, f * edge, momentum, 1 / 8, 400).sum() for f in (0.95, 1.05))
        assert below < h.sum() < above

"""The curvature that batches see: one law for every stationary state, and at the edge."""

from __future__ import annotations

import numpy as np
import pytest
from descent.theory.linear import mean_hessian, mean_square_edge, multiplicative_covariance, stationary_covariance
from descent.theory.plateau import energy, own_edge, plateau
from descent.theory.valley import valley_edge


def test_every_stationary_state_obeys_the_law() -> None:
    """Examples whose Hessians do not commute, additive noise on top, from plain descent to momentum .95."""
    rng = np.random.default_rng(5)
    worst = 0.0
    for _ in range(60):
        rows, momentum, share = rng.normal(size=(6, 3)), rng.uniform(0, 0.95), 1 / rng.integers(1, 30)
        root = rng.normal(size=(3, 3))
        h, additive = mean_hessian(rows), root @ root.T
        lr = rng.uniform(0.05, 0.8) * mean_square_edge(rows, momentum, share)
        m = stationary_covariance(h, additive, lr, momentum, V=rows, share=share)
        noise = share * (additive + multiplicative_covariance(rows, m))
        found = energy(h, m, noise)
        half = lr / (1 - momentum) * found.sharpness / 2
        worst = max(worst, abs(half / float(plateau(found.signal, momentum)) - 1))
    assert worst < 1e-9


def test_the_edge_obeys_the_law() -> None:
    rng = np.random.default_rng(6)
    for momentum in (0.0, 0.5, 0.9):
        edge = own_edge(rng.normal(size=(5, 3)), momentum, 0.2)
        assert edge.plateau == pytest.approx(float(plateau(edge.signal, momentum)), rel=1e-9)


def test_at_the_edge_of_one_mode_the_plateau_is_half_way_at_c_critical_batches() -> None:
    """eS/2 = c(1 + b)/(1 + cb): with φ = 1/(1 + b) of a mode of curvature h and spread b."""
    for momentum, b in ((0.9, 0.125), (0.5, 1.0), (0.8, 3.0)):
        c = (1 + momentum) / (1 - momentum)
        found = float(plateau(1 / (1 + b), momentum))
        assert found == pytest.approx(c * (1 + b) / (1 + c * b), rel=1e-12)
        assert found == pytest.approx(float(valley_edge(momentum, b)) * (1 + b) / 2, rel=1e-12)
    assert float(plateau(1 / (1 + 1 / 19), 0.9)) == pytest.approx((1 + 19) / 2, rel=1e-12)


def test_plain_descent_sits_at_two_over_the_step_with_any_batch() -> None:
    np.testing.assert_allclose(plateau([0.0, 0.3, 1.0], 0.0), 1)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="signal is the part of the gradients' power"):
        plateau(1.2, 0.5)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        plateau(0.5, 1.0)

"""Drift along curves of minima: quadrature along the flow, and descent at small steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine import Streams, nesterov, replica_seeds, train
from descent.engine.gradients import stale
from descent.engine.rules import sgd
from descent.problems.products import Products
from descent.theory.drift import imbalance_rate, uv_drift, uv_path, uv_residual
from descent.theory.memory import Memory
from scipy.integrate import solve_ivp


def test_residual_along_the_flow_is_its_quadrature() -> None:
    for u, v in ((3.0, 0.05), (0.4, 1.7), (2.0, -0.3)):

        def flow(_: float, at: np.ndarray) -> list[float]:
            r = at[0] * at[1] - 1
            return [-r * at[1], -r * at[0], r * r]

        end = solve_ivp(flow, (0, 200), [u, v, 0.0], rtol=1e-11, atol=1e-13, method="DOP853").y[:, -1]
        assert float(uv_residual(u, v)) == pytest.approx(end[2], rel=1e-8)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_drift_of_runs_at_a_small_step(momentum: float) -> None:
    u, v, e = 3.0, 0.05, 0.0005
    p = q = 0.0
    start = u * u - v * v
    for _ in range(8000):
        r = u * v - 1
        p, q = momentum * p + r * v, momentum * q + r * u
        u, v = u - e * (1 - momentum) * p, v - e * (1 - momentum) * q
    assert np.log((u * u - v * v) / start) == pytest.approx(float(uv_drift(3.0, 0.05, e, momentum)), rel=4e-3)


@pytest.mark.parametrize("name", ["nesterov", "stale"])
def test_a_path_is_the_engines(name: str) -> None:
    steps, x, streams = 60, torch.tensor([[1.5, 0.4]], dtype=torch.float64), Streams(replica_seeds(0, 1), torch.float64)
    rule, objective, memory = {
        "nesterov": (nesterov(0.02, 0.9), Products(), Memory.nesterov(0.9)),
        "stale": (sgd(0.2), stale(Products(), 2), Memory.stale(2)),
    }[name]
    path = uv_path(memory, (1.5, 0.4), 0.2, steps)
    assert path.shape == (steps + 1, 2)
    for at in (3, steps):
        end = train(objective, x, rule, at, streams, check=at).params
        np.testing.assert_allclose(path[at], end[0].numpy(), rtol=1e-10)


def test_a_path_that_leaves_stops() -> None:
    path = uv_path(Memory.heavy_ball(0.0), (3.0, 0.05), 0.6, 50)
    assert np.isfinite(path).all()
    assert np.abs(path[-1]).max() > 1e3
    np.testing.assert_array_equal(path[-1], path[-2])


def test_one_step_shrinks_a_product_by_its_rate() -> None:
    """Of plain descent signal and noise count alike, exactly: log(1 − e²g²) a step."""
    u, v, g, e = 1.7, 0.3, 0.9, 0.001
    after = ((u - e * g * v) ** 2 - (v - e * g * u) ** 2) / (u**2 - v**2)
    assert -np.log(after) / e == pytest.approx(float(imbalance_rate(g**2, 0.0, e, 0.0)), rel=1e-5)
    np.testing.assert_allclose(imbalance_rate(0.0, 1.0, e, [0.0, 0.9]), e)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="nothing that could drift"):
        uv_residual(1.5, -1.5)
    with pytest.raises(ValueError, match="lr must be positive"):
        uv_drift(3.0, 0.05, 0.0, 0.5)
    with pytest.raises(ValueError, match="momentum must lie in"):
        uv_drift(3.0, 0.05, 0.1, 1.0)

"""Linear rules as weights: ages, ceilings and slow modes against the engine's rules, direct sums and expansions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine import Hyper, Streams, ema, every, heavy_ball, nesterov, qhm, replica_seeds, train
from descent.engine.gradients import adams_bashforth, stale
from descent.engine.rules import sgd
from descent.theory.memory import (
    Memory,
    age,
    ceiling,
    drift_factor,
    momentum_factor,
    second_order,
    slow_rate,
    squared_travel,
)
from descent.theory.mode import kernel, matched_lr
from scipy.integrate import solve_ivp

RULES = {
    "descent": Memory.heavy_ball(0.0),
    "heavy ball": Memory.heavy_ball(0.9),
    "nesterov": Memory.nesterov(0.8),
    "qhm": Memory.qhm(0.9, 0.5),
    "stale": Memory.stale(3),
    "adams_bashforth": Memory.adams_bashforth(),
    "odd": Memory((0.2, 0.0, 0.5), tail=-0.4),
}


class Impulse:
    """A gradient of one at the first step, and none later."""

    def gradient(self, params: torch.Tensor, streams: Streams, step: int) -> torch.Tensor:
        return torch.full_like(params, float(step == 0))


def weights(rule: Memory, count: int) -> np.ndarray:
    tail = rule.weights[-1] * rule.tail ** np.arange(1, count)
    return np.concatenate([rule.weights, tail])[:count]


def response(objective: object, hyper: Hyper, count: int) -> np.ndarray:
    """Return the step that a rule makes k steps after the one gradient."""
    streams, start = Streams(replica_seeds(0, 1), torch.float64), torch.zeros(1, dtype=torch.float64)
    run = train(objective, start, hyper, count, streams, probes={"x": every(1, lambda x: x)})  # type: ignore[arg-type]
    return -np.diff(run.records["x"].values[:, 0].numpy())


@pytest.mark.parametrize(
    ("rule", "hyper"),
    [
        (Memory.heavy_ball(0.9), heavy_ball(matched_lr(1.0, 0.9).item(), 0.9)),
        (Memory.heavy_ball(0.7), ema(1.0, 0.7)),
        (Memory.nesterov(0.8), nesterov(0.2, 0.8)),
        (Memory.qhm(0.9, 0.5), qhm(1.0, 0.9, 0.5)),
    ],
    ids=["heavy ball", "ema", "nesterov", "qhm"],
)
def test_weights_are_those_of_the_engine(rule: Memory, hyper: Hyper) -> None:
    np.testing.assert_allclose(response(Impulse(), hyper, 30), weights(rule, 30), rtol=1e-9, atol=1e-15)
    assert rule.step == pytest.approx(1, rel=1e-12)


def test_weights_of_lagged_gradients_are_those_of_the_engine() -> None:
    np.testing.assert_allclose(response(stale(Impulse(), 3), sgd(1.0), 6), weights(Memory.stale(3), 6), atol=1e-15)
    found = response(adams_bashforth(Impulse()), sgd(1.0), 6)
    np.testing.assert_allclose(found, weights(Memory.adams_bashforth(), 6), atol=1e-15)


@pytest.mark.parametrize("name", RULES)
def test_ages_are_the_sums_they_stand_for(name: str) -> None:
    rule, k = RULES[name], np.arange(2000)
    w = weights(rule, 2000) / rule.step
    mean, square = float(k @ w), float(k**2 @ w)
    assert age(rule) == pytest.approx(mean, rel=1e-10, abs=1e-12)
    assert drift_factor(rule) == pytest.approx(1 + 2 * mean, rel=1e-10, abs=1e-12)
    found = second_order(rule)
    c = 1 + 2 * mean
    expected = (c / 2 * (1 + mean) + square / 2 - 1 / 6, c / 4 + square / 2 - 1 / 6)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_of_heavy_ball_drift_and_ceiling_are_one_number() -> None:
    for momentum in (0.0, 0.3, 0.9, 0.99):
        rule, c = Memory.heavy_ball(momentum), float(momentum_factor(momentum))
        assert drift_factor(rule) == pytest.approx(c, rel=1e-12)
        assert ceiling(rule) == pytest.approx(2 * c, rel=1e-12)
        assert second_order(rule) == pytest.approx((c**2 / 2 - 1 / 6, c**2 / 4 - 1 / 6), rel=1e-11)


def test_ceilings_in_closed_form() -> None:
    for momentum, nu in ((0.9, 0.9), (0.5, 0.2), (0.95, 0.6)):
        expected = 2 * (1 + momentum) / (1 + momentum - 2 * nu * momentum)
        assert ceiling(Memory.qhm(momentum, nu)) == pytest.approx(expected, rel=1e-12)
    for delay in (0, 1, 2, 9, 30):
        assert ceiling(Memory.stale(delay)) == pytest.approx(2 * np.sin(np.pi / (4 * delay + 2)), rel=1e-10)


@pytest.mark.parametrize("name", RULES)
def test_a_mode_leaves_at_the_ceiling(name: str) -> None:
    rule, top = RULES[name], ceiling(RULES[name])
    assert np.isfinite(squared_travel(rule, top * (1 - 1e-5)))
    assert squared_travel(rule, top * (1 + 1e-5)) == np.inf


@pytest.mark.parametrize("name", RULES)
def test_squared_travel_is_the_sum_along_the_path(name: str) -> None:
    rule, z = RULES[name], 0.3 * ceiling(RULES[name])
    w, x = z * weights(rule, 3000) / rule.step, np.zeros(3000)
    x[0] = 1.0
    for t in range(2999):
        x[t + 1] = x[t] - w[: t + 1] @ x[t::-1]
    assert squared_travel(rule, z) == pytest.approx(z * float(x @ x), rel=1e-9)


def test_squared_travel_of_qhm_in_closed_form() -> None:
    for b, nu, z in ((0.9, 0.9, 0.4), (0.5, 0.5, 1.1), (0.8, 0.4, 0.2), (0.9, 1.0, 3.0)):
        top = 1 - b**2 + z * b * (1 + b + nu - b * nu)
        below = ((1 - b) + b * z * (1 - nu)) * (2 * (1 + b) - z * (1 + b - 2 * b * nu))
        assert squared_travel(Memory.qhm(b, nu), z) == pytest.approx(top / below, rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_slow_mode_has_the_drift_in_its_second_term(name: str) -> None:
    """κ = h + e(1 + 2k̄)h²/2 + e²(A)h³ + …, A the H²g coefficient of the modified equation."""
    rule, h = RULES[name], 0.7
    errors = []
    for e in (0.02, 0.01):
        series = h + e * drift_factor(rule) / 2 * h**2 + e**2 * second_order(rule).curvature * h**3
        errors.append(abs(slow_rate(rule, h, e) - series))
    assert errors[0] / errors[1] > 6.5 or errors[0] < 1e-8


@pytest.mark.parametrize("name", ["descent", "qhm", "stale", "adams_bashforth", "odd"])
def test_modified_equation_is_right_to_second_order(name: str) -> None:
    """On a loss of one weight with cubic and quartic terms, off which memory has died away: the error falls as e³."""
    rule, count = RULES[name], 400
    c, (a, b), w = drift_factor(rule), second_order(rule), weights(rule, 400) / rule.step

    def error(e: float) -> float:
        def flow(_: float, x: np.ndarray) -> np.ndarray:
            g, h, third = x + 0.3 * x**2 + 0.2 * x**3, 1 + 0.6 * x + 0.6 * x**2, 0.6 + 1.2 * x
            return np.asarray(-g - e * c / 2 * h * g - e**2 * (a * h * h * g + b * third * g * g))

        steps, burn = round(1 / e), round(1 / e)
        x, past, path = 1.5, np.zeros(count), []
        for _ in range(burn + steps):
            path.append(x)
            past = np.append(x + 0.3 * x**2 + 0.2 * x**3, past[:-1])
            x -= e * float(w @ past)
        end = solve_ivp(flow, (0, steps * e), [path[burn]], rtol=1e-12, atol=1e-14).y[0, -1]
        return abs(end - x)

    assert error(0.005) / error(0.0025) == pytest.approx(8, rel=0.1)


def test_kernel_is_written_in_the_one_coefficient() -> None:
    rng = np.random.default_rng(0)
    h, k, e, beta = rng.uniform(0.1, 2, (4, 200)) * [[1], [1], [1], [0.45]]
    c = momentum_factor(beta)
    expected = (h + k) / e - h * k / c + (c - 1 / c) / 4 * (h - k) ** 2
    np.testing.assert_allclose(kernel(h, k, matched_lr(e, beta), beta), expected, rtol=1e-12)


def test_heavy_ball_is_a_second_difference_times_c() -> None:
    """x_{t+1} − x_{t−1} + c(x_{t+1} − 2x_t + x_{t−1}) = −2e g_t."""
    rng = np.random.default_rng(1)
    before, now, g = rng.normal(size=(3, 200))
    beta, e = rng.uniform(0, 0.99, 200), rng.uniform(0.01, 1, 200)
    c = momentum_factor(beta)
    after = now + beta * (now - before) - (1 - beta) * e * g
    left = after - before + c * (after - 2 * now + before)
    np.testing.assert_allclose(left, -2 * e * g, rtol=1e-9, atol=1e-10)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1"):
        momentum_factor(1.0)
    with pytest.raises(ValueError, match="must sum to a positive step, got 0 from"):
        Memory((1.0, -1.0))
    with pytest.raises(ValueError, match="at least one weight, all of them finite"):
        Memory((float("nan"),))
    with pytest.raises(ValueError, match="tail is the ratio of a geometric series"):
        Memory((1.0,), tail=1.0)
    with pytest.raises(ValueError, match="delay counts steps"):
        Memory.stale(-1)
    with pytest.raises(ValueError, match=r"positive curvature: z = eh must be positive, got -0\.1"):
        slow_rate(Memory.heavy_ball(0.5), curvature=-1.0, effective=0.1)
    with pytest.raises(ValueError, match="beyond critical damping"):
        slow_rate(Memory.heavy_ball(0.9), curvature=1.0, effective=0.1)

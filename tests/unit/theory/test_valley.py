"""Drift in a valley: closed forms against sums along paths, the recursion of moments and noisy runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine import Streams, heavy_ball, replica_seeds, train
from descent.problems.products import Products, imbalance
from descent.theory.memory import Memory, ceiling, momentum_factor, noise_gain, squared_travel
from descent.theory.mode import matched_lr, mode_edge
from descent.theory.valley import (
    drift_crossing,
    drift_ratio,
    label_noise_factor,
    memory_crossing,
    memory_drift,
    memory_edge,
    moment_drift,
    noisy_drift_factor,
    qhm_crossing,
    valley_drift,
    valley_edge,
)
from scipy import optimize


def test_drift_is_that_of_the_recursion() -> None:
    rng = np.random.default_rng(3)
    worst = 0.0
    for momentum, b, share in rng.uniform((0, 0, 0.02), (0.98, 3, 0.98), (300, 3)):
        z = share * float(valley_edge(momentum, b))
        worst = max(worst, abs(moment_drift(z, momentum, b) / float(valley_drift(z, momentum, b)) - 1))
    assert worst < 1e-10


def test_without_noise_it_is_the_squared_travel_of_heavy_ball() -> None:
    for momentum in (0.0, 0.5, 0.9):
        for z in (0.01, 1.0, 1.9):
            found = 2 * squared_travel(Memory.heavy_ball(momentum), z) - 1
            assert float(valley_drift(z, momentum)) == pytest.approx(found, rel=1e-9)


def test_edge_is_the_mean_square_edge() -> None:
    momentum, b = np.array([0.0, 0.5, 0.9]), 0.3
    np.testing.assert_allclose(valley_edge(momentum, b), mode_edge(1.0, momentum, b) / (1 - momentum), rtol=1e-12)
    assert np.isinf(valley_drift(valley_edge(momentum, b) * 1.001, momentum, b)).all()
    assert moment_drift(1.001 * float(valley_edge(0.5, b)), 0.5, b) == np.inf


def test_drifts_cross_where_they_are_said_to() -> None:
    for momentum in (0.1, 0.5, 0.9, 0.99):
        for b in (0.0, 0.25, 2.0):
            z = drift_crossing(momentum, b)
            assert float(drift_ratio(z, momentum, b)) == pytest.approx(1, rel=1e-10)
            assert drift_ratio(0.9 * z, momentum, b) > 1 > drift_ratio(1.001 * z, momentum, b)


def test_crossing_of_qhm_is_where_its_travel_is_that_of_descent() -> None:
    for momentum, nu in ((0.9, 0.9), (0.5, 0.5), (0.8, 0.4)):
        z = float(qhm_crossing(momentum, nu))
        assert squared_travel(Memory.qhm(momentum, nu), z) == pytest.approx(1 / (2 - z), rel=1e-9)
    np.testing.assert_allclose(qhm_crossing(0.9, 1.0), drift_crossing(0.9))


def test_crossing_with_label_noise_is_that_of_the_recursion() -> None:
    """n = 3, b = .3, momentum .8 over 40 000 steps: 1.124996 for 1.125."""
    momentum, b, n, steps = 0.8, 0.3, 3.0, 40_000

    def gap(z: float) -> float:
        noise = n / (2 * z * steps)
        return moment_drift(z, momentum, b, noise, steps) - moment_drift(z, 0.0, b, noise, steps)

    found = optimize.brentq(gap, 0.8, 1.4, xtol=1e-12)
    assert found == pytest.approx(1.124996, abs=1e-6)
    assert found == pytest.approx(float(drift_crossing(momentum, b, n)), rel=1e-5)


def test_small_steps_leave_the_noisy_factor() -> None:
    for b in (0.0, 1.0, 30.0):
        np.testing.assert_allclose(drift_ratio(1e-7, 0.9, b), noisy_drift_factor(0.9, b), rtol=1e-5)


def test_svag_divides_what_belongs_to_c() -> None:
    c, b, z = float(momentum_factor(0.9)), 0.5, 0.8
    for fine in (1, 4, 64):
        expected = z * (c / fine + b) / (2 - z * (1 / (c * fine) + b))
        assert float(valley_drift(z, 0.9, b, svag=fine)) == pytest.approx(expected, rel=1e-12)
    beyond = 1.7  # past plain descent's edge with one step, within it with two: the sign turns
    gaps = [valley_drift(beyond, 0.9, 0.25, svag=k) - valley_drift(beyond, 0.0, 0.25, svag=k) for k in (1, 2, 4, 8)]
    assert np.isneginf(gaps[0])
    assert gaps[1] > gaps[2] > gaps[3] > 0


def test_label_noise_is_left_alone_but_for_discreteness() -> None:
    """At a minimum of curvature h: c·E(Δx)² over e²N, by the recursion in its stationary state."""
    for momentum in (0.0, 0.5, 0.9):
        for z in (0.2, 1.0):
            late, early = (moment_drift(z, momentum, 0.0, 1.0, steps) for steps in (4000, 3000))
            power = (late - early) / 1000 / z**2
            assert float(label_noise_factor(z, momentum)) == pytest.approx(power, rel=1e-6)


@pytest.mark.parametrize(("z", "expected"), [(0.2, 0.905), (1.0, 0.514)])
def test_label_noise_in_a_run(z: float, expected: float) -> None:
    """On the hyperbola, |u² − v²| = 8, σ = .01: heavy ball's rate over descent's, over 1500 steps."""
    n, steps, start = 256, 1500, (4 + 17**0.5, -4 + 17**0.5)
    rule = heavy_ball(matched_lr(z / 68**0.5, [0.9, 0.0]).tolist(), [0.9, 0.0])
    hyper = type(rule)(**{name: value.repeat_interleave(n) for name, value in vars(rule).items()})
    streams = Streams(replica_seeds(1, n).repeat(2), torch.float64)
    x = torch.tensor(start, dtype=torch.float64).sqrt().expand(2 * n, 2)
    end = train(Products(label_noise=0.01), x, hyper, steps, streams, check=steps).params
    assert isinstance(end, torch.Tensor)
    fell = -(imbalance(end)[:, 0, 1] / 8).log().view(2, n).mean(1)
    assert float(fell[0] / fell[1]) == pytest.approx(expected, abs=0.01)
    assert (2 - z) / (2 - z / 19) == pytest.approx(expected, abs=0.001)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="a valley has positive curvature"):
        valley_drift(-0.1, 0.9)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        drift_crossing(1.0)
    with pytest.raises(ValueError, match="spread is the relative variance"):
        valley_edge(0.5, -1.0)
    with pytest.raises(ValueError, match="label_noise is a ratio of drifts"):
        drift_crossing(0.5, 0.0, -1.0)
    with pytest.raises(ValueError, match="svag counts the steps"):
        valley_drift(0.1, 0.5, svag=0.5)
    with pytest.raises(ValueError, match="say over how many steps"):
        moment_drift(0.1, 0.5, noise=1.0)


RULES = {
    "heavy ball": Memory.heavy_ball(0.9),
    "nesterov": Memory.nesterov(0.8),
    "stale": Memory.stale(3),
    "adams_bashforth": Memory.adams_bashforth(),
}


def test_of_heavy_ball_every_rules_valley_is_the_closed_form() -> None:
    for momentum, b in ((0.0, 0.5), (0.9, 0.5), (0.5, 2.0)):
        rule, edge = Memory.heavy_ball(momentum), float(valley_edge(momentum, b))
        assert memory_edge(rule, b) == pytest.approx(edge, rel=1e-9)
        for z in (0.1 * edge, 0.9 * edge):
            assert memory_drift(rule, z, b) == pytest.approx(float(valley_drift(z, momentum, b)), rel=1e-9)
            assert noise_gain(rule, z) == pytest.approx(z / (2 - z / float(momentum_factor(momentum))), rel=1e-9)
        if momentum:
            assert memory_crossing(rule, b) == pytest.approx(float(drift_crossing(momentum, b)), rel=1e-9)
    assert memory_crossing(Memory.nesterov(0.9)) == pytest.approx(float(qhm_crossing(0.9, 0.9)), rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_drift_with_noise_is_that_of_runs(name: str) -> None:
    rule, b, steps, runs = RULES[name], 0.4, 120, 4000
    z, rng = 0.4 * memory_edge(rule, b), np.random.default_rng(5)
    x, total, tail = np.ones(runs), np.zeros(runs), np.zeros(runs)
    gradients = [np.zeros(runs)] * len(rule.weights)
    for _ in range(steps):
        total += x**2
        gradients = [z * x * (1 + b**0.5 * rng.choice([-1.0, 1.0], runs)), *gradients[:-1]]
        tail = rule.tail * tail + rule.shares[-1] * gradients[-1]
        x = x - tail - sum(w * g for w, g in zip(rule.shares[:-1], gradients[:-1], strict=True))
    found = 2 * z * total - 1
    assert found.mean() == pytest.approx(memory_drift(rule, z, b), abs=5 * found.std() / runs**0.5)
    quiet = memory_drift(rule, z)
    assert abs(found.mean() - quiet) > 10 * found.std() / runs**0.5  # noise is seen


def test_a_rule_that_leaves_first_drifts_further_up_to_its_edge() -> None:
    assert memory_crossing(Memory.stale(4)) == pytest.approx(ceiling(Memory.stale(4)))
    assert (
        memory_crossing(Memory.heavy_ball(0.9), 2.0)
        < float(valley_edge(0.0, 2.0))
        < memory_edge(RULES["nesterov"], 2.0)
    )
    same = memory_crossing(Memory.heavy_ball(0.9), 0.0, share=0.1)  # at one learning rate: c(c + 2)/(c + 1)
    assert same == pytest.approx(19 * 21 / 20, rel=1e-9)
    assert memory_drift(Memory.stale(4), 1.01 * ceiling(Memory.stale(4))) == np.inf

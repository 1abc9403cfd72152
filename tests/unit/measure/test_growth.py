"""Growth by resampling against closed forms: scalar walks, rotations, every linear rule; what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from descent.engine.rules import dampened, ema, heavy_ball, nesterov, qhm, repeat, sgd, stack
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.measure.growth import Descent, resampled_growth, resampled_mean
from descent.problems.quadratics import FOUR_ATOMS, Ensemble, GaussianFeatures
from descent.theory.linear import aligned_edge
from descent.theory.noise_escape import gaussian_escape, outside
from torch import Tensor

MEAN, VARIANCE = 1.0, 0.64  # of a curvature that is .2 or 1.8


class TwoPoint:
    """½ q x², q = 1 ± .8 with equal odds."""

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        return (1 + 0.8 * streams.signs(Purpose.BATCH, step))[:, None] * params


def measured(hyper, arms: int, replicas: int = 2000, steps: int = 450):
    streams = Streams(replica_seeds(5, replicas).repeat(arms), torch.float64)
    step = Descent(TwoPoint(), repeat(hyper, replicas), streams)
    start = torch.ones(arms * replicas, 1, dtype=torch.float64)
    return resampled_growth(step, step.state(start), steps, streams, arms=arms)


def half_log_radius(matrix: list[list[float]]) -> float:
    return math.log(max(abs(np.linalg.eigvals(np.array(matrix))))) / 2


def test_single_runs_and_mean_square_of_a_scalar_walk():
    rates = [0.5, 1.219512, 1.26, 1.4]  # below, at and above the mean-square threshold; above the almost-sure one
    for lr, found in zip(rates, measured(sgd(rates), 4), strict=True):
        factors = np.array([1 - 0.2 * lr, 1 - 1.8 * lr])
        assert found.mean_square.value == pytest.approx(math.log((factors**2).mean()) / 2, abs=0.003)
        assert found.lyapunov.value == pytest.approx(np.log(np.abs(factors)).mean(), abs=0.01)
        assert found.mean_square.n == 25
        assert found.lyapunov.n == 2000


def test_heavy_ball_and_nesterov_follow_their_moments():
    lr, beta = 0.25, 0.9
    mu, extra, rho = 1 + beta - lr * MEAN, lr**2 * VARIANCE, 1 - lr * MEAN
    polyak = half_log_radius([[mu**2 + extra, -2 * mu * beta, beta**2], [mu, -beta, 0], [1, 0, 0]])
    e, up = rho**2 + extra, 1 + beta
    nest = half_log_radius([[e * up**2, -2 * e * beta * up, e * beta**2], [rho * up, -rho * beta, 0], [1, 0, 0]])
    rules = stack(heavy_ball(lr, beta), nesterov(lr, beta), ema(lr / (1 - beta), beta))
    found = [arm.mean_square.value for arm in measured(rules, 3)]
    assert found == pytest.approx([polyak, nest, polyak], abs=0.004)
    assert found[0] == pytest.approx(found[2], abs=1e-9)  # EMA at lr/(1 − momentum) is heavy ball


OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": [0.3, 1.5]},
    "ascent": {"maximize": True},
    "first": {"first": "gradient"},
    "inside": {"buffer": "displacement", "first": "gradient", "weight_decay": 0.2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_its_steps_are_those_of_the_engine_for_every_rule(options):
    """From an empty buffer, and from one in use: then the first gradient is one among others."""
    rates = [0.1, 0.3]
    rule = stack(
        sgd(rates, **options),
        heavy_ball(rates, 0.8, **options),
        dampened(rates, 0.8, 0.4, **options),
        nesterov(rates, 0.8, 0.4, **options),
        ema(rates, 0.8, **options),
        qhm(rates, 0.8, 0.6, **options),
    )
    streams = Streams(replica_seeds(3, rule.replicas), torch.float64)
    start = streams.normal(Purpose.INIT, 0, (2,))
    fresh = Descent(TwoPoint(), rule, streams)
    run = train(TwoPoint(), start, rule, 4, streams)
    state = fresh.state(start)
    for step in range(4):
        state = fresh(state, step)
    torch.testing.assert_close(state[:, 0], run.params, rtol=1e-12, atol=1e-14)
    used = Descent(TwoPoint(), rule, streams, begin=-1)
    torch.testing.assert_close(used(state, 4), fresh(state, 4), rtol=0, atol=0)
    again, state = train(TwoPoint(), start, rule, 1, streams, velocity=torch.zeros_like(start)), used.state(start)
    torch.testing.assert_close(used(state, 0)[:, 0], again.params, rtol=1e-12, atol=1e-14)


def test_growth_without_momentum_knows_decay_and_ascent():
    """x alone is the state: growth by log |1 ∓ lr·(curvature ± decay)|, exactly where the curvature is fixed."""

    class Bowl:
        def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
            return params

    rule = stack(sgd(0.1, weight_decay=0.5), sgd(0.1, weight_decay=0.5, maximize=True))
    streams = Streams(replica_seeds(0, 8).repeat(2), torch.float64)
    step = Descent(Bowl(), repeat(rule, 8), streams)
    found = resampled_growth(step, step.state(torch.ones(16, 1, dtype=torch.float64)), 100, streams, arms=2)
    assert [arm.mean_square.value for arm in found] == pytest.approx([math.log(0.85), math.log(1.05)], abs=1e-10)


def test_without_noise_both_growths_are_the_spectral_radius():
    matrix = torch.tensor([[1.1, 0.3], [0.0, 0.7]], dtype=torch.float64)
    streams = Streams(replica_seeds(0, 64), torch.float64)
    start = streams.normal(Purpose.INIT, 0, (2,))
    (found,) = resampled_growth(lambda s, t: s @ matrix.T, start, 200, streams, burn=100)
    assert found.mean_square.value == pytest.approx(math.log(1.1), abs=1e-9)
    assert found.lyapunov.value == pytest.approx(math.log(1.1), abs=1e-9)


def test_the_series_adds_up_to_the_exact_mean_where_the_sample_mean_has_long_failed():
    """Exponential weights at lr 1.5: E|s|² = 2.5^t, of which ten thousand plain runs see next to nothing."""
    count, steps = 10_000, 60
    streams = Streams(replica_seeds(2, count), torch.float64)

    def step(state: Tensor, t: int) -> Tensor:
        return state * (1 + 1.5 * streams.uniform(Purpose.BATCH, t).log())[:, None]

    (found,) = resampled_growth(step, torch.ones(count, 1, dtype=torch.float64), steps, streams, burn=0, blocks=2)
    assert found.series.cumsum()[-1] == pytest.approx(steps * math.log(2.5) / 2, rel=0.02)
    plain = torch.ones(count, 1, dtype=torch.float64)
    for t in range(steps):
        plain = step(plain, t)
    assert math.log(float(plain.square().mean())) < 0.5 * steps * math.log(2.5)


def test_intervals_hold_the_exact_growth_about_as_often_as_they_say():
    exact, covered, tries = math.log(0.5**2 + 0.25 * VARIANCE) / 2, 0, 40
    for seed in range(tries):
        streams = Streams(replica_seeds(seed, 100), torch.float64)
        step = Descent(TwoPoint(), repeat(sgd(0.5), 100), streams)
        start = torch.ones(100, 1, dtype=torch.float64)
        (found,) = resampled_growth(step, step.state(start), 100, streams, burn=0)
        covered += found.mean_square.low <= exact <= found.mean_square.high
    assert covered >= 33  # binomial(40, 0.95) is below 33 once in five hundred


def test_arms_do_not_mix():
    one, both = measured(sgd([0.5]), 1, 64, 100), measured(sgd([0.5, 1.4]), 2, 64, 100)
    assert np.array_equal(one[0].series, both[0].series)
    assert np.array_equal(one[0].logs, both[0].logs)


def test_refusals_name_the_numbers():
    with pytest.raises(ValueError, match="hit exactly zero"):
        measured(sgd(5 / 9), 1, 64, 100)  # 1 − 1.8·5/9 = 0
    streams, start = Streams(replica_seeds(0, 10)), torch.ones(10, 1)
    with pytest.raises(ValueError, match="10 states for streams of 10 replicas in 3 arms"):
        resampled_growth(lambda s, t: s, start, 100, streams, arms=3)
    with pytest.raises(ValueError, match="60 steps less 50"):
        resampled_growth(lambda s, t: s, start, 60, streams)


def carried_and_squared(state: Tensor) -> Tensor:
    """All products of two entries of the state (x, carried velocity)."""
    flat = state.flatten(1)
    return flat[:, :, None] * flat[:, None, :]


def test_the_resampled_mean_has_the_shape_of_the_exact_second_moment():
    """E s sᵀ of heavy ball on four atoms: powers of the listed map. Two arms of one stack, two steps."""
    rows, beta, steps, count = np.array(FOUR_ATOMS), 0.9, 30, 20_000
    rates = [0.15, 0.2]
    streams = Streams(replica_seeds(3, count).repeat(2), torch.float64)
    step = Descent(Ensemble(rows), repeat(heavy_ball(rates, beta), count), streams)
    start = step.state(torch.ones(2 * count, 2, dtype=torch.float64))
    found = resampled_mean(step, start, steps, streams, carried_and_squared, arms=2)
    eye = np.eye(2)
    for lr, moment in zip(rates, found, strict=True):
        maps = [np.block([[eye - lr * q, -beta * eye], [lr * q, beta * eye]]) for q in rows[:, :, None] * rows[:, None]]
        first = np.outer([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])
        operator = np.mean([np.kron(a, a) for a in maps], axis=0)
        truth = (np.linalg.matrix_power(operator, steps) @ first.ravel()).reshape(4, 4)
        assert moment == pytest.approx(truth / np.trace(truth), abs=0.015)
        assert np.trace(moment) == pytest.approx(1, abs=1e-12)


def test_the_resampled_mean_has_the_runs_that_a_sample_mean_misses():
    """Rare runs carry the loss of Gaussian features at twice the edge: samples of a thousand do not hold them."""
    h, populations, steps = np.arange(1, 6.0) ** -0.5, 20, 30
    lr = 2 * aligned_edge(h, 0.0, gaussian=True)
    exact = outside(gaussian_escape(h, lr, 0.0, 1.0, steps), 1)
    streams, spectrum = Streams(replica_seeds(3, 1000 * populations), torch.float64), torch.from_numpy(h)
    step = Descent(GaussianFeatures(tuple(h), 1), repeat(sgd(lr), streams.replicas), streams)
    state = step.state(streams.signs(Purpose.INIT, 0, (5,)))

    def losses(s: Tensor) -> Tensor:
        return spectrum * s[:, 0].square()

    resampled = resampled_mean(step, state, steps, streams, losses, arms=populations)
    for t in range(steps):
        state = step(state, t)
    plain = losses(state).view(populations, -1, 5).mean(1).numpy()
    good, bad = (np.median(np.abs(np.log(outside(found, 1) / exact))) for found in (resampled, plain))
    assert good < 0.15
    assert bad > 0.4
    assert np.median(plain[:, 0]) < 0.1 * gaussian_escape(h, lr, 0.0, 1.0, steps)[0]


def test_a_factor_on_the_start_and_neighbours_change_nothing_in_the_resampled_mean():
    def found(rates: list[float], factor: float) -> np.ndarray:
        streams = Streams(replica_seeds(9, 200).repeat(len(rates)), torch.float64)
        step = Descent(Ensemble(FOUR_ATOMS), repeat(sgd(rates), 200), streams)
        start = torch.full((200 * len(rates), 2), factor, dtype=torch.float64)
        return resampled_mean(step, step.state(start), 12, streams, lambda s: s[:, 0].square(), arms=len(rates))

    assert found([0.5, 0.7], 1.0).shape == (2, 2)
    assert np.allclose(found([0.5], 1.0), found([0.5], 8.0), rtol=1e-12)
    assert np.allclose(found([0.5, 0.7], 1.0)[:1], found([0.5], 1.0), rtol=1e-12)
    assert not np.allclose(found([0.7], 1.0), found([0.5], 1.0), rtol=1e-3)


def test_the_resampled_mean_since_a_step_is_that_of_all_later_steps():
    streams = Streams(replica_seeds(9, 400), torch.float64)
    step = Descent(Ensemble(FOUR_ATOMS), repeat(sgd(0.5), 400), streams)
    start = step.state(torch.ones(400, 2, dtype=torch.float64))

    def found(steps: int, since: int = -1) -> np.ndarray:
        return resampled_mean(step, start, steps, streams, lambda s: s[:, 0].square(), arms=4, since=since)

    assert np.allclose(found(12, 10), np.mean([found(steps) for steps in (10, 11, 12)], axis=0), rtol=1e-12)
    assert np.array_equal(found(12, 12), found(12))

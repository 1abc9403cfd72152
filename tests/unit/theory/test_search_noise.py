"""Search-direction noise: stated numbers, Lyapunov solutions, and simulations of every linear rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine import rules
from descent.engine.rules import Hyper
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.problems.saddle import Quadratic
from descent.theory import search_noise as theory
from descent.theory.mode import convert, stationary_variance
from numpy.testing import assert_allclose

RULES = {
    "sgd": rules.sgd(0.1),
    "heavy ball": rules.heavy_ball(0.1, 0.8),
    "inside": rules.heavy_ball(0.1, 0.8, buffer="displacement"),
    "ema": rules.ema(0.1, 0.8),
    "qhm": rules.qhm(0.1, 0.8, 0.7),
    "nesterov": rules.nesterov(0.1, 0.8, first="zero"),
    "dampened": rules.dampened(0.1, 0.8, 0.3),
}
EVERY_RULE = pytest.mark.parametrize("hyper", RULES.values(), ids=RULES)


def noises(replicas: int, steps: int) -> np.ndarray:
    """Independent standard normals (T, R)."""
    streams = Streams(replica_seeds(3, replicas), torch.float64)
    return streams.normal(Purpose.NOISE, 0, (steps,)).numpy().T


def directions(hyper: Hyper, gradients: np.ndarray) -> np.ndarray:
    """The last search direction d = (x_t − x_{t+1})/lr of one arm fed with given gradients (T, R)."""
    v = np.zeros_like(gradients[0])
    for step, g in enumerate(gradients):
        momentum, inflow, direct, carry = (c.item() for c in hyper.coefficients(starting=step == 0))
        v = momentum * v + inflow * g
        d = (direct * g + carry * v) / hyper.lr.item()
    return d


def four_errors(samples: np.ndarray) -> float:
    return 4 * float(samples.std()) / len(samples) ** 0.5


def test_beta_hat_oracles():
    assert_allclose(theory.beta_hat([0.5, 0.9, 0.99]), [1.5, 81.9, 9801.99], rtol=1e-12)


def test_degrees_of_the_published_constants():
    """ResNet18 in the authors' code: lr 0.1, momentum 0.9."""
    batch = np.array([8, 128, 512, 1024, 8192, np.inf])
    plain = [1.26491, 0.31623, 0.15811, 0.11180, 0.03953, 0]
    heavy = [2.27803, 1.65222, 1.61457, 1.60821, 1.60263, 1.60183]
    assert_allclose(theory.degree(0.1, theory.bound("sgd", 1280 / batch)), plain, atol=5e-6)
    assert_allclose(theory.degree(0.1, theory.bound("ema", 128 / batch, momentum=0.9)), plain, atol=5e-6)
    power = theory.bound("heavy_ball", 25.318 / batch, momentum=0.9, gradient=1.77)
    assert_allclose(theory.degree(0.1, power), heavy, atol=5e-6)


def test_the_two_variants_for_an_average_disagree_where_noise_vanishes():
    assert theory.bound("ema", 0.0, momentum=0.9, gradient=4.5) == 0.0
    floor = theory.bound("ema", 0.0, momentum=0.9, gradient=4.5, variant="repository")
    assert floor == pytest.approx(4 * 0.81 * 4.5**2)
    assert theory.bound("ema", 2.0, momentum=0.0, variant="repository") == theory.bound("sgd", 2.0) == 2.0


@pytest.mark.parametrize("variant", ["submission", "repository"])
def test_the_quasi_hyperbolic_bound_ends_at_its_two_members_and_holds(variant):
    given = {"momentum": 0.9, "gradient": 0.7, "variant": variant}
    ends = theory.bound("qhm", 2.0, nu=[0.0, 1.0], **given)
    assert_allclose(ends, [2.0, float(theory.bound("ema", 2.0, **given))], rtol=1e-12)
    nu = np.linspace(0, 1, 11)
    assert (2.0 * theory.flat_power(rules.qhm(0.1, 0.9, nu.tolist())) <= theory.bound("qhm", 2.0, nu=nu, **given)).all()


def test_the_convention_changes_the_formula_but_not_the_path():
    """Identical iterates; the formulas give two degrees for them, the measured degrees are one."""
    eta, beta = 0.05, 0.9
    inside, raw = rules.ema(eta, beta), rules.heavy_ball(eta * (1 - beta), beta)
    gradients = noises(3, 40)
    steps = [hyper.lr.item() * directions(hyper, gradients) for hyper in (inside, raw)]
    assert_allclose(steps[0], steps[1], rtol=1e-12)
    formula = [
        theory.degree(hyper.lr, theory.bound(rule, 1.0, momentum=beta, gradient=1.0))
        for rule, hyper in (("ema", inside), ("heavy_ball", raw))
    ]
    assert formula[0] / formula[1] == pytest.approx(10 * (10 / 164.8) ** 0.5, rel=1e-12)


def test_recipe_oracles():
    eta, epsilon, beta = 0.1, 0.5, 0.9
    kappa = [theory.recipe_factor(rule, beta) for rule in ("sgd", "ema", "heavy_ball")]
    assert_allclose(kappa, [1, 10, 101.1111], rtol=1e-6)
    found = theory.recipe_variance([512, 512, 1024], eta, epsilon, kappa)
    assert_allclose(found, [1280.0, 128.0, 25.31868], atol=5e-6)
    true = [theory.floor_factor(rule, beta) for rule in ("sgd", "ema", "heavy_ball")]
    assert_allclose(theory.recipe_variance([512, 512, 1024], eta, epsilon, true), [1280, 1280, 256], rtol=1e-12)
    assert_allclose(theory.recipe_batch(found, eta, epsilon, kappa), [512, 512, 1024], rtol=1e-12)


def test_stationary_ratio_oracles():
    beta = [0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.99, 0.99]
    z = [0.1, 0.01, 0.1, 1, 2, 10, 14, 30, 0.1, 1]
    expected = [0.355932, 0.057120, 0.097625, 0.513514, 1, 6.142857, 10, 64, 0.054536, 0.501259]
    assert_allclose(theory.stationary_ratio(z, beta), expected, atol=5.1e-7)
    beta, z = [0.5, 0.9, 0.9, 0.9, 0.9, 0.99], [0.1, 0.01, 0.1, 1, 2, 0.1]
    expected = [1.344828, 5.274406, 5.378378, 6.785714, 10, 51.520619]
    assert_allclose(theory.stationary_ratio(z, beta, "heavy_ball"), expected, atol=5.1e-7)
    assert np.isinf(theory.stationary_ratio([38.1, 3.9], 0.9, "ema")[0])


def test_iterate_spread_oracles():
    def spread(lr, beta, convention):
        return stationary_variance(1.0, convert(lr, beta, convention).lr, beta)

    assert spread(0.1, 0.0, "ema") == pytest.approx(0.052632, abs=5e-7)
    assert_allclose(spread([0.1, 1.0], 0.9, "ema"), [0.050132, 0.513514], atol=5e-7)
    assert_allclose(spread([0.1, 1.0], 0.9, "heavy_ball"), [0.513514, 6.785714], atol=5e-7)


def test_flat_limits():
    beta = [0.0, 0.5, 0.9, 0.99]
    plain = theory.flat_power(rules.heavy_ball(0.1, beta))
    average = theory.flat_power(rules.ema(0.1, beta))
    assert_allclose(plain, 1 / (1 - np.square(beta)), rtol=1e-12)
    assert_allclose(average, (1 - np.array(beta)) / (1 + np.array(beta)), rtol=1e-12)
    assert_allclose([average[2], plain[2]], [0.05263, 5.2632], atol=5e-5)
    assert_allclose(theory.flat_lag(rules.heavy_ball(0.1, beta))[2], 81.0, rtol=1e-12)
    assert_allclose(theory.flat_lag(rules.ema(0.1, beta)), 0, atol=1e-12)
    for convention, flat in (("heavy_ball", plain), ("ema", average)):
        assert_allclose(theory.stationary_ratio(1e-9, beta, convention), flat, rtol=1e-6)


@EVERY_RULE
def test_flat_power_and_lag_by_simulation(hyper):
    xi = noises(40_000, 120)
    found = directions(hyper, xi) ** 2
    assert found.mean() == pytest.approx(theory.flat_power(hyper).item(), abs=four_errors(found))
    lag = directions(hyper, np.ones((200, 1))).item() - 1
    assert lag**2 == pytest.approx(theory.flat_lag(hyper).item(), abs=1e-10)


def test_shuffled_power_oracles():
    average = rules.ema(0.1, 0.9)
    table = {
        (1000, 4): 0.04883,
        (1000, 16): 0.03911,
        (1000, 64): 0.02075,
        (1000, 256): 0.01573,
        (50000, 128): 0.05013,
        (50000, 512): 0.04339,
    }
    for (n, b), expected in table.items():
        assert theory.shuffled_power(average, b, n).item() == pytest.approx(expected, abs=5.1e-6)
    half = [theory.shuffled_power(rules.ema(0.1, 0.5), b, 1000).item() for b in (64, 250)]
    assert_allclose(half, [0.2753, 0.1616], atol=5e-5)
    assert_allclose([theory.shuffled_power(average, b, 1000).item() for b in (250, 500)], [0.0063, 0.00263], atol=5e-5)
    plain = [theory.shuffled_power(rules.sgd(0.1), b, 1000).item() for b in (64, 256, 500)]
    assert_allclose(plain, [0.9369, 0.7447, 0.5005], atol=5e-5)
    assert theory.shuffled_power(rules.sgd(0.1), 1000, 1000).item() == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="population"):
        theory.shuffled_power(average, 65, 64)


@EVERY_RULE
@pytest.mark.parametrize("batch_size", [3, 5])
def test_shuffled_power_by_simulation(hyper, batch_size):
    """Twelve examples; with batches of five the epoch leaves two of them out."""
    n, replicas, length = 12, 4000, 12 // batch_size
    values = np.linspace(-1, 2, n) ** 3
    values -= values.mean()
    streams = Streams(replica_seeds(4, replicas))
    parts = []
    for epoch in range(60 // length):
        order = streams.permutation(Purpose.ORDER, epoch, n, slice(0, length * batch_size)).numpy()
        parts.append(values[order].reshape(replicas, length, batch_size).mean(-1).T)
    gradients = np.concatenate(parts)
    powers = np.mean([directions(hyper, gradients[: len(gradients) - k]) ** 2 for k in range(length)], axis=0)
    found = powers / (values.var() / batch_size)
    expected = theory.shuffled_power(hyper, batch_size, n).item()
    assert found.mean() == pytest.approx(expected, abs=four_errors(found))


@pytest.mark.parametrize(("convention", "rule"), [("heavy_ball", rules.heavy_ball), ("ema", rules.ema)])
def test_closed_forms_are_the_lyapunov_solution(convention, rule):
    beta, z = [0.3, 0.5, 0.9, 0.99, 0.9], [0.1, 1.0, 1.9, 0.4, 3.0]
    found = theory.stationary_moments(rule(z, beta), [1.0], [2.5])
    assert_allclose(found.power[:, 0], 2.5 * theory.stationary_ratio(z, beta, convention), rtol=1e-9)
    raw = convert(z, beta, convention).lr
    assert_allclose(found.variance[:, 0], stationary_variance(1.0, raw, beta, 2.5), rtol=1e-9)
    assert np.isinf(theory.stationary_moments(rule(50.0, 0.3), [1.0]).power).all()


@EVERY_RULE
def test_stationary_moments_of_a_spectrum_by_simulation(hyper):
    curvatures, noise, replicas = (0.5, 3.0), 2.0, 8000
    streams = Streams(replica_seeds(1, replicas), torch.float64)
    problem, start = Quadratic(curvatures, noise), torch.zeros(replicas, 2, dtype=torch.float64)
    run = train(problem, start, rules.repeat(hyper, replicas), 160, streams)
    fresh, carried, *_ = theory.weights(hyper)
    slope = run.params * torch.tensor(curvatures, dtype=torch.float64)
    omega = fresh * problem.gradient(run.params, streams, 160) + carried * run.velocity - slope
    expected = theory.stationary_moments(hyper, curvatures, noise)
    for mode in range(2):
        for samples, exact in ((run.params, expected.variance), (omega, expected.power)):
            squares = samples[:, mode].square().numpy()
            assert squares.mean() == pytest.approx(exact[0, mode], abs=four_errors(squares))


class Kicked:
    """½ Σ curvature·x² without noise; each replica has its gradient raised by 1 in one step, −1 = never."""

    def __init__(self, curvatures: tuple[float, ...], at: list[int]) -> None:
        self.curvatures, self.at = torch.tensor(curvatures, dtype=torch.float64), torch.tensor(at)

    def gradient(self, params, streams, step):
        return params * self.curvatures + (self.at == step).to(params)[:, None]


def kicked(hyper: Hyper, curvatures: tuple[float, ...], at: list[int], start: list[float], steps: int, **options):
    """Return the parameters (T + 1, R, d) of replicas kicked at their steps, as the engine moves them."""
    streams = Streams(replica_seeds(0, len(at)), torch.float64)
    begin = torch.tensor(start, dtype=torch.float64)[:, None].expand(-1, len(curvatures))
    run = train(
        Kicked(curvatures, at),
        begin,
        rules.repeat(hyper, len(at)),
        steps,
        streams,
        probes={"x": every(1, lambda x: x)},
        **options,
    )
    return run.records["x"].values.numpy()


DECAY = {"weight_decay": 0.7}
FELT = {
    "sgd": (rules.sgd(0.1, **DECAY), 1),
    "heavy ball": (rules.heavy_ball(0.1, 0.8, **DECAY), 1),
    "inside": (rules.heavy_ball(0.1, 0.8, buffer="displacement", **DECAY), 1),
    "ema": (rules.ema(0.3, 0.8, **DECAY), 1),
    "qhm": (rules.qhm(0.3, 0.8, 0.7, **DECAY), 1),
    "nesterov": (rules.nesterov(0.1, 0.8, **DECAY), 1),
    "dampened": (rules.dampened(0.1, 0.8, 0.3, **DECAY), 1),
    "ascent": (rules.heavy_ball(0.1, 0.8, maximize=True, **DECAY), -1),
}
EVERY_FELT = pytest.mark.parametrize(("hyper", "sign"), FELT.values(), ids=FELT)


@EVERY_FELT
def test_stationary_moments_know_decay_and_ascent(hyper, sign):
    """E x² and E ω² are the sums of squared answers to one unit of noise, taken from the engine."""
    curvatures = (sign * 0.5, sign * 3.0)
    buffer = torch.zeros(1, 2, dtype=torch.float64)  # in use, so that the first gradient is one among others
    x = kicked(hyper, curvatures, [0], [0.0], 700, velocity=buffer)[:, 0]
    felt = x[:-1] * (sign * np.array(curvatures) + 0.7)
    omega = (x[:-1] - x[1:]) / hyper.lr.item() - felt
    found = theory.stationary_moments(hyper, curvatures, 2.0)
    assert_allclose(found.variance[0], 2 * np.square(x).sum(0), rtol=1e-10)
    assert_allclose(found.power[0], 2 * np.square(omega).sum(0), rtol=1e-10)


@EVERY_FELT
def test_virtual_steps_know_decay_and_ascent(hyper, sign):
    """E x² at every step is the path without noise, squared, plus squared answers to a kick at every step before."""
    steps, noise, curvature = 12, 10.0 / 40, sign * 0.9
    x = kicked(hyper, (curvature,), [-1, *range(steps)], [3.0] + steps * [0.0], steps)[:steps, :, 0]
    squares = x[:, 0] ** 2 + noise * np.square(x[:, 1:]).sum(1)
    judged = {"minibatch_gradient": curvature**2 * squares + noise}
    if sign > 0:  # ⟨x, ∇f⟩ is negative on a hill: met at once
        judged["inner_product"] = curvature * squares
    for stopping, values in judged.items():
        means = np.cumsum(values) / np.arange(1, steps + 1)
        assert (np.diff(means) < 0).all()
        given = {"variance": 10.0, "start": 3.0, "curvature": curvature, "stopping": stopping}
        for step in range(1, steps):
            near = [
                theory.virtual_steps(hyper, [40], precision=(means[step] * share) ** 0.5, **given).item()
                for share in (1 + 1e-10, 1 - 1e-10)
            ]
            assert near[0] == step + 1 < near[1]


STILL = {name: rule for name, rule in RULES.items() if name != "inside"}


@pytest.mark.parametrize("hyper", STILL.values(), ids=STILL)
@pytest.mark.parametrize("starting", [False, True])
def test_the_direction_does_not_depend_on_the_rate_also_where_it_is_zero(hyper, starting):
    still = hyper.scaled(rules.Factors(lr=0.0))
    for found, expected in zip(theory.weights(still, starting), theory.weights(hyper, starting), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    for function in (theory.flat_power, theory.flat_lag, lambda rule: theory.shuffled_power(rule, 3, 12)):
        assert_allclose(function(still), function(hyper), rtol=1e-12, atol=1e-14)
    assert np.isinf(theory.stationary_moments(still, [1.0, 0.5])).all()
    assert np.isinf(theory.virtual_steps(still, [4], **VIRTUAL, limit=50)).all()


def test_a_buffer_of_displacements_has_no_direction_at_rate_zero():
    still = rules.heavy_ball([0.0, 0.0, 0.1], [0.8, 0.0, 0.8], buffer="displacement")
    found = theory.weights(still)
    assert found.fresh.tolist() == pytest.approx([1, 1, 1])
    assert found.carried.tolist() == pytest.approx([np.inf, 0, 8])
    assert found.inflow.tolist() == pytest.approx([0, 0, 0.1])
    assert_allclose(theory.flat_power(still), theory.flat_power(rules.heavy_ball(0.1, [0.8, 0.0, 0.8])), rtol=1e-12)
    assert np.isinf(theory.stationary_moments(still, [1.0]).power[:2]).all()


@EVERY_RULE
def test_the_identity_given_the_past_by_simulation(hyper):
    past, noise, slope = noises(1, 30), 1.7, 0.9
    v = 0.0
    for step, g in enumerate(past[:, 0]):
        momentum, inflow, direct, carry = (c.item() for c in hyper.coefficients(starting=step == 0))
        v = momentum * v + inflow * g
    momentum, inflow, direct, carry = (c.item() for c in hyper.coefficients())
    g = slope + noise**0.5 * noises(50_000, 1)[0]
    omega = (direct * g + carry * (momentum * v + inflow * g)) / hyper.lr.item() - slope
    fresh, carried, *_ = theory.weights(hyper)
    memory = ((fresh - 1) * slope + carried * v).square().numpy()
    expected = theory.conditional_power(hyper, noise, memory).item()
    assert (omega**2).mean() == pytest.approx(expected, abs=four_errors(omega**2))


def test_the_bound_for_an_average_is_violated_from_the_threshold_on():
    beta = np.array([0.3, 0.5, 0.9, 0.99])
    threshold = theory.violation_threshold(beta)
    assert threshold[2] == pytest.approx(14.0)
    assert_allclose(theory.stationary_ratio(threshold, beta), 1 / (1 - beta), rtol=1e-10)
    assert (theory.stationary_ratio(0.99 * threshold, beta) < 1 / (1 - beta)).all()
    assert (theory.stationary_ratio(1.01 * threshold, beta) > 1 / (1 - beta)).all()
    with pytest.raises(ValueError, match="positive"):
        theory.violation_threshold(0.0)


ARMS = rules.stack(rules.sgd([0.1, 0.05]), rules.ema([0.1, 0.05], 0.9), rules.heavy_ball([0.01, 0.1, 0.05], 0.9))
VIRTUAL = {"variance": 10.0, "start": 3.0, "precision": 0.5}


def test_virtual_critical_batches_of_the_inner_product():
    sizes = np.arange(1, 64)
    steps = theory.virtual_steps(ARMS, sizes, **VIRTUAL)
    best = np.nanargmin(np.where(np.isfinite(steps), steps * sizes, np.nan), axis=1)
    assert sizes[best].tolist() == [4, 2, 4, 2, 4, 41, 20]
    assert steps[np.arange(7), best].tolist() == [395, 748, 691, 1045, 691, 378, 414]
    kappa = [theory.recipe_factor(rule, 0.9) for rule in ("sgd", "sgd", "ema", "ema", *3 * ["heavy_ball"])]
    found = theory.recipe_variance(sizes[best], ARMS.lr, 0.5, kappa)
    assert_allclose(found[[0, 1, 2, 3, 5, 6]], [10, 10, 1, 1, 1.01, 0.99], atol=5e-3)


def test_virtual_critical_batches_of_the_minibatch_gradient():
    sizes = np.arange(30, 160)
    steps = theory.virtual_steps(ARMS, sizes, **VIRTUAL, stopping="minibatch_gradient")
    best = np.nanargmin(np.where(np.isfinite(steps), steps * sizes, np.nan), axis=1)
    assert sizes[best].tolist() == [86, 81, 83, 83, 83, 119, 99]
    assert np.isinf(steps[:, sizes <= 40]).all()


@EVERY_RULE
def test_virtual_steps_are_what_a_stack_of_runs_takes(hyper):
    replicas, size, steps = 8000, 25, 40
    streams = Streams(replica_seeds(9, replicas), torch.float64)
    problem = Quadratic((1.0,), noise=10.0 / size)
    start = torch.full((replicas, 1), 3.0, dtype=torch.float64)
    probes = {"x2": every(1, lambda x: x[:, 0].square())}
    run = train(problem, start, rules.repeat(hyper, replicas), steps - 1, streams, probes=probes)
    path = run.records["x2"].values.T.cumsum(dim=1) / torch.arange(1, steps + 1)
    level = path[:, -1].mean().item()
    found = theory.virtual_steps(hyper, [size], variance=10.0, start=3.0, precision=level**0.5)
    error = four_errors(path[:, -1].numpy())
    fall = (path[:, -2] - path[:, -1]).mean().item()
    assert found.item() == pytest.approx(steps, abs=1 + error / fall)


def test_what_is_refused():
    with pytest.raises(ValueError, match="rule must be one of sgd"):
        theory.bound("adam", 1.0)
    with pytest.raises(ValueError, match="rule must be one of"):
        theory.recipe_factor("qhm", 0.9)
    with pytest.raises(ValueError, match="variant"):
        theory.bound("ema", 1.0, momentum=0.9, variant="other")
    with pytest.raises(ValueError, match="stopping"):
        theory.virtual_steps(ARMS, [4], **VIRTUAL, stopping="norm")
    with pytest.raises(ValueError, match="positive"):
        theory.recipe_factor("heavy_ball", 0.0)

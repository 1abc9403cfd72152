"""One mode of the exact linear theory against Lyapunov solutions and numbers worked out beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent.theory import linear
from numpy.testing import assert_allclose
from scipy.linalg import solve_discrete_lyapunov

MOMENTA = (0.0, 0.5, 0.9, 0.99)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def draws(count: int, seed: int = 0):
    """Random (lr, momentum, curvature) with a stable noise-free iteration, and their generator."""
    r = generator(seed)
    beta = r.choice([0.0, *r.uniform(0, 0.999, 9)], size=count)
    h = np.exp(r.normal(size=count))
    return r.uniform(0.01, 0.99, count) * 2 * (1 + beta) / h, beta, h, r


def companion(hessian: np.ndarray, lr: float, momentum: float) -> np.ndarray:
    """The map (x_t, x_{t−1}) → (x_{t+1}, x_t)."""
    eye = np.eye(len(hessian))
    return np.block([[(1 + momentum) * eye - lr * hessian, -momentum * eye], [eye, np.zeros_like(eye)]])


@pytest.mark.parametrize(("convention", "dampening"), [("heavy_ball", None), ("ema", None), ("dampened", 0.3)])
@pytest.mark.parametrize("first", ["zero", "gradient"])
def test_every_convention_is_heavy_ball_with_a_weighted_first_gradient(convention, dampening, first):
    lr, beta, gradients = 0.3, 0.8, generator(1).normal(size=12)
    gain = {"heavy_ball": 1.0, "ema": 1 - beta, "dampened": 1 - 0.3}[convention]
    steps = linear.convert(lr, beta, convention, dampening=dampening, first=first)
    x = y = v = w = 0.0
    for t, g in enumerate(gradients):
        v = g if t == 0 and first == "gradient" else beta * v + gain * g
        w = beta * w + (g * float(steps.first) if t == 0 else g)
        x, y = x - lr * v, y - float(steps.lr) * w
    assert x == pytest.approx(y, abs=1e-14)
    assert steps.effective == pytest.approx(steps.lr / (1 - beta))
    assert steps.inertia == pytest.approx(steps.effective / (1 - beta))


def test_torch_takes_an_undampened_first_step():
    torch = pytest.importorskip("torch")
    lr, beta, tau, gradients = 0.3, 0.8, 0.4, generator(2).normal(size=6)
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.SGD([parameter], lr=lr, momentum=beta, dampening=tau)
    steps, x, v = linear.convert(lr, beta, "dampened", dampening=tau), 0.0, 0.0
    for t, g in enumerate(gradients):
        parameter.grad = torch.tensor([g], dtype=torch.float64)
        optimiser.step()
        v = beta * v + (g * float(steps.first) if t == 0 else g)
        x -= float(steps.lr) * v
    assert parameter.item() == pytest.approx(x, abs=1e-14)


def test_ema_is_heavy_ball_at_a_smaller_rate():
    eta, beta = 0.05, 0.9
    steps = linear.convert(eta, beta, "ema")
    assert steps.lr == linear.matched_lr(eta, beta)
    assert steps.effective == pytest.approx(eta)
    assert float(steps.first) == 1.0


def test_stationary_variance_oracles():
    table = {
        (0.01, 1.0): (0.00502512563, 0.01003344482, 0.05013192612, 0.50125944585),
        (0.1, 2.0): (0.02777777778, 0.05357142857, 0.26388888889, 2.63227513227),
        (1.0, 1.5): (1.33333333333, 1.33333333333, 5.50724637681, 53.49462365592),
    }
    for (lr, h), expected in table.items():
        assert_allclose(linear.stationary_variance(h, lr, MOMENTA), expected, atol=6e-12, rtol=1e-9)


def test_stationary_variance_is_the_lyapunov_solution():
    for lr, beta, h in zip(*draws(200)[:3], strict=True):
        noise = np.diag([lr**2, 0.0])
        moments = solve_discrete_lyapunov(companion(np.array([[h]]), lr, beta), noise)
        assert_allclose(linear.stationary_variance(h, lr, beta), moments[0, 0], rtol=1e-9)
        moved = 2 * (moments[0, 0] - moments[0, 1])
        assert_allclose(linear.displacement_variance(h, lr, beta), moved, rtol=1e-7)


def test_stationary_variance_with_multiplicative_noise_solves_the_moment_recursion():
    lr, beta, h, r = draws(200, 1)
    s2 = r.uniform(0, 0.95, 200) * linear.kernel(h, h, lr, beta)
    a = linear.stationary_variance(h, lr, beta, noise=2.5, multiplicative=s2)
    mu = 1 + beta - lr * h
    b = mu * a / (1 + beta)
    again = (mu**2 + lr**2 * s2) * a - 2 * mu * beta * b + beta**2 * a + lr**2 * 2.5
    assert_allclose(again, a, rtol=1e-9)
    too_much = 1.01 * linear.kernel(h, h, lr, beta)
    assert np.isinf(linear.stationary_variance(h, lr, beta, multiplicative=too_much)).all()
    assert np.isinf(linear.stationary_variance([-1.0, 0.0, 50.0], 0.1, 0.5)).all()


def test_momentum_raises_the_variance_below_one_plus_momentum_and_lowers_it_above():
    r = generator(2)
    beta, lr = r.uniform(0.01, 0.99, 2000), r.uniform(0.01, 1.99, 2000)
    change = linear.stationary_variance(1.0, lr, beta) - linear.stationary_variance(1.0, lr, 0.0)
    assert (np.sign(change) == np.sign(1 + beta - lr)).all()


def test_variance_ratio_oracles():
    beta, lr = np.array([0.5, 0.5, 0.5, 0.9, 0.9, 0.9]), np.array([1.4, 1.5, 1.6, 1.8, 1.9, 1.95])
    ratio = linear.stationary_variance(1, lr, beta) / linear.stationary_variance(1, lr, 0)
    assert_allclose(ratio, [1.125, 1, 0.8571, 1.9, 1, 0.5135], atol=5e-5)


def test_autocorrelation_oracles():
    expected = [
        [0.9, 0.6561, 0.4783, 0.34868],
        [0.93333, 0.5244, 0.22105, 0.0768],
        [0.94737, 0.34958, -0.35084, -0.59586],
    ]
    assert_allclose(linear.autocorrelation([1, 4, 7, 10], 1, 0.1, [[0.0], [0.5], [0.9]]), expected, atol=5e-6)
    assert linear.autocorrelation(0, 1, 0.1, 0.9) == 1.0


def test_autocorrelation_is_the_lyapunov_one_and_even_in_the_lag():
    a = companion(np.array([[1.3]]), 0.2, 0.8)
    moments = solve_discrete_lyapunov(a, np.diag([1.0, 0.0]))
    for lag in range(12):
        expected = (np.linalg.matrix_power(a, lag) @ moments)[0, 0] / moments[0, 0]
        assert_allclose(linear.autocorrelation([lag, -lag], 1.3, 0.2, 0.8), expected, atol=1e-12)
    with pytest.raises(ValueError, match="integer"):
        linear.autocorrelation(0.5, 1, 0.1, 0.9)


def test_search_noise_power_from_the_path_covariance():
    """ω = v − hx is a linear function of (x_{t+1}, x_t); its power from the Lyapunov moments."""
    for lr, beta, h in zip(*draws(100, 3)[:3], strict=True):
        moments = solve_discrete_lyapunov(companion(np.array([[h]]), lr, beta), np.diag([lr**2, 0.0]))
        for convention, scale in (("heavy_ball", 1.0), ("ema", 1 - beta)):
            row = np.array([-scale / lr, scale / lr - h])
            power = linear.search_noise_power(h, lr, beta, convention=convention)
            assert_allclose(power, row @ moments @ row, rtol=1e-6)


def test_search_noise_oracles():
    """h = 1, σ² = 1, s² = 0.25, lr 0.01: ratios to plain SGD, equal raw lr and equal effective step."""
    beta = np.array([0.5, 0.9, 0.99])
    plain = linear.search_noise_power(1, 0.01, 0, 1, 0.25)
    raw = linear.search_noise_power(1, 0.01, beta, 1, 0.25) / plain
    assert_allclose(raw, [1.3361, 5.3346, 57.52], rtol=1e-4)
    matched = linear.search_noise_power(1, 0.01 * (1 - beta), beta, 1, 0.25, convention="ema") / plain
    assert_allclose(matched, [0.3356, 0.0571, 0.0100], atol=5e-5)
    more, lr = (1 + beta) / (1 - beta), 0.01 * (1 - beta)
    level = linear.search_noise_power(1, lr, beta, more, 0.25 * more, convention="ema") / plain
    assert_allclose(level, [1.0092, 1.1103, 2.639], rtol=2e-4)


def test_floor_oracles():
    """The same mode: equal raw lr, its matched control, equal effective step, equal noise power."""
    beta = np.array([0.5, 0.9, 0.99])
    more = (1 + beta) / (1 - beta)

    def floor(lr, momentum, share=1.0):
        return linear.stationary_variance(1, lr, momentum, share, 0.25 * share)

    assert_allclose(floor(0.01, beta) / floor(0.01, 0), [1.9992, 10.090, 113.9], rtol=5e-4)
    assert_allclose(floor(0.01, beta) / floor(0.01 / (1 - beta), 0), [0.9933, 0.9519, 0.4298], atol=6e-5)
    assert_allclose(floor(0.01 * (1 - beta), beta) / floor(0.01, 0), [0.9967, 0.9953, 0.9950], atol=6e-5)
    assert_allclose(floor(0.01 * (1 - beta), beta, more) / floor(0.01, 0), [2.9975, 19.35, 263.2], rtol=3e-4)


def test_search_noise_in_matched_units_is_below_one_until_two():
    r = generator(4)
    z, beta = r.uniform(0.01, 3.0, 2000), r.uniform(0.4, 0.99, 2000)
    lr = linear.matched_lr(z, beta)
    power = linear.search_noise_power(1, lr, beta, convention="ema")
    exists = linear.stable(1, lr, beta)
    assert ((power < 1) == (z < 2))[exists].all()
    assert_allclose(linear.search_noise_power(1, 1e-9, beta), 1 / (1 - beta**2), rtol=1e-6)


def test_mode_edge_and_crossover_batch():
    beta, s2, h = np.array(MOMENTA), 0.7, 1.3
    edge = linear.mode_edge(h, beta, s2)
    assert_allclose(linear.kernel(h, h, edge, beta), s2, rtol=1e-12)
    ratio = linear.mode_edge(1, beta, 0.25) / linear.mode_edge(1, 0, 0.25)
    assert_allclose(ratio[1:], [1.0714, 0.4130, 0.0490], atol=5e-5)
    ratio = linear.mode_edge(1, beta, 1 / 256) / linear.mode_edge(1, 0, 1 / 256)
    assert_allclose(ratio[1:], [1.4884, 1.7756, 1.124], atol=5e-4)
    batch = linear.crossover_batch(1.0, 0.9, 1.0)
    assert batch == pytest.approx(19)
    assert linear.mode_edge(1, 0.9, 1 / batch) == pytest.approx(float(linear.mode_edge(1, 0, 1 / batch)))


def test_sgd_equivalent_has_the_same_diagonal():
    lr, beta, h, _ = draws(500, 5)
    twin = linear.sgd_equivalent(lr, beta, 8.0)
    ours = linear.kernel(h, h, lr, beta) * 8.0
    assert_allclose(linear.kernel(h, h, twin.lr, 0) * twin.batch_size, ours, rtol=1e-9, atol=1e-9)
    assert_allclose(twin.lr / twin.batch_size, lr / (1 - beta) / 8.0, rtol=1e-12)


def test_root_oracles():
    lr, beta = [0.01, 0.01, 0.01, 0.01, 0.001, 0.0005, 0.0005], [0, 0.5, 0.9, 0.99, 0.9, 0.9, 0]
    plus, minus = linear.roots(-1.0, lr, beta)
    assert_allclose(plus, [1.01, 1.01962237, 1.06465856, 1.1, 1.00923883, 1.00479413, 1.0005], atol=5e-9)
    assert_allclose(minus, [0, 0.49037763, 0.84534144, 0.9, 0.89176117, 0.89570587, 0], atol=5e-9)


def test_growth_oracles():
    lr, beta = [0.01, 0.01, 0.01, 0.01, 0.001, 0.0005, 0.0005], [0, 0.5, 0.9, 0.99, 0.9, 0.9, 0]
    rates = linear.growth(1.0, lr, beta)
    expected = [0.00995033, 0.01943234, 0.06265415, 0.09531018, 0.00919641, 0.00478268, 0.00049988]
    assert_allclose(rates, expected, atol=5e-9)
    ema = linear.growth(1.0, linear.convert(0.01, 0.9, "ema").lr, 0.9)
    assert ema == pytest.approx(0.00919641, abs=5e-9)
    assert ema < linear.growth(1.0, 0.01, 0)
    assert math.log(linear.nesterov_roots(-1.0, 0.01, 0.9)[0]) == pytest.approx(0.06521641, abs=5e-9)


def test_roots_multiply_to_the_momentum_and_growth_is_the_larger():
    r = generator(6)
    beta, lr, h = r.uniform(0, 0.999, 2000), np.exp(r.uniform(-12, 1, 2000)), r.normal(size=2000)
    plus, minus = linear.roots(h, lr, beta)
    assert_allclose(plus * minus, beta, atol=1e-12)
    assert_allclose(plus + minus, 1 + beta - lr * h, atol=1e-12)
    saddle = np.abs(h)
    plus, minus = linear.roots(-saddle, lr, beta)
    assert plus.dtype == np.float64
    assert ((plus > 1) & (minus >= -1e-15) & (minus < 1)).all()
    assert_allclose(np.exp(linear.growth(saddle, lr, beta)), plus, rtol=1e-12)


def test_underdamped_modes_have_complex_roots_of_modulus_root_momentum():
    plus, minus = linear.roots(1.0, 0.1, 0.9)
    assert np.iscomplexobj(plus)
    assert abs(plus) == pytest.approx(math.sqrt(0.9))
    assert minus == np.conj(plus)
    edge = linear.critical_damping(0.9)
    assert np.isrealobj(linear.roots(1.0, 0.999 * edge, 0.9)[0])
    assert np.iscomplexobj(linear.roots(1.0, 1.001 * edge, 0.9)[0])


def test_growth_keeps_its_digits_at_tiny_steps():
    lift = 1e-13
    assert_allclose(linear.growth(1.0, lift, [0.0, 0.9]), [lift, lift / 0.1], rtol=1e-11)


def test_growth_ceiling_oracles():
    lift = np.array([5e-4, 1e-3, 1e-2, 1e-1])
    speedup = linear.growth_ceiling(1.0, lift) / linear.growth(1.0, lift, 0)
    assert_allclose(speedup, [44.7316, 31.6373, 10.0457, 3.3042], atol=5e-5)
    assert_allclose(linear.growth(1.0, lift, 1 - 1e-12), linear.growth_ceiling(1.0, lift), rtol=1e-6)


def test_growth_rises_with_momentum_at_equal_rate_and_falls_at_equal_effective_step():
    r = generator(7)
    small, gap, lr = r.uniform(0, 0.98, 2000), r.uniform(0.001, 1, 2000), np.exp(r.uniform(-6, 1, 2000))
    b = 1.7
    large = small + gap * (0.999 - small)
    assert (linear.growth(b, lr, large) > linear.growth(b, lr, small)).all()
    slow, fast = (linear.growth(b, linear.matched_lr(lr, beta), beta) for beta in (large, small))
    assert (slow < fast).all()


def test_variance_falls_with_momentum_at_equal_effective_step():
    r = generator(8)
    small, gap, e = r.uniform(0, 0.98, 2000), r.uniform(0.001, 1, 2000), r.uniform(0.01, 1.99, 2000)
    large = small + gap * (0.999 - small)
    low, high = (linear.stationary_variance(1, linear.matched_lr(e, beta), beta) for beta in (large, small))
    assert (low < high).all()
    expected = e / 2 / (1 - e * (1 - small) / (2 * (1 + small)))
    assert_allclose(high, expected, rtol=1e-10)


def test_growth_efficiency_is_one_curve_in_the_inertia():
    y = np.array([0.01, 0.1, 1, 10, 100])
    assert_allclose(linear.inertial_efficiency(y), [0.9902, 0.91608, 0.61803, 0.27016, 0.09512], atol=5e-6)
    table = {
        0.9: [0.99068, 0.91964, 0.62654, 0.27477, 0.09348],
        0.99: [0.99024, 0.91643, 0.61889, 0.27072, 0.09531],
        0.999: [0.9902, 0.91612, 0.61812, 0.27021, 0.09515],
    }
    for beta, expected in table.items():
        effective = y * (1 - beta)
        rate = linear.growth(1.0, linear.matched_lr(effective, beta), beta)
        assert_allclose(rate / effective, expected, atol=6e-6)
        assert_allclose(rate / effective, linear.inertial_efficiency(y), rtol=0.02)


def test_inertial_limit_of_the_roots():
    beta, inertia, h = 1 - 1e-7, 2.0, np.array([-1.0, 0.1, 3.0])
    plus, minus = linear.roots(h, inertia * (1 - beta) ** 2, beta)
    fast, slow = linear.inertial_roots(h, inertia)
    assert_allclose((plus - 1) / (1 - beta), fast, rtol=1e-6)
    assert_allclose((minus - 1) / (1 - beta), slow, rtol=1e-6)

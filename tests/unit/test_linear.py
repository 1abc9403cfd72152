"""The exact linear theory against independent solvers, brute force, and numbers worked out beforehand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from descent.problems import linear
from numpy.testing import assert_allclose
from scipy import stats as law
from scipy.linalg import solve_discrete_lyapunov

MOMENTA = (0.0, 0.5, 0.9, 0.99)
ROWS = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])


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


def ensemble(r: np.random.Generator, n: int = 4, d: int = 3) -> np.ndarray:
    return r.normal(size=(n, d)) * np.exp(r.normal(size=(n, 1)))


# ---- conventions


@pytest.mark.parametrize(("convention", "dampening"), [
    ("heavy_ball", None), ("ema", None), ("dampened", 0.3),
])
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


# ---- one mode


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
    expected = [[0.9, 0.6561, 0.4783, 0.34868], [0.93333, 0.5244, 0.22105, 0.0768],
                [0.94737, 0.34958, -0.35084, -0.59586]]
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
    """The same mode: equal raw lr, its matched control, equal effective step, a batch of equal noise power."""
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


# ---- roots and growth


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
    table = {0.9: [0.99068, 0.91964, 0.62654, 0.27477, 0.09348],
             0.99: [0.99024, 0.91643, 0.61889, 0.27072, 0.09531],
             0.999: [0.9902, 0.91612, 0.61812, 0.27021, 0.09515]}
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


# ---- the saddle


def test_variance_from_rest_oracles():
    expected = [[1e-4, 2.0201e-4, 1.0954728e-3, 8.4816608e-3],
                [1e-4, 3.2801e-4, 3.8482884e-3, 5.5418434e-2],
                [1e-4, 4.6481e-4, 2.4801557e-2, 9.2364894]]
    measured = linear.variance_from_rest([1, 2, 10, 50], 1, 0.01, [[0.0], [0.5], [0.9]])
    assert_allclose(measured, expected, rtol=5e-8)


def test_variance_from_rest_is_the_sum_of_squared_responses():
    r = generator(9)
    for lr, beta, b in r.uniform([0.001, 0.0, 0.1], [1.0, 0.99, 2.0], size=(50, 3)):
        response, earlier, total = 1.0, 0.0, 0.0
        for k in range(1, 30):
            total += lr**2 * response**2
            response, earlier = (1 + beta + lr * b) * response - beta * earlier, response
            assert_allclose(linear.variance_from_rest(k, b, lr, beta), total, rtol=1e-9)
    assert linear.variance_from_rest(0, 1, 0.1, 0.5) == 0
    assert_allclose(linear.variance_from_rest(1, 1, 0.1, np.array(MOMENTA), noise=4.0), 0.04, rtol=1e-12)


def test_unstable_mode_is_an_autoregression_on_any_path():
    lr, beta, b, noise = 0.05, 0.8, 1.3, generator(10).normal(size=200)
    x = np.zeros(202)
    for k in range(200):
        x[k + 2] = (1 + beta + lr * b) * x[k + 1] - beta * x[k] + lr * noise[k]
    plus, minus = linear.roots(-b, lr, beta)
    w = x[1:] - minus * x[:-1]
    assert_allclose(w[1:], plus * w[:-1] + lr * noise, rtol=1e-12, atol=1e-12)


def test_escape_oracles():
    beta = np.array([0, 0.5, 0.9, 0.95, 0.99])
    means, spreads = linear.escape_mean(1, 1, 0.01, beta), linear.escape_sd(1, 0.01, beta)
    assert_allclose(means, [331.072, 153.618, 43.2084, 35.0212, 29.8468], atol=6e-4)
    assert_allclose(spreads, [111.627, 57.1584, 17.7278, 14.0967, 11.6537], atol=6e-4)
    assert linear.escape_quantile(0.5, 1, 1, 0.01, beta).tolist() == [307, 141, 39, 32, 27]


def test_escape_mean_is_the_plain_sum():
    k = np.arange(2000)
    plain = (1 - linear.escape_cdf(k, 1, 1, 0.01, 0.5)).sum()
    assert linear.escape_mean(1, 1, 0.01, 0.5) == pytest.approx(plain, rel=1e-12)
    assert linear.escape_cdf(0, 1, 1, 0.01, 0.5) == 0
    assert linear.escape_cdf(1e6, 1, 1, 0.01, 0.5) == 1


def test_streaming_pca_oracles():
    """lr 5e-4, b = 1, σ² = 12, radius √(x/(1 − x)) at x = 0.5 and 0.9."""
    beta = np.array([0.0, 0.9])
    assert_allclose(linear.escape_mean(1, 1, 5e-4, beta, 12), [7085.0, 515.9], atol=0.06)
    assert_allclose(linear.escape_mean(3, 1, 5e-4, beta, 12), [9280.1, 743.0], atol=0.06)
    assert linear.escape_quantile([0.1, 0.5, 0.9], 1, 1, 5e-4, 0.9, 12).tolist() == [284, 464, 814]


def test_matched_step_oracles():
    beta = np.array([0.5, 0.9, 0.99])

    def time(lr, momentum):
        return linear.escape_mean(1, 1, lr, momentum)

    assert_allclose(time(0.01, beta) / time(0.01, 0), [0.4640, 0.1305, 0.0902], atol=6e-5)
    assert_allclose(time(0.01, beta) / time(0.01 / (1 - beta), 0), [1.0286, 1.849, 12.58], rtol=5e-4)
    assert_allclose(time(0.01 * (1 - beta), beta) / time(0.01, 0), [1.0142, 1.1187, 1.879], atol=6e-4)


def test_quantile_is_the_first_step_that_reaches_p():
    p = np.array([0.01, 0.3, 0.5, 0.99])
    k = linear.escape_quantile(p, 1, 1, 0.02, 0.9)
    assert (linear.escape_cdf(k, 1, 1, 0.02, 0.9) >= p).all()
    assert (linear.escape_cdf(k - 1, 1, 1, 0.02, 0.9) < p).all()


def test_asymptotic_mean_and_spread_for_a_large_radius():
    beta = np.array([0, 0.5, 0.9])
    far = linear.escape_mean(1e4, 1, 0.01, beta)
    assert_allclose(linear.escape_mean_asymptotic(1e4, 1, 0.01, beta), far, rtol=1e-6)
    k = np.arange(6000)
    survival = 1 - linear.escape_cdf(k, 1e4, 1, 0.01, 0.5)
    spread = math.sqrt(((2 * k + 1) * survival).sum() - survival.sum() ** 2)
    assert linear.escape_sd(1, 0.01, 0.5) == pytest.approx(spread, rel=1e-3)


def test_escape_from_offset_is_the_noise_free_path():
    lr, beta, b = 0.02, 0.9, 1.5
    earlier = x = 1e-6
    for _ in range(120):
        earlier, x = x, (1 + beta + lr * b) * x - beta * earlier
    assert linear.escape_from_offset(1e-6, x, b, lr, beta) == pytest.approx(120, abs=1e-6)


def escape_times(lr: float, beta: float, replicas: int, radius: float, seed: int) -> np.ndarray:
    """Simulate the linear saddle, b = σ = 1, from rest."""
    r, k = generator(seed), 0
    x = earlier = np.zeros(replicas)
    times = np.full(replicas, -1)
    while (times < 0).any():
        k += 1
        earlier, x = x, (1 + beta + lr) * x - beta * earlier + lr * r.normal(size=replicas)
        times[(times < 0) & (np.abs(x) >= radius)] = k
    return times


@pytest.mark.parametrize(("lr", "beta"), [(0.01, 0.9), (0.05, 0.5), (0.05, 0.9), (0.1, 0.0)])
def test_simulated_escape_follows_the_law_where_it_is_valid(lr, beta):
    assert linear.escape_level(1, 1, lr, beta) >= 4
    times = escape_times(lr, beta, 8000, 1.0, 11)
    error = times.std(ddof=1) / math.sqrt(len(times))
    mean = linear.escape_mean(1, 1, lr, beta)
    assert times.mean() == pytest.approx(float(mean), abs=5 * error + 0.01 * mean)
    k = np.arange(times.max() + 1)
    distance = np.abs((times[:, None] <= k).mean(0) - linear.escape_cdf(k, 1, 1, lr, beta)).max()
    assert distance < law.kstwo.isf(0.001, len(times))


def test_law_is_an_upper_bound_on_the_mean_outside_its_domain():
    lr, radius = 0.02, 0.1
    assert linear.escape_level(radius, 1, lr, 0) == pytest.approx(1.0, abs=0.05)
    mean = escape_times(lr, 0.0, 4000, radius, 12).mean()
    assert mean / linear.escape_mean(radius, 1, lr, 0) == pytest.approx(0.57, abs=0.04)


def test_kramers_time_oracle():
    """Double well (x² − 1)²/4: barrier 1/4, well 2, top 1; σ² = 1.44 at effective step 0.05."""
    beta = np.array([0, 0.5, 0.9, 0.95, 0.99])
    times = linear.kramers_time(0.25, 2, 1, linear.matched_lr(0.05, beta), beta, 1.44)
    assert times[0] == pytest.approx(94_500, rel=1e-3)
    assert_allclose(times[1:] / times[0], [1.045, 1.32, 1.57, 2.72], atol=6e-3)
    equal_lr = linear.kramers_time(0.25, 2, 1, 0.02, beta, 6.25)  # barrier over temperature 4 for plain SGD
    assert_allclose((equal_lr / equal_lr[0])[[1, 2, 4]], [0.0708, 0.0053, 0.0028], atol=6e-5)


def test_a_stable_mode_is_refused_as_a_saddle():
    for function in (lambda: linear.growth(-1, 0.1, 0), lambda: linear.escape_mean(1, 0.0, 0.1, 0)):
        with pytest.raises(ValueError, match="instability"):
            function()
    with pytest.raises(ValueError, match="momentum"):
        linear.convert(0.1, 1.0)
    with pytest.raises(ValueError, match="lr must be positive"):
        linear.convert(0.0, 0.5)
    with pytest.raises(ValueError, match="dampening must stay below 1"):
        linear.convert(0.1, 0.5, "dampened", dampening=1.0)
    with pytest.raises(ValueError, match="dampening belongs"):
        linear.convert(0.1, 0.5, "dampened")
    with pytest.raises(ValueError, match="strictly between"):
        linear.escape_quantile(1.0, 1, 1, 0.1, 0.5)


# ---- the kernel


def test_kernel_oracles():
    lr, beta = [0.1, 0.1, 0.1, 0.1, 0.1, 0.01], [0, 0.5, 0.9, 0.9, 0.9, 0.99]
    expected = [19, 9.6666666667, 1.9473684211, 2.6578947368, 7.6315789474, 452.7185929648]
    assert_allclose(linear.kernel(1, [1, 1, 1, 0.5, 2, 4], lr, beta), expected, rtol=1e-10)


def test_kernel_is_the_inverse_sum_of_impulse_responses():
    r = generator(13)
    for _ in range(100):
        beta, (h, k) = r.uniform(0, 0.95), np.exp(r.normal(size=2))
        lr = r.uniform(0.05, 0.9) * 2 * (1 + beta) / max(h, k)
        total, first, second = 0.0, np.array([1.0, 0.0]), np.array([1.0, 0.0])
        a, b = (np.array([[1 + beta - lr * c, -beta], [1.0, 0.0]]) for c in (h, k))
        while abs(first).max() * abs(second).max() > 1e-17:
            total += first[0] * second[0]
            first, second = a @ first, b @ second
        assert_allclose(linear.kernel(h, k, lr, beta), 1 / (lr**2 * total), rtol=1e-9)


def test_stationary_covariance_solves_the_lyapunov_equation():
    r = generator(14)
    for d in (1, 2, 3, 5):
        for _ in range(15):
            basis, beta = np.linalg.qr(r.normal(size=(d, d)))[0], r.uniform(0, 0.95)
            values = np.exp(r.normal(size=d))
            hessian, root = basis * values @ basis.T, r.normal(size=(d, d))
            lr = r.uniform(0.05, 0.9) * 2 * (1 + beta) / values.max()
            noise = np.zeros((2 * d, 2 * d))
            noise[:d, :d] = lr**2 * root @ root.T
            expected = solve_discrete_lyapunov(companion(hessian, lr, beta), noise)[:d, :d]
            measured = linear.stationary_covariance(hessian, root @ root.T, lr, beta)
            assert_allclose(measured, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_stationary_covariance_with_multiplicative_noise_is_the_fixed_point_of_the_enumerated_map():
    r = generator(15)
    for beta, form in itertools.product((0.0, 0.7, 0.95), ("rows", "matrices")):
        rows, root = ensemble(r), r.normal(size=(3, 3))
        hessians = rows[:, :, None] * rows[:, None, :]
        examples = rows if form == "rows" else hessians
        lr = 0.6 * linear.mean_square_edge(examples, beta)
        measured = linear.stationary_covariance(hessians.mean(0), root @ root.T, lr, beta, V=examples)
        operator, noise = second_moment_operator(hessians, lr, beta), np.zeros((6, 6))
        noise[:3, :3] = lr**2 * root @ root.T
        fixed = np.linalg.solve(np.eye(36) - operator, noise.ravel()).reshape(6, 6)
        assert_allclose(measured, fixed[:3, :3], atol=1e-9 * np.abs(fixed).max())


def second_moment_operator(hessians: np.ndarray, lr: float, momentum: float) -> np.ndarray:
    """The 4d² × 4d² map of E (x_t, x_{t−1})(x_t, x_{t−1})ᵀ, by enumeration of equally likely gradients."""
    maps = [companion(hessian, lr, momentum) for hessian in hessians]
    return np.mean([np.kron(a, a) for a in maps], axis=0)


def radius(hessians: np.ndarray, lr: float, momentum: float) -> float:
    return float(np.abs(np.linalg.eigvals(second_moment_operator(hessians, lr, momentum))).max())


def test_edge_oracles_of_the_three_row_problem():
    table = {0.0: [0.576039, 0.938164, 1.081947, 1.119207], 0.5: [0.431798, 1.036604, 1.488611, 1.642811],
             0.9: [0.117808, 0.423280, 1.099995, 1.762560], 0.99: [0.012896, 0.051038, 0.192772, 0.626230]}
    mapped = {0.5: [0.413364, 0.996587, 1.476218, 1.641610], 0.9: [0.100401, 0.358598, 0.994239, 1.720280],
              0.99: [0.010413, 0.041168, 0.157345, 0.533086]}
    assert_allclose(np.linalg.eigvalsh(linear.mean_hessian(ROWS)), [0.565741, 1.767592], atol=5e-7)
    for beta, expected in table.items():
        edges = [linear.mean_square_edge(ROWS, beta, float(linear.batch_share(k))) for k in (1, 4, 16, 64)]
        assert_allclose(edges, expected, atol=6e-7)
        shares = [(1 + beta) / (1 - beta) / k for k in (1, 4, 16, 64)]
        twin = [(1 + beta) * linear.mean_square_edge(ROWS, 0, share) for share in shares]
        assert_allclose(twin, mapped.get(beta, expected), atol=6e-7)


def test_load_one_is_the_edge_of_the_enumerated_operator():
    r = generator(16)
    for trial in range(30):
        beta, rows = MOMENTA[trial % 4], ensemble(r)
        lr = linear.mean_square_edge(rows, beta)
        assert linear.mean_square_load(rows, lr, beta) == pytest.approx(1, abs=1e-9)
        assert abs(radius(rows[:, :, None] * rows[:, None, :], lr, beta) - 1) < 1e-8


def test_edge_with_real_batches_and_general_symmetric_hessians():
    """Batches of two enumerated as the 16 ordered pairs; Hessians not of rank one, one of them indefinite."""
    r = generator(17)
    for beta in (0.0, 0.6, 0.9):
        root = r.normal(size=(4, 2, 2))
        hessians = root @ root.swapaxes(1, 2) + np.array([[0.5, 0.0], [0.0, -0.1]])
        pairs = np.array([(a + b) / 2 for a, b in itertools.product(hessians, repeat=2)])
        lr = linear.mean_square_edge(hessians, beta, float(linear.batch_share(2)))
        assert abs(radius(pairs, lr, beta) - 1) < 1e-8
    distinct = np.array([(a + b) / 2 for a, b in itertools.permutations(hessians, 2)])
    lr = linear.mean_square_edge(hessians, beta, float(linear.batch_share(2, population=4)))
    assert abs(radius(distinct, lr, beta) - 1) < 1e-8


def test_matched_step_never_destabilises_and_dephasing_never_hurts():
    r = generator(18)
    for _ in range(40):
        rows = r.standard_t(3, size=(5, 3))
        edges = [linear.mean_square_edge(rows, beta) / (1 - beta) for beta in (0.0, 0.3, 0.7, 0.95)]
        assert (np.diff(edges) > 0).all()
        twin = 1.95 * linear.mean_square_edge(rows, 0, 1.95 / 0.05) / 0.05
        assert edges[-1] >= twin * (1 - 1e-9)


def test_commuting_data_has_exactly_the_edge_of_the_equivalent_sgd():
    rows = np.diag([1.0, 2.0, 0.3])[[0, 1, 2, 1]]
    for beta in (0.5, 0.9):
        twin = (1 + beta) * linear.mean_square_edge(rows, 0, (1 + beta) / (1 - beta))
        assert linear.mean_square_edge(rows, beta) == pytest.approx(twin, rel=1e-9)


def test_kernel_never_falls_with_momentum_at_equal_effective_step():
    r = generator(19)
    e, h, k = np.exp(r.normal(size=(3, 2000)))
    low = r.uniform(0, 0.98, 2000)
    high = low + r.uniform(0, 1, 2000) * (0.999 - low)
    less, more = (linear.kernel(h, k, linear.matched_lr(e, beta), beta) for beta in (low, high))
    assert (more - less >= -1e-9 * (h + k) / e).all()


def test_load_of_one_mode_is_noise_over_kernel():
    rows = np.array([[0.5], [1.5], [2.0]])
    curvature, spread = (rows**2).mean(), (rows**2).var()
    assert linear.mean_square_load(rows, 0.1, 0.8, 0.25) == pytest.approx(
        0.25 * spread / float(linear.kernel(curvature, curvature, 0.1, 0.8)))
    assert linear.mean_square_edge(rows, 0.8, 0.25) == pytest.approx(
        float(linear.mode_edge(curvature, 0.8, 0.25 * spread)))


def test_load_without_noise_is_zero_and_infinite_beyond_the_noise_free_edge():
    same = np.ones((3, 1))
    assert linear.mean_square_load(same, 0.1, 0.5) == 0
    assert linear.mean_square_load(same, 3.1, 0.5) == math.inf
    assert linear.mean_square_edge(same, 0.5) == pytest.approx(3.0, rel=1e-9)


def test_null_space_is_projected_out():
    flat = np.hstack([ROWS, np.zeros((3, 2))]) @ np.linalg.qr(generator(20).normal(size=(4, 4)))[0]
    expected = linear.mean_square_load(ROWS, 0.1, 0.9)
    assert linear.mean_square_load(flat, 0.1, 0.9) == pytest.approx(expected, rel=1e-9)


def test_gram_rows_carry_the_same_load():
    rows = ensemble(generator(21), n=12, d=4)
    from_gram = linear.gram_rows(rows @ rows.T)
    assert from_gram.shape == (12, 4)
    assert linear.mean_square_load(from_gram, 0.02, 0.9, 0.25) == pytest.approx(
        linear.mean_square_load(rows, 0.02, 0.9, 0.25), rel=1e-9)
    assert_allclose(linear.gram_rows(rows @ rows.T, keep=2), from_gram[:, :2])


def test_multiplicative_covariance_is_the_covariance_of_the_curvature_noise():
    rows, s = ensemble(generator(22)), np.diag([1.0, 2.0, 3.0])
    hessians = rows[:, :, None] * rows[:, None, :]
    h = hessians.mean(0)
    expected = np.mean([(q - h) @ s @ (q - h) for q in hessians], axis=0)
    assert_allclose(linear.multiplicative_covariance(rows, s), expected, rtol=1e-10, atol=1e-12)
    assert_allclose(linear.multiplicative_covariance(hessians, s), expected, rtol=1e-10, atol=1e-12)


def test_loss_floor_can_rise_at_matched_step_when_noise_is_not_aligned_with_curvature():
    rows = np.array([[-1.1209, -0.8588], [-1.0757, 2.966], [-1.8906, -1.1785]])
    sigma, effective = np.array([[0.1047, 0.0594], [0.0594, 0.0337]]), 0.159494509
    h = linear.mean_hessian(rows)
    floors = [np.trace(h @ linear.stationary_covariance(h, sigma, effective * (1 - beta), beta, V=rows))
              for beta in (0.9, 0.99)]
    assert floors[1] / floors[0] == pytest.approx(1.1045, abs=5e-4)
    label = [np.trace(h @ linear.stationary_covariance(h, h, effective * (1 - beta), beta, V=rows))
             for beta in (0.9, 0.99)]
    assert label[1] < label[0]


def test_no_stationary_state_is_refused():
    h = linear.mean_hessian(ROWS)
    with pytest.raises(ValueError, match="mean-square load"):
        linear.stationary_covariance(h, h, 0.6, 0.0, V=ROWS)
    with pytest.raises(ValueError, match="no stationary state"):
        linear.stationary_covariance(np.diag([1.0, 0.0]), np.eye(2), 0.1, 0.0)
    with pytest.raises(ValueError, match="rows"):
        linear.mean_square_load(np.ones(3), 0.1, 0.0)
    with pytest.raises(ValueError, match="mean Hessian"):
        linear.mean_square_load(-np.ones((2, 1, 1)), 0.1, 0.0)


# ---- aligned noise


def test_aligned_edge_oracles():
    h = np.array([4, 2, 1, 0.5])
    table = {0.0: [0.1896960467, 0.3768220466, 0.4681158433], 0.5: [0.1180737901, 0.3437017312, 0.6080775417],
             0.9: [0.0261446237, 0.0986862284, 0.3188152504]}
    for beta, expected in table.items():
        assert_allclose([linear.aligned_edge(h, beta, 1 / size) for size in (1, 4, 16)], expected, atol=6e-11)
    assert linear.critical_batch(h) == pytest.approx(1.4761904762, abs=6e-11)


def flat_share(*args, **options) -> float:
    profile = linear.edge_profile(*args, **options)
    return float(profile[1:].sum() / profile[0])


def test_edge_profile_oracles():
    h = 1 / np.arange(1, 51)
    edges = [linear.aligned_edge(h, 0, 1 / size) for size in (1, 8, 64)]
    assert_allclose(edges, [0.4087439343, 1.6391009612, 1.9670079835], atol=6e-11)
    shares = [flat_share(h, 0, 1 / size) for size in (1, 8, 64)]
    assert_allclose(shares, [2.8930389718, 0.7614487321, 0.0734522048], atol=6e-11)


def test_gaussian_edge_profile_oracles():
    h = np.arange(1, 21) ** -0.5
    assert linear.aligned_edge(h, 0, 1 / 8, gaussian=True) == pytest.approx(1.25393, abs=5e-6)
    table = {0.0: (2.760, 0.214), 0.5: (4.790, 0.842), 0.9: (5.865, 4.477), 0.99: (6.057, 5.915)}
    for beta, expected in table.items():
        shares = [flat_share(h, beta, 1 / size, gaussian=True) for size in (8, 64)]
        assert_allclose(shares, expected, atol=6e-4)
    assert_allclose(linear.critical_batch(h, [0.0, 0.5, 0.9, 0.99]), [11.9, 35.6, 225.7, 2363.7], atol=0.05)


def test_flat_share_depends_on_the_batch_over_the_critical_batch():
    h = np.arange(1, 21) ** -0.5
    shares = [flat_share(h, beta, 1 / (2.5 * float(linear.critical_batch(h, beta)))) for beta in MOMENTA]
    assert_allclose(shares, shares[0], rtol=1e-9)


def test_aligned_edges_are_the_edges_of_their_operators():
    """V(M) = tr(HM)H (+ HMH for Gaussian features) put into the load's own condition, K − pV singular."""
    h, beta, share = np.array([3.0, 1.0, 0.2]), 0.7, 0.2
    for gaussian in (False, True):
        lr = linear.aligned_edge(h, beta, share, gaussian=gaussian)
        k = linear.kernel(h, h, lr, beta) - gaussian * share * h**2
        assert (k > 0).all()
        assert np.linalg.eigvalsh(np.diag(k) - share * np.outer(h, h))[0] == pytest.approx(0, abs=1e-10)


def test_aligned_input_is_checked():
    with pytest.raises(ValueError, match="positive"):
        linear.aligned_edge([1.0, -1.0], 0.5)
    with pytest.raises(ValueError, match="not repeated"):
        linear.critical_batch([1.0, 1.0])

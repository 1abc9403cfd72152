"""The escape law against sums, simulation, and numbers worked out beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent.theory import linear
from numpy.testing import assert_allclose
from scipy import stats as law

MOMENTA = (0.0, 0.5, 0.9, 0.99)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_variance_from_rest_oracles():
    expected = [
        [1e-4, 2.0201e-4, 1.0954728e-3, 8.4816608e-3],
        [1e-4, 3.2801e-4, 3.8482884e-3, 5.5418434e-2],
        [1e-4, 4.6481e-4, 2.4801557e-2, 9.2364894],
    ]
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


@pytest.mark.parametrize(
    ("level", "mean", "distance"),
    [
        (1, 0.567, 0.207),
        (2, 0.859, 0.084),
        (3, 0.955, 0.037),
        (4, 0.982, 0.0185),
        (6, 0.995, 0.0062),
        (8, 0.998, 0.0026),
    ],
)
def test_law_against_exact_first_passage_without_momentum(level, mean, distance):
    """The density inside the radius is carried from step to step by Gauss–Legendre quadrature."""
    lr = 0.02
    radius = level / float(linear.escape_level(1, 1, lr, 0))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    nodes, weights = nodes * radius, weights * radius
    carry = law.norm.pdf(nodes[:, None], (1 + lr) * nodes, lr) * weights
    density, survival = law.norm.pdf(nodes, 0, lr), [1.0]
    while survival[-1] > 1e-9:
        survival.append(float(weights @ density))
        density = carry @ density
    exact = 1 - np.array(survival)
    assert sum(survival) / linear.escape_mean(radius, 1, lr, 0) == pytest.approx(mean, abs=6e-4)
    claimed = linear.escape_cdf(np.arange(len(exact)), radius, 1, lr, 0)
    assert (exact >= claimed - 1e-9).all()
    assert (exact - claimed).max() == pytest.approx(distance, abs=6e-4)


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

"""Closed forms of sign-like rules: numbers known to ten digits, and a simulation of what they say."""

import math

import numpy as np
import pytest
from descent.theory import polar, signs


def near(found, asked, digits=1e-9):
    np.testing.assert_allclose(found, asked, rtol=digits)


def test_diffusion_and_the_ratio_of_floors():
    rates = (0.5, 0.9, 0.95, 0.99)
    near([signs.ema(m).diffusion for m in rates], [2.3071757571, 13.2788686994, 27.1115033436, 137.9726469298])
    near([signs.ema(m).floor_ratio for m in rates], [0.7690585857, 0.6988878263, 0.6951667524, 0.6933298841])
    near([1 / signs.ema(m).for_bias for m in rates], [0.42857143, 0.07011070, 0.03418054, 0.00670011], 1e-6)


KERNELS = [
    (signs.ema(0.9), 9, 19, 14.2632, 13.2789, 0.6989),
    (signs.ema(0.95), 19, 39, 29.2564, 27.1115, 0.6952),
    (signs.nesterov(0.95), 18.05, 32.9045, 19.3436, 22.2647, 0.6766),
    (signs.lion(0.9, 0.99), 90, 71.0714, 13.7333, 45.9270, 0.6462),
    (signs.lion(0.95, 0.98), 47.5, 86.0870, 48.0734, 58.0773, 0.6746),
    (signs.window(19), 9, 19, 19, 13.8888, 0.7310),
]


@pytest.mark.parametrize("row", KERNELS)
def test_the_table_of_kernels(row):
    kernel, *asked = row
    found = (kernel.lag, kernel.for_mean, kernel.for_bias, kernel.diffusion, kernel.floor_ratio)
    near(found, asked, 1e-4)


def test_a_kernel_of_two_averages():
    short, long = signs.ema(0.85).weights, signs.ema(0.98).weights
    weights = 0.5615 * long
    weights[: len(short)] += 0.4385 * short
    mixed = signs.Kernel(weights)
    near((mixed.lag, mixed.for_mean, mixed.for_bias, mixed.diffusion), (30, 36.20, 19.78, 24.20), 3e-4)


def test_the_floor_of_the_plain_sign():
    asked = [0.5455045544, 0.8382800377, 2.0822963815, 6.4648240969, 62.8622514225]
    near([signs.plain_floor(r) for r in (0.5, 1, 3, 10, 100)], asked)
    near(signs.plain_floor(0.5, 0.5), 0.5252398666)
    near(signs.closure(10), 6.465996, 1e-6)
    near(signs.sign_floor(1, 100, 1), signs.plain_floor(100), 5e-3)


@pytest.mark.parametrize(
    ("r", "momentum", "asked"),
    [(1, 0.5, 1.085667145), (10, 0.5, 8.551164391), (3, 0.9, 6.03472062), (10, 0.9, 19.06278399)],
)
def test_the_floor_of_the_averaged_sign(r, momentum, asked):
    near(signs.signum_floor(r, momentum), asked, 1e-6)


def test_the_overlap_of_a_polar_factor():
    points = (0.25, 0.5, 1, 2, math.sqrt(19))
    near(polar.overlap(points), [0.2071051781, 0.3877378388, 0.6366197724, 0.8469344597, 0.9574088409])
    near(polar.overlap(1e-4), 8e-4 / (3 * math.pi), 1e-6)
    near([polar.rectangular_overlap(16, 64, s) for s in (4, 8)], [0.434354, 0.691518], 2e-6)
    near(polar.rectangular_overlap(64, 16, 4), 0.434354, 2e-6)
    near(polar.rectangular_overlap(10, 32, 5), 0.642580, 2e-6)
    near(polar.rectangular_overlap(9, 9, 6), polar.overlap(2), 1e-8)


def test_efficiencies():
    near(2 / (math.pi * math.log(2)), 0.9184481885)
    near(signs.sign_efficiency(0.99999), 0.9184481885, 1e-4)
    near(signs.sign_efficiency(), 0.6366197724)
    near(polar.EFFICIENCY, 0.7205061948)
    near(signs.normalised_efficiency([2, 10, 100]), [0.78539816, 0.95130777, 0.99501256], 1e-7)


def test_rare_events():
    asked = [0.30054252, 0.50528006, 0.69942550, 0.84211952, 0.89053621]
    near(signs.shot_median([0.25, 0.35, 0.5, 0.75, 1]), asked, 1e-7)
    near(signs.rare_frequency([1, 8, 32, 512]), [0.5, 0.08299596, 0.02142794, 0.00135289], 1e-5)
    near(signs.adam_rare([0.8, 1, 2, 5]), [0.375, 0.5, 0.75, 0.9])
    assert signs.adam_rare(0.3) == 0


def test_adam():
    pairs = [(0, 0.999), (0.9, 0.999), (0.9, 0.99), (0.9, 0.95), (0.95, 0.95)]
    asked = [0.0005, 0.00049554, 0.00458716, 0.01724138, 0.01282051]
    near([signs.adam_bias(*pair) for pair in pairs], asked, 1e-5)
    near(signs.outlier(0.9, 0.999), 31.7658, 1e-5)
    near(signs.adam_rms([0, 0.5, 0.9]), [1, 0.577350, 0.229416], 1e-5)


def test_the_largest_cycle_is_there_and_the_next_is_not():
    assert [signs.largest_cycle(m) for m in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)] == [3, 5, 7, 10, 24, 77]
    for n, stays in ((7, True), (8, False)):
        assert orbit(0.9, n) == stays


def orbit(momentum, n):
    """Tell whether Signum on ½x² keeps turning every n steps, started on that orbit."""
    path = [n / 2 - k for k in range(n)]
    x = np.array(path + [-p for p in path])
    gradients = np.tile(x, 400)
    m = 0.0
    for g in gradients:
        m = momentum * m + (1 - momentum) * g
    position, turns = x[0], []
    for _ in range(40 * n):
        m = momentum * m + (1 - momentum) * position
        position -= np.sign(m)
        turns.append(np.sign(m))
    changes = np.flatnonzero(np.diff(turns)) + 1
    return bool(len(changes) > 10 and (np.diff(changes)[-10:] == n).all())


def test_a_sign_under_noise_descends_like_its_error_function():
    kernel = signs.ema(0.9)
    generator = np.random.Generator(np.random.Philox(7))
    noise = generator.normal(size=(4000, len(kernel.weights) // 2))
    m = 0.1 + noise @ kernel.weights[: noise.shape[1]]
    found = np.sign(m).mean()
    assert abs(found - float(signs.sign_mean(0.1, 1.0, kernel.for_mean))) < 4 / math.sqrt(4000)


def test_skewed_noise_stops_a_sign_beside_the_minimum():
    assert signs.median_bias(2.0, 1.0) == pytest.approx(1 / 3)
    near(signs.median_bias(2.0, 1.0, 1, signs.ema(0.9)), 0.0234, 2e-3)

"""Mean-square theory of random quadratics against known numbers, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.growth import Descent, resampled_growth
from descent.problems.quadratics import (
    FOUR_ATOMS,
    Ensemble,
    Gaussian,
    GaussianFeatures,
    RandomWeights,
    Weighted,
    bounds,
    cheap_bounds,
    gaussian_threshold,
    growth_rate,
    moment_operator,
    nesterov_growth,
    nesterov_threshold,
    noise_floor,
    noise_range,
    residuals,
    step_range,
    threshold,
)
from descent.theory import moments
from descent.theory.linear import crossover_batch, gram_rows, mean_square_edge
from descent.theory.weights import Gamma
from numpy.testing import assert_allclose

ATOMS = np.array(FOUR_ATOMS)
TWO_POINT = np.array([0.2, 1.8]).reshape(2, 1, 1)
SIZES = (1, 2, 4, 8, 32, 1000)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def random_examples(r: np.random.Generator, form: str) -> np.ndarray:
    """Rows, full-rank Hessians, or fewer rows than dimensions."""
    n, d = (2, 3) if form == "few" else (5, 3)
    rows = r.normal(size=(n, d)) * np.exp(r.normal(size=(n, 1)))
    if form != "matrices":
        return rows
    root = r.normal(size=(n, d, d))
    return rows[:, :, None] * rows[:, None, :] + root @ root.swapaxes(1, 2) / 5


# Known numbers


def test_two_point_thresholds():
    sizes = (1, 2, 4, 8, 16, 64, 200, 500, 1000)
    expected = [1.219512, 1.515152, 1.724138, 1.851852, 1.923077, 1.980198, 1.993620, 1.997443, 1.998721]
    assert_allclose([threshold(TWO_POINT, k) for k in sizes], expected, atol=6e-7)
    half = {1: 1.027397, 2: 1.530612, 10: 2.516779, 100: 2.943485}
    strong = {1: 0.288754, 2: 0.536723, 10: 1.714801, 100: 3.388017, 1000: 3.754347}
    for momentum, table in ((0.5, half), (0.9, strong)):
        assert_allclose([threshold(TWO_POINT, k, momentum) for k in table], list(table.values()), atol=6e-7)
        cross = float(crossover_batch(1.0, momentum, 0.64))
        assert cross == pytest.approx({0.5: 1.92, 0.9: 12.16}[momentum])
        assert threshold(TWO_POINT, cross, momentum) == pytest.approx(threshold(TWO_POINT, cross), rel=1e-9)


def test_nesterov_thresholds_and_limit():
    half = [nesterov_threshold(1, k, 0.5, 0.64) for k in (1, 4, 16)]
    assert_allclose(half, [0.826349, 1.254725, 1.430988], atol=6e-7)
    found = [nesterov_threshold(1, k, 0.9, 0.64) for k in (1, 4, 16, 1000, math.inf)]
    assert_allclose(found, [0.615042, 1.089487, 1.282192, 1.355895, 1.357143], atol=6e-7)
    assert nesterov_growth(1, 0.9 * found[0], 0.9, 0.64) < 0 < nesterov_growth(1, 1.1 * found[0], 0.9, 0.64)


def test_four_atom_thresholds_bounds_and_rates():
    table = {
        1: (0.408511, 0.638234, 0.793115),
        2: (0.732824, 0.870494, 1.039086),
        4: (1.049180, 1.058230, 1.608190),
        8: (1.174312, 1.182196, 2.214675),
        32: (1.289673, 1.292681, 3.088127),
        1000: (1.331890, 1.332001, 3.538417),
    }
    for k, expected in table.items():
        low, high = bounds(ATOMS, k)
        assert_allclose((low, threshold(ATOMS, k), high), expected, atol=6e-7)
    assert_allclose(noise_range(ATOMS), (1.5325521, 2.4375), atol=6e-8)
    assert noise_range(ATOMS)[1] / (1.5 * 0.5625) == pytest.approx(2.8889, abs=5e-5)  # where C_low switches branch
    assert [cheap_bounds(ATOMS, k).top for k in (1, 2)] == pytest.approx([2 / 3, 8 / 9])
    apart = [threshold(ATOMS, k, replacement=False) for k in (2, 3, 4)]
    assert_allclose(apart, [0.987900, 1.197540, 4 / 3], atol=6e-7)
    strong = [threshold(ATOMS, k, 0.9) for k in (1, 4, 32, 128)]
    assert_allclose(strong, [0.111751, 0.398272, 1.549249, 2.198413], atol=6e-7)
    half = [threshold(ATOMS, k, 0.5) for k in (1, 4, 32, 128)]
    assert_allclose(half, [0.458554, 1.105622, 1.825805, 1.953984], atol=6e-7)
    radii = [math.exp(2 * growth_rate(ATOMS, f * threshold(ATOMS, 1), 1)) for f in (0.5, 1.2)]
    assert_allclose(radii, [0.706136, 1.428985], atol=6e-7)


def test_one_step_shrinks_every_direction_below_the_lower_bound_and_grows_every_one_above_the_upper():
    for k in SIZES:
        low, high = bounds(ATOMS, k)
        assert step_range(ATOMS, 0.999 * low, k)[1] < 1
        assert step_range(ATOMS, 1.001 * high, k)[0] > 1
    v = np.array([1.0, 1.0])
    for k, expected in ((1, 1.175497), (4, 0.370416)):
        batches = [np.mean([np.outer(x, x) for x in batch], axis=0) for batch in itertools.product(ATOMS, repeat=k)]
        mean = ATOMS.T @ ATOMS / 4
        after = [(v - 0.7 * q @ v) @ mean @ (v - 0.7 * q @ v) for q in batches]
        ratio = np.mean(after) / (v @ mean @ v)
        low, high = step_range(ATOMS, 0.7, k)
        assert ratio == pytest.approx(expected, abs=6e-7)
        assert low <= ratio <= high


def test_gaussian_thresholds_and_bounds():
    ones = np.ones(10)
    assert_allclose(
        [gaussian_threshold(ones, k) for k in (1, 4, 16, 64, 256)],
        [1 / 6, 0.533333, 1.185185, 1.706667, 1.917603],
        atol=6e-7,
    )
    assert_allclose(
        [gaussian_threshold(ones, k, 0.9) for k in (1, 4, 16, 64, 256)],
        [0.018095, 0.071362, 0.270222, 0.890842, 2.092043],
        atol=6e-7,
    )
    steep, sizes = Gaussian((10.0, 1.0, 0.1)), (1, 4, 16, 64)
    assert_allclose([threshold(steep, k) for k in sizes], [0.065788, 0.132886, 0.177711, 0.193934], atol=6e-7)
    assert_allclose([bounds(steep, k).lower for k in sizes], [0.000995, 0.003979, 0.015907, 0.063476], atol=6e-7)
    assert_allclose([bounds(steep, k).upper for k in sizes], [0.099493, 0.159674, 0.273458, 0.775664], atol=6e-7)
    pair = (1.0, 0.4)
    assert_allclose([gaussian_threshold(pair, k) for k in (1, 4, 32)], [0.625, 1.309784, 1.881269], atol=6e-7)
    assert_allclose([gaussian_threshold(pair, k, 0.9) for k in (1, 4, 32)], [0.086223, 0.324707, 1.661315], atol=6e-7)
    assert gaussian_threshold(pair, math.inf, 0.9) == pytest.approx(3.8)


def test_isotropic_features_and_weights_make_all_bounds_agree():
    flat, weights = Gaussian((2.0,) * 5), Weighted((3.0,), 1.0)
    for k in (1, 4, 16):
        for problem, exact in ((flat, 2 * k / (2 * (k + 6))), (weights, 2 * k / (3 * (k + 1)))):
            assert threshold(problem, k) == pytest.approx(exact)
            assert bounds(problem, k) == pytest.approx((exact, exact))
            assert cheap_bounds(problem, k).mean == pytest.approx(exact)
            assert growth_rate(problem, exact, k) == pytest.approx(0, abs=1e-12)
        assert growth_rate(flat, 0.3, k) == pytest.approx(math.log((1 - 0.6) ** 2 + 0.36 * 6 / k) / 2)
    assert threshold(Weighted((3.0, 1.0), 0.64), 4, 0.9) == pytest.approx(threshold(TWO_POINT * 3, 4, 0.9))


def test_noise_floors():
    examples, offsets = np.repeat(TWO_POINT, 2, axis=0), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert noise_floor(examples, offsets, 0.5, 4)[0, 0] == pytest.approx(0.088028, abs=6e-7)
    assert noise_floor(examples, offsets, 0.2, 4, 0.9)[0, 0] == pytest.approx(0.317513, abs=6e-7)
    assert noise_floor(examples, offsets, 0.5, 4, replacement=False)[0, 0] == 0  # the whole sum has no noise
    with pytest.raises(ValueError, match="no stationary state"):
        noise_floor(examples, offsets, 1.3, 1)


# Consistency


@pytest.mark.parametrize("form", ["rows", "matrices", "few"])
def test_threshold_is_where_the_growth_changes_sign_by_two_routes(form: str):
    r = generator(3)
    for _ in range(10):
        examples = random_examples(r, form)
        for k, replacement in ((1, True), (3, True), (2, False)):
            if not replacement and len(examples) == 2:
                continue
            lr = threshold(examples, k, replacement=replacement)
            share = 1 / k if replacement else (len(examples) - k) / (k * (len(examples) - 1))
            assert lr == pytest.approx(mean_square_edge(examples, 0.0, share), rel=1e-9)
            assert growth_rate(examples, lr, k, replacement=replacement) == pytest.approx(0, abs=1e-9)
        strong = threshold(examples, 2, 0.8)
        assert growth_rate(examples, strong, 2, 0.8) == pytest.approx(0, abs=1e-7)


def test_moment_operator_is_the_enumerated_one():
    """All ordered pairs, and all pairs of distinct examples, as matrices on (x_t, x_{t−1}); equal spectra."""
    examples, lr = random_examples(generator(4), "matrices"), 0.07
    for replacement, draw in (
        (True, itertools.product(examples, repeat=2)),
        (False, itertools.combinations(examples, 2)),
    ):
        means = [(a + b) / 2 for a, b in draw]
        for momentum in (0.0, 0.7):
            maps = [np.eye(3) - lr * q for q in means] if momentum == 0 else [companion(q, lr, momentum) for q in means]
            expected = np.linalg.eigvals(np.mean([np.kron(a, a) for a in maps], axis=0))
            found = np.linalg.eigvals(moment_operator(examples, lr, 2, momentum, replacement=replacement))
            assert_allclose(np.poly(found), np.poly(expected), atol=1e-9)


def companion(hessian: np.ndarray, lr: float, momentum: float) -> np.ndarray:
    eye = np.eye(len(hessian))
    return np.block([[(1 + momentum) * eye - lr * hessian, -momentum * eye], [eye, 0 * eye]])


def test_the_gram_matrix_gives_the_same_numbers():
    rows = gram_rows(ATOMS @ ATOMS.T)
    for k in (1, 4, 32):
        assert threshold(rows, k) == pytest.approx(threshold(ATOMS, k), abs=1e-6)
        assert bounds(rows, k) == pytest.approx(bounds(ATOMS, k), abs=1e-6)
        assert cheap_bounds(rows, k) == pytest.approx(cheap_bounds(ATOMS, k), abs=1e-6)


def test_large_problems_give_what_written_out_ones_give(monkeypatch: pytest.MonkeyPatch):
    examples = generator(5).normal(size=(12, 8))
    for momentum in (0.0, 0.9):
        lr = 1.2 * threshold(examples, 2, momentum)
        written = (threshold(examples, 2), growth_rate(examples, lr, 2, momentum))
        with monkeypatch.context() as patch:
            patch.setattr(moments, "_DENSE", 0)
            assert (threshold(examples, 2), growth_rate(examples, lr, 2, momentum)) == pytest.approx(written, abs=1e-6)


@pytest.mark.parametrize("form", ["rows", "matrices", "few"])
def test_bounds_enclose_the_threshold_which_rises_with_the_batch_to_that_of_descent(form: str):
    r = generator(6)
    for _ in range(30):
        examples = random_examples(r, form)
        edges = [threshold(examples, k) for k in SIZES]
        assert (np.diff(edges) > 0).all()
        limit = threshold(examples, math.inf)
        for k, edge in zip(SIZES, edges, strict=True):
            low, high = bounds(examples, k)
            assert low <= edge * (1 + 1e-9)
            assert edge <= min(high, limit, *cheap_bounds(examples, k)) * (1 + 1e-9)
        hessian = examples.T @ examples / len(examples) if examples.ndim == 2 else examples.mean(0)
        assert limit == pytest.approx(2 / np.linalg.eigvalsh(hessian)[-1])
        assert 1 - threshold(examples, 1e6) / limit < 1e-4


def test_at_equal_effective_step_momentum_never_lowers_the_threshold():
    for examples in (ATOMS, TWO_POINT):
        for k in SIZES:
            matched = [threshold(examples, k, momentum) / (1 - momentum) for momentum in (0.0, 0.5, 0.9)]
            assert (np.diff(matched) > 0).all()


def test_residuals_vanish_exactly_where_examples_share_their_minimiser():
    r = generator(7)
    for form in ("rows", "matrices"):
        examples = random_examples(r, form)
        hessians = examples[:, :, None] * examples[:, None, :] if form == "rows" else examples
        best = r.normal(size=3)
        assert_allclose(residuals(examples, -hessians @ best), 0, atol=1e-12 * np.abs(hessians).max())
        assert np.abs(residuals(examples, r.normal(size=(5, 3)))).max() > 0.1


def test_refusals():
    with pytest.raises(ValueError, match="without replacement needs the array of examples"):
        threshold(Gaussian((1.0,)), 2, replacement=False)
    with pytest.raises(ValueError, match="cannot draw 5 of 4 examples"):
        threshold(ATOMS, 5, replacement=False)


# Simulation


def test_simulated_growth_vanishes_at_every_kind_of_threshold():
    steep = Gaussian((1.0, 0.4))
    cases = [
        (Ensemble(ATOMS, 4), threshold(ATOMS, 4), 0.0, 2),
        (Ensemble(ATOMS, 2, replacement=False), threshold(ATOMS, 2, replacement=False), 0.0, 2),
        (Ensemble(TWO_POINT, 2), threshold(TWO_POINT, 2), 0.0, 1),
        (GaussianFeatures((1.0, 0.4), 4), threshold(steep, 4), 0.0, 2),
        (GaussianFeatures((1.0, 0.4), 4), threshold(steep, 4, 0.9), 0.9, 2),
        (RandomWeights(Gamma(1.0), (3.0, 1.0), 4), threshold(Weighted((3.0, 1.0)), 4), 0.0, 2),
    ]
    streams = Streams(replica_seeds(8, 2000), torch.float64)
    for objective, lr, momentum, d in cases:
        step = Descent(objective, repeat(heavy_ball(lr, momentum), 2000), streams)
        start = streams.normal(Purpose.INIT, 0, (d,))
        (found,) = resampled_growth(step, step.state(start), 300, streams)
        assert abs(found.mean_square.value) < 0.008, objective
        assert found.lyapunov.high < -0.01, objective

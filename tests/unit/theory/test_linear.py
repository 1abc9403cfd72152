"""The kernel and the mean-square load against Lyapunov solutions and brute-force enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from descent.theory import linear
from numpy.testing import assert_allclose
from scipy.linalg import solve_discrete_lyapunov

MOMENTA = (0.0, 0.5, 0.9, 0.99)
ROWS = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def companion(hessian: np.ndarray, lr: float, momentum: float) -> np.ndarray:
    """The map (x_t, x_{t−1}) → (x_{t+1}, x_t)."""
    eye = np.eye(len(hessian))
    return np.block([[(1 + momentum) * eye - lr * hessian, -momentum * eye], [eye, np.zeros_like(eye)]])


def ensemble(r: np.random.Generator, n: int = 4, d: int = 3) -> np.ndarray:
    return r.normal(size=(n, d)) * np.exp(r.normal(size=(n, 1)))


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
    table = {
        0.0: [0.576039, 0.938164, 1.081947, 1.119207],
        0.5: [0.431798, 1.036604, 1.488611, 1.642811],
        0.9: [0.117808, 0.423280, 1.099995, 1.762560],
        0.99: [0.012896, 0.051038, 0.192772, 0.626230],
    }
    mapped = {
        0.5: [0.413364, 0.996587, 1.476218, 1.641610],
        0.9: [0.100401, 0.358598, 0.994239, 1.720280],
        0.99: [0.010413, 0.041168, 0.157345, 0.533086],
    }
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
        0.25 * spread / float(linear.kernel(curvature, curvature, 0.1, 0.8))
    )
    assert linear.mean_square_edge(rows, 0.8, 0.25) == pytest.approx(
        float(linear.mode_edge(curvature, 0.8, 0.25 * spread))
    )


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
        linear.mean_square_load(rows, 0.02, 0.9, 0.25), rel=1e-9
    )
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
    floors = [
        np.trace(h @ linear.stationary_covariance(h, sigma, effective * (1 - beta), beta, V=rows))
        for beta in (0.9, 0.99)
    ]
    assert floors[1] / floors[0] == pytest.approx(1.1045, abs=5e-4)
    label = [
        np.trace(h @ linear.stationary_covariance(h, h, effective * (1 - beta), beta, V=rows)) for beta in (0.9, 0.99)
    ]
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


def test_aligned_edge_oracles():
    h = np.array([4, 2, 1, 0.5])
    table = {
        0.0: [0.1896960467, 0.3768220466, 0.4681158433],
        0.5: [0.1180737901, 0.3437017312, 0.6080775417],
        0.9: [0.0261446237, 0.0986862284, 0.3188152504],
    }
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

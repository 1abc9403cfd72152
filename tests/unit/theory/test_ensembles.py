"""Stacks of small random quadratics against one problem at a time, brute force, and the oracles of the prototype."""

from __future__ import annotations

import numpy as np
import pytest
from descent.theory import linear
from descent.theory.ensembles import ceiling, edges, loads, loss_floors, random_rows
from descent.theory.moments import moment_operator
from numpy.testing import assert_allclose
from numpy.typing import NDArray

Array = NDArray[np.float64]

THREE = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]])
SIZES = np.array([1, 4, 16, 64])
EDGES = {  # by batch size; and of the plain SGD with the same diagonal of the kernel
    0.0: ([0.576039, 0.938164, 1.081947, 1.119207], [0.576039, 0.938164, 1.081947, 1.119207]),
    0.5: ([0.431798, 1.036604, 1.488611, 1.642811], [0.413364, 0.996587, 1.476218, 1.641610]),
    0.9: ([0.117808, 0.423280, 1.099995, 1.762560], [0.100401, 0.358598, 0.994239, 1.720280]),
    0.99: ([0.012896, 0.051038, 0.192772, 0.626230], [0.010413, 0.041168, 0.157345, 0.533086]),
}
SHAPES = ((3, 1), (3, 2), (5, 3), (2, 3))  # the last has fewer examples than dimensions


def problems(shape: tuple[int, int], count: int = 12) -> Array:
    return random_rows(np.random.Generator(np.random.Philox(31)), count, *shape)


@pytest.mark.parametrize("momentum", EDGES)
def test_edges_of_the_three_row_problem(momentum: float) -> None:
    own, mapped = EDGES[momentum]
    stack = np.repeat(THREE, len(SIZES), axis=0)
    assert_allclose(edges(stack, momentum, 1 / SIZES), own, atol=6e-7)
    twin = (1 + momentum) * edges(stack, 0.0, (1 + momentum) / (1 - momentum) / SIZES)
    assert_allclose(twin, mapped, atol=6e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("momentum", "share"), [(0.0, 1.0), (0.9, 0.25), (0.99, 1.0)])
def test_a_stack_agrees_with_one_problem_at_a_time(shape: tuple[int, int], momentum: float, share: float) -> None:
    rows = problems(shape)
    lr = 0.37 * ceiling(rows, momentum)
    one = [linear.mean_square_load(x, rate, momentum, share) for x, rate in zip(rows, lr, strict=True)]
    assert_allclose(loads(rows, lr, momentum, share), one, rtol=1e-8)
    assert_allclose(
        edges(rows, momentum, share), [linear.mean_square_edge(x, momentum, share) for x in rows], rtol=1e-8
    )


def test_rate_momentum_and_share_broadcast_over_the_problems() -> None:
    rows, momentum, share = problems((5, 2), 3), np.array([0.0, 0.5, 0.9]), np.array([1.0, 0.25, 0.5])
    lr = 0.2 * ceiling(rows, momentum)
    apart = [float(loads(rows[i : i + 1], lr[i], momentum[i], share[i])[0]) for i in range(3)]
    assert_allclose(loads(rows, lr, momentum, share), apart, rtol=1e-12)
    apart = [float(edges(rows[i : i + 1], momentum[i], share[i])[0]) for i in range(3)]
    assert_allclose(edges(rows, momentum, share), apart, rtol=1e-12)


def test_the_load_is_one_at_the_edge_and_the_listed_map_has_radius_one() -> None:
    rows = problems((5, 3), 4)
    for momentum in (0.0, 0.5, 0.99):
        found = edges(rows, momentum, 0.5)
        assert_allclose(loads(rows, found, momentum, 0.5), 1, rtol=1e-9)
        for x, lr in zip(rows, found, strict=True):
            radius = np.abs(np.linalg.eigvals(moment_operator(x, float(lr), 2, momentum))).max()
            assert radius == pytest.approx(1, abs=1e-8)


def test_directions_that_no_step_moves_do_not_count() -> None:
    rows = np.concatenate([problems((4, 2), 6), np.zeros((6, 4, 2))], axis=2)
    turn = np.linalg.qr(np.random.Generator(np.random.Philox(32)).normal(size=(4, 4)))[0]
    flat, few = rows @ turn, rows[:, :, :2]
    lr = 0.4 * ceiling(few, 0.9)
    assert_allclose(ceiling(flat, 0.9), ceiling(few, 0.9), rtol=1e-10)
    assert_allclose(loads(flat, lr, 0.9), loads(few, lr, 0.9), rtol=1e-8)
    assert_allclose(edges(flat, 0.9), edges(few, 0.9), rtol=1e-8)


def test_above_the_ceiling_the_load_is_infinite_and_without_noise_nothing_but_the_ceiling_holds() -> None:
    rows = problems((4, 2), 5)
    top = ceiling(rows, 0.5)
    assert_allclose(top, [3 / np.linalg.eigvalsh(x.T @ x / 4)[-1] for x in rows])
    assert np.isinf(loads(rows, 1.001 * top, 0.5)).all()
    assert np.isfinite(loads(rows, 0.999 * top, 0.5)).all()
    same = np.repeat(problems((1, 2), 3), 4, axis=1)  # four equal examples
    assert_allclose(loads(same, 0.3 * ceiling(same), 0.0), 0, atol=1e-12)
    assert_allclose(edges(same, 0.9), ceiling(same, 0.9), rtol=1e-12)


def floors_one_by_one(rows: Array, noise: Array, lr: Array, momentum: float, share: float) -> list[float]:
    found = []
    for x, sigma, rate in zip(rows, noise, lr, strict=True):
        h = linear.mean_hessian(x)
        found.append(np.trace(h @ linear.stationary_covariance(h, sigma, float(rate), momentum, V=x, share=share)))
    return found


def test_loss_floors_agree_with_one_problem_at_a_time() -> None:
    rows = problems((6, 3))
    root = np.random.Generator(np.random.Philox(33)).normal(size=(len(rows), 3, 3))
    for momentum, share in ((0.0, 1.0), (0.5, 0.25), (0.99, 1.0)):
        lr = 0.7 * edges(rows, momentum, share)
        found = loss_floors(rows, root @ root.mT, lr, momentum, share)
        assert_allclose(found, floors_one_by_one(rows, root @ root.mT, lr, momentum, share), rtol=1e-7)


def test_the_floor_of_the_loss_can_rise_at_matched_step() -> None:
    rows = np.array([[[-1.1209, -0.8588], [-1.0757, 2.966], [-1.8906, -1.1785]]])
    noise, effective = np.array([[[0.1047, 0.0594], [0.0594, 0.0337]]]), 0.159494509
    low, high = (float(loss_floors(rows, noise, effective * (1 - m), m)[0]) for m in (0.9, 0.99))
    assert high / low == pytest.approx(1.1045, abs=5e-4)
    aligned = rows.mT @ rows / 3  # noise of the labels
    low, high = (float(loss_floors(rows, aligned, effective * (1 - m), m)[0]) for m in (0.9, 0.99))
    assert high < low


def test_random_problems_have_heavy_tails_and_unequal_directions() -> None:
    rows = problems((50, 4), 400)
    lengths = np.linalg.norm(rows, axis=2)
    assert rows.shape == (400, 50, 4)
    assert lengths.max() > 20 * np.median(lengths)
    spread = np.median(np.abs(rows), axis=1)
    assert np.median(spread.max(axis=1) / spread.min(axis=1)) > 2
    assert not np.array_equal(rows, random_rows(np.random.Generator(np.random.Philox(34)), 400, 50, 4))

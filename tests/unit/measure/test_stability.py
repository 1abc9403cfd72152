"""Thresholds from Gram matrices: known numbers, the scalar solvers, the operator itself, and direct simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.gram import gram
from descent.measure.stability import bounds, cheap_bounds, interpolation_gram, leading, load, threshold
from descent.nets.dense import MLP
from descent.theory import moments
from descent.theory.linear import batch_share, gram_rows, mean_square_edge, mean_square_load
from numpy.testing import assert_allclose
from torch import Tensor

ATOMS = torch.tensor([(2.0, 0.0), (1.0, 1.0), (1.0, -1.0), (0.0, 0.5)], dtype=torch.float64)
FOUR = (ATOMS @ ATOMS.T).unsqueeze(0)

KNOWN = {  # lower bound, threshold, upper bound
    1: (0.408511, 0.638234, 0.793115),
    2: (0.732824, 0.870494, 1.039086),
    4: (1.049180, 1.058230, 1.608190),
    8: (1.174312, 1.182196, 2.214675),
    32: (1.289673, 1.292681, 3.088127),
    1000: (1.331890, 1.332001, 3.538417),
}


def random_grams(n: int, d: int, replicas: int = 3) -> Tensor:
    """Return Gram matrices of rank min(n, d) with curvatures falling like a power."""
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -0.7
    rows = Streams(replica_seeds(5, replicas), torch.float64).normal(Purpose.DATA, 0, (n, d)) * scale
    return rows @ rows.mT


@pytest.mark.parametrize("k", KNOWN)
def test_four_atoms(k: int) -> None:
    found = bounds(FOUR, k)
    assert_allclose((float(found.lower), float(threshold(FOUR, k)), float(found.upper)), KNOWN[k], atol=6e-7)


def test_four_atoms_without_replacement_with_momentum_and_cheaply() -> None:
    without = [float(threshold(FOUR, k, replacement=False)) for k in (2, 3, 4)]
    assert_allclose(without, [0.987900, 1.197540, 4 / 3], atol=6e-7)
    assert_allclose(
        [float(threshold(FOUR, k, 0.9)) for k in (1, 4, 32, 128)], [0.111751, 0.398272, 1.549249, 2.198413], atol=6e-7
    )
    assert_allclose(
        [float(threshold(FOUR, k, 0.5)) for k in (1, 4, 32, 128)], [0.458554, 1.105622, 1.825805, 1.953984], atol=6e-7
    )
    assert_allclose([float(cheap_bounds(FOUR, k).top) for k in (1, 2)], [2 / 3, 8 / 9], rtol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(8, 20), (30, 5), (40, 40)])
@pytest.mark.parametrize(("k", "momentum", "replacement"), [(1, 0.0, True), (4, 0.0, False), (4, 0.9, True)])
def test_a_stack_agrees_with_the_scalar_solvers(n: int, d: int, k: int, momentum: float, replacement: bool) -> None:
    grams = random_grams(n, d)
    rows = [gram_rows(one.numpy()) for one in grams]
    share = float(batch_share(k, None if replacement else n))
    edges = [mean_square_edge(one, momentum, share) for one in rows]
    assert_allclose(threshold(grams, k, momentum, replacement=replacement, tolerance=1e-7), edges, rtol=1e-9)
    assert_allclose(threshold(grams, k, momentum, replacement=replacement), edges, rtol=1e-7)
    expected = np.array([moments.bounds(one, k, replacement=replacement) for one in rows])
    found = bounds(grams, k, replacement=replacement)
    assert_allclose(torch.stack(found, dim=1), expected, rtol=1e-6)  # as good as the smallest curvature is known
    expected = np.array([moments.cheap_bounds(one, k, replacement=replacement) for one in rows])
    assert_allclose(torch.stack(cheap_bounds(grams, k, replacement=replacement), dim=1), expected, rtol=1e-10)


def test_the_operator_has_spectral_radius_one_at_the_threshold() -> None:
    for gram_matrix in random_grams(7, 4):
        rows = gram_rows(gram_matrix.numpy())
        for k in (1, 3):
            lr = float(threshold(gram_matrix.unsqueeze(0), k))
            operator = moments.moment_operator(rows, lr, k)
            assert np.abs(np.linalg.eigvals(operator)).max() == pytest.approx(1, abs=1e-8)


def test_everything_lies_in_order_and_scales() -> None:
    grams = random_grams(20, 50, replicas=40)
    full = threshold(grams, None)
    torch.testing.assert_close(full, 2 / leading(grams).sharpness)
    before = torch.zeros_like(full)
    for k in (1, 4, 16, 64):
        exact, (lower, upper), (top, mean) = threshold(grams, k), bounds(grams, k), cheap_bounds(grams, k)
        highest = torch.stack([upper, top, mean, full]).amin(dim=0)
        assert bool((lower <= exact).all() & (exact <= highest * (1 + 1e-9)).all() & (exact > before).all())
        torch.testing.assert_close(threshold(4 * grams, k), exact / 4, rtol=1e-8, atol=0)
        before = exact
    torch.testing.assert_close(threshold(grams, 20, replacement=False), full)


def test_repeated_examples_change_nothing() -> None:
    """Twice the same examples: rank deficient, and for SGD the same problem."""
    grams = random_grams(6, 10)
    twice = grams.repeat(1, 2, 2)
    for k in (1, 4):
        torch.testing.assert_close(threshold(twice, k), threshold(grams, k), rtol=1e-8, atol=0)
        torch.testing.assert_close(bounds(twice, k).lower, bounds(grams, k).lower, rtol=1e-6, atol=0)


def test_the_leading_direction() -> None:
    grams = random_grams(9, 12)
    sharpness, vector = leading(grams)
    torch.testing.assert_close((grams @ vector.unsqueeze(2)).squeeze(2), 9 * sharpness.unsqueeze(1) * vector)


def test_the_second_moment_of_runs_turns_at_the_threshold() -> None:
    """One example per step, all 3⁷ sequences enumerated: E|v|² falls below the threshold and grows above it."""
    rows = torch.tensor([(1.0, 0.0), (1.0, 1.0), (0.5, -0.5)], dtype=torch.float64)
    edge = float(threshold((rows @ rows.T).unsqueeze(0), 1))
    for factor, sign in ((0.9, -1), (1.1, 1)):
        moment, sizes = torch.eye(2, dtype=torch.float64), []
        paths = torch.eye(2, dtype=torch.float64).unsqueeze(0)
        for _ in range(7):
            kicks = torch.eye(2, dtype=torch.float64) - factor * edge * rows.unsqueeze(2) * rows.unsqueeze(1)
            paths = (kicks.unsqueeze(1) @ paths).flatten(0, 1)
            moment = (kicks @ moment @ kicks.mT).mean(dim=0)
            sizes.append(float(paths.square().sum(dim=(1, 2)).mean()))
            assert sizes[-1] == pytest.approx(float(moment.trace()), rel=1e-12)
        assert np.sign(np.log(sizes[-1] / sizes[-2])) == sign


def fitted(replicas: int = 2) -> tuple[MLP, dict[str, Tensor], Tensor, Tensor]:
    """Return a stack of nets that fit their targets: the targets are what the first of them says."""
    net, streams = MLP((4, 5, 1), "tanh"), Streams(replica_seeds(1, replicas))
    params = {name: leaf[:1].repeat(replicas, *[1] * (leaf.ndim - 1)) for name, leaf in net.initial(streams).items()}
    inputs = streams.normal(Purpose.DATA, 0, (6, 4))[0]
    return net, params, inputs, net.forward(params, inputs.unsqueeze(0).expand(replicas, -1, -1))[0].clone()


def test_a_net_that_interpolates() -> None:
    net, params, inputs, targets = fitted()
    found = interpolation_gram(net, params, inputs, targets)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), gram(net, params, inputs))


def test_a_net_that_does_not_interpolate_is_refused_by_name() -> None:
    net, params, inputs, targets = fitted(3)
    params["2.bias"][1] += 1.0
    with pytest.raises(ValueError, match=r"replicas \[1\] do not interpolate: .* train longer"):
        interpolation_gram(net, params, inputs, targets)
    assert interpolation_gram(net, params, inputs, targets, tolerance=100).shape == (3, 6, 6)
    params["2.bias"][2] = torch.nan
    with pytest.raises(ValueError, match=r"replicas \[2\]"):
        interpolation_gram(net, params, inputs, targets, tolerance=100)


def test_wrong_questions_are_answered() -> None:
    with pytest.raises(ValueError, match="stack"):
        threshold(FOUR[0], 1)
    with pytest.raises(ValueError, match="batch of 5 out of 4"):
        threshold(FOUR, 5, replacement=False)
    with pytest.raises(ValueError, match="batch of 0"):
        bounds(FOUR, 0)
    with pytest.raises(ValueError, match="after 3 iterations"):
        threshold(FOUR, 1, iterations=3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("n", "d"), [(8, 20), (30, 5), (20, 20)])
@pytest.mark.parametrize("replacement", [True, False])
def test_the_load_agrees_with_that_of_the_rows(n: int, d: int, momentum: float, replacement: bool) -> None:
    grams = random_grams(n, d)
    share = float(batch_share(4, None if replacement else n))
    for factor in (0.1, 0.6):
        lr = factor * 2 * (1 + momentum) / float(leading(grams).sharpness.max())
        one = [mean_square_load(gram_rows(g.numpy()), lr, momentum, share) for g in grams]
        found = load(grams, lr, 4, momentum, replacement=replacement, keep=n, iterations=3000)
        assert_allclose(found, one, rtol=1e-7)
        few = load(grams, lr, 4, momentum, replacement=replacement, keep=n)
        assert bool((few <= found * (1 + 1e-12)).all())
        assert_allclose(few, found, rtol=0.02)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_load_is_one_at_the_threshold(momentum: float) -> None:
    for one in random_grams(12, 7).split(1):
        for k in (1, 4):
            lr = float(threshold(one, k, momentum, tolerance=1e-8))
            assert float(load(one, lr, k, momentum, keep=12, iterations=3000)) == pytest.approx(1, abs=1e-8)
            assert float(load(one, 0.95 * lr, k, momentum)) < 0.99 < 1.01 < float(load(one, 1.05 * lr, k, momentum))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_beyond_the_edge_without_noise_the_load_is_infinite(momentum: float) -> None:
    grams = random_grams(9, 6)
    edge = threshold(grams, None, momentum)
    lr = float(edge.median())
    found = load(grams, lr * (1 + 1e-6), 4, momentum)
    assert found.isinf().tolist() == (edge < lr * (1 + 1e-6)).tolist()
    assert found.isinf().any()
    assert found.isfinite().any()
    assert load(grams, 0.9 * float(edge.min()), None, momentum).tolist() == [0.0, 0.0, 0.0]


def test_the_load_of_leading_directions_is_a_lower_bound_and_close() -> None:
    grams = random_grams(40, 40)
    lr = 0.3 / float(leading(grams).sharpness.max())
    loads = torch.stack([load(grams, lr, 2, 0.9, keep=keep, iterations=500) for keep in (1, 5, 20, 40)])
    assert bool((loads.diff(dim=0) > 0).all())
    assert bool((loads[2] > 0.9 * loads[3]).all())
    single = load(grams.float(), lr, 2, 0.9, iterations=500)
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, loads[3], rtol=1e-4, atol=0)

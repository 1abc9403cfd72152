"""Monte Carlo smoothing against closed forms, literal steps of SGD, and the laws its directions claim."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine.streams import Streams, replica_seeds
from descent.measure.noise import flat, full_gradient, gradient_noise
from descent.measure.smoothing import Ball, BatchNoise, Gaussian, drift, estimates, samples, slopes
from descent.nets.dense import MLP, CrossEntropy, SquaredError
from descent.nets.supervised import Supervised
from descent.problems.smoothed import Rugged, characteristic, rastrigin, second_moment

F64 = torch.float64
KERNELS = pytest.mark.parametrize(("kernel", "name"), [(Ball(), "ball"), (Gaussian(), "gaussian")])


def streams(replicas: int, seed: int = 0) -> Streams:
    return Streams(replica_seeds(seed, replicas), F64)


def fixed(*shape):
    return torch.linspace(-3, 3, torch.Size(shape).numel(), dtype=F64).mul(1.7).sin().reshape(shape)


def net(**changes) -> Supervised:
    objective = Supervised(MLP((6, 5, 3), "tanh"), CrossEntropy(), fixed(40, 6), torch.arange(40) % 3, 4)
    return replace(objective, **changes)


def worth(f: Rugged):
    return lambda x: torch.from_numpy(f.value(x.numpy()).sum(axis=1))


def moved(params, step, lr):
    return {name: leaf - lr * step[name] for name, leaf in params.items()}


def inside(estimate, truth: float) -> bool:
    """Four standard errors; the interval of an estimate is about two on either side."""
    return abs(estimate.value - truth) <= 2.1 * (estimate.high - estimate.value)


@KERNELS
@pytest.mark.parametrize("size", [1, 2, 7])
def test_directions_follow_the_stated_law(kernel, name, size):
    u = kernel.directions(size, streams(3), 1, 9000).flatten(0, 1)
    if name == "ball":
        radius = u.norm(dim=1)
        assert radius.max() <= 1
        assert radius.pow(size).mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / len(u)) ** 0.5)
    assert (u.mean(0).abs() < 5 * u.std(0) / len(u) ** 0.5).all()
    squares = u[:, 0].square()
    waves = (3.0 * u[:, -1]).cos()
    for found, exact in ((squares, second_moment(name, size)), (waves, float(characteristic(name, 3.0, size)))):
        assert found.mean().item() == pytest.approx(exact, abs=4 * found.std().item() / len(u) ** 0.5)


@KERNELS
@pytest.mark.parametrize("width", [1, 3])
def test_smoothed_values_and_slopes_of_a_rugged_objective(kernel, name, width):
    f, degrees = rastrigin(), torch.tensor([0.1, 0.25, 0.5], dtype=F64)
    x = fixed(3, width)
    values = estimates(samples(worth(f), x, degrees, kernel, 4000, streams(3)))
    along = torch.zeros_like(x)
    along[:, -1] = 1.0
    slope = f.gradient  # without noise, hence without a draw
    found = estimates(slopes(lambda z: slope(z, streams(len(z)), 0), x, degrees, kernel, 4000, streams(3), along))
    for r, degree in enumerate(degrees.tolist()):
        smooth = f.smoothed(degree, name, width)
        assert inside(values[r], smooth.value(x[r].numpy()).sum())
        assert inside(found[r], float(smooth.slope(x[r, -1].item())))


def test_a_quadratic_is_lifted_by_a_known_constant_without_error_of_first_order():
    """½|x|² on a ball: f_δ − f = δ²p/(2(p + 2)); mirror images leave the linear term out."""
    x = torch.full((2, 8), 50.0, dtype=F64)
    found = samples(lambda z: z.square().sum(dim=1) / 2, x, 0.3, Ball(), 2000, streams(2))
    change = estimates(found - x.square().sum(dim=1, keepdim=True) / 2)
    for estimate in change:
        assert inside(estimate, 0.09 * 8 / 20)
        assert estimate.high - estimate.low < 0.01  # of 50·δ·√8 ≈ 40 without mirror images


def test_degrees_share_their_directions():
    f, x = Rugged(), torch.zeros(2, 3, dtype=F64)
    one, other = (samples(worth(f), x, degree, Gaussian(), 50, streams(2)) for degree in (0.2, 0.2 + 1e-9))
    assert (one - other).abs().max() < 1e-6
    more = samples(worth(f), x, 0.2, Gaussian(), 80, streams(2))
    assert torch.equal(more[:, :50], one)
    alone = samples(worth(f), x[:1], 0.2, Gaussian(), 50, streams(2).subset(slice(0, 1)))
    assert torch.equal(alone[0], one[0])


def test_values_of_a_network_are_those_at_the_moved_parameters():
    objective = net()
    params = objective.model.initial(streams(2))
    found = samples(objective.value, params, 0.5, Gaussian(), 3, streams(2))
    u = Gaussian().directions(53, streams(2), 0, 3)
    sizes = [leaf[0].numel() for leaf in params.values()]
    for draw in range(3):
        both = []
        for sign in (-1, 1):
            parts = (sign * 0.5 * u[:, draw]).split(sizes, dim=1)
            moved = {k: leaf + p.view_as(leaf) for (k, leaf), p in zip(params.items(), parts, strict=True)}
            both.append(objective.value(moved))
        torch.testing.assert_close(found[:, draw], (both[0] + both[1]) / 2, rtol=1e-12, atol=1e-14)


def test_batch_noise_has_unit_power_and_no_mean():
    objective = net()
    kernel = BatchNoise.at(objective, objective.model.initial(streams(2, 7)))
    u = kernel.directions(53, streams(2), 0, 1200)
    power = u.square().sum(dim=2)
    assert ((power.mean(1) - 1).abs() < 4 * power.std(1) / 1200**0.5).all()
    assert u.mean(1).square().sum(1).max() < 3 / 1200
    later = kernel.directions(53, streams(2), 1, 2)
    assert not torch.equal(later, u[:, :2])
    expected = objective.gradient(kernel.params, streams(2), 65536 // 53)
    torch.testing.assert_close(later[:, 0] * kernel.scale[:, None] + kernel.gradient, flat(expected))


def test_a_batch_of_everything_has_no_direction():
    objective = net(batch_size=None, sampling="full")
    with pytest.raises(ValueError, match="no noise"):
        BatchNoise.at(objective, objective.model.initial(streams(2)))


def test_smoothing_a_quadratic_net_by_its_own_noise_adds_half_the_curved_power():
    """Linear model, squared error: f_δ − f = δ²/2 · Tr(H Cov)/Tr(Cov), exactly."""
    objective = net(model=MLP((6, 1), "identity", bias=False), loss=SquaredError(), targets=fixed(40, 1))
    params = objective.model.initial(streams(2, 3))
    found = samples(objective.value, params, 0.4, BatchNoise.at(objective, params), 3000, streams(2))
    hessian = objective.inputs.T @ objective.inputs / 40
    for r, estimate in enumerate(estimates(found - objective.value(params)[:, None])):
        residual = objective.inputs @ params["0.weight"][r].T - objective.targets
        covariance = torch.cov((residual * objective.inputs).T, correction=0)
        truth = 0.08 * (hessian @ covariance).trace() / covariance.trace()
        assert inside(estimate, truth.item())


def test_the_drift_is_that_of_literal_steps_of_sgd():
    """(y − y′)/lr − ξ with y = x − lr ∇f(x) before and after one step of SGD, batch by batch."""
    objective, lr = net(), 2.0
    params = objective.model.initial(streams(3, 5))
    found = drift(objective, params, lr, Ball(), 40, streams(3))
    y = moved(params, full_gradient(objective, params), lr)
    full = flat(full_gradient(objective, y))
    along = full / full.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.plain, full.norm(dim=1))
    for draw in range(40):
        g = objective.gradient(params, streams(3), draw)
        after = moved(params, g, lr)
        y_after = moved(after, full_gradient(objective, after), lr)
        xi = flat(g) - flat(full_gradient(objective, params))
        expected = (((flat(y) - flat(y_after)) / lr - xi) * along).sum(dim=1)
        torch.testing.assert_close(found.sgd[:, draw], expected, rtol=1e-9, atol=1e-12)


def test_smoothing_by_the_noise_and_by_a_gaussian_of_its_size_differ_little_at_small_steps():
    objective = net(batch_size=20)
    params = objective.model.initial(streams(2, 5))
    found = drift(objective, params, 0.02, Gaussian(), 60, streams(2))
    degree = 0.02 * (gradient_noise(objective, params) / 20).sqrt()
    assert (degree < 0.01).all()
    for part in (found.sgd, found.smoothed):
        assert ((part.mean(1) / found.plain - 1).abs() < 0.01).all()


def test_smoothing_moves_a_network_by_at_most_the_degree_times_its_slope():
    objective = net()
    params = objective.model.initial(streams(4, 2))
    plain = objective.value(params)
    steepest = flat(full_gradient(objective, params)).norm(dim=1)
    found = samples(objective.value, params, 1e-3, Ball(), 50, streams(4)).mean(dim=1)
    assert ((found - plain).abs() < 1e-3 * steepest).all()


def test_estimates_are_those_of_the_rows():
    rows = fixed(2, 30)
    for row, estimate in zip(rows, estimates(rows), strict=True):
        assert estimate.value == pytest.approx(row.mean().item())
        assert estimate.n == 30
        assert estimate.low < estimate.value < estimate.high

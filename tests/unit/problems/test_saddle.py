from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import FirstPassage, train
from descent.problems.saddle import DoubleWell, Quadratic, StiffSaddle, best_gain, hops, matching_noise
from descent.theory.escape import escape_mean, variance_from_rest
from descent.theory.mode import growth, stationary_variance


def streams(replicas: int, dtype: torch.dtype = torch.float64) -> Streams:
    return Streams(replica_seeds(5, replicas), dtype)


def potential(problem: object, z: torch.Tensor) -> torch.Tensor:
    if isinstance(problem, Quadratic):
        return (torch.tensor(problem.curvatures, dtype=z.dtype) * z**2).sum(1) / 2
    well = (z[:, 0] ** 2 - 1) ** 2 / 4
    return well + problem.stiffness / 2 * z[:, 1] ** 2 if isinstance(problem, StiffSaddle) else well


@pytest.mark.parametrize(
    ("problem", "width"),
    [
        (Quadratic((-1.0, 2.0, 0.5), noise=0.0), 3),
        (Quadratic((-1.0,), noise=0.0), 1),
        (DoubleWell(noise=0.0), 1),
        (StiffSaddle(noise=0.0), 2),
    ],
)
def test_gradient_is_the_derivative_of_the_potential(problem: object, width: int) -> None:
    z = torch.linspace(-1.5, 1.7, 5 * width, dtype=torch.float64).view(5, width).requires_grad_()
    (expected,) = torch.autograd.grad(potential(problem, z).sum(), z)
    given = problem.gradient(z.detach(), streams(5), 0)  # type: ignore[attr-defined]
    torch.testing.assert_close(given, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_noise_has_the_stated_variance_and_no_memory(width: int) -> None:
    replicas, steps = 2000, 12
    problem = Quadratic((0.0,) * width, noise=4.0)
    x = torch.zeros(replicas, width, dtype=torch.float64)
    source = streams(replicas)
    noise = torch.stack([problem.gradient(x, source, k) for k in range(steps)])
    values = noise.permute(0, 2, 1).reshape(-1, replicas)
    count = values.shape[0] * replicas
    assert float(values.var()) == pytest.approx(4.0, rel=4.5 * (2 / count) ** 0.5)
    correlation = torch.corrcoef(values) - torch.eye(len(values))
    assert correlation.abs().max() < 5.5 / replicas**0.5


def test_noise_of_a_step_does_not_depend_on_the_order_of_steps() -> None:
    problem, x = Quadratic((1.0,)), torch.zeros(3, 1, dtype=torch.float64)
    source = streams(3)
    forward = [problem.gradient(x, source, k) for k in range(9)]
    backward = [problem.gradient(x, streams(3), k) for k in reversed(range(9))]
    for one, other in zip(forward, reversed(backward), strict=True):
        assert torch.equal(one, other)


def test_wells_and_barrier_of_the_double_well() -> None:
    well = DoubleWell()
    x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    assert potential(well, x).tolist() == [0, well.barrier, 0]
    step = 1e-4
    quiet = DoubleWell(noise=0.0)
    slope = (quiet.gradient(x + step, streams(3), 0) - quiet.gradient(x - step, streams(3), 0)) / (2 * step)
    assert slope[:, 0].tolist() == pytest.approx([well.curvature, -well.instability, well.curvature], abs=1e-6)


def test_stationary_variance_of_the_recursion() -> None:
    arms, n = ((0.1, 0.0), (0.1, 0.9), (1.5, 0.5), (1.9, 0.5)), 5_000
    lr, momentum = zip(*arms, strict=True)
    hyper = repeat(heavy_ball(list(lr), list(momentum)), n)
    source = Streams(replica_seeds(1, 4 * n), torch.float32)
    x = train(Quadratic((1.0,), noise=2.0), torch.zeros(4 * n, 1), hyper, 200, source).params
    expected = stationary_variance(1.0, lr, momentum, 2.0)
    measured = x.view(4, n).double().var(dim=1).numpy()
    np.testing.assert_allclose(measured, expected, rtol=4.5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_variance_and_escape_from_a_linear_saddle(momentum: float) -> None:
    n = 10_000
    probe = {"out": FirstPassage(lambda x: x[:, 0].abs() >= 1.0)}  # type: ignore[index]
    hyper, source = repeat(heavy_ball(0.05, momentum), n), Streams(replica_seeds(2, n))
    early = train(Quadratic((-1.0,)), torch.zeros(n, 1), hyper, 20, source).params
    expected = float(variance_from_rest(20, 1.0, 0.05, momentum))
    assert float(early.double().var()) == pytest.approx(expected, rel=4.5 * (2 / n) ** 0.5)
    run = train(Quadratic((-1.0,)), torch.zeros(n, 1), hyper, 400, source, probes=probe, limit=1e30)
    times = run.records["out"].values.double()
    assert (times > 0).all()
    law = float(escape_mean(1.0, 1.0, 0.05, momentum))
    assert float(times.mean()) == pytest.approx(law, abs=4.5 * float(times.std()) / n**0.5 + 0.02 * law)


def test_stability_limit_of_the_stiff_saddle() -> None:
    problem = StiffSaddle(stiffness=50.0, noise=0.0)
    assert problem.limit([0.0, 0.9]) == pytest.approx([0.04, 0.076])
    for share, grows in ((0.99, False), (1.01, True)):
        lr = share * problem.limit(0.5)
        start = torch.tensor([[0.0, 1e-3]], dtype=torch.float64)
        y = float(train(problem, start, heavy_ball(float(lr), 0.5), 2000, streams(1)).params[0, 1])
        assert (abs(y) > 1e-3) is grows


def test_best_gain_is_the_limit_of_tuned_heavy_balls() -> None:
    stiffness = np.array([10.0, 100.0, 1e3, 1e4])
    gain = best_gain(stiffness)
    assert gain == pytest.approx([3.49, 10.34, 32.47, 102.61], abs=0.01)
    momentum = np.linspace(0, 1, 2000, endpoint=False)
    for kappa, best in zip(stiffness, gain, strict=True):
        tuned = growth(1.0, 0.95 * 2 * (1 + momentum) / kappa, momentum) / growth(1.0, 0.95 * 2 / kappa, 0.0)
        assert (np.diff(tuned) > 0).all()
        assert tuned[-1] < best
        assert tuned[-1] == pytest.approx(best, rel=0.03)


def test_matching_noise_takes_the_head_start_away() -> None:
    lr, momentum = 0.01, 0.9
    cut = matching_noise(1.0, lr, momentum)
    assert cut < 1
    assert matching_noise(1.0, lr, 0.0) == pytest.approx(1.0)
    plain = escape_mean(100.0, 1.0, lr, 0.0)
    quiet = escape_mean(100.0, 1.0, lr, momentum, cut)
    speed = growth(1.0, lr, momentum) / growth(1.0, lr, 0.0)
    assert (plain - 0.5) / (quiet - 0.5) == pytest.approx(float(speed), rel=1e-3)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([1, 0.2, -0.2, 0.3, 1], 0),
        ([1, 0.2, -0.6, 0.3, -1], 1),
        ([1, -1, 1, -1], 3),
        ([0, 0.1, -1, 0, 1], 1),
        ([0.1, -0.1, 0.2], 0),
        ([1, 0, 0, -0.5], 1),
    ],
)
def test_only_committed_hops_count(path: list[float], expected: int) -> None:
    assert hops(np.array(path)) == expected


def test_hops_are_counted_per_replica() -> None:
    path = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    assert hops(path).tolist() == [2, 1]
    assert hops(path[:, None]).shape == (1, 2)


def test_draws_are_those_of_the_noise_purpose() -> None:
    x = torch.zeros(2, 4, dtype=torch.float64)
    drawn = Quadratic((1.0,) * 4, noise=9.0).gradient(x, streams(2), 3)
    torch.testing.assert_close(drawn, 3 * streams(2).normal(Purpose.NOISE, 3, (4,)))

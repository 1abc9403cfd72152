"""Traces: exact ones against dense matrices, estimates against what they are promised to scatter around."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import gauss_newton
from descent.measure.operators import Operator
from descent.measure.traces import gauss_newton_frobenius, gauss_newton_trace, hutch_plus_plus, hutchinson
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy, SquaredError, Stacked
from descent.nets.supervised import Supervised
from torch import Tensor

R, N, MANY = 3, 11, 400
STREAMS = Streams(replica_seeds(0, R), torch.float64)
LOSSES = {"cross-entropy": CrossEntropy(), "squares": SquaredError(1.5), "cosine": lambda o, t: -(o * t).cos().sum(-1)}


def operator(matrices: Tensor) -> Operator:
    return Operator(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), {"": matrices[:, :, 0]})


def same_for_many(matrix: Tensor) -> tuple[Operator, Streams]:
    return operator(matrix.expand(MANY, -1, -1)), Streams(replica_seeds(1, MANY), torch.float64)


def with_spectrum(values: Tensor) -> Tensor:
    q = torch.linalg.qr(STREAMS.normal(Purpose.DATA, 0, (len(values), len(values)))).Q[0]
    return q @ torch.diag(values.double()) @ q.T


def objective(model: object, loss: object, classes: int, features: tuple[int, ...] = (5,)) -> Supervised:
    inputs = STREAMS.normal(Purpose.DATA, 1, (N, *features))[0]
    targets = torch.arange(N) % classes if isinstance(loss, CrossEntropy) else inputs.flatten(1)[:, :classes]
    return Supervised(model, loss, inputs, targets, sampling="full")


def matrix(a: Operator) -> Tensor:
    unit = torch.eye(a.size, dtype=a.dtype)
    return torch.stack([a(e.expand(a.replicas, -1).clone()) for e in unit], dim=2)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Stacked(net.module())], ids=["by layers", "by examples"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("net", [MLP((5, 6, 4, 3)), MLP((5, 6, 3), "tanh"), MLP((5, 4, 3), bias=False)], ids=str)
def test_exact_gauss_newton_numbers(net: MLP, loss: object, wrap: Callable[[MLP], object]) -> None:
    """The cosine is not convex: the formulas do not need it to be."""
    task, params = objective(wrap(net), loss, 3), net.initial(STREAMS)
    dense = matrix(gauss_newton(task, params))
    trace = dense.diagonal(dim1=1, dim2=2).sum(1)
    for budget in (1, 2000, 1 << 30):
        assert torch.allclose(gauss_newton_trace(task, params, budget=budget), trace, rtol=1e-12)
    assert torch.allclose(gauss_newton_frobenius(task, params), dense.square().sum(dim=(1, 2)), rtol=1e-12)


def test_trace_of_cross_entropy_is_the_mean_over_sampled_labels() -> None:
    """tr G = 1/n Σ_i Σ_y p_y ‖∇(−log p_y)‖², the gradients one by one."""
    net = MLP((5, 6, 3))
    task, params = objective(net, CrossEntropy(), 3), net.initial(STREAMS)
    expected = torch.zeros(R, dtype=torch.float64)
    for r in range(R):
        module = net.module().double()
        module.load_state_dict({k: leaf[r] for k, leaf in params.items()})
        for x in task.inputs:
            logs = torch.log_softmax(module(x), dim=0)
            for one in logs:
                slopes = torch.autograd.grad(-one, list(module.parameters()), retain_graph=True)
                expected[r] += one.exp().item() * sum(float(g.square().sum()) for g in slopes) / N
    assert torch.allclose(gauss_newton_trace(task, params), expected, rtol=1e-12)


def test_trace_of_linear_regression() -> None:
    net = MLP((5, 2), bias=False)
    task = objective(net, SquaredError(), 2)
    expected = 2.0 * task.inputs.square().sum() / N
    assert torch.allclose(gauss_newton_trace(task, net.initial(STREAMS)), expected.expand(R), rtol=1e-13)


def test_convolutional_networks_and_batch_norm() -> None:
    net = CNN(widths=(2,), dense=(4,), norm="group", groups=2, size=4, classes=3, channels=2)
    task, params = objective(net, CrossEntropy(), 3, (2, 4, 4)), net.initial(STREAMS)
    dense = matrix(gauss_newton(task, params))
    assert torch.allclose(gauss_newton_trace(task, params), dense.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-11)
    assert torch.allclose(gauss_newton_frobenius(task, params), dense.square().sum(dim=(1, 2)), rtol=1e-11)
    coupled = ResNet(norm="batch", widths=(2, 4, 4), classes=3, channels=2)
    task, params = objective(coupled, CrossEntropy(), 3, (2, 8, 8)), coupled.initial(STREAMS)
    with pytest.raises(ValueError, match="batch statistics couple the examples"):
        gauss_newton_trace(task, params)
    assert bool(gauss_newton_trace(task, coupled.settled(params, task.inputs)).isfinite().all())


def test_frobenius_norm_says_when_it_is_too_large() -> None:
    net = MLP((5, 6, 3))
    with pytest.raises(ValueError, match=r"33 × 33 are more than the budget of 1000 bytes.*power=2"):
        gauss_newton_frobenius(objective(net, CrossEntropy(), 3), net.initial(STREAMS), budget=1000)


def test_hutchinson_scatters_around_the_trace_as_its_variance_says() -> None:
    dense = with_spectrum(torch.linspace(-1, 2, 30))
    a, streams = same_for_many(dense)
    found = hutchinson(a, 20, streams).samples
    variance = 2.0 * float(dense.square().sum() - dense.diagonal().square().sum())
    assert abs(float(found.mean() - dense.trace())) < 4.0 * math.sqrt(variance / found.numel())
    assert float(found.var()) == pytest.approx(variance, rel=0.1)  # 8000 samples: ± 2 %
    squares = hutchinson(a, 20, streams, power=2).samples
    assert abs(float(squares.mean() - dense.square().sum())) < 4.0 * float(squares.std()) / math.sqrt(squares.numel())


def test_hutchinson_is_exact_on_diagonals_and_keeps_its_samples() -> None:
    a = operator(torch.diag(torch.arange(7.0, dtype=torch.float64)).expand(R, -1, -1))
    found = hutchinson(a, 5, STREAMS)
    assert found.samples.tolist() == [[21.0] * 5] * R
    assert found.values.tolist() == [21.0] * R
    assert (found.estimate(1).low, found.estimate(1).high, found.estimate(1).n) == (21.0, 21.0, 5)


def test_hutch_plus_plus_is_unbiased_and_its_interval_covers() -> None:
    dense = with_spectrum(1.0 / torch.arange(1, 61) ** 2)
    a, streams = same_for_many(dense)
    found = hutch_plus_plus(a, 30, streams)
    error = found.values - dense.trace()
    assert abs(float(error.mean())) < 4.0 * float(error.std()) / math.sqrt(MANY)
    inside = sum(found.estimate(r).low <= float(dense.trace()) <= found.estimate(r).high for r in range(MANY))
    assert inside / MANY > 0.95 - 4.0 * math.sqrt(0.95 * 0.05 / MANY)
    plain = hutchinson(a, 30, streams).values - dense.trace()
    assert float(error.std()) < 0.2 * float(plain.std())


def test_hutch_plus_plus_is_exact_when_the_sketch_holds_the_range() -> None:
    for spectrum in ([5.0, 3, -1] + [0] * 40, [2.0, 1.0]):  # low rank; fewer parameters than vectors in the sketch
        a = operator(with_spectrum(torch.tensor(spectrum)).expand(R, -1, -1))
        found = hutch_plus_plus(a, 15, STREAMS).samples
        assert torch.allclose(found, torch.full((R, 5), sum(spectrum), dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize("estimate", [hutchinson, hutch_plus_plus])
def test_replicas_do_not_see_each_other(estimate: Callable[..., object]) -> None:
    matrices = torch.stack([with_spectrum(torch.linspace(0, r + 1, 20) ** 3) for r in range(R)])
    together = estimate(operator(matrices), 12, STREAMS)
    for r in range(R):
        alone = estimate(operator(matrices[r : r + 1]), 12, STREAMS.subset(slice(r, r + 1)))
        assert torch.allclose(alone.samples[0], together.samples[r], rtol=1e-12)
    assert not torch.equal(estimate(operator(matrices), 12, STREAMS, step=1).samples, together.samples)
    matrices[1, 2, 3] = torch.nan
    found = estimate(operator(matrices), 12, STREAMS)
    assert bool(found.values[1].isnan())
    assert torch.allclose(found.values[[0, 2]], together.values[[0, 2]], rtol=1e-12)
    with pytest.raises(ValueError, match="not finite"):
        found.estimate(1)


def test_errors_say_what_to_change() -> None:
    a = operator(torch.eye(4, dtype=torch.float64).expand(R, -1, -1))
    with pytest.raises(ValueError, match="6 in all; got 5"):
        hutch_plus_plus(a, 5, STREAMS)
    with pytest.raises(ValueError, match="power must be 1"):
        hutchinson(a, 5, STREAMS, power=3)
    with pytest.raises(ValueError, match="3 replicas and the streams 2"):
        hutchinson(a, 5, STREAMS.subset(slice(0, 2)))

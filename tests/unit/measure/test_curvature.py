"""Curvature as products: closed forms, dense matrices from torch.func, another library, and what any matrix owes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import gauss_newton, hessian, second_moment, value, value_and_gradient
from descent.measure.operators import Operator, flatten, unflatten
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy, SquaredError, Stacked
from descent.nets.supervised import Supervised
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

Leaves = dict[str, Tensor]
R, N = 3, 11
STREAMS = Streams(replica_seeds(0, R), torch.float64)
MATRICES = (hessian, gauss_newton, second_moment)
NETS = [MLP((5, 6, 4, 3)), MLP((5, 6, 4, 3), "tanh"), MLP((4, 3, 2), "identity", False)]
CONVOLUTIONAL = [
    CNN(widths=(3,), dense=(4,), size=8, classes=3, channels=2),
    ResNet(groups=2, widths=(2, 4, 4), classes=3, channels=2),
]


@dataclass(frozen=True)
class LogCosh:
    """Σ log cosh(output − target): a convex loss that no code here knows."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.log(torch.cosh(outputs - targets)).sum(dim=-1)


LOSSES = {
    "cross-entropy": CrossEntropy(),
    "half squares": SquaredError(),
    "squares": SquaredError(1.5),
    "log cosh": LogCosh(),
}


def draw(*shape: int, step: int = 0) -> Tensor:
    return STREAMS.normal(Purpose.DATA, step, shape)


def objective(model: object, loss: object, features: tuple[int, ...], classes: int) -> Supervised:
    targets = torch.arange(N) % classes if isinstance(loss, CrossEntropy) else draw(N, classes, step=1)[0]
    return Supervised(model, loss, draw(N, *features)[0], targets, sampling="full")


def matrix(operator: Operator) -> Tensor:
    """Multiply out (R, p, p)."""
    unit = torch.eye(operator.size, dtype=operator.dtype)
    return torch.stack([operator(e.expand(operator.replicas, -1).clone()) for e in unit], dim=2)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    return float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def dense(task: Supervised, params: Leaves) -> dict[Callable[..., Operator], Tensor]:
    """Return H, G and S (R, p, p) by torch.func from the module of one replica."""
    module = task.model.module if isinstance(task.model, Stacked) else task.model.module()

    def outputs(flat: Tensor, x: Tensor) -> Tensor:
        leaves = {k: leaf[0] for k, leaf in unflatten(flat.unsqueeze(0), params).items()}
        return functional_call(module, leaves, (x.unsqueeze(0),)).squeeze(0)

    def loss_of(z: Tensor, y: Tensor) -> Tensor:
        return task.loss(z.view(1, 1, -1), y.view(1, 1, *y.shape)).squeeze()

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return loss_of(outputs(flat, x), y)

    def mean(flat: Tensor) -> Tensor:
        return torch.stack([loss(flat, x, y) for x, y in zip(task.inputs, task.targets, strict=True)]).mean()

    found: dict[Callable[..., Operator], list[Tensor]] = {one: [] for one in MATRICES}
    for flat in flatten(params):
        z = vmap(outputs, (None, 0))(flat, task.inputs)
        jacobian = vmap(jacrev(outputs), (None, 0))(flat, task.inputs)
        curves = vmap(jacrev(jacrev(loss_of)))(z, task.targets)
        gradients = vmap(jacrev(loss), (None, 0, 0))(flat, task.inputs, task.targets)
        found[hessian].append(jacrev(jacrev(mean))(flat))
        found[gauss_newton].append(torch.einsum("nap,nab,nbq->pq", jacobian, curves, jacobian) / N)
        found[second_moment].append(gradients.T @ gradients / N)
    return {one: torch.stack(matrices) for one, matrices in found.items()}


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Stacked(net.module())], ids=["by hand", "by graph"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("net", NETS, ids=str)
def test_products_equal_dense_matrices(net: MLP, loss: object, wrap: Callable[[MLP], object]) -> None:
    task = objective(wrap(net), loss, (net.sizes[0],), net.sizes[-1])
    params = net.initial(STREAMS)
    for make, expected in dense(task, params).items():
        assert close(matrix(make(task, params)), expected), make.__name__


def test_linear_regression_in_closed_form() -> None:
    for model in (MLP((4, 2)), Stacked(nn.Linear(4, 2))):
        task = objective(model, SquaredError(1.5), (4,), 2)
        x = torch.cat([task.inputs, torch.ones(N, 1, dtype=torch.float64)], dim=1)
        moments = 3.0 * x.T @ x / N
        weights = torch.kron(torch.eye(2, dtype=torch.float64), moments[:4, :4])
        for make in (hessian, gauss_newton):
            found = matrix(make(task, model.initial(STREAMS)))
            assert close(found[:, :8, :8], weights, 1e-13)
            assert close(found[:, 8:, 8:], 3.0 * torch.eye(2, dtype=torch.float64), 1e-13)
            assert close(found[:, 8, :4], moments[4, :4], 1e-13)
            assert close(found[:, 8, 4:8], torch.zeros(4, dtype=torch.float64), 1e-13)


def test_softmax_regression_in_closed_form() -> None:
    net = MLP((4, 3), bias=False)
    task, params = objective(net, CrossEntropy(), (4,), 3), net.initial(STREAMS)
    x = task.inputs
    p = torch.softmax(x @ params["0.weight"].mT, dim=-1)
    slopes = p - nn.functional.one_hot(task.targets, 3)
    spread = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    curved = torch.einsum("rnab,ni,nj->raibj", spread, x, x).reshape(R, 12, 12) / N
    noise = torch.einsum("rna,rnb,ni,nj->raibj", slopes, slopes, x, x).reshape(R, 12, 12) / N
    assert close(matrix(hessian(task, params)), curved, 1e-13)
    assert close(matrix(gauss_newton(task, params)), curved, 1e-13)
    assert close(matrix(second_moment(task, params)), noise, 1e-13)


@pytest.mark.parametrize("net", CONVOLUTIONAL, ids=str)
def test_convolutional_networks_equal_their_modules(net: CNN | ResNet) -> None:
    params = net.initial(STREAMS)
    ours = objective(net, CrossEntropy(), (2, 8, 8), 3)
    v = draw(flatten(params).shape[1], step=2)
    expected = []
    for r in range(R):
        module = net.module().double()

        def mean(flat: Tensor, module: nn.Module = module) -> Tensor:
            leaves = {k: leaf[0] for k, leaf in unflatten(flat.unsqueeze(0), params).items()}
            return nn.functional.cross_entropy(functional_call(module, leaves, (ours.inputs,)), ours.targets)

        flat = flatten(params)[r].requires_grad_()
        (slope,) = torch.autograd.grad(mean(flat), flat, create_graph=True)
        expected.append(torch.autograd.grad(slope, flat, v[r])[0])
    assert close(hessian(ours, params)(v), torch.stack(expected))
    theirs = Supervised(Stacked(net.module()), CrossEntropy(), ours.inputs, ours.targets, sampling="full")
    for make in (gauss_newton, second_moment):
        assert close(make(ours, params)(v), make(theirs, params)(v))


def test_batch_norm_is_taken_whole_or_by_its_stored_statistics() -> None:
    net = ResNet(norm="batch", widths=(2, 4, 4), classes=3, channels=2)
    task, params = objective(net, CrossEntropy(), (2, 8, 8), 3), net.initial(STREAMS)
    v = draw(flatten(params).shape[1], step=2)
    for make in MATRICES:
        assert close(make(task, params, budget=1)(v), make(task, params)(v))
    settled = net.settled(params, task.inputs)
    assert hessian(task, settled).size == v.shape[1]
    assert close(hessian(task, settled, budget=1 << 14)(v), hessian(task, settled)(v))
    assert not close(hessian(task, settled)(v), hessian(task, params)(v), 1e-3)


def test_products_equal_those_of_curvlinops() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports, and forward differentiation, script functions: torch warns of it
        curvlinops = pytest.importorskip("curvlinops")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
    net = MLP((5, 8, 6, 4))
    operators = (curvlinops.HessianLinearOperator, curvlinops.GGNLinearOperator)
    for loss, reference in ((CrossEntropy(), nn.CrossEntropyLoss()), (SquaredError(1 / net.sizes[-1]), nn.MSELoss())):
        task, params = objective(net, loss, (5,), 4), net.initial(STREAMS)
        for r in range(R):
            module = net.module().double()
            module.load_state_dict({k: leaf[r] for k, leaf in params.items()})
            data = [(task.inputs[:4], task.targets[:4]), (task.inputs[4:], task.targets[4:])]
            for make, other in zip((hessian, gauss_newton), operators, strict=True):
                theirs = other(module, reference, list(module.parameters()), data)
                v = draw(theirs.shape[1], step=3)
                assert close(make(task, params)(v)[r], theirs @ v[r])


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Stacked(net.module())], ids=["by hand", "by graph"])
def test_symmetric_linear_and_semidefinite(wrap: Callable[[MLP], object]) -> None:
    net = MLP((6, 7, 5), "tanh")
    task, params = objective(wrap(net), CrossEntropy(), (6,), 5), net.initial(STREAMS)
    size = flatten(params).shape[1]
    u, v = draw(size, step=4), draw(size, step=5)
    for make in MATRICES:
        a = make(task, params)
        assert torch.allclose((u * a(v)).sum(1), (v * a(u)).sum(1), rtol=1e-11)
        assert torch.allclose(a(2.0 * u - 3.0 * v), 2.0 * a(u) - 3.0 * a(v), rtol=1e-11, atol=1e-14)
    for make in (gauss_newton, second_moment):
        assert float(torch.linalg.eigvalsh(matrix(make(task, params))).min()) > -1e-14


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Stacked(net.module())], ids=["by hand", "by graph"])
@pytest.mark.parametrize("budget", [1, 3000])
def test_the_cut_changes_nothing(budget: int, wrap: Callable[[MLP], object]) -> None:
    net = MLP((6, 7, 5))
    task, params = objective(wrap(net), CrossEntropy(), (6,), 5), net.initial(STREAMS)
    v = draw(flatten(params).shape[1], step=4)
    for make in MATRICES:
        whole = make(task, params)
        cut = make(task, params, budget=budget)
        assert close(cut(v), whole(v), 1e-13)
        assert close(cut(v), whole(v), 1e-13), "the second product differs from the first"
        assert len(cut.pieces) == R
    assert torch.allclose(value(task, params, budget=budget), value(task, params), rtol=1e-13)


def test_replicas_do_not_see_each_other() -> None:
    net = MLP((6, 7, 5))
    task, params = objective(net, CrossEntropy(), (6,), 5), net.initial(STREAMS)
    v = draw(flatten(params).shape[1], step=4)
    lost = {k: leaf.clone() for k, leaf in params.items()}
    lost["0.weight"][1, 0, 0] = torch.nan
    for make in MATRICES:
        together = make(task, params)(v)
        for r in range(R):
            alone = make(task, {k: leaf[r : r + 1] for k, leaf in params.items()})(v[r : r + 1])
            assert close(together[r : r + 1], alone, 1e-14)
        apart = make(task, lost)(v)
        assert close(apart[[0, 2]], together[[0, 2]], 1e-14)
        assert not bool(apart[1].isfinite().all())


def test_an_operator_stays_where_it_was_made() -> None:
    net = MLP((6, 7, 5))
    task, params = objective(net, CrossEntropy(), (6,), 5), net.initial(STREAMS)
    v = draw(flatten(params).shape[1], step=4)
    for budget in (1, 1 << 30):
        operator = hessian(task, params, budget=budget)
        before = operator(v)
        moved = {k: leaf.clone() for k, leaf in params.items()}
        for leaf in params.values():
            leaf.mul_(2.0)
        assert torch.equal(operator(v), before)
        params = moved


def test_a_loss_linear_in_the_outputs_has_no_gauss_newton_part() -> None:
    net = MLP((5, 6, 3), "tanh")
    for model in (net, Stacked(net.module())):
        task, params = objective(model, lambda o, t: (o * t).sum(-1), (5,), 3), net.initial(STREAMS)
        v = draw(flatten(params).shape[1], step=4)
        assert not gauss_newton(task, params)(v).any()
        assert close(matrix(hessian(task, params)), dense(task, params)[hessian])


def test_vectors_as_leaves_and_as_rows() -> None:
    net = MLP((5, 6, 3))
    task, params = objective(net, CrossEntropy(), (5,), 3), net.initial(STREAMS)
    operator = hessian(task, params)
    v = draw(operator.size, step=4)
    assert torch.equal(operator.flat(operator(operator.leaves(v))), operator(v))
    assert {k: leaf.shape for k, leaf in operator.leaves(v).items()} == {k: leaf.shape for k, leaf in params.items()}
    with pytest.raises(ValueError, match="one vector per replica"):
        operator(v[0])
    with pytest.raises(ValueError, match="in this order"):
        operator.flat(dict(reversed(params.items())))


def test_value_and_gradient_equal_the_objective_s() -> None:
    net = MLP((5, 6, 3))
    task, params = objective(net, CrossEntropy(), (5,), 3), net.initial(STREAMS)
    for budget in (1, 1 << 30):
        found, slopes = value_and_gradient(task, params, budget=budget)
        assert torch.allclose(found, task.value(params), rtol=1e-13)
        for name, expected in task.gradient(params, STREAMS, 0).items():
            assert close(slopes[name], expected, 1e-13)


def test_products_follow_the_type_of_the_parameters() -> None:
    net = MLP((5, 6, 3))
    task = objective(net, CrossEntropy(), (5,), 3)
    single = Supervised(net, CrossEntropy(), task.inputs.float(), task.targets, sampling="full")
    params = net.initial(STREAMS)
    v = draw(flatten(params).shape[1], step=4)
    exact = hessian(task, params)(v)
    assert close(hessian(single, params)(v), exact, 1e-6)
    assert hessian(single, params)(v).dtype == torch.float64
    rounded = hessian(task, {k: leaf.float() for k, leaf in params.items()})(v.float())
    assert rounded.dtype == torch.float32
    assert np.allclose(rounded, exact, atol=1e-5)

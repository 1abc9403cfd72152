"""Instruments at the edge of stability: blocks, batches, eigenvalues above a level, and the central flow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine.probes import every
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.measure.batch_sharpness import batch_sharpness
from descent.measure.central_flow import central_flow, edge_covariance, flat_loss
from descent.measure.curvature import hessian, value_and_gradient
from descent.measure.filters import block, chosen, matching
from descent.measure.operators import Operator, flatten
from descent.measure.spectra import top_eigenpairs
from descent.measure.tracking import EdgeSpectrum, eigenpairs_above
from descent.nets.augment import Augment
from descent.nets.dense import MLP, SquaredError
from descent.nets.supervised import Supervised
from torch import Tensor

R = 2
STREAMS = Streams(replica_seeds(3, R), torch.float64)
X = STREAMS.normal(Purpose.DATA, 0, (12, 3))[0]
Y = torch.sin(2 * X[:, :1])
NET = Supervised(MLP((3, 6, 1), "tanh"), SquaredError(), X, Y, sampling="full")


@pytest.fixture(scope="module")
def params() -> dict[str, Tensor]:
    return NET.model.initial(STREAMS)


def known(matrix: Tensor) -> Operator:
    return Operator(lambda v: v @ matrix, {"": torch.zeros(R, len(matrix), dtype=torch.float64)})


def planted(values: list[float]) -> Tensor:
    diagonal = torch.cat([torch.tensor(values), torch.linspace(-0.5, 0.5, 60)]).double()
    q = torch.linalg.qr(STREAMS.normal(Purpose.DATA, 1, (len(diagonal), len(diagonal)))[0]).Q
    return q * diagonal @ q.T


# Parts of the parameters


def test_a_block_is_that_of_the_chosen_rows_and_columns(params: dict[str, Tensor]) -> None:
    whole = hessian(NET, params)
    v = {name: torch.ones_like(leaf) for name, leaf in chosen(params, "0.*").items()}
    padded = {name: v.get(name, torch.zeros_like(leaf)) for name, leaf in params.items()}
    found, truth = block(whole, "0.*")(v), whole(padded)
    assert list(found) == ["0.weight", "0.bias"]
    assert all(torch.equal(found[name], truth[name]) for name in found)


def test_pieces_stay_pieces(params: dict[str, Tensor]) -> None:
    pieces = [hessian(NET, {name: leaf[r : r + 1] for name, leaf in params.items()}) for r in range(R)]
    assert len(block(Operator.joined(pieces), "2.*").pieces) == R


def test_a_slip_in_a_name_is_told() -> None:
    assert matching(["a.weight", "b.bias"], "*.bias", "a.*") == ["a.weight", "b.bias"]
    with pytest.raises(ValueError, match=r"no parameter is called '\*.wieght'; there are a.weight, b.bias"):
        matching(["a.weight", "b.bias"], "*.wieght")


# Batches


def test_full_batches_feel_the_curvature_along_the_gradient(params: dict[str, Tensor]) -> None:
    g = flatten(value_and_gradient(NET, params)[1])
    along = (g * hessian(NET, params)(g)).sum(1) / g.square().sum(1)
    felt = batch_sharpness(NET, params, STREAMS, draws=2)
    assert torch.allclose(felt.sharpness, along, rtol=1e-12)
    assert torch.allclose(felt.interaction, along, rtol=1e-12)


def test_at_the_interaction_a_step_leaves_a_quadratic_loss_as_it_is() -> None:
    line = Supervised(MLP((3, 1)), SquaredError(), X, Y, batch_size=3, sampling="shuffled_epochs")
    w = line.model.initial(STREAMS)
    felt = batch_sharpness(line, w, STREAMS, draws=4)  # one epoch: the mean over its batches is exact
    lr = 2 / felt.interaction
    gradients = [line.gradient(w, STREAMS, step) for step in range(4)]
    steps = [{name: w[name] - lr.view(-1, *[1] * (g[name].ndim - 1)) * g[name] for name in w} for g in gradients]
    after = torch.stack([line.value(moved) for moved in steps])
    assert torch.allclose(after.mean(0), line.value(w), rtol=1e-10)
    assert not torch.allclose(after[0], line.value(w), rtol=1e-3)


def test_batches_come_with_intervals(params: dict[str, Tensor]) -> None:
    batches = replace(NET, batch_size=4, sampling="with_replacement")
    felt = batch_sharpness(batches, params, STREAMS, draws=32)
    for estimate, found in ((felt.estimate(1), felt.sharpness), (felt.interaction_estimate(1), felt.interaction)):
        assert estimate.value == pytest.approx(float(found[1]), rel=1e-9)
        assert estimate.low < estimate.value < estimate.high
    with pytest.raises(ValueError, match="at least two batches"):
        batch_sharpness(batches, params, STREAMS, draws=1)


def test_augmented_data_are_refused(params: dict[str, Tensor]) -> None:
    pictures = Supervised(NET.model, NET.loss, torch.zeros(4, 3, 4, 4), Y[:4], batch_size=2, augment=Augment(1))
    with pytest.raises(ValueError, match="augment=None"):
        batch_sharpness(pictures, params, STREAMS)


# Eigenvalues above a level


def test_a_start_saves_products_and_hides_nothing() -> None:
    matrix = planted([2.0, 3.0, 5.0])
    first = eigenpairs_above(known(matrix), 1.0, STREAMS, tolerance=1e-6)
    assert first.count.tolist() == [3, 3]
    again = eigenpairs_above(known(matrix), 1.0, STREAMS, tolerance=1e-6, start=first.basis)
    assert again.products < first.products - 5
    u = first.vectors.new_zeros(R, len(matrix)).index_fill_(1, torch.tensor([0]), 1.0)[0]
    u = u - first.basis[0].T @ (first.basis[0] @ u)  # a new eigenvector, which the start knows nothing of
    risen = eigenpairs_above(known(matrix + 9 * torch.outer(u, u) / (u @ u)), 1.0, STREAMS, start=first.basis)
    assert risen.count.tolist() == [4, 4]
    assert bool(risen.converged.all())


def test_below_the_level_there_is_nothing_and_above_no_more_than_asked() -> None:
    matrix = known(planted([2.0, 3.0, 5.0]))
    nothing = eigenpairs_above(matrix, 7.0, STREAMS)
    assert nothing.values.shape == (R, 0)
    assert bool(nothing.converged.all())
    two = eigenpairs_above(matrix, torch.tensor([1.0, 4.0]), STREAMS, most=2)
    assert two.values[0].tolist() == pytest.approx([5.0, 3.0], rel=1e-4)
    assert two.values[1].isnan().tolist() == [False, True]
    short = eigenpairs_above(matrix, 1.0, STREAMS, products=4)
    assert not bool(short.converged.any())
    with pytest.raises(ValueError, match="start must be"):
        eigenpairs_above(matrix, 1.0, STREAMS, start=torch.zeros(R, 3))


def test_a_run_is_followed_in_units_of_its_edge(params: dict[str, Tensor]) -> None:
    hyper = heavy_ball([0.2] * R, 0.5)
    probe = EdgeSpectrum(NET, hyper, STREAMS, every=5, fraction=0.02, most=3)
    run = train(NET, params, hyper, 10, STREAMS, probes={"edge": probe})
    top = top_eigenpairs(hessian(NET, run.params), 1, STREAMS, tolerance=1e-8).values[:, 0]
    assert run.records["edge.values"].values.shape == (3, R, 3)
    assert torch.allclose(run.records["edge.values"].values[-1, :, 0], top * 0.2 / 3, rtol=1e-5)
    counts, products = (run.records[f"edge.{name}"].values for name in ("count", "products"))
    assert bool((counts >= 1).all())
    assert int(products[1].max()) < int(products[0].max())


# The central flow


def test_the_covariance_meets_its_conditions() -> None:
    root = STREAMS.normal(Purpose.DATA, 2, (3, 3, 40))[0]
    tensors, slope = (root + root.transpose(0, 1)) / 2, STREAMS.normal(Purpose.DATA, 3, (40,))[0]
    x = edge_covariance(tensors, slope, torch.zeros(3, dtype=torch.float64))
    rest = torch.einsum("abp,p->ab", tensors, slope) + torch.einsum("abp,cdp,cd->ab", tensors, tensors, x) / 2
    assert float(x.diagonal().sum()) > 0.01
    assert float(torch.linalg.eigvalsh(x)[0]) > -1e-12
    assert float(torch.linalg.eigvalsh(rest)[0]) > -1e-6
    assert float((x * rest).sum().abs()) < 1e-6


LOUD = replace(NET, loss=SquaredError(2.0))


def test_descent_at_its_edge_is_on_average_where_the_flow_is(params: dict[str, Tensor]) -> None:
    lr, steps, window = 0.24, 60, slice(30, 60)
    loss, start = flat_loss(LOUD, params)
    path = central_flow(loss, start, lr, steps)
    probes = {"at": every(1, flatten), "loss": every(1, LOUD.value)}
    run = train(LOUD, params, heavy_ball([lr] * R, 0.0), steps, STREAMS, probes=probes)
    descent = run.records["at"].values[window, 0].mean(0)
    free = train(LOUD, params, heavy_ball([lr / 4] * R, 0.0), 4 * steps, STREAMS, probes={"at": every(4, flatten)})
    alone = free.records["at"].values[window, 0].mean(0)  # a fourth of the step: close to gradient flow
    near, far = (float((descent - mean).norm()) for mean in (path.points[::2][window].mean(0), alone))
    assert near < 0.1 * far
    found = float(run.records["loss"].values[window, 0].mean())
    assert float(path.mean_loss[::2][window].mean()) == pytest.approx(found, rel=0.25)
    assert float(path.loss[::2][window].mean()) < 0.6 * found
    assert float(path.sharpness[~path.sharpness.isnan()].max()) * lr / 2 < 1.001


def test_a_start_above_the_edge_is_told(params: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"sharpness .* above 2/lr = 6.67; lower lr"):
        central_flow(*flat_loss(LOUD, params), 0.3, 5)
    with pytest.raises(ValueError, match="every"):
        central_flow(*flat_loss(LOUD, params), 0.1, 5, every=2)

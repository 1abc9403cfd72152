"""The geometry chapter's experiments on training, shrunk: keys, limits, what must come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.data.draws import fresh
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.geometry import cyclic, kept, looks, margins, training
from descent.experiments.lab import Lab, Share
from descent.figures.geometry import training as draw
from descent.nets.dense import MLP, LogisticError, SquaredError
from descent.nets.supervised import Supervised
from tidy import check_answers, still
from torch.func import functional_call, jacrev

LAB, FOUR = Lab(replicas=40, seed=7), Share(least=4, most=4)


MODULES = {"training": training, "margins": margins, "kept": kept, "cyclic": cyclic}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    configs = {
        "training": training.Training(
            FOUR, starts=FOUR, draws=2, widths=(16,), examples=60, steps=400, looks=4, many=20
        ),
        "margins": margins.Margins(FOUR, steps=100, looks=5),
        "kept": kept.Kept(Share(least=6, most=6), draws=3, arms=((0.2, 4), (0.4, 16)), steps=2500),
        "cyclic": cyclic.Cyclic(Share(least=16, most=16), nets=4, draws=2, up=100, down=100),
    }
    return {name: MODULES[name].run(config, LAB) for name, config in configs.items()}


@pytest.mark.parametrize("name", MODULES)
def test_estimates_answer_stated_tests_and_tables_are_tidy(results: dict[str, Any], name: str) -> None:
    check_answers("P5", MODULES[name], results[name])


@pytest.mark.parametrize("loss", [SquaredError(), LogisticError()], ids=["square", "logistic"])
def test_a_look_equals_explicit_matrices(loss: object) -> None:
    """Tr(ΣG)/(2L‖G‖²) and Tr Σ from per-example gradients, with G = mean ℓ″ ∇f∇fᵀ."""
    streams = Streams(replica_seeds(2, 1), torch.float64)
    inputs = streams.normal(Purpose.DATA, 0, (9, 4))[0]
    targets = streams.signs(Purpose.LABEL, 0, (9, 1))[0].double()
    problem = Supervised(MLP((4, 5, 1), "tanh"), loss, inputs, targets, sampling="full")
    leaves = problem.model.initial(streams)
    one = {name: leaf[0] for name, leaf in leaves.items()}
    module = problem.model.module().double()
    jacobian = jacrev(lambda p: functional_call(module, p, (inputs,))[:, 0])(one)
    rows = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)
    outputs = functional_call(module, one, (inputs,)).detach().requires_grad_()
    value = loss(outputs, targets)  # type: ignore[operator]
    (slope,) = torch.autograd.grad(value.sum(), outputs, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), outputs)
    gradients = slope.detach() * rows
    g = rows.T @ (curve * rows) / 9
    second = gradients.T @ gradients / 9
    covariance = second - gradients.mean(0).outer(gradients.mean(0))
    found = looks.look(problem, keep=2)(leaves)
    scale = 2 * value.mean().detach() * g.square().sum()
    assert float(found["uncentred"]) == pytest.approx(float((second * g).sum() / scale), rel=1e-9)
    assert float(found["centred"]) == pytest.approx(float((covariance * g).sum() / scale), rel=1e-9)
    assert float(found["loss"]) == pytest.approx(float(value.detach().mean()), rel=1e-9)
    assert float(found["curvature"][0, 0]) == pytest.approx(float(torch.linalg.eigvalsh(g)[-1]), rel=1e-9)
    if isinstance(loss, SquaredError):
        assert float(found["noise"]) == pytest.approx(float(covariance.trace()), rel=1e-9)


def test_each_net_is_looked_at_on_its_own_draw() -> None:
    streams, rows = Streams(replica_seeds(2, 4), torch.float64), torch.tensor([[0, 2, 4, 6], [7, 5, 3, 1]])
    inputs = streams.normal(Purpose.DATA, 0, (8, 3))[0]
    targets = streams.signs(Purpose.LABEL, 0, (8, 1))[0].double()
    model = MLP((3, 5, 1), "tanh")
    shared = Supervised(model, SquaredError(), inputs, targets, sampling="full", rows=rows)
    leaves = model.initial(streams)
    together = looks.look(shared, keep=2)(leaves)
    for net in range(4):
        own = rows[net % 2]
        alone = Supervised(model, SquaredError(), inputs[own], targets[own], sampling="full")
        seen = looks.look(alone, keep=2)({name: leaf[net : net + 1] for name, leaf in leaves.items()})
        for name, value in seen.items():
            assert together[name][net].tolist() == pytest.approx(value[0].tolist(), rel=1e-9), name


def test_levels_are_means_over_draws(results: dict[str, Any]) -> None:
    found = results["training"]
    several = looks.levels(found.sets, *found.square)
    assert len(several) == sum(len(course.steps) for course in found.square)
    assert {(one.draws, one.n) for one in several} == {(2, 4)}
    assert several[1].value == pytest.approx(found.square[0].uncentred[1].mean())


def test_residuals_on_one_output_have_a_spread_of_one() -> None:
    one, all_alike = torch.zeros(2, 6, 10), torch.ones(2, 6, 10)
    one[..., 3] = torch.arange(6.0)
    assert training.participation(one).tolist() == [1.0, 1.0]
    assert training.participation(all_alike).tolist() == pytest.approx([10.0, 10.0])


def test_the_spread_of_residuals_does_not_change_the_alignment_at_the_start(results: dict[str, Any]) -> None:
    found = results["training"]
    assert found.outputs.shape == found.spread.shape == (2, 4)
    assert (found.spread[0] > 5).all()
    assert (found.spread[1] < 3).all()
    assert ((found.outputs > 0.05) & (found.outputs < 0.2)).all()


def test_the_largest_of_a_draw_leaves_out_nets_without_a_minimum() -> None:
    nan = np.nan
    found = kept.largest_of(fresh(3, 1), np.array([1.0, nan, 5.0, 2.0, nan, 4.0]))
    assert (found.value, found.draws) == (3.5, 2)
    assert found.method.endswith("draws 1 lost")


def test_arms_that_find_no_minimum_say_nothing(results: dict[str, Any]) -> None:
    found = results["kept"]
    assert len(kept.estimates(found)["P5-W1.networks"]) == 2
    none = replace(found, frobenius=np.full_like(found.frobenius, np.nan), edge=np.full_like(found.edge, np.nan))
    assert set(kept.estimates(none)) == {"P5-X6.descent", "P5-X6.descent_first"}


def test_every_net_has_small_margins_in_a_data_set_of_its_own() -> None:
    config = replace(margins.Margins(), replicas=3)
    (even, targets), (small, _) = (margins.margin_data(config, LAB, signal) for signal in (1.0, 0.3))
    assert even.shape == (3, 256, 40)
    assert not torch.equal(even[0, :, 1:], even[1, :, 1:])
    assert torch.equal(even[..., 1:], small[..., 1:])  # arms differ in the signal alone
    signal = (targets[..., 0] * small[..., 0]).unique(dim=1)
    assert signal.tolist() == [pytest.approx([2.4, 8.0])] * 3


def test_noise_falls_with_the_loss(results: dict[str, Any]) -> None:
    course = results["training"].square[0]
    assert (course.loss[-1] < 0.1 * course.loss[0]).all()
    assert (course.noise[-1] < 0.3 * course.noise[0]).all()
    assert ((course.uncentred > 0.3) & (course.uncentred < 3)).all()


def test_small_margins_break_alignment_and_equal_ones_do_not(results: dict[str, Any]) -> None:
    even, small, momentum = results["margins"].alignment[:, -1]
    assert (even > 0.9).all()
    assert (small < 0.5).all()
    assert np.abs(momentum - small).max() < 0.15
    assert (results["margins"].carried[1, -1] > 0.9).all()
    config = replace(results["margins"].config, replicas=Share(least=2, most=2), steps=20, looks=2)
    without = margins.run(config, replace(LAB, momentum=0.0))
    assert margins.estimates(without)["P5-X2.momentum"].value == 0.0
    assert still("P5", "margins") == {"P5-X2.broken", "P5-X2.control", "P5-X2.predicted"}


def test_nets_end_at_the_edge_of_sgd(results: dict[str, Any]) -> None:
    found = results["kept"]
    assert np.nanmax(found.frobenius) < 1
    assert (np.nanmean(found.edge, axis=1) > 0.85).all()
    assert np.nanmax(found.edge) < 1.15
    assert np.nanmean(found.descent[0]) < 0.6


def test_a_cycle_flattens_only_what_noise_reaches(results: dict[str, Any]) -> None:
    found = results["cyclic"]
    first = {name: drop[0].mean() for name, drop in found.tail.items()}
    assert first[cyclic.SGD] > 5 * abs(first[cyclic.DESCENT])
    assert first[cyclic.ALIGNED] > 5 * abs(first[cyclic.ISOTROPIC])
    assert abs(first[cyclic.BELOW]) < 1e-3
    assert np.allclose(found.tail[cyclic.SGD][0], found.tail[cyclic.SGD][1], atol=1e-3)  # a second cycle does nothing


def test_figures_draw(results: dict[str, Any]) -> None:
    figures = [
        draw.along_training(results["training"]),
        draw.margins(results["margins"]),
        draw.kept(results["kept"]),
        draw.cycles(results["cyclic"]),
    ]
    assert all(axis.lines or axis.collections or axis.patches for figure in figures for axis in figure.axes)


def test_data_sets_are_four_for_every_net() -> None:
    assert [Lab(replicas=r).count(cyclic.Cyclic().replicas) for r in (64, 1000, 5000)] == [128, 132, 256]
    assert (Lab().count(cyclic.CYCLIC.large.replicas), cyclic.CYCLIC.large.nets) == (1000, 56)

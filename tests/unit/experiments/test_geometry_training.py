"""The geometry chapter's experiments on training, shrunk: keys, limits, what must come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
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
        "training": training.Training(FOUR, widths=(16,), examples=60, steps=400, looks=4, many=20),
        "margins": margins.Margins(FOUR, steps=100, looks=5),
        "kept": kept.Kept(FOUR, arms=((0.2, 4), (0.4, 16)), steps=2500),
        "cyclic": cyclic.Cyclic(Share(least=16, most=16), nets=4, up=100, down=100),
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
    assert (Lab().count(cyclic.CYCLIC.large.replicas), cyclic.CYCLIC.large.nets) == (1000, 64)

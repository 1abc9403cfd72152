"""The experiments on alignment and escape of the geometry chapter, shrunk: keys, limits, what must come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine import Purpose
from descent.experiments.geometry import directions, edge, escape, identities, minima, nets, samples, width
from descent.experiments.lab import Lab, Share
from descent.figures.geometry import alignment as draw
from descent.theory.features import ACTIVATIONS, alignment_floor
from descent.theory.noise_escape import outside
from tidy import check_answers, still

LAB, SIX = Lab(replicas=40, seed=7), Share(least=6, most=6)


MODULES = {
    "identities": identities,
    "samples": samples,
    "directions": directions,
    "width": width,
    "escape": escape,
    "edge": edge,
    "nets": nets,
}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    configs = {
        "identities": identities.Identities(),
        "samples": samples.Samples(
            examples=(4, 30, 100), dimensions=(100, 400), many=(400, 1600), draws=samples.Samples().replicas
        ),
        "directions": directions.Directions(dimensions=(4, 8)),
        "width": width.Width(widths=(2, 32, 128, 256), deep=(32, 128, 192), examples=40),
        "escape": escape.Escape(examples=30, dimension=60, draws=SIX),
        "edge": edge.Edge(batch_sizes=(1, 8, 64), examples=20, dimension=40, draws=SIX, steps=100),
        "nets": nets.Nets(nets=4, draws=2),
    }
    return {name: MODULES[name].run(config, LAB) for name, config in configs.items()}


@pytest.mark.parametrize("name", MODULES)
def test_estimates_answer_stated_tests_and_tables_are_tidy(results: dict[str, Any], name: str) -> None:
    check_answers("P5", MODULES[name], results[name])


def test_worst_alignment_is_worst_at_as_many_examples_as_dimensions(results: dict[str, Any]) -> None:
    low = results["samples"].low.mean(axis=-1)  # (decays, examples 4, 30, 100 = d)
    assert (low[:, 2] < low[:, 0]).all()
    assert (np.diff(low[:, 2]) < 0).all()  # the steeper the spectrum the worse
    assert (results["samples"].typical.mean(axis=-1) > 0.95).all()


def test_no_direction_is_aligned_with_too_few_examples(results: dict[str, Any]) -> None:
    found = results["directions"]
    assert found.blind.max() < 1e-20
    assert found.low[:, 0].max() < 1e-4  # n = 1.5 d: as close to none as the search comes
    assert found.low[:, -1].min() > 0.2  # n = 32 d


def test_a_residual_no_neuron_sees_has_no_alignment(results: dict[str, Any]) -> None:
    assert np.abs(results["width"].dead).max() == 0
    found = results["width"]
    assert found.floor_ratio.min() >= 1
    assert found.floor_ratio.shape == (4, LAB.count(found.config.floors))
    few = LAB.count(found.config.replicas)  # whose data sets are the first of those held against the floor
    leaky = ACTIVATIONS["leaky"]
    drawn = LAB.streams(few, torch.float64).normal(Purpose.DATA, 0, (40, 50))
    floor = alignment_floor(leaky, drawn).numpy()
    assert found.floor_ratio[:, :few] == pytest.approx(found.worst["leaky"] / floor)
    broken = found.floor_ratio.copy()
    broken[1, 0] = 0.99
    estimate = width.estimates(replace(found, floor_ratio=broken))["P5-C5.bound"]
    assert estimate.value == 1 / broken.shape[1]


def test_slopes_are_fitted_from_a_width_on(results: dict[str, Any]) -> None:
    found = results["width"]
    assert found.wide("relu").shape[0] == 2
    assert found.wide("relu", 32).shape[0] == 3
    logs = np.log10(found.parameters["relu"][1:])
    expected = np.polyfit(logs, found.typical["relu"][1:].mean(axis=1), 1)[0]
    assert found.per_decade("relu", 32).value == pytest.approx(expected)


def test_rules_over_every_cell_are_told_of_every_cell(results: dict[str, Any]) -> None:
    found = {key: value for name in MODULES for key, value in MODULES[name].estimates(results[name]).items()}
    counts = {key: len(value) for key, value in found.items() if isinstance(value, list)}
    assert counts == {
        "P5-C1.quadratic": 3, "P5-C4.slope": 7, "P5-C4.level": 27, "P5-C5.typical": 4, "P5-C6.typical": 2,
        "P5-C7.collapse": 6, "P5-C7.level": 2, "P5-C8.collapse": 2, "P5-C11.bound": 30, "P5-C13.relative": 30,
        "P5-W4.linear": 3, "P5-W4.features": 4, "P5-X7.far": 2, "P5-X7.grows": 2, "P5-X11.leverage_first": 2,
    }  # fmt: skip
    rules = load_paper("P5").tests
    assert all(rules[key].rule.each for key in counts)


def test_the_best_direction_is_one_short_of_the_leverage_bound(results: dict[str, Any]) -> None:
    leverage = results["directions"].leverage
    assert leverage == pytest.approx(np.repeat([[3 / 4], [7 / 8]], leverage.shape[1], axis=1), rel=1e-3)


def test_sgd_escapes_off_the_sharpest_direction_and_descent_does_not(results: dict[str, Any]) -> None:
    found = results["escape"]
    assert found.losses.sum(axis=-1) == pytest.approx(1)
    assert (outside(found.losses[0, 1, -1], 1) > 1).all()
    assert (found.slopes[0, 0] < found.slopes[0, 4]).all()
    longer = escape.run(replace(found.config, steps=found.config.late, multiples=(1.2, 4.0)), LAB)
    assert found.late == pytest.approx(longer.losses[0, 0, -1])
    assert found.descent == pytest.approx(longer.descent)
    assert (outside(found.descent[-1], 1) < outside(found.descent[20], 1)).all()
    trained = results["nets"]
    assert trained.residual.max() < 1e-10
    assert (trained.ratio(trained.descent) < 1e-2).all()
    assert (trained.ratio(trained.stochastic) > 0.1).all()
    # descent of every walker is on its own net's images: the sharpest direction grows by the factor of its curvature
    grown = trained.descent[:, :, 0].mean(axis=1) / (trained.curvature[:, 0] * trained.config.displacement**2)
    assert grown == pytest.approx(1.2 ** (2 * trained.config.steps), rel=0.5)


def test_a_net_is_linearised_on_its_own_draw() -> None:
    sets, problem = minima.odd_or_even(LAB, (64, 3, 1), 6, 2)
    params = problem.model.initial(LAB.streams(4, torch.float64))
    jacobian, residual = minima.linearised(problem, params)
    assert set(sets.rows[0].tolist()).isdisjoint(sets.rows[1].tolist())
    for net in range(4):
        rows, one = sets.rows[net % 2], {name: leaf[net : net + 1] for name, leaf in params.items()}
        own, errors = minima.linearised(replace(problem.subset(slice(net, net + 1))), one)
        assert jacobian[net].flatten().tolist() == pytest.approx(own.flatten().tolist())
        outputs = problem.model.forward(one, problem.inputs[rows].unsqueeze(0))[0]
        assert residual[net].tolist() == pytest.approx((outputs - problem.targets[rows])[:, 0].tolist())
        assert residual[net].tolist() == pytest.approx(errors[0].tolist())


def test_a_broken_bound_is_counted(results: dict[str, Any]) -> None:
    found = results["edge"]
    whole = edge.estimates(found)
    assert whole["P5-W1.edge"].value == whole["P5-W2.bound"].value == 0
    high, low = found.frobenius.copy(), found.growth_bound.copy()
    high[0], low[:2] = 1.01, 0.99
    some = edge.estimates(replace(found, frobenius=high, growth_bound=low))
    assert some["P5-W1.edge"].value == 1 / len(high)
    assert some["P5-W2.bound"].value == 2 / len(low)


def test_momentum_at_the_edge_is_a_smaller_batch(results: dict[str, Any]) -> None:
    found = results["edge"]
    assert found.frobenius.max() <= 1 + 1e-9
    assert found.growth_bound.min() >= 1 - 1e-9
    plain, strong = found.momenta.index(0.0), found.momenta.index(0.9)
    assert (found.outside[strong, -1] > 2 * found.outside[plain, -1]).all()
    assert abs(found.growth.value) < 0.01
    config = replace(found.config, problems=Share(least=32, most=32))
    plain_alone = edge.estimates(edge.run(config, replace(LAB, momentum=0.0)))
    assert plain_alone["P5-X1.flatter"].value == 1.0
    assert still("P5", "edge") == {"P5-W1.edge", "P5-W2.bound", "P5-W2.grows"}


def test_figures_draw(results: dict[str, Any]) -> None:
    figures = [
        draw.sample_sizes(results["samples"]),
        draw.widths(results["width"]),
        draw.directions(results["directions"]),
        draw.fingerprint(results["escape"], results["nets"]),
        draw.batches_and_momentum(results["edge"]),
    ]
    assert all(axis.lines or axis.collections for figure in figures for axis in figure.axes)


def test_configurations_are_those_of_one_chapter_at_two_scales() -> None:
    counts = {
        name: [Lab().count(getattr(config, field)) for config in (item.small, item.large)]
        for name, field, item in (
            ("identities", "replicas", identities.IDENTITIES),
            ("samples", "replicas", samples.SAMPLES),
            ("samples, few", "draws", samples.SAMPLES),
            ("width", "replicas", width.WIDTH),
            ("directions", "replicas", directions.DIRECTIONS),
            ("escape", "draws", escape.ESCAPE),
            ("edge", "problems", edge.EDGE),
            ("nets", "nets", nets.NETS),
            ("walkers", "walkers", nets.NETS),
        )
    }
    assert counts == {
        "identities": [200, 10_000], "samples": [40, 250], "samples, few": [320, 2000], "width": [50, 100],
        "directions": [100, 64], "escape": [33, 50], "edge": [250, 10_000], "nets": [32, 56], "walkers": [125, 125],
    }  # fmt: skip

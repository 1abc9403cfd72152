"""The experiments on alignment and escape of the geometry chapter, shrunk: keys, limits, what must come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from descent.experiments.common import Settings
from descent.experiments.geometry import directions, edge, escape, identities, nets, samples, width
from descent.figures.geometry import alignment as draw
from tidy import check_answers

SMALL = Settings(replicas=40, seed=7)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    few = replace(samples.Samples.cpu(SMALL), examples=(4, 30, 100), dimensions=(100, 400), many=(400, 1600), draws=1)
    small_edge = replace(edge.Edge.cpu(SMALL), batch_sizes=(1, 8, 64), examples=20, dimension=40, draws=6, steps=100)
    return {
        "identities": identities.run(identities.Identities.cpu(SMALL)),
        "samples": samples.run(few),
        "directions": directions.run(replace(directions.Directions.cpu(SMALL), dimensions=(4, 8))),
        "width": width.run(replace(width.Width.cpu(SMALL), widths=(2, 32, 128, 256), deep=(32, 128, 192), examples=40)),
        "escape": escape.run(replace(escape.Escape.cpu(SMALL), examples=30, dimension=60, draws=6)),
        "edge": edge.run(small_edge),
        "nets": nets.run(replace(nets.Nets.cpu(SMALL), nets=4, walkers=64)),
    }


MODULES = {
    "identities": identities,
    "samples": samples,
    "directions": directions,
    "width": width,
    "escape": escape,
    "edge": edge,
    "nets": nets,
}


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
    assert results["width"].floor_ratio.min() >= 1


def test_sgd_escapes_off_the_sharpest_direction_and_descent_does_not(results: dict[str, Any]) -> None:
    found = results["escape"]
    assert found.losses.sum(axis=-1) == pytest.approx(1)
    assert (found.ratio(0, 1, 1, -1) > 1).all()
    assert (found.displacement_slope(0, 0) < found.displacement_slope(0, 4)).all()
    trained = results["nets"]
    assert trained.residual.max() < 1e-10
    assert (trained.ratio(trained.descent) < 1e-2).all()
    assert (trained.ratio(trained.stochastic) > 0.1).all()


def test_momentum_at_the_edge_is_a_smaller_batch(results: dict[str, Any]) -> None:
    found = results["edge"]
    assert found.frobenius.max() <= 1 + 1e-9
    assert found.growth_bound.min() >= 1 - 1e-9
    plain, strong = found.momenta.index(0.0), found.momenta.index(0.9)
    assert (found.outside[strong, -1] > 2 * found.outside[plain, -1]).all()
    assert abs(found.growth.value) < 0.01
    assert set(edge.estimates(edge.run(replace(found.config, momentum=0.0, problems=32)))) == {
        "P5-W1.edge",
        "P5-W2.bound",
        "P5-W2.grows",
    }


def test_figures_draw(results: dict[str, Any]) -> None:
    figures = [
        draw.sample_sizes(results["samples"]),
        draw.widths(results["width"]),
        draw.directions(results["directions"]),
        draw.fingerprint(results["escape"], results["nets"]),
        draw.batches_and_momentum(results["edge"]),
    ]
    assert all(axis.lines or axis.collections for figure in figures for axis in figure.axes)

"""The experiments on random quadratics, shrunk: growth rates, bounds, noise floors, samples against the exact mean."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from descent.claims import load_paper
from descent.experiments.flatness import floors, growth, samples, sandwich
from descent.experiments.flatness.growth import ATOMS, FEATURES, WEIGHTS
from descent.experiments.lab import Experiment, Lab
from descent.figures.flatness import quadratics as figures
from descent.results import digest
from numpy.testing import assert_allclose

SMALL = Lab(replicas=200)
MODULES: dict[str, tuple[ModuleType, Experiment[Any, Any]]] = {
    "growth": (growth, growth.GROWTH),
    "sandwich": (sandwich, sandwich.SANDWICH),
    "floors": (floors, floors.FLOORS),
    "samples": (samples, samples.SAMPLES),
}
SHORTER: dict[str, dict[str, int]] = {"growth": {"steps": 150}, "floors": {"steps": 500}}
OTHER: dict[str, dict[str, Any]] = {
    "growth": {"burn": 60}, "sandwich": {"most": 9}, "floors": {"burn": 200}, "samples": {"lr": 1.4},
}  # fmt: skip
RESULTS: dict[str, Any] = {}


def result_of(name: str) -> Any:
    module, experiment = MODULES[name]
    if name not in RESULTS:
        RESULTS[name] = module.run(replace(experiment.small, **SHORTER.get(name, {})), SMALL)
    return RESULTS[name]


@pytest.mark.parametrize("name", MODULES)
def test_estimates_carry_keys_of_the_claims_and_tables_are_tidy(name: str) -> None:
    module, experiment = MODULES[name]
    assert experiment.name == name
    found = module.estimates(result_of(name))
    assert set(found) == {key for key, test in load_paper("P2").tests.items() if test.by == name}
    for frame in module.tables(result_of(name)).values():
        numbers = frame.drop(columns="single_exact", errors="ignore").select_dtypes("number")
        assert len(frame) > 0
        assert np.isfinite(numbers).all().all()


@pytest.mark.parametrize("name", MODULES)
def test_configurations_exist_at_both_scales_and_differ(name: str) -> None:
    experiment = MODULES[name][1]
    small, large = experiment.small, experiment.large
    assert len({digest(small), digest(large), digest(replace(small, **OTHER[name]))}) == 3
    assert digest(small) == digest(type(small)())


def test_growth_is_exact_and_vanishes_at_the_threshold() -> None:
    result = result_of("growth")
    for cell in result.cells:
        error = cell.deviation.high - cell.deviation.value
        assert abs(cell.deviation.value) < 3 * error + 0.005, (cell.case.name, cell.batch_size, cell.multiple)
        if cell.multiple == 1:
            assert cell.exact == pytest.approx(0, abs=1e-7)
        else:
            assert (cell.exact > 0) == (cell.multiple > 1)
    assert {cell.case.momentum for cell in result.cells} == {0.0, SMALL.momentum}
    assert len(result.of(ATOMS)) == 25


def test_single_runs_grow_as_the_exact_exponent_says_and_slower_than_the_mean_square() -> None:
    result = result_of("growth")
    for cell in (*result.of(WEIGHTS), *result.of(FEATURES)):
        found = cell.growth.lyapunov
        assert abs(found.value - cell.exact_single) < 2.5 * (found.high - found.value) + 1e-3
        assert cell.exact_single < cell.exact
    many, one = (result.of(name)[2] for name in (FEATURES, WEIGHTS))
    assert many.multiple == one.multiple == many.batch_size == one.batch_size == 1
    assert many.exact - many.exact_single < 0.05 * (one.exact - one.exact_single)  # ten average, one cannot


def test_every_deviation_is_reported_and_momentum_is_left_out() -> None:
    result = result_of("growth")
    found = growth.estimates(result)
    cells = 5 + 3 + 3
    counts = {key: len(one) for key, one in found.items()}  # type: ignore[arg-type]
    assert counts == {"P2-C4.rate": 2 * cells, "P2-C5.rate": 2 * cells, "P2-C8.collapse": cells}
    assert [c.deviation for c in result.cells if c.case.momentum == 0 and c.multiple > 1] == found["P2-C5.rate"]
    short = replace(growth.GROWTH.small, cases=growth.GROWTH.small.cases[:1], steps=60, burn=10)
    plain = growth.run(short, Lab(replicas=20, momentum=0.0))
    assert [case.momentum for case in plain.cases] == [0.0]


def test_bounds_enclose_every_threshold_and_the_batch_brings_descent_back() -> None:
    result = result_of("sandwich")
    for rows in (result.single, result.batched, result.atoms, result.steep):
        lower, star, upper, top, mean = rows.T
        assert (lower <= star * (1 + 1e-9)).all()
        assert (star <= np.minimum.reduce([upper, top, mean]) * (1 + 1e-9)).all()
    found = sandwich.estimates(result)
    assert len(result.single) == 200
    assert_allclose(result.limit, 1, atol=1e-4)
    for key in ("P2-C4.bound", "P2-C5.bound"):
        assert (found[key].value, found[key].n) == (0, 200)  # type: ignore[union-attr]
    broken = replace(result, batched=result.batched[:, [1, 0, *range(2, result.batched.shape[1])]])
    assert sandwich.estimates(broken)["P2-C4.bound"].value > 0.5  # type: ignore[union-attr]
    assert found["P2-C7.limit"].value == pytest.approx(1, abs=1e-4)  # type: ignore[union-attr]
    assert found["P2-C7.rate"].value == pytest.approx(-1, abs=1e-3)  # type: ignore[union-attr]
    assert found["P2-X1.loose"].low > 2  # type: ignore[union-attr]
    assert found["P2-X1.cheap"].high < 1.05  # type: ignore[union-attr]
    assert result.steps[:, 0].max() < 1 < result.steps[:, 1].min()


def test_the_four_atoms_are_the_known_ones() -> None:
    result = result_of("sandwich")
    at = result.config.curve.index(1)
    assert_allclose(result.atoms[at, :3], (0.408511, 0.638234, 0.793115), atol=6e-7)
    assert_allclose(result.steep[at, :3], (0.000995, 0.065788, 0.099493), atol=6e-7)


def test_random_ensembles_have_all_dimensions_and_ranks_and_do_not_depend_on_their_number() -> None:
    config = sandwich.SANDWICH.small
    drawn, sizes = sandwich.draw(config, SMALL)
    assert {len(problem.curvatures) for problem in drawn} == {2, 3, 4}
    assert set(sizes) == set(config.batch_sizes)
    fewer, same = sandwich.draw(replace(config, ensembles=50), SMALL)
    assert np.array_equal(sizes[:50], same)
    assert all(np.array_equal(a.curvatures, b.curvatures) for a, b in zip(drawn, fewer, strict=False))


def test_floors_are_the_known_ones_and_are_reached() -> None:
    result = result_of("floors")
    assert [arm.exact for arm in result.config.stated] == pytest.approx([0.088028, 0.317513], abs=6e-7)
    for arm, values in zip((*result.config.stated, *result.config.small), (*result.stated, *result.small), strict=True):
        error = values.std(ddof=1) / len(values) ** 0.5
        assert abs(values.mean() - arm.exact) < 4.5 * error, arm
    assert floors.estimates(result)["P2-C6.proportional"].value == pytest.approx(1.02, abs=0.05)  # type: ignore[union-attr]


def test_sample_means_fall_behind_the_exact_mean_that_resampling_follows() -> None:
    result = result_of("samples")
    config = result.config
    assert config.exact == pytest.approx(math.log(2.5) / 2)
    assert config.exact_single == pytest.approx(-0.497, abs=1e-3)
    assert (np.log10(result.theory / result.means)[:, config.horizon] > 1).all()
    early = result.groups.mean(0)[1:4]
    assert_allclose(early, result.theory[1:4], rtol=0.25)  # for a few steps samples are still good
    assert abs(result.resampled_path[-1] - np.log10(result.theory[-1])) < 0.5
    slope = result.median[-1] / config.steps * math.log(10) / 2
    assert slope == pytest.approx(config.exact_single, abs=0.06)
    assert result.paths.shape == (config.shown, config.steps + 1)


def test_smaller_samples_are_the_first_of_larger_ones() -> None:
    result = samples.run(samples.Samples(40_000, 400, steps=6, horizon=6, watched=40), Lab(seed=3))
    assert result.sizes == (4, 40, 400, 4000, 40_000)
    assert_allclose(result.means[2], result.groups[0])
    assert_allclose(result.means[4], result.groups.mean(0))


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        ("mean_and_runs", "samples"),
        ("growth_rates", "growth"),
        ("bounds_by_batch", "sandwich"),
        ("bound_ratios", "sandwich"),
    ],
)
def test_figures_draw(draw: str, name: str) -> None:
    figure = getattr(figures, draw)(result_of(name))
    figure.draw_without_rendering()
    assert all(axis.get_xlabel() and axis.has_data() for axis in figure.axes)

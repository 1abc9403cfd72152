"""The landscape experiments of the smoothing chapter, shrunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.claims import load_paper
from descent.experiments.lab import Lab, Share
from descent.experiments.smoothing import convergence, critical, escape, graduated
from descent.experiments.smoothing.arms import RULES, Arm
from descent.figures.smoothing import landscapes
from tidy import momentous, value_of, values_of

SMALL = Lab(replicas=60, seed=11)


def test_temperature_decides_and_the_degree_does_not() -> None:
    config = replace(escape.ESCAPE.small, rates=(0.02, 0.08))
    result = escape.run(config, replace(SMALL, replicas=300))
    heats = result.half
    assert abs(np.log(heats[1] / heats[0])) < 0.15  # the same temperature …
    degrees = np.sqrt(2 * heats * np.array(config.rates))
    assert degrees[1] / degrees[0] > 1.7  # … and twice the degree
    found = escape.estimates(result)
    assert abs(found["P1-X3.law"].value) < 0.2
    assert found["P1-X9.ballistic"].low > 0.8
    assert values_of(found, "P1-C7.one_step") == pytest.approx([1] * 10, abs=0.1)  # five points, two kernels
    assert found["P1-C9.lemma"].value < 1
    assert set(found) <= set(load_paper("P1").tests)
    assert landscapes.collapse(result).axes


def test_escape_out_of_the_temperatures_is_said() -> None:
    config = replace(escape.ESCAPE.small, rates=(0.08,), temperatures=(0.001, 0.002))
    with pytest.raises(ValueError, match="widen them"):
        escape.estimates(escape.run(config, SMALL))


def test_annealing_momentum_matters_only_where_it_changes_the_effective_rate() -> None:
    result = graduated.run(graduated.GRADUATED.small, replace(SMALL, replicas=400))
    found = graduated.estimates(result)
    assert found["P1-C22.lr"].low > 1.5
    assert found["P1-C22.shb"].low > 1.5
    assert found["P1-C22.nshb"].high < 1.5
    needy = momentous("P1", "graduated")
    assert set(found) - needy == {"P1-C22.lr"}
    still = graduated.estimates(graduated.run(result.config, replace(SMALL, momentum=0.0, replicas=40)))
    assert [still[key].value for key in sorted(needy)] == [1.0, 1.0]  # there is none to anneal


def test_critical_batch_ignores_the_learning_rate() -> None:
    config = replace(
        critical.CRITICAL.small,
        draws=4,
        replicas=Share(most=8),
        batch_sizes=(180, 256, 360, 512),
        precisions=(0.45, 0.42),
        rates=(0.1, 0.2),
        limit=250,
    )
    result = critical.run(config, SMALL)
    found = critical.estimates(result)
    assert abs(found["P1-C12.exponent"].value) < 0.3
    assert found["P1-X8.artefact"].value == pytest.approx(1, abs=0.1)
    plain, averaged, heavy = map(result.virtual_recipe, RULES)
    assert (plain, averaged) == pytest.approx((10, 1), rel=0.1)  # the same noise, read off ten times apart
    assert heavy == pytest.approx(1, rel=0.1)
    assert (np.diff(result.steps[1, 0].mean(0)) < 0).all()
    assert (found["P1-C12.exponent"].n, found["P1-C12.exponent"].draws) == (8, 4)
    assert {(one.n, one.draws) for one in found["P1-C10.fewer_steps"]} == {(8, 4)}
    assert set(found) <= set(load_paper("P1").tests)
    assert landscapes.valleys(result).axes
    still = replace(result, lab=replace(SMALL, momentum=0.0))
    assert "P1-X8.artefact" in critical.estimates(still)
    assert landscapes.valleys(still).axes


def test_the_chapter_takes_a_few_dozen_networks_and_paper_scale_more() -> None:
    labs = Lab(replicas=60), Lab(), Lab(replicas=5000)
    counts = [
        [lab.per_draw(config.replicas, config.draws) for lab in labs]
        for config in (critical.CRITICAL.small, critical.CRITICAL.large)
    ]
    assert counts == [[16, 32, 32], [64, 128, 512]]
    assert [lab.count(escape.ESCAPE.large.replicas) for lab in labs] == [6000, 100_000, 500_000]


@pytest.fixture(scope="module")
def resting() -> convergence.ConvergenceResult:
    config = replace(convergence.CONVERGENCE.small, replicas=Share(most=60))
    return convergence.run(config, SMALL)


def test_the_mean_falls_like_one_over_t_to_a_floor_far_below_the_theorem(
    resting: convergence.ConvergenceResult,
) -> None:
    found = convergence.estimates(resting)
    assert [value_of(found, f"P1-{claim}.falls") for claim in ("C26", "C27")] == pytest.approx([-1, -1], abs=0.02)
    assert values_of(found, "P1-X11.floor") == pytest.approx([1] * 6, abs=0.06)
    assert values_of(found, "P1-C27.floor") == pytest.approx([0.1, 0.1], rel=0.06)  # 1 − momentum
    assert values_of(found, "P1-C26.floor") == pytest.approx([0.0989, 0.0989], rel=0.06)  # 10 over 101.1
    assert set(found) == {key for key, test in load_paper("P1").tests.items() if test.by == "convergence"}
    assert {name: len(rows) for name, rows in convergence.tables(resting).items()} == {
        "convergence": 9,
        "convergence_floor": 6,
    }


def test_without_noise_no_sum_grows_once_the_start_is_forgotten(resting: convergence.ConvergenceResult) -> None:
    config = resting.config
    steps = config.at(0.9)
    assert steps.tolist() == [[750, 1500, 3000], [750, 1500, 3000], [75, 150, 300]]
    sums = resting.falling * steps[:, None]
    slowest = (1 - config.lr * min(config.curvatures)) ** (2 * config.horizons[0])
    grown = sums[..., 1] / sums[..., 0] - 1
    assert resting.falling.shape == (3, 60, 3)
    assert (grown[Arm.PLAIN] >= 0).all()
    assert (grown[Arm.PLAIN] < 2 * slowest).all()
    assert {convergence.falls(resting, arm).insufficient for arm in (Arm.HEAVY, Arm.AVERAGED)} == {""}


def test_without_momentum_the_theorems_are_not_asked(resting: convergence.ConvergenceResult) -> None:
    still = convergence.estimates(replace(resting, lab=replace(SMALL, momentum=0.0)))
    assert set(still) == {"P1-X11.floor"}
    assert momentous("P1", "convergence") == {"P1-C26.falls", "P1-C26.floor", "P1-C27.falls", "P1-C27.floor"}

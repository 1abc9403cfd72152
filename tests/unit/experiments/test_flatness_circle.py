"""Leaving the sharp ring: experiments with the quadratic–circle sum, shrunk."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine.probes import FirstPassage
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.flatness import circle, crossover, phase
from descent.experiments.flatness.circle import CIRCLE, RingsResult
from descent.experiments.flatness.crossover import CROSSOVER, FAR, Crossover, CrossoverResult
from descent.experiments.flatness.hyperbola import Continuum
from descent.experiments.flatness.leaving import Cell, leave
from descent.experiments.flatness.phase import PHASE
from descent.experiments.lab import Experiment, Lab
from descent.problems.circle import Circle
from descent.results import digest
from descent.runs.perform import perform, undefined
from numpy.testing import assert_allclose

KEYS = set(load_paper("P2").tests)


@pytest.fixture(scope="module")
def rings() -> RingsResult:
    return circle.run(replace(CIRCLE.small, steps=1000, stated=1000, horizons=(250, 1000)), Lab(replicas=100))


@pytest.fixture(scope="module")
def momenta() -> CrossoverResult:
    return crossover.run(replace(CROSSOVER.small, momentum=(), steps=1000, arms=12), Lab(replicas=120))


def test_one_run_is_what_the_recursion_says() -> None:
    """Against a loop over single steps in plain numbers, until each run leaves."""
    lr, batch, steps, start = 2.4, 2, 300, 1e-3
    found = leave(Lab(seed=3), 40, Circle(), [Cell(batch)], np.array([[lr]]), start, steps)
    streams, law = Streams(replica_seeds(3, 40), torch.float64), Circle().weights
    position, left = np.full(40, 10 - start), np.full(40, -1)
    for step in range(steps):
        weights = law.batch_mean(streams, step, batch).numpy()
        far = np.abs(position)
        slope = np.where((far - 10) ** 2 * 10 < far**2, 10 * (far - 10), far) * np.sign(position)
        position -= lr / 10 * weights * slope
        gone = (np.abs(position) < 7.597469) & (left < 0) & ((step + 1) % 10 == 0)
        left[gone] = step + 1
    assert 3 < (left > 0).sum() < 37
    assert_allclose(found.basin[0, :, 0], left)


def test_cells_do_not_disturb_each_other() -> None:
    cells, lr = [Cell(1), Cell(4, 0.5), Cell(None)], np.array([[1.5, 2.5], [1.9, 2.2], [1.9, 2.1]])
    together = leave(Lab(), 20, Circle(jitter=0.1), cells, lr, 1e-3, 300)
    for i, cell in enumerate(cells):
        alone = leave(Lab(), 20, Circle(jitter=0.1), [cell], lr[i : i + 1], 1e-3, 300)
        assert np.array_equal(alone.basin[0], together.basin[i])
        assert np.array_equal(alone.neighbourhood[0], together.neighbourhood[i])
    assert together.curve(None).at(2.1).all()
    with pytest.raises(KeyError, match="no runs with batch size 3 and momentum"):
        together.curve(3, 0.5)


def test_tangential_jitter_changes_nothing() -> None:
    """Runs in the plane, with jitter along the ring too, leave as often as those on a line."""
    lr, steps, count = 1.45, 600, 800
    line = leave(Lab(), count, Circle(jitter=0.1), [Cell(1)], np.array([[lr]]), 1e-3, steps).curve(1).share[0]
    plane = Circle(jitter=0.1, batch_size=1)
    start = torch.tensor([[10.0, 0.0]]).expand(count, -1)
    streams = Streams(replica_seeds(1, count))
    out = FirstPassage(plane.in_bowl, 10)
    times = train(plane, start, repeat(sgd(lr / 10), count), steps, streams, probes={"out": out}).records["out"].values
    assert 0.2 < line < 0.8
    assert float((times >= 0).double().mean()) == pytest.approx(line, abs=4 * math.sqrt(0.5 / count))


def test_the_neighbourhood_is_left_before_the_basin(rings: RingsResult) -> None:
    for k in rings.config.batch_sizes:
        near, basin = rings.jitter.curve(k, near=True), rings.jitter.curve(k)
        assert (near.left >= basin.left).all()
    assert rings.jitter.curve(1, near=True).share.mean() > rings.jitter.curve(1).share.mean() + 0.05


def test_full_descent_leaves_where_its_growth_takes_it_to_the_boundary(rings: RingsResult) -> None:
    config = rings.config
    exact_step = 1 + (config.circle.room / config.starts[0]) ** (1 / config.steps)
    found, scanned = rings.c50(rings.jitter, None), rings.jitter.curve(None).lr
    assert found.value == pytest.approx(exact_step, abs=float(np.diff(scanned[1:]).max()))
    assert found.low == found.high


def test_jitter_orders_the_batch_sizes_and_exact_noise_reverses_them(rings: RingsResult) -> None:
    found = circle.estimates(rings)
    assert set(found) <= KEYS
    rises = found["P2-C9.jitter"]
    assert isinstance(rises, list)
    assert all(rise.low > 1 for rise in rises)
    assert found["P2-C9.exact"].high < 1  # type: ignore[union-attr]
    assert found["P2-C1.jitter"].low > 0.8 > -0.5 > found["P2-C1.exact"].high  # type: ignore[union-attr]
    assert found["P2-X8.circle"].low > 1.1  # type: ignore[union-attr]
    assert found["P2-X8.undone"].high < 0.85  # type: ignore[union-attr]


def test_rules_over_every_cell_are_given_every_cell(rings: RingsResult) -> None:
    found = circle.estimates(rings)
    counts = {key: len(one) for key, one in found.items() if isinstance(one, list)}
    assert counts == {
        "P2-C3.moderate_first": 2, "P2-C3.small_first": 2, "P2-C9.jitter": 4, "P2-C14.large": 3, "P2-C14.small": 4,
        "P2-C14.large_first": 4, "P2-C14.small_first": 6, "P2-X3.rule": 5, "P2-X3.horizons": 5,
    }  # fmt: skip
    early, late = found["P2-C3.small_first"]  # type: ignore[misc]
    assert early.value > late.value > 1
    assert late == found["P2-C3.small"] == rings.over_edge(1)
    assert early == rings.over_edge(1, 250)


def test_runs_that_all_leave_where_full_descent_stays_are_a_share(rings: RingsResult) -> None:
    lr = circle.JITTER_STEP
    gone = rings.jitter.curve(1)
    times = np.where(gone.lr == lr, 1, rings.jitter.basin)
    times[rings.jitter.cells.index(Cell(None))] = -1
    found = rings.gap(replace(rings.jitter, basin=times), lr)
    assert found.value == found.high == 1
    assert found.low == pytest.approx(0.025 ** (1 / 100))
    assert not found.insufficient


def test_the_mirrored_sum_gives_its_bowl_up_at_the_same_step(rings: RingsResult) -> None:
    for k in (4, 32):
        ring, bowl = (rings.c50(found, k).value for found in (rings.jitter, rings.mirror))
        assert bowl == pytest.approx(ring, rel=0.03)


def test_more_iterations_lower_the_step_runs_can_stand(rings: RingsResult) -> None:
    for k in rings.config.followed:
        assert rings.c50(rings.jitter, k, steps=250).value > rings.c50(rings.jitter, k, steps=1000).value
        assert rings.rule(k, 250) > rings.rule(k, 1000)


def test_claims_are_stated_after_a_number_of_iterations_of_their_own(rings: RingsResult) -> None:
    early = replace(rings, config=replace(rings.config, stated=250))
    assert early.c50(early.jitter, 4) == rings.c50(rings.jitter, 4, steps=250)
    assert early.c50(early.jitter, 4).value > rings.c50(rings.jitter, 4).value


def test_tables_of_the_circle(rings: RingsResult) -> None:
    tables = circle.tables(rings)
    assert len(tables["circle_c50"]) == 8 + 3 + 8
    assert (tables["circle_c50"]["low"] <= tables["circle_c50"]["high"]).all()
    assert len(tables["circle_horizons"]) == 6
    assert tables["circle_curves"]["left_basin"].between(0, 1).all()


def test_momentum_tolerates_less_below_the_crossover_and_more_above(momenta: CrossoverResult) -> None:
    found = crossover.estimates(momenta)
    assert set(found) == {f"P2-X5.{key}" for key in ("small_batch", "full_batch", "crossover", "threshold", "matched")}
    assert set(found) <= KEYS
    assert found["P2-X5.small_batch"].high < 0.4  # type: ignore[union-attr]
    assert found["P2-X5.full_batch"].low > 1.8  # type: ignore[union-attr]
    assert 0.4 < found["P2-X5.crossover"].value < 1.2  # type: ignore[union-attr]
    matched = found["P2-X5.matched"]
    assert len(matched) == len(momenta.batch_sizes)  # type: ignore[arg-type]
    assert min(one.low for one in matched) > 1.5  # type: ignore[union-attr]
    assert momenta.c50(Cell(FAR, 0.9)).value == pytest.approx(3.54, rel=0.05)
    table = crossover.tables(momenta)["momentum_c50"]
    assert_allclose(table["ratio"][table["momentum"] == 0], 1)


def test_the_batch_sizes_follow_the_headline_momentum() -> None:
    assert Crossover().around(0.9) == (7, 11, 19, 32)
    assert Crossover().around(0.5) == (1, 2, 3, 5)
    assert Lab(momentum=0.5).momenta(Crossover().momentum) == (0.0, 0.5)
    assert Lab(momentum=0.0).momenta(Crossover().momentum) == (0.0, 0.5)


def test_without_headline_momentum_everything_is_compared_with_itself() -> None:
    found = crossover.estimates(crossover.run(replace(CROSSOVER.small, steps=500), Lab(replicas=96, momentum=0.0)))
    same = [found[f"P2-X5.{key}"] for key in ("small_batch", "full_batch", "crossover")]
    same += found["P2-X5.matched"]  # type: ignore[arg-type]
    assert {(one.low, one.value, one.high) for one in same} == {(1.0, 1.0, 1.0)}  # type: ignore[union-attr]
    tests = {test.key: test for claim in load_paper("P2").claims if claim.id == "P2-X5" for test in claim.tests}
    assert all(undefined(test, Lab(momentum=0.0)) and not undefined(test, Lab()) for test in tests.values())


def test_the_map_fills_up_between_the_right_thresholds() -> None:
    config = replace(PHASE.small, batch_sizes=(1, 4, 64), steps=1000)
    found = phase.run(config, Lab(replicas=1000))
    jitter, clean = (found.share(noise) for noise in phase.NOISES)
    lr, law = np.array(config.lr), config.circle.weights
    for row, k in enumerate(config.batch_sizes):
        edges = [phase.threshold(law, k, alpha) for alpha in phase.ALPHAS]
        assert edges == sorted(edges)
        assert (jitter[row, lr < 0.95 * edges[0]] < 0.1).all()
        assert (clean[row, lr < edges[1]] < 0.1).all()
        assert (clean[row, lr > 1.07 * edges[2]] > 0.9).all()
    assert (jitter[0, (lr > 1.7) & (lr < 2.2)] > 0.9).all()
    assert (clean[0, (lr > 1.7) & (lr < 2.2)] < 0.3).all()
    tables = phase.tables(found)
    assert len(tables["phase_map"]) == 2 * 3 * len(lr)
    assert phase.estimates(found) == {}


@pytest.mark.parametrize("item", [CIRCLE, CROSSOVER, PHASE])
def test_configurations_differ_by_scale_and_agree_on_the_sum(item: Experiment[Any, Any]) -> None:
    cpu, paper = item.small, item.large
    assert digest(cpu) != digest(paper)
    assert cpu.circle.radius == paper.circle.radius == 10
    assert Lab(replicas=2).count(cpu.replicas) == 32
    assert Lab().count(paper.replicas) > Lab().count(cpu.replicas)
    with pytest.raises(FrozenInstanceError):
        cpu.steps = 3


def test_stronger_momentum_is_given_the_time_it_takes_and_too_strong_one_refused() -> None:
    steps = {m: (Crossover().patience(m), Continuum().patience(m)) for m in (0.9, 0.95, 0.98, 0.99)}
    assert steps == {0.9: (2000, 4000), 0.95: (2000, 4000), 0.98: (5000, 4000), 0.99: (10_000, 8000)}
    with pytest.raises(ValueError, match=r"momentum must be at most 0\.99 .* leave too slowly with 0\.999"):
        perform(CROSSOVER, Lab(momentum=0.999))

"""Selection along the hyperbola of minimisers, shrunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine import sgd
from descent.experiments.flatness import hyperbola
from descent.experiments.flatness.hyperbola import EDGE, HYPERBOLA, ContinuumResult, Fate
from descent.experiments.lab import Lab
from descent.figures import flatness as figures
from descent.problems.hyperbola import Hyperbola
from descent.results import digest
from numpy.testing import assert_allclose

SMALL = replace(HYPERBOLA.small, batch_sizes=(1, 4, None), jittered=(1,), jitter_replicas=300, steps=1500)


@pytest.fixture(scope="module")
def result() -> ContinuumResult:
    return hyperbola.run(SMALL, Lab(replicas=200))


def test_full_descent_never_stays_beyond_the_edge_and_small_batches_do(result: ContinuumResult) -> None:
    assert result.arm(None).kept.max() < EDGE
    assert result.arm(4).kept.max() > EDGE
    assert (result.flow > EDGE).mean() > 0.1  # where no step size would matter


def test_a_little_jitter_takes_the_sharp_tail_away(result: ContinuumResult) -> None:
    assert result.arm(1, jitter=SMALL.jitter).kept.max() < result.arm(1).kept.max()


def test_most_runs_converge_and_momentum_keeps_sharper_ones(result: ContinuumResult) -> None:
    for arm in result.arms:
        assert (arm.fate == Fate.CONVERGED).mean() > 0.75
    momentum = max(result.momentum)
    assert np.quantile(result.arm(None, momentum).kept, 0.99) > 1.5 * np.quantile(result.arm(None).kept, 0.99)


def test_dropping_runs_that_are_over_changes_none_of_them() -> None:
    """Against one uninterrupted run of all starts."""
    arms, problem = Lab(seed=2).arms(sgd(0.1), 60, torch.float64), Hyperbola(batch_size=4)
    end, fate = hyperbola.follow(replace(SMALL, stride=30), problem, arms, 300)
    whole = arms.run(problem, 3 * arms.streams.normal(0, 0, (2,)), 300, check=10)
    assert {Fate.CONVERGED, Fate.INFINITE} <= set(fate.tolist())
    assert np.array_equal(fate.numpy() == Fate.INFINITE, whole.lost[0])
    kept = fate != Fate.INFINITE
    assert_allclose(end[kept].numpy(), whole.params[kept].numpy(), atol=1e-9)  # type: ignore[index]


def test_estimates_and_tables(result: ContinuumResult) -> None:
    found = hyperbola.estimates(result)
    known = set(load_paper("P2").tests)
    assert set(found) == {"P2-X8.hyperbola"} <= known
    one, full = result.arm(1).kept, result.arm(None).kept
    assert found["P2-X8.hyperbola"].value == pytest.approx((one > EDGE).mean() - (full > EDGE).mean())
    table = hyperbola.tables(result)["hyperbola"]
    assert_allclose(table[["converged", "infinite", "moving"]].sum(axis=1), 1)
    assert (table["q50_low"] <= table["q50"]).all()
    assert (table["q90"] <= table["q90_high"]).all()
    assert (table["q99"] <= table["largest"]).all()


def test_figure_draws_the_tails_and_the_sharpest_per_cent(result: ContinuumResult) -> None:
    tails, top = figures.continuum(result).axes
    assert_allclose(tails.lines[0].get_xdata(), np.sort(result.arm(None).kept))
    assert top.lines[0].get_ydata()[0] == np.quantile(result.arm(1).kept, 0.99)  # type: ignore[index]


def test_without_headline_momentum_there_is_one_column() -> None:
    config = replace(HYPERBOLA.small, batch_sizes=(1, None), jittered=(), steps=400)
    found = hyperbola.run(config, Lab(replicas=20, momentum=0.0))
    assert [arm.momentum for arm in found.arms] == [0.0, 0.0]
    assert (found.arm(None).fate != Fate.MOVING).mean() > 0.9
    with pytest.raises(KeyError, match="no arm"):
        found.arm(1, 0.9)


def test_configurations() -> None:
    cpu, paper = HYPERBOLA.small, HYPERBOLA.large
    assert Lab().count(cpu.replicas) == 10_000
    assert Lab(replicas=7).count(cpu.jitter_replicas) == Lab(replicas=7).count(cpu.replicas) // 5
    assert len({digest(cpu), digest(paper), digest(replace(cpu, effective=0.2))}) == 3

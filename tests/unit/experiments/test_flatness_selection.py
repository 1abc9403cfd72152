"""Selection of one minimiser in 1024 on a Styblinski–Tang sum, shrunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.claims import load_paper
from descent.experiments.flatness import selection
from descent.experiments.flatness.selection import (
    BELOW_LR,
    EXPONENTIAL,
    HEAD,
    HEAD_LR,
    JITTER,
    NARROW,
    SELECTION,
    WIDE,
    Grid,
    SelectionResult,
)
from descent.experiments.lab import Lab
from descent.figures import flatness as figures
from descent.problems.styblinski import FLAT, StyblinskiTang
from descent.results import digest
from numpy.testing import assert_allclose

SMALL = replace(
    SELECTION.small,
    grids=(
        Grid(WIDE, 0.0, (BELOW_LR, HEAD_LR), (1, HEAD, None)),
        Grid(WIDE, JITTER, (HEAD_LR,), (1, 2, HEAD)),
        Grid(EXPONENTIAL, 0.0, (HEAD_LR,), (1,)),
    ),
    steps=2000,
)


@pytest.fixture(scope="module")
def result() -> SelectionResult:
    return selection.run(SMALL, Lab(replicas=64))


def test_the_right_batch_finds_the_flattest_minimiser_and_full_descent_does_not(result: SelectionResult) -> None:
    assert result.arm(HEAD).chosen.value > 0.8
    assert result.arm(None).chosen.value == 0
    assert result.arm(1).chosen.value < 0.4
    assert result.arm(HEAD, BELOW_LR).chosen.value == 0


def test_it_is_the_highest_minimiser(result: SelectionResult) -> None:
    arm = result.arm(HEAD)
    assert arm.share[-1] > 0.95
    assert arm.loss[-1] > result.arm(None).loss[-1] + 20
    assert arm.loss[-1] == pytest.approx(10 * FLAT.value, abs=8)
    assert arm.loss.argmin() * SMALL.look < 500


def test_jitter_lets_every_smaller_batch_succeed(result: SelectionResult) -> None:
    for k in (1, 2, HEAD):
        assert result.arm(k, jitter=JITTER).chosen.value > 0.8


def test_who_settles_is_in_the_basin_and_who_is_lost_is_in_neither(result: SelectionResult) -> None:
    for arm in result.arms:
        assert not (arm.settled & ~arm.flattest).any()
        assert not (arm.flattest & arm.lost).any()
    assert result.arm(1, weights=EXPONENTIAL).lost.mean() > 0.3


def test_estimates_and_tables(result: SelectionResult) -> None:
    found = selection.estimates(result)
    known = set(load_paper("P2").tests)
    assert set(found) <= known
    assert found["P2-C1.styblinski"].value == result.arm(HEAD).chosen.value
    assert found["P2-C15.jitter"] == [result.arm(k, jitter=JITTER).chosen for k in (1, 2, HEAD)]
    tables = selection.tables(result)
    assert len(tables["selection"]) == len(result.arms) == 10
    assert len(tables["selection_paths"]) == 3 * len(result.steps)
    assert np.isfinite(tables["selection_paths"].select_dtypes("number")).all().all()


def test_figures_draw_the_arms(result: SelectionResult) -> None:
    share, loss = figures.selection(result).axes
    assert_allclose(share.lines[1].get_ydata(), result.arm(HEAD).share)
    assert_allclose(loss.lines[2].get_ydata(), result.arm(None).loss)
    jitter, _ = figures.selection_controls(result).axes
    assert jitter.lines[0].get_ydata()[1] == result.arm(HEAD).chosen.value  # type: ignore[index]


def test_a_missing_arm_is_named(result: SelectionResult) -> None:
    with pytest.raises(KeyError, match="add it to the grids"):
        result.arm(16)


def test_configurations_and_what_the_controls_are() -> None:
    cpu, paper = SELECTION.small, SELECTION.large
    assert len({digest(cpu), digest(paper), digest(replace(cpu, radius=0.2))}) == 3
    assert Lab().count(cpu.replicas) >= 300
    narrow = next(grid for grid in cpu.grids if grid.weights == NARROW)
    assert StyblinskiTang(NARROW).lyapunov(narrow.lr[0], 1).sharp > 0  # gives the sharp well up, yet never hops
    assert all(HEAD_LR in grid.lr for grid in cpu.grids)

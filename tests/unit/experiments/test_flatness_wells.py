"""Outcomes at both wells of a Styblinski–Tang sum, shrunk."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from descent.arrays import Array
from descent.claims import load_paper
from descent.engine import column, every, sgd
from descent.experiments.flatness import wells
from descent.experiments.flatness.wells import (
    ABOVE,
    HEAD,
    INFINITE,
    INSIDE,
    LEFT,
    OUTCOMES,
    RIGHT,
    SETTLED_FLAT,
    SETTLED_SHARP,
    WELLS,
    WellsResult,
)
from descent.experiments.lab import Lab
from descent.figures import flatness as figures
from descent.problems.styblinski import FLAT, SHARP, StyblinskiTang, crisis, cycle
from descent.results import digest
from numpy.testing import assert_allclose

SMALL = replace(WELLS.small, multiples=(0.9, INSIDE, ABOVE, 1.6), steps=2500)


@pytest.fixture(scope="module")
def result() -> WellsResult:
    return wells.run(SMALL, Lab(replicas=80))


def share(result: WellsResult, k: int | None, multiple: float, *outcomes: int) -> float:
    return result.share(k, multiple, *outcomes).value


def test_outcomes_are_told_apart() -> None:
    close = [FLAT.x, FLAT.x + 0.05, FLAT.x]
    paths = np.array([[SHARP.x] * 3, close, [-3.2, -2.5, -3.2], [2.2, 3.1, 2.3], [np.nan] * 3])
    lost = np.array([False] * 4 + [True])
    assert wells.classify(paths, lost, 0.1).tolist() == [SETTLED_SHARP, SETTLED_FLAT, LEFT, RIGHT, INFINITE]


def test_a_visit_to_a_minimiser_is_not_settling() -> None:
    path = np.array([[FLAT.x, FLAT.x, SHARP.x], [SHARP.x, SHARP.x, SHARP.x + 0.2]])
    assert wells.classify(path, np.zeros(2, dtype=bool), 0.1).tolist() == [LEFT, LEFT]


def test_below_the_threshold_runs_stay_at_either_well(result: WellsResult) -> None:
    for k in SMALL.batch_sizes:
        assert share(result, k, 0.9, SETTLED_SHARP) == 1
        cell = SMALL.cell(k, 0.9)
        assert (result.outcome[(*cell, 1)] == SETTLED_FLAT).all()


def test_small_batches_find_the_flat_well_and_full_descent_does_not(result: WellsResult) -> None:
    assert share(result, HEAD, ABOVE, SETTLED_FLAT) > 0.9
    assert share(result, None, ABOVE, SETTLED_FLAT, RIGHT) == 0
    assert share(result, None, ABOVE, LEFT) == 1
    assert share(result, 1, ABOVE, SETTLED_SHARP) == 1  # its log growth is negative although its mean square grows
    assert share(result, HEAD, 1.6, INFINITE) > 0.5


def test_full_descent_is_on_its_exact_cycle(result: WellsResult) -> None:
    row, column = SMALL.cell(None, INSIDE)
    found = cycle(float(SMALL.lr[row, column]))
    assert_allclose(result.band[column], [found.low, found.high], atol=1e-9)
    assert result.returns[row, column, 0].max() < 1e-9
    doubled = SMALL.cell(None, ABOVE)
    assert result.returns[(*doubled, 0)].min() > 0.1
    assert SMALL.lr[row, -1] < crisis()


def test_estimates_and_tables(result: WellsResult) -> None:
    found = wells.estimates(result)
    known = set(load_paper("P2").tests)
    assert set(found) <= known
    assert found["P2-C13.descent"].value == found["P2-C13.descent_first"].value == 0
    assert found["P2-X7.cycle"].value == 1
    assert found["P2-X7.cycle_first"].value == 0  # the period has doubled there
    assert found["P2-X7.cycle"].low == pytest.approx(0.025 ** (1 / 40))
    assert found["P2-X7.kept_basin"].value == found["P2-X7.left_minimiser"].value == 1
    tables = wells.tables(result)
    outcomes = tables["styblinski_outcomes"]
    assert len(outcomes) == len(SMALL.batch_sizes) * len(SMALL.multiples) * 2
    assert_allclose(outcomes[list(OUTCOMES)].sum(axis=1), 1)
    assert np.isfinite(tables["styblinski_cycles"]).all().all()


def test_every_run_is_drawn_once(result: WellsResult) -> None:
    figure = figures.outcomes(result)
    assert [axis.get_title(loc="left")[:3] for axis in figure.axes] == ["(a)", "(b)", "(c)"]
    for axis in figure.axes:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(len(SMALL.batch_sizes))  # type: ignore[attr-defined]


def test_arms_see_the_same_starts_and_the_same_luck() -> None:
    """One arm of a large stack is that arm alone, number for number."""
    start = torch.linspace(-3, 3, 6, dtype=torch.float64)[:, None]

    def tail(batch_size: int | tuple[int, ...], *lr: float) -> Array:
        arms, problem = Lab().arms(sgd(lr), 6, torch.float64), StyblinskiTang(batch_size=batch_size)
        return wells.release(arms, problem, start, 60, every(10, column(0)))[1]["tail"]

    both, alone = tail((2, 8), 0.03, 0.05, 0.03, 0.05), tail(8, 0.05)
    assert both.shape == (4, 6, 11)
    assert np.array_equal(both[3], alone[0])


def test_configurations() -> None:
    cpu, paper = WELLS.small, WELLS.large
    assert len({digest(cpu), digest(paper), digest(replace(cpu, near=0.01))}) == 3
    assert {INSIDE, ABOVE} <= set(cpu.multiples) & set(paper.multiples)
    with pytest.raises(FrozenInstanceError):
        cpu.near = 3  # type: ignore[misc]

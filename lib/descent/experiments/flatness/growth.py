"""Growth per step on random quadratics, below, at and above the exact threshold: of the mean square and of single runs.

The mean square is measured by resampling (see `measure.growth`), single runs on the same random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from descent.engine import Purpose, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.growth import Descent, Growth, resampled_growth
from descent.problems.quadratics import FOUR_ATOMS, Atoms, sampled, single_growth
from descent.stats import Estimate, mean
from descent.theory.moments import Gaussian, Weighted, growth_rate, threshold

ATOMS, FEATURES, WEIGHTS = "four atoms", "Gaussian features", "exponential weights"


@dataclass(frozen=True)
class Case:
    """An ensemble at several batch sizes, each at the same multiples of its own threshold."""

    name: str
    problem: Atoms | Gaussian | Weighted
    batch_sizes: tuple[int, ...]
    replicas: Share
    momentum: float = 0.0

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.problem[0] if isinstance(self.problem, tuple) else self.problem.spectrum)

    def single_runs(self, lr: float, batch_size: int) -> float | None:
        """Return the exact growth of single runs, where one is known."""
        return None if self.momentum else single_growth(self.problem, lr, batch_size)


def ensembles(scale: int, many: tuple[int, ...], few: tuple[int, ...], dimension: int) -> tuple[Case, ...]:
    """Return the cases of plain descent, most replicas where the squared growth of one step varies most."""
    return (
        Case(ATOMS, FOUR_ATOMS, many, Share(2 * scale)),
        Case(FEATURES, Gaussian((1.0,) * dimension), few, Share(scale)),
        Case(WEIGHTS, Weighted(), few, Share(6 * scale)),
    )


@dataclass(frozen=True)
class Rates:
    """Ensembles × batch sizes × multiples of the threshold; `burn` of the steps forget the start."""

    cases: tuple[Case, ...] = ensembles(1, (1, 2, 4, 8, 32), (1, 4, 32), 10)
    strong: Case = Case(ATOMS, FOUR_ATOMS, (1, 8, 32), Share())  # run with the headline momentum
    multiples: tuple[float, ...] = (0.5, 0.9, 1.0, 1.1, 1.5)
    steps: int = 300
    burn: int = 50


@dataclass(frozen=True, eq=False)
class Cell:
    """One ensemble at one batch size and step: exact growth of the mean square (and of single runs), and measured."""

    case: Case
    batch_size: int
    multiple: float
    lr: float
    exact: float
    exact_single: float | None
    growth: Growth

    @property
    def deviation(self) -> Estimate:
        """Measured minus exact growth of the mean square."""
        return mean(self.growth.blocks - self.exact)


@dataclass(frozen=True, eq=False)
class RatesResult(Result[Rates]):
    """All cells, in the order of the cases, their batch sizes and the multiples."""

    cases: tuple[Case, ...]
    cells: tuple[Cell, ...]

    def of(self, name: str, momentum: float = 0.0) -> list[Cell]:
        """Return the cells of one ensemble."""
        return [cell for cell in self.cells if (cell.case.name, cell.case.momentum) == (name, momentum)]


def run(config: Rates, lab: Lab) -> RatesResult:
    """Measure every cell; all cells of a case share their random numbers."""
    moving = lab.momenta(())[1:]  # none where the headline is plain descent
    cases, cells = (*config.cases, *(replace(config.strong, momentum=momentum) for momentum in moving)), []
    for case in cases:
        edges = ((k, threshold(case.problem, k, case.momentum)) for k in case.batch_sizes)
        places = [(k, multiple, multiple * edge) for k, edge in edges for multiple in config.multiples]
        arms = lab.arms(heavy_ball([lr for *_, lr in places], case.momentum), case.replicas, torch.float64)
        step = Descent(sampled(case.problem, case.batch_sizes), arms.hyper, arms.streams)
        start = step.state(arms.streams.normal(Purpose.INIT, 0, (case.dimension,)))
        grown = resampled_growth(step, start, config.steps, arms.streams, arms=len(arms), burn=config.burn)
        for (k, multiple, lr), growth in zip(places, grown, strict=True):
            exact = growth_rate(case.problem, lr, k, case.momentum)
            cells.append(Cell(case, k, multiple, lr, exact, case.single_runs(lr, k), growth))
    return RatesResult(config, lab, cases, tuple(cells))


def estimates(result: RatesResult) -> Estimates:
    """Return what plain descent says about P2-C4, P2-C5 and P2-C8."""
    plain = [cell for cell in result.cells if not cell.case.momentum]
    return {
        "P2-C4.rate": [cell.deviation for cell in plain if cell.multiple < 1],
        "P2-C5.rate": [cell.deviation for cell in plain if cell.multiple > 1],
        "P2-C8.collapse": [cell.deviation for cell in plain if cell.multiple == 1],
    }


def tables(result: RatesResult) -> Tables:
    """Return measured and exact growth, one row per cell."""
    cells, cases = result.cells, [cell.case for cell in result.cells]
    frame = tidy(
        {"ensemble": [case.name for case in cases]}, dimension=[case.dimension for case in cases],
        momentum=[case.momentum for case in cases], batch_size=[cell.batch_size for cell in cells],
        over_threshold=[cell.multiple for cell in cells], lr=[cell.lr for cell in cells],
        exact=[cell.exact for cell in cells], value=[cell.growth.mean_square for cell in cells],
        single=[cell.growth.lyapunov for cell in cells],
        single_exact=np.array([cell.exact_single for cell in cells], dtype=np.float64),
    )  # fmt: skip
    return {"growth_rates": frame.rename(columns={"value": "mean_square", "single": "single_runs"})}


GROWTH = Experiment(
    "growth", small=Rates(), run=run, estimates=estimates, tables=tables,
    large=Rates(
        ensembles(30, (1, 2, 4, 8, 16, 32, 64), (1, 4, 32, 256, 1000), 50),
        strong=Case(ATOMS, FOUR_ATOMS, (1, 8, 32), Share(30)),
    ),
)  # fmt: skip

"""Growth per step on random quadratics, below, at and above the exact threshold: of the mean square and of single runs.

The mean square is measured by resampling (see `measure.growth`), single runs on the same random numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from pandas import DataFrame

from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Objective
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.growth import Descent, Growth, resampled_growth
from descent.problems.exponents import Features
from descent.problems.quadratics import (
    FOUR_ATOMS,
    Ensemble,
    Gaussian,
    GaussianFeatures,
    RandomWeights,
    Weighted,
    growth_rate,
    threshold,
)
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean
from descent.theory.weights import Gamma, lyapunov

Atoms = tuple[tuple[float, ...], ...]

ATOMS, FEATURES, WEIGHTS = "four atoms", "Gaussian features", "exponential weights"


@dataclass(frozen=True)
class Case:
    """An ensemble at several batch sizes, each at the same multiples of its own threshold."""

    name: str
    problem: Atoms | Gaussian | Weighted
    batch_sizes: tuple[int, ...]
    replicas: int
    momentum: float = 0.0

    @property
    def objective(self) -> Objective:
        """What is descended, one block of replicas per batch size."""
        if isinstance(self.problem, Gaussian):
            return GaussianFeatures(self.problem.spectrum, self.batch_sizes)
        if isinstance(self.problem, Weighted):
            return RandomWeights(Gamma(1 / self.problem.variance), self.problem.spectrum, self.batch_sizes)
        return Ensemble(self.problem, self.batch_sizes)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.problem[0] if isinstance(self.problem, tuple) else self.problem.spectrum)

    def single_runs(self, lr: float, batch_size: int) -> float | None:
        """Return the exact growth of single runs, where one is known: one direction, or equally curved ones."""
        if self.momentum or isinstance(self.problem, tuple) or len(set(self.problem.spectrum)) > 1:
            return None
        law = Features(self.dimension) if isinstance(self.problem, Gaussian) else Gamma(1 / self.problem.variance)
        return lyapunov(law, lr * self.problem.spectrum[0], batch_size)


@dataclass(frozen=True)
class Rates:
    """Ensembles × batch sizes × multiples of the threshold; `burn` of the steps forget the start."""

    cases: tuple[Case, ...]
    seed: int
    device: str
    multiples: tuple[float, ...] = (0.5, 0.9, 1.0, 1.1, 1.5)
    steps: int = 300
    burn: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Rates:
        """Take most replicas where the squared growth of one step varies most: weights in one direction."""
        return cls._of(settings, 1, (1, 2, 4, 8, 32), (1, 4, 32), 10)

    @classmethod
    def paper(cls, settings: Settings) -> Rates:
        """Take thirty times the replicas, larger batches, fifty dimensions."""
        return cls._of(settings, 30, (1, 2, 4, 8, 16, 32, 64), (1, 4, 32, 256, 1000), 50)

    @classmethod
    def _of(cls, settings: Settings, scale: int, many: tuple[int, ...], few: tuple[int, ...], d: int) -> Rates:
        count = scale * settings.replicas
        cases = [
            Case(ATOMS, FOUR_ATOMS, many, 2 * count),
            Case(FEATURES, Gaussian((1.0,) * d), few, count),
            Case(WEIGHTS, Weighted(), few, 6 * count),
        ]
        if settings.momentum:
            cases.append(Case(ATOMS, FOUR_ATOMS, (1, 8, 32), count, settings.momentum))
        return cls(tuple(cases), settings.seed, settings.device)


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
class RatesResult:
    """All cells, in the order of the cases, their batch sizes and the multiples."""

    config: Rates
    cells: tuple[Cell, ...]
    seconds: float

    def of(self, name: str, momentum: float = 0.0) -> list[Cell]:
        """Return the cells of one ensemble."""
        return [cell for cell in self.cells if (cell.case.name, cell.case.momentum) == (name, momentum)]


def run(config: Rates) -> RatesResult:
    """Measure every cell; all cells of a case share their random numbers."""
    clock = time.perf_counter()
    cells = [cell for case in config.cases for cell in _measure(case, config)]
    return RatesResult(config, tuple(cells), time.perf_counter() - clock)


def _measure(case: Case, config: Rates) -> Iterable[Cell]:
    edges = {k: threshold(case.problem, k, case.momentum) for k in case.batch_sizes}
    arms = [(k, multiple, multiple * edges[k]) for k in case.batch_sizes for multiple in config.multiples]
    seeds = replica_seeds(config.seed, case.replicas, config.device).repeat(len(arms))
    streams = Streams(seeds, torch.float64)
    rule = repeat(heavy_ball([lr for *_, lr in arms], case.momentum), case.replicas).to(config.device)
    step = Descent(case.objective, rule, streams)
    start = step.state(streams.normal(Purpose.INIT, 0, (case.dimension,)))
    grown = resampled_growth(step, start, config.steps, streams, arms=len(arms), burn=config.burn)
    for (k, multiple, lr), growth in zip(arms, grown, strict=True):
        exact = growth_rate(case.problem, lr, k, case.momentum)
        yield Cell(case, k, multiple, lr, exact, case.single_runs(lr, k), growth)


def worst(cells: Iterable[Cell]) -> Estimate:
    """Return the difference between measured and exact growth that is largest in size."""
    return max((cell.deviation for cell in cells), key=lambda e: abs(e.value))


def estimates(result: RatesResult) -> Estimates:
    """Return what plain descent says about P2-C4, P2-C5 and P2-C8."""
    plain = [cell for cell in result.cells if not cell.case.momentum]
    return {
        "P2-C4.rate": worst(cell for cell in plain if cell.multiple < 1),
        "P2-C5.rate": worst(cell for cell in plain if cell.multiple > 1),
        "P2-C8.collapse": worst(cell for cell in plain if cell.multiple == 1),
    }


def tables(result: RatesResult) -> dict[str, DataFrame]:
    """Return measured and exact growth, one row per cell."""
    return {"growth_rates": DataFrame([_row(cell) for cell in result.cells])}


def _row(cell: Cell) -> dict[str, object]:
    square, single = cell.growth.mean_square, cell.growth.lyapunov
    return {
        "ensemble": cell.case.name,
        "dimension": cell.case.dimension,
        "momentum": cell.case.momentum,
        "batch_size": cell.batch_size,
        "over_threshold": cell.multiple,
        "lr": cell.lr,
        "exact": cell.exact,
        "mean_square": square.value,
        "low": square.low,
        "high": square.high,
        "single_runs": single.value,
        "single_low": single.low,
        "single_high": single.high,
        "single_exact": cell.exact_single,
    }


GROWTH = Experiment(
    "growth", ("P2-C4", "P2-C5", "P2-C8"), lambda settings: run(configure(Rates, settings)), estimates, tables
)

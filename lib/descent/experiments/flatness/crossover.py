"""Momentum and the step at which a sharp minimiser is given up: less below a crossover batch size, more above it.

C50, η½ in the text, is the step at which half of the runs have left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from descent.arrays import Array
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.flatness.leaving import Cell, Departures, leave
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.thresholds import median_steps
from descent.problems.circle import Circle
from descent.stats import Estimate, exact
from descent.theory.mode import crossover_batch

MODERATE = 0.5
FAR = 256  # batch size at which the threshold with momentum is tested
STRONGEST = 0.99  # headline momentum: with more of it runs leave too slowly to be waited for
MEMORIES = 100  # of 1/(1 − momentum) steps each, within which half of the runs must leave
AROUND = (0.35, 0.6, 1.0, 1.7)  # batch sizes over the predicted crossover at which the crossing is looked for


@dataclass(frozen=True)
class Crossover:
    """Runs with jitter released next to the sharp ring, with several momenta and batch sizes."""

    momentum: tuple[float, ...] = (MODERATE,)  # and none, and the headline
    batch_sizes: tuple[int, ...] = (1, 4, 64, FAR)  # and those around the crossover of the headline, and all
    replicas: Share = Share(over=3, least=32)
    arms: int = 16
    circle: Circle = Circle(jitter=0.1)
    start: float = 1e-3
    steps: int = 2000  # at least: strong momentum is given the time it takes

    def around(self, momentum: float) -> tuple[int, ...]:
        """Return the batch sizes around the crossover of a momentum."""
        return tuple(sorted({max(1, round(share * self.predicted(momentum))) for share in AROUND}))

    def predicted(self, momentum: float) -> float:
        """Return the batch size from which on momentum raises the mean-square threshold at equal step."""
        return float(crossover_batch(1.0, momentum, self.circle.weights.variance))

    def patience(self, momentum: float) -> int:
        """Return how long runs are waited for."""
        return max(self.steps, round(MEMORIES / (1 - momentum)))

    def threshold(self, batch_size: Batch, momentum: float) -> float:
        """Return the exact mean-square threshold, times the sharpness."""
        return self.circle.thresholds(batch_size, momentum).ring * self.circle.sharpness

    def scan(self, cell: Cell) -> Array:
        """Return the steps scanned, times the sharpness, (A,): from the threshold to well above it."""
        low, full = self.threshold(*cell), 2 * (1 + cell.momentum)  # a full batch leaves in time with two per cent
        return np.linspace(0.995 * low, low * (1.02 + min(0.9, 1.2 * (full / low - 1))), self.arms)


def check(config: Crossover, lab: Lab) -> None:
    """Refuse a momentum with which runs leave too slowly to be waited for."""
    if lab.momentum > STRONGEST:
        raise ValueError(
            f"momentum must be at most {STRONGEST} for the experiment crossover, whose runs would leave too slowly "
            f"with {lab.momentum}"
        )


@dataclass(frozen=True, eq=False)
class CrossoverResult(Result[Crossover]):
    """Departures of every momentum and batch size."""

    momentum: tuple[float, ...]
    batch_sizes: tuple[Batch, ...]
    departures: Departures

    def c50(self, *cells: Cell, of: Callable[..., Array] = lambda c: c) -> Estimate:
        """Return a function of the steps at which half of the runs left, times the sharpness, in some cells.

        Full batches draw nothing: what only they enter no seed moves.
        """
        found = median_steps(of, *(self.departures.curve(*cell) for cell in cells), seed=self.lab.seed)
        return (
            exact(found.value) if all(cell.batch_size is None for cell in cells) else found
        )  # full batches draw nothing

    def ratio(self, batch_size: Batch, momentum: float, *, matched: bool = False) -> Estimate:
        """Return C50 with momentum over C50 without, as steps or (`matched`) as effective steps lr/(1 − momentum)."""
        unit = 1 - momentum if matched else 1.0
        return self.c50(Cell(batch_size, momentum), Cell(batch_size), of=lambda a, b: a / unit / b)


def run(config: Crossover, lab: Lab) -> CrossoverResult:
    """Release all runs, every momentum and batch size on the same random numbers."""
    momentum = lab.momenta(config.momentum)
    sizes: tuple[Batch, ...] = (*sorted({*config.batch_sizes, *config.around(lab.momentum)}), None)
    cells = [Cell(k, m) for m in momentum for k in sizes]
    lr, steps = np.stack([config.scan(cell) for cell in cells]), config.patience(lab.momentum)
    found = leave(lab, config.replicas, config.circle, cells, lr, config.start, steps)
    return CrossoverResult(config, lab, momentum, sizes, found)


def crossing(result: CrossoverResult) -> Estimate:
    """Return the batch size at which momentum stops lowering C50 and starts to raise it, over its predicted value.

    The zero of the straight line through the log ratio of C50 against log batch size; the prediction where it is level.
    """
    config, head = result.config, result.lab.momentum
    around = config.around(head)
    sizes = np.log(np.array(around) / config.predicted(head))

    def zero(*steps: Array) -> Array:
        strong, plain = np.split(np.log(np.stack(steps, axis=-1)), 2, axis=-1)
        slope, intercept = np.polyfit(sizes, (strong - plain).T, 1)
        return np.asarray(np.exp(np.divide(-intercept, slope, out=np.zeros_like(slope), where=slope != 0)))

    return result.c50(*(Cell(k, m) for m in (head, 0.0) for k in around), of=zero)


def estimates(result: CrossoverResult) -> Estimates:
    """Return what momentum says about P2-X5."""
    head = result.lab.momentum
    far, edge = Cell(FAR, head), result.config.threshold(FAR, head)
    return {
        "P2-X5.small_batch": result.ratio(1, head),
        "P2-X5.full_batch": result.ratio(None, head),
        "P2-X5.crossover": crossing(result),
        "P2-X5.threshold": result.c50(far, of=lambda c: c / edge),
        "P2-X5.matched": [result.ratio(k, head, matched=True) for k in result.batch_sizes],
    }


def tables(result: CrossoverResult) -> Tables:
    """Return C50, its threshold and its ratio to that of plain descent, one row per momentum and batch size."""
    config, momenta, sizes = result.config, result.momentum, result.batch_sizes
    ratios = [[result.ratio(k, m) for k in sizes] for m in momenta]
    frame = tidy(
        {"momentum": momenta, "batch_size": [batch_name(k) for k in sizes]},
        value=[[result.c50(Cell(k, m)) for k in sizes] for m in momenta],
        mean_square=[[config.threshold(k, m) for k in sizes] for m in momenta],
        ratio=ratios, crossover=[[config.predicted(m)] for m in momenta],
        ratio_matched=[[ratio.value / (1 - m) for ratio in row] for m, row in zip(momenta, ratios, strict=True)],
    )  # fmt: skip
    return {"momentum_c50": frame.rename(columns={"value": "c50"})}


CROSSOVER = Experiment(
    "crossover", small=Crossover(), run=run, estimates=estimates, tables=tables, check=check,
    large=Crossover(
        (0.1, 0.2, 0.3, 0.4, MODERATE, 0.6, 0.7, 0.8, 0.9, 0.95), (1, 2, 4, 8, 16, 32, 64, 128, FAR, 1024),
        replicas=Share(times=5, least=32), arms=40,
    ),
)  # fmt: skip

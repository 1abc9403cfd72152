"""Momentum and the step at which a sharp minimiser is given up: less below a crossover batch size, more above it.

C50, η½ in the text, is the step at which half of the runs have left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.circle import name_of
from descent.experiments.flatness.leaving import Batch, Cell, Departures, leave
from descent.measure.thresholds import median_steps
from descent.problems.circle import Circle
from descent.stats.estimate import Estimate
from descent.theory.mode import crossover_batch

MODERATE = 0.5
FAR = 256  # batch size at which the threshold with momentum is tested
STRONGEST = 0.99  # headline momentum: with more of it runs leave too slowly to be waited for
MEMORIES = 100  # of 1/(1 − momentum) steps each, within which half of the runs must leave
AROUND = (0.35, 0.6, 1.0, 1.7)  # batch sizes over the predicted crossover at which the crossing is looked for


@dataclass(frozen=True)
class Crossover:
    """Runs with jitter released next to the sharp ring, with several momenta and batch sizes."""

    momentum: tuple[float, ...]
    headline: float
    batch_sizes: tuple[Batch, ...]
    replicas: int
    seed: int
    device: str
    arms: int
    circle: Circle = field(default_factory=lambda: Circle(jitter=0.1))
    start: float = 1e-3
    steps: int = 2000

    @classmethod
    def cpu(cls, settings: Settings) -> Crossover:
        """Take a third of the replicas, one momentum beside none and the headline one, 16 steps."""
        return cls._of(settings, (MODERATE,), (1, 4, 64, FAR), settings.replicas // 3, 16)

    @classmethod
    def paper(cls, settings: Settings) -> Crossover:
        """Take five times the replicas, ten momenta, ten batch sizes and 40 steps."""
        momentum = (0.1, 0.2, 0.3, 0.4, MODERATE, 0.6, 0.7, 0.8, 0.9, 0.95)
        return cls._of(settings, momentum, (1, 2, 4, 8, 16, 32, 64, 128, FAR, 1024), 5 * settings.replicas, 40)

    @classmethod
    def _of(
        cls, settings: Settings, momentum: tuple[float, ...], batch_sizes: tuple[int, ...], replicas: int, arms: int
    ) -> Crossover:
        head = settings.momentum
        if head > STRONGEST:
            raise ValueError(
                f"momentum must be at most {STRONGEST} for the experiment crossover, whose runs would leave too slowly "
                f"with {head}"
            )
        sizes: tuple[Batch, ...] = (*sorted({*batch_sizes, *_around(Circle(), head)}), None)
        momenta = tuple(sorted({0.0, *momentum, head}))
        steps = max(cls.steps, round(MEMORIES / (1 - head)))
        return cls(momenta, head, sizes, max(32, replicas), settings.seed, settings.device, arms, steps=steps)

    @property
    def around(self) -> tuple[int, ...]:
        """Batch sizes around the crossover of the headline momentum."""
        return _around(self.circle, self.headline)

    def threshold(self, batch_size: Batch, momentum: float) -> float:
        """Return the exact mean-square threshold, times the sharpness."""
        return self.circle.thresholds(batch_size, momentum).ring * self.circle.sharpness

    def scan(self, cell: Cell) -> Array:
        """Return the steps scanned, times the sharpness, (A,): from the threshold to well above it.

        The room above grows with the distance to the full-batch threshold; two per cent let a full batch leave in time.
        """
        low, full = self.threshold(*cell), 2 * (1 + cell.momentum)
        return np.linspace(0.995 * low, low * (1.02 + min(0.9, 1.2 * (full / low - 1))), self.arms)


def predicted(circle: Circle, momentum: float) -> float:
    """Return the batch size from which on momentum raises the mean-square threshold at equal step."""
    return float(crossover_batch(1.0, momentum, circle.weights.variance))


def _around(circle: Circle, momentum: float) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(share * predicted(circle, momentum))) for share in AROUND}))


@dataclass(frozen=True, eq=False)
class CrossoverResult:
    """Departures of every momentum and batch size."""

    config: Crossover
    departures: Departures
    seconds: float

    def c50(self, batch_size: Batch, momentum: float, over: float = 1.0) -> Estimate:
        """Return the step at which half of the runs left, times the sharpness, over a number."""
        curve = self.departures.curve(batch_size, momentum)
        return median_steps(lambda c: c / over, curve, seed=self.config.seed)

    def ratio(self, batch_size: Batch, momentum: float, *, matched: bool = False) -> Estimate:
        """Return C50 with momentum over C50 without, as steps or (`matched`) as effective steps lr/(1 − momentum)."""
        unit = 1 - momentum if matched else 1.0
        curves = (self.departures.curve(batch_size, m) for m in (momentum, 0.0))
        return median_steps(lambda a, b: a / unit / b, *curves, seed=self.config.seed)


def run(config: Crossover) -> CrossoverResult:
    """Release all runs, every momentum and batch size on the same random numbers."""
    clock = time.perf_counter()
    cells = [Cell(k, m) for m in config.momentum for k in config.batch_sizes]
    lr = np.stack([config.scan(cell) for cell in cells])
    found = leave(config.circle, cells, lr, config.start, config.steps, config.replicas, config.seed, config.device)
    return CrossoverResult(config, found, time.perf_counter() - clock)


def crossing(result: CrossoverResult) -> Estimate:
    """Return the batch size at which momentum stops lowering C50 and starts to raise it, over its predicted value.

    The zero of the straight line through log C50 with momentum over C50 without, against the logarithm of the batch
    size, at the batch sizes around the prediction.
    """
    config = result.config
    sizes = np.log(np.array(config.around) / predicted(config.circle, config.headline))
    curves = [result.departures.curve(k, m) for m in (config.headline, 0.0) for k in config.around]

    def zero(*steps: Array) -> Array:
        strong, plain = np.split(np.log(np.stack(steps, axis=-1)), 2, axis=-1)
        slope, intercept = np.polyfit(sizes, (strong - plain).T, 1)
        return np.asarray(np.exp(-intercept / slope))

    return median_steps(zero, *curves, seed=config.seed)


def estimates(result: CrossoverResult) -> Estimates:
    """Return what momentum says about P2-X5; nothing where the headline momentum is 0."""
    config, head = result.config, result.config.headline
    if head == 0:
        return {}
    matched = [result.ratio(k, head, matched=True) for k in config.batch_sizes]
    return {
        "P2-X5.small_batch": result.ratio(1, head),
        "P2-X5.full_batch": result.ratio(None, head),
        "P2-X5.crossover": crossing(result),
        "P2-X5.threshold": result.c50(FAR, head, config.threshold(FAR, head)),
        "P2-X5.matched": min(matched, key=lambda estimate: estimate.value),
    }


def tables(result: CrossoverResult) -> dict[str, DataFrame]:
    """Return C50, its threshold and its ratio to that of plain descent, one row per momentum and batch size."""
    return {"momentum_c50": DataFrame([_row(result, cell) for cell in result.departures.cells])}


def _row(result: CrossoverResult, cell: Cell) -> dict[str, float | str]:
    found, ratio = result.c50(*cell), result.ratio(*cell)
    return {
        "momentum": cell.momentum,
        "batch_size": name_of(cell.batch_size),
        "c50": found.value,
        "low": found.low,
        "high": found.high,
        "mean_square": result.config.threshold(*cell),
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "ratio_matched": ratio.value / (1 - cell.momentum),
        "crossover": predicted(result.config.circle, cell.momentum),
    }


CROSSOVER = Experiment("crossover", ("P2-X5",), lambda settings: run(configure(Crossover, settings)), estimates, tables)

"""At which step the sharp minimisers of a quadratic–circle sum are given up, batch size by batch size.

C50, η½ in the text, is the step at which half of the runs have left, here always times the sharpness.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.leaving import Batch, Cell, Departures, leave, worst
from descent.measure.thresholds import Curve, median_steps
from descent.problems.circle import Circle
from descent.problems.exponents import almost_sure_threshold, mean_square_threshold
from descent.stats.estimate import Estimate
from descent.stats.intervals import paired_difference

JITTER_STEP, EXACT_STEP = 1.7, 2.2  # lr × sharpness at which shares of runs are compared
SMALL, LARGE = (1, 2, 4), (32, 200, 1000)
RISING = (1, 2, 4, 8, 32)


@dataclass(frozen=True)
class Rings:
    """Runs released next to the sharper minimiser, with noise that stays there, jitter, or exact noise that does not.

    spread: standard deviation of the minimiser of one example; the jitter is this times the curvature.
    """

    replicas: int
    seed: int
    device: str
    starts: tuple[float, ...]  # distances from the minimiser; the first is the one claims are stated at
    arms: int
    steps: int
    horizons: tuple[int, ...]
    circle: Circle = field(default_factory=Circle)
    mirror: Circle = field(default_factory=lambda: Circle(bowl=10.0, ring=1.0))
    spread: float = 0.01
    batch_sizes: tuple[Batch, ...] = (1, 2, 4, 8, 32, 200, 1000, None)
    mirrored: tuple[Batch, ...] = (1, 4, 32)
    stated: int = 2000  # iterations after which claims are stated
    followed: tuple[int, ...] = (1, 4, 32)  # batch sizes for which the horizon is varied

    @classmethod
    def cpu(cls, settings: Settings) -> Rings:
        """Take 20 steps per batch size and 2000 iterations."""
        replicas = max(32, settings.replicas)
        return cls(replicas, settings.seed, settings.device, (1e-3,), 20, 2000, (250, 500, 1000, 2000))

    @classmethod
    def paper(cls, settings: Settings) -> Rings:
        """Take ten times the replicas, 60 steps, ten times the iterations and more starts."""
        starts, horizons = (1e-3, 0.1, 1e-6), (250, 500, 1000, 2000, 5000, 10_000, 20_000)
        return cls(10 * settings.replicas, settings.seed, settings.device, starts, 60, 20_000, horizons)

    def noisy(self, circle: Circle) -> Circle:
        """Return the sum with jitter."""
        return replace(circle, jitter=self.spread * circle.sharpness)

    def grid(self, circle: Circle, start: float) -> Array:
        """Return the steps scanned at every batch size, times the sharpness, (K, A): around where theory has C50."""
        shown = JITTER_STEP if circle.jitter else EXACT_STEP
        ends = [self.window(circle, start, k) for k in self.batch_sizes]
        return np.array([np.sort(np.append(np.linspace(*e, self.arms - 1), shown)) for e in ends])

    def window(self, circle: Circle, start: float, batch_size: Batch) -> tuple[float, float]:
        """Return the ends of a scan: from between the thresholds to beyond what slow growth of full descent takes."""
        law, slack = circle.weights, 4 * math.log(circle.room / start) / self.stated
        low, high = mean_square_threshold(law, batch_size), almost_sure_threshold(law, batch_size)
        if circle.jitter and batch_size:
            soon = circle.finite_horizon(batch_size, self.horizons[0]) * circle.sharpness
            return low - slack, low + 1.9 * (soon - low) + slack
        return (low + high) / 2 - slack, high + (high - low) / 4 + slack


@dataclass(frozen=True, eq=False)
class RingsResult:
    """Departures from the ring with jitter and with exact noise (per start), and from the mirrored bowl with jitter.

    Only the first are followed for longer than claims are stated at.
    """

    config: Rings
    jitter: Departures
    exact: tuple[Departures, ...]
    mirror: Departures
    seconds: float


def run(config: Rings) -> RingsResult:
    """Release all runs, every arm on the same random numbers."""
    clock = time.perf_counter()
    near = config.starts[0]
    mirrored = replace(config, batch_sizes=config.mirrored)
    return RingsResult(
        config=config,
        jitter=_release(config, config.noisy(config.circle), near, config.steps),
        exact=tuple(_release(config, config.circle, start, config.stated) for start in config.starts),
        mirror=_release(mirrored, config.noisy(config.mirror), near, config.stated),
        seconds=time.perf_counter() - clock,
    )


def _release(config: Rings, circle: Circle, start: float, steps: int) -> Departures:
    cells = [Cell(k) for k in config.batch_sizes]
    lr = config.grid(circle, start)
    return leave(circle, cells, lr, start, steps, config.replicas, config.seed, config.device)


def curve(result: RingsResult, found: Departures, batch_size: Batch) -> Curve:
    """Return who had left when claims are stated."""
    return found.curve(batch_size, steps=result.config.stated)


def c50(result: RingsResult, found: Departures, batch_size: Batch, over: float = 1.0) -> Estimate:
    """Return the step at which half of the runs left, times the sharpness, over a number."""
    return median_steps(lambda c: c / over, curve(result, found, batch_size), seed=result.config.seed)


def over_threshold(result: RingsResult, batch_size: int) -> Estimate:
    """Return C50 with jitter over the mean-square threshold."""
    return c50(result, result.jitter, batch_size, mean_square_threshold(result.config.circle.weights, batch_size))


def rule(result: RingsResult, batch_size: int, steps: int | None = None) -> float:
    """Return the finite-horizon rule for C50 with jitter, times the sharpness."""
    circle = result.config.noisy(result.config.circle)
    return circle.finite_horizon(batch_size, steps or result.config.stated) * circle.sharpness


def by(result: RingsResult, batch_size: int, steps: int) -> Estimate:
    """Return C50 with jitter after another number of iterations."""
    return median_steps(lambda c: c, result.jitter.curve(batch_size, steps=steps), seed=result.config.seed)


def rise(result: RingsResult, found: Departures, low: Batch, high: Batch) -> Estimate:
    """Return C50 at one batch size minus at another."""
    curves = (curve(result, found, k) for k in (low, high))
    return median_steps(lambda a, b: b - a, *curves, seed=result.config.seed)


def over_full(result: RingsResult, batch_size: int) -> Estimate:
    """Return C50 with jitter over that of full-batch descent."""
    curves = (curve(result, result.jitter, k) for k in (batch_size, None))
    return median_steps(lambda a, b: a / b, *curves, seed=result.config.seed)


def share(result: RingsResult, found: Departures, batch_size: Batch, lr: float) -> Array:
    """Return 1 for every run that left at one of the steps scanned, (N,)."""
    return curve(result, found, batch_size).at(lr).astype(np.float64)


def estimates(result: RingsResult) -> Estimates:
    """Return what the circle says about P2-C1, C3, C9, C10, C14, X3 and X8."""
    jitter, exact = result.jitter, result.exact[0]
    return {
        "P2-C1.jitter": paired_difference(*(share(result, jitter, k, JITTER_STEP) for k in (1, None))),
        "P2-C1.exact": paired_difference(*(share(result, exact, k, EXACT_STEP) for k in (1, None))),
        "P2-C3.moderate": over_threshold(result, 32),
        "P2-C3.small": over_threshold(result, 1),
        "P2-C9.jitter": [rise(result, jitter, a, b) for a, b in pairwise(RISING)],
        "P2-C9.exact": rise(result, exact, 1, 32),
        "P2-C10.batch200": over_full(result, 200),
        "P2-C10.batch1000": over_full(result, 1000),
        "P2-C14.large": worst([over_threshold(result, k) for k in LARGE]),
        "P2-C14.small": worst([over_threshold(result, k) for k in SMALL]),
        "P2-X3.rule": worst([c50(result, jitter, k, rule(result, k)) for k in RISING]),
        "P2-X8.circle": rise(result, exact, None, 1),
        "P2-X8.undone": rise(result, jitter, None, 1),
    }


def tables(result: RingsResult) -> dict[str, DataFrame]:
    """Return C50 by noise and batch size, C50 by horizon, and the curves they are read off."""
    config = result.config
    arms = [("jitter", config.starts[0], result.jitter), ("jitter, sharp bowl", config.starts[0], result.mirror)]
    arms += [("exact", start, found) for start, found in zip(config.starts, result.exact, strict=True)]
    rows = [_row(result, *arm, cell.batch_size) for arm in arms for cell in arm[2].cells]
    horizons = [_horizon(result, k, steps) for k in config.followed for steps in config.horizons]
    curves = [_curve(result, *arm, cell.batch_size) for arm in arms for cell in arm[2].cells]
    names = ("circle_c50", "circle_horizons", "circle_curves")
    return dict(
        zip(names, (DataFrame(rows), DataFrame(horizons), DataFrame([r for c in curves for r in c])), strict=True)
    )


def _row(
    result: RingsResult, noise: str, start: float, found: Departures, batch_size: Batch
) -> dict[str, float | str | None]:
    law, steps = result.config.circle.weights, c50(result, found, batch_size)
    predicted = rule(result, batch_size) if batch_size and noise != "exact" else None
    return {
        "noise": noise,
        "start": start,
        "batch_size": name_of(batch_size),
        "c50": steps.value,
        "low": steps.low,
        "high": steps.high,
        "mean_square": mean_square_threshold(law, batch_size),
        "almost_sure": almost_sure_threshold(law, batch_size),
        "rule": predicted,
    }


def _horizon(result: RingsResult, batch_size: int, steps: int) -> dict[str, float]:
    found, predicted = by(result, batch_size, steps), rule(result, batch_size, steps)
    return {
        "batch_size": batch_size,
        "steps": steps,
        "c50": found.value,
        "low": found.low,
        "high": found.high,
        "rule": predicted,
    }


def _curve(
    result: RingsResult, noise: str, start: float, found: Departures, batch_size: Batch
) -> list[dict[str, float | str]]:
    basin = curve(result, found, batch_size)
    near = found.curve(batch_size, steps=result.config.stated, near=True)
    return [
        {
            "noise": noise,
            "start": start,
            "batch_size": name_of(batch_size),
            "lr_sharpness": lr,
            "left_basin": left,
            "left_neighbourhood": away,
        }
        for lr, left, away in zip(basin.lr, basin.share, near.share, strict=True)
    ]


def name_of(batch_size: Batch) -> str:
    """Return a batch size as tables name it."""
    return "all" if batch_size is None else str(batch_size)


CIRCLE = Experiment(
    "circle",
    ("P2-C1", "P2-C3", "P2-C9", "P2-C10", "P2-C14", "P2-X3", "P2-X8"),
    lambda settings: run(configure(Rings, settings)),
    estimates,
    tables,
)

"""At which step the sharp minimisers of a quadratic–circle sum are given up, batch size by batch size.

C50, η½ in the text, is the step at which half of the runs have left, here always times the sharpness. Noise that stays
at the minimiser and noise that vanishes there are compared: only with the first do small batches leave sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from pandas import concat

from descent.arrays import Array
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.flatness.leaving import Cell, Departures, leave
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.thresholds import Curve, median_steps
from descent.problems.circle import Circle
from descent.problems.exponents import almost_sure_threshold, mean_square_threshold
from descent.stats import Estimate, paired_difference, proportion

JITTER_STEP, EXACT_STEP = 1.7, 2.2  # lr × sharpness at which shares of runs are compared
SMALL, LARGE = (1, 2, 4, 8), (32, 200, 1000)
FIRST = (1, 2, 4)  # the small ones as first stated, without a horizon
RISING = (1, 2, 4, 8, 32)


@dataclass(frozen=True)
class Rings:
    """Runs released next to the sharper minimiser, with noise that stays there, jitter, or exact, which vanishes."""

    replicas: Share = Share(least=32)
    starts: tuple[float, ...] = (1e-3,)  # distances from the minimiser; the first is the one claims are stated at
    arms: int = 20
    steps: int = 2000
    horizons: tuple[int, ...] = (250, 500, 1000, 2000)
    circle: Circle = Circle()
    mirror: Circle = Circle(bowl=10.0, ring=1.0)
    spread: float = 0.01  # standard deviation of one example's minimiser; the jitter is this times the curvature
    batch_sizes: tuple[Batch, ...] = (1, 2, 4, 8, 32, 200, 1000, None)
    mirrored: tuple[Batch, ...] = (1, 4, 32)
    stated: int = 2000  # iterations after which claims are stated
    followed: tuple[int, ...] = (1, 4, 32)  # batch sizes for which the horizon is varied

    def noisy(self, circle: Circle) -> Circle:
        """Return the sum with jitter."""
        return replace(circle, jitter=self.spread * circle.sharpness)

    def grid(self, circle: Circle, start: float, batch_size: Batch) -> Array:
        """Return the steps scanned at a batch size, times the sharpness, (A,): around where theory has C50."""
        shown = JITTER_STEP if circle.jitter else EXACT_STEP
        law, slack = circle.weights, 4 * math.log(circle.room / start) / self.stated  # what slow growth takes
        low, high = mean_square_threshold(law, batch_size), almost_sure_threshold(law, batch_size)
        first, last = (low + high) / 2, high + (high - low) / 4
        if circle.jitter and batch_size:
            soon = circle.finite_horizon(batch_size, self.horizons[0]) * circle.sharpness
            first, last = low, low + 1.9 * (soon - low)
        return np.sort(np.append(np.linspace(first - slack, last + slack, self.arms - 1), shown))


@dataclass(frozen=True, eq=False)
class RingsResult(Result[Rings]):
    """Departures from the ring with jitter and with exact noise, and from the mirrored bowl with jitter."""

    jitter: Departures  # followed for longer than claims are stated at
    exact: tuple[Departures, ...]  # one per start
    mirror: Departures

    def curve(self, found: Departures, batch_size: Batch, steps: int | None = None) -> Curve:
        """Return who had left after a number of steps, when claims are stated if none is given."""
        return found.curve(batch_size, steps=steps or self.config.stated)

    def c50(
        self, found: Departures, *sizes: Batch, of: Callable[..., Array] = lambda c: c, steps: int | None = None
    ) -> Estimate:
        """Return a function of the steps at which half of the runs left, times the sharpness, at some batch sizes."""
        return median_steps(of, *(self.curve(found, k, steps) for k in sizes), seed=self.lab.seed)

    def rule(self, batch_size: int, steps: int | None = None) -> float:
        """Return the finite-horizon rule for C50 with jitter, times the sharpness."""
        circle = self.config.noisy(self.config.circle)
        return circle.finite_horizon(batch_size, steps or self.config.stated) * circle.sharpness

    def over_rule(self, batch_size: int, steps: int | None = None) -> Estimate:
        """Return C50 with jitter over the rule."""
        rule = self.rule(batch_size, steps)
        return self.c50(self.jitter, batch_size, of=lambda c: c / rule, steps=steps)

    def over_edge(self, batch_size: int, steps: int | None = None) -> Estimate:
        """Return C50 with jitter over the mean-square threshold."""
        edge = mean_square_threshold(self.config.circle.weights, batch_size)
        return self.c50(self.jitter, batch_size, of=lambda c: c / edge, steps=steps)

    def gap(self, found: Departures, lr: float) -> Estimate:
        """Return the share that has left at batch size 1 less that in full descent, at one step times the sharpness.

        Full descent draws nothing: where it stays, the difference is a share.
        """
        one, full = (self.curve(found, k).at(lr) for k in (1, None))
        if not full.any():
            return proportion(int(one.sum()), len(one))
        return paired_difference(one.astype(np.float64), full.astype(np.float64))


def run(config: Rings, lab: Lab) -> RingsResult:
    """Release all runs, every arm on the same random numbers."""

    def release(circle: Circle, start: float, steps: int, batch_sizes: tuple[Batch, ...]) -> Departures:
        lr = np.stack([config.grid(circle, start, k) for k in batch_sizes])
        return leave(lab, config.replicas, circle, [Cell(k) for k in batch_sizes], lr, start, steps)

    near, sizes = config.starts[0], config.batch_sizes
    jitter = release(config.noisy(config.circle), near, config.steps, sizes)
    exact = tuple(release(config.circle, start, config.stated, sizes) for start in config.starts)
    mirror = release(config.noisy(config.mirror), near, config.stated, config.mirrored)
    return RingsResult(config, lab, jitter, exact, mirror)


def estimates(result: RingsResult) -> Estimates:
    """Return what the circle says about P2-C1, C3, C9, C10, C14, X3 and X8."""
    config, jitter, exact = result.config, result.jitter, result.exact[0]
    soon = [n for n in config.horizons if n < config.stated]

    def rise(found: Departures, low: Batch, high: Batch) -> Estimate:
        return result.c50(found, low, high, of=lambda a, b: b / a)

    edge = {k: result.over_edge(k) for k in (*SMALL, *LARGE)}
    early = {k: [result.over_edge(k, n) for n in soon] for k in RISING}  # of larger ones only the end is scanned
    first = {k: [*early.get(k, ()), edge[k]] for k in (*FIRST, *LARGE)}
    return {
        "P2-C1.jitter": result.gap(jitter, JITTER_STEP),
        "P2-C1.exact": result.gap(exact, EXACT_STEP),
        "P2-C3.moderate": edge[32],
        "P2-C3.small": edge[1],
        "P2-C3.moderate_first": first[32],
        "P2-C3.small_first": first[1],
        "P2-C9.jitter": [rise(jitter, a, b) for a, b in pairwise(RISING)],
        "P2-C9.exact": rise(exact, 1, 32),
        "P2-C10.batch200": rise(jitter, None, 200),
        "P2-C10.batch1000": rise(jitter, None, 1000),
        "P2-C14.large": [edge[k] for k in LARGE],
        "P2-C14.small": [edge[k] for k in SMALL],
        "P2-C14.large_first": [found for k in LARGE for found in first[k]],
        "P2-C14.small_first": [found for k in FIRST for found in first[k]],
        "P2-X3.rule": [result.over_rule(k) for k in RISING],
        "P2-X3.horizons": [result.over_rule(k, n) for k in RISING for n in soon],
        "P2-X8.circle": rise(exact, None, 1),
        "P2-X8.undone": rise(jitter, None, 1),
    }


def tables(result: RingsResult) -> Tables:
    """Return C50 by noise and batch size, C50 by horizon, and the curves they are read off."""
    config = result.config
    arms = [("jitter", config.starts[0], result.jitter), ("jitter, sharp bowl", config.starts[0], result.mirror)]
    arms += [("exact", start, found) for start, found in zip(config.starts, result.exact, strict=True)]
    axes = {"batch_size": config.followed, "steps": config.horizons}
    by = [[result.c50(result.jitter, k, steps=n) for n in config.horizons] for k in config.followed]
    rules = [[result.rule(k, n) for n in config.horizons] for k in config.followed]
    horizons, law, c50, curves = tidy(axes, value=by, rule=rules), config.circle.weights, [], []
    for noise, start, found in arms:
        sizes = [cell.batch_size for cell in found.cells]
        c50.append(tidy(
            {"noise": [noise], "start": [start], "batch_size": [batch_name(k) for k in sizes]},
            value=[result.c50(found, k) for k in sizes],
            mean_square=[mean_square_threshold(law, k) for k in sizes],
            almost_sure=[almost_sure_threshold(law, k) for k in sizes],
            rule=[result.rule(k) if k and noise != "exact" else math.nan for k in sizes],
        ))  # fmt: skip
        for k in sizes:
            basin, around = (found.curve(k, steps=config.stated, near=near) for near in (False, True))
            curves.append(tidy(
                {"noise": [noise], "start": [start], "batch_size": [batch_name(k)], "lr_sharpness": basin.lr},
                left_basin=basin.share, left_neighbourhood=around.share,
            ))  # fmt: skip
    return {
        "circle_c50": concat(c50, ignore_index=True).rename(columns={"value": "c50"}),
        "circle_horizons": horizons.rename(columns={"value": "c50"}),
        "circle_curves": concat(curves, ignore_index=True),
    }


CIRCLE = Experiment(
    "circle", small=Rings(), run=run, estimates=estimates, tables=tables,
    large=Rings(
        Share(times=10), starts=(1e-3, 0.1, 1e-6), arms=60, steps=20_000,
        horizons=(250, 500, 1000, 2000, 5000, 10_000, 20_000),
    ),
)  # fmt: skip

"""The diffusion limit taken as a limit: ever smaller steps at fixed momentum, from the saddle of streaming PCA.

How far a step is from the limit is told by its inertia lr·b/(1 − momentum)², b the instability; a ladder falls in it.
Read are the variance at one diffusion time, and the lengths of escape and travel, each over what the limit gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pandas import DataFrame, concat

from descent.arrays import Array
from descent.engine import FirstPassage, column, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.problems.pca import StreamingPCA, beyond, radius, travel_steps
from descent.stats import Estimate, blocks, bootstrap, mean
from descent.theory.escape import Unstable

LEVELS = (0.5, 0.9)  # squared overlaps with the optimum: half way, arrived
Rungs = tuple[float, tuple[float, ...]]
"""A momentum, and the inertias at which it runs, falling."""


@dataclass(frozen=True)
class Ladder:
    """Streaming PCA at falling steps.

    The last rung of each momentum is where the exact discrete law is within 2.5 % of the limit, half of the margin; the
    replicas are so many that the intervals of a hundred tests are no wider than that.
    """

    problem: StreamingPCA = StreamingPCA()
    early: tuple[Rungs, ...] = ((0.5, (0.064, 0.008, 0.001)), (0.9, (0.072, 0.012, 0.002)))  # for the variance
    time: float = 0.5  # at which it is read, lr·b·steps/(1 − momentum)
    early_replicas: Share = Share(times=40)
    late: tuple[Rungs, ...] = ((0.5, (0.003,)), (0.95, (0.2, 0.05, 0.0125)))  # for the times
    replicas: Share = Share(times=3)
    look: int = 4  # steps between two looks at the thresholds

    def law(self, momentum: float, inertia: float) -> Unstable:
        """Return the laws of the direction that leads off the saddle, at the step of an inertia."""
        lr = inertia * (1 - momentum) ** 2 / self.problem.gap()
        return Unstable(self.problem.gap(), lr, momentum, self.problem.noise())

    def steps(self, momentum: float, inertia: float) -> int:
        """Return the steps to the time at which the variance is read."""
        return round(self.time / (inertia * (1 - momentum)))


@dataclass(frozen=True, eq=False)
class LadderResult:
    """Measured over the limit, by momentum and rung, of surviving replicas (N,) each.

    variance: the squared coordinate off the saddle over its variance in the limit; escape, travel: the times to half
    way, and from there on.
    """

    config: Ladder
    lab: Lab
    variance: tuple[tuple[Array, ...], ...]
    escape: tuple[tuple[Array, ...], ...]
    travel: tuple[tuple[Array, ...], ...]


def run(config: Ladder, lab: Lab) -> LadderResult:
    """Go down both ladders, on the same random numbers at every rung."""
    variance = [tuple(_square(config, lab, m, inertia) for inertia in rungs) for m, rungs in config.early]
    late = [[_passages(config, lab, m, inertia) for inertia in rungs] for m, rungs in config.late]
    escape, travel = (tuple(tuple(pair[i] for pair in rungs) for rungs in late) for i in range(2))
    return LadderResult(config, lab, tuple(variance), escape, travel)


def _square(config: Ladder, lab: Lab, momentum: float, inertia: float) -> Array:
    """Return the squared coordinate off the saddle over its variance in the limit (N,)."""
    law, steps, problem = config.law(momentum, inertia), config.steps(momentum, inertia), config.problem
    arm = lab.arms(heavy_ball(float(np.asarray(law.lr)), momentum), config.early_replicas)
    done = arm.run(problem, problem.at(1), steps)
    return np.asarray(done.end(column(0))[0, done.alive] ** 2 / law.diffusion.variance(steps))


def _passages(config: Ladder, lab: Lab, momentum: float, inertia: float) -> tuple[Array, Array]:
    """Return the times to half way and from there to arrival (N,), each over its length in the limit."""
    law, problem, (half, near) = config.law(momentum, inertia), config.problem, LEVELS
    probes = {str(level): FirstPassage(beyond(level), config.look) for level in LEVELS}
    probes["everyone"] = FirstPassage(beyond(near), 50, stop=True)
    arm = lab.arms(heavy_ball(float(np.asarray(law.lr)), momentum), config.replicas)
    done = arm.run(problem, problem.at(1), int(law.quantile(1 - 1e-6, radius(near))), probes=probes)
    escaped, arrived = (done.passed(str(level))[0] for level in LEVELS)
    travel = travel_steps(half, near, problem.gap(), law.lr, momentum)
    return escaped / law.diffusion.mean(radius(half)), (arrived - escaped) / travel


def closer(large: Array, small: Array, seed: int) -> Estimate:
    """Return by how much the mean is closer to 1 at a smaller step than at a larger one."""

    def drop(a: Array, b: Array) -> Array:
        return np.asarray(np.abs(a.mean(1) - 1) - np.abs(b.mean(1) - 1))

    return bootstrap(drop, blocks(large, 2000), blocks(small, 2000), seed=seed, paired=False)


def approach(rungs: tuple[Array, ...], seed: int) -> list[Estimate]:
    """Return by how much the mean comes closer to 1 from each rung to the next."""
    return [closer(large, small, seed) for large, small in pairwise(rungs)]


def estimates(result: LadderResult) -> Estimates:
    """Return what the ladders say about P3-C7, P3-C8 and P3-C9."""
    seed, (moderate, strong), (half, slow) = result.lab.seed, result.variance, result.escape
    return {
        "P3-C7.approach": [*approach(moderate, seed), *approach(strong, seed)],
        "P3-C7.small": mean(moderate[-1]),
        "P3-C7.large": mean(strong[-1]),
        "P3-C8.approach": approach(slow, seed),
        "P3-C8.small": mean(half[-1]),
        "P3-C8.large": mean(slow[-1]),
        "P3-C9.momentum": mean(result.travel[-1][-1]),
    }


def exact(config: Ladder, quantity: str, momentum: float, inertia: float) -> float:
    """Return what the exact discrete law gives for a quantity over its limit; travel: the ratio of growth rates."""
    law = config.law(momentum, inertia)
    steps, half, near = config.steps(momentum, inertia), *radius(LEVELS)
    laws: dict[str, Callable[[], Array]] = {
        "variance": lambda: law.variance(steps) / law.diffusion.variance(steps),
        "escape": lambda: law.mean(half) / law.diffusion.mean(half),
        "travel": lambda: (law.mean(near) - law.mean(half)) / (law.diffusion.mean(near) - law.diffusion.mean(half)),
    }
    return float(laws[quantity]())


def tables(result: LadderResult) -> Tables:
    """Return one row per quantity, momentum and rung: measured over the limit, and the exact law over it."""
    config = result.config
    frames = [
        _rows(config, quantity, *rungs, values)
        for quantity, ladder in (("variance", config.early), ("escape", config.late), ("travel", config.late))
        for rungs, values in zip(ladder, getattr(result, quantity), strict=True)
    ]
    return {"ladder": concat(frames, ignore_index=True)}


def _rows(
    config: Ladder, quantity: str, momentum: float, rungs: tuple[float, ...], values: tuple[Array, ...]
) -> DataFrame:
    return tidy(
        {"quantity": [quantity], "momentum": [momentum], "inertia": rungs},
        lr=[float(np.asarray(config.law(momentum, inertia).lr)) for inertia in rungs],
        value=[each(mean, rung) for rung in values],
        exact=[exact(config, quantity, momentum, inertia) for inertia in rungs],
    )


LARGE = Ladder(
    early=((0.5, (0.064, 0.008, 0.001, 1.25e-4)), (0.9, (0.072, 0.012, 0.002, 3.3e-4))),
    late=((0.5, (0.003, 7.5e-4)), (0.95, (0.2, 0.05, 0.0125, 0.003))),
    early_replicas=Share(times=400), replicas=Share(times=100),
)  # fmt: skip
LADDER = Experiment("ladder", small=Ladder(), large=LARGE, run=run, estimates=estimates, tables=tables)

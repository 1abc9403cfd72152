"""Streaming PCA from its saddle: how long escape and travel take, at equal learning rate.

Every path begins at rest on the second eigenvector, which is a saddle: noise alone can push it off. The question is
how much sooner momentum leaves, and whether the exact discrete law or its diffusion limit says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.engine import FirstPassage, Probe, column, every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.pca import StreamingPCA, beyond, overlap, radius, travel_steps
from descent.stats import Estimate, blocks, bootstrap, mean, paired_ratio, proportion, variance_ratio
from descent.theory.escape import Unstable

LEVELS = (0.1, 0.5, 0.9)  # squared overlaps with the optimum: leaving, half way, arrived
HALF, NEAR = 1, 2
MODERATE, STRONG = 0.5, 0.95  # the momenta the diffusion formulas are drawn at, beside the headline
QUANTILES = (0.1, 0.5, 0.9)
KINDS = ("measured", "exact", "diffusion")


@dataclass(frozen=True)
class Escape:
    """Arms of every momentum from rest on the second eigenvector, at the lab's learning rate."""

    problem: StreamingPCA = StreamingPCA()
    momentum: tuple[float, ...] = (0.0, MODERATE, 0.7, 0.8, 0.9, STRONG)  # and the headline
    replicas: Share = Share()
    early_replicas: Share = Share(times=20)  # paths for the variance near the saddle
    early_steps: int = 100
    look: int = 10  # steps between two looks at the thresholds
    frame: int = 20  # steps between two points of a drawn path
    drawn: int = 50  # paths kept for drawing
    balance_lr: float = 3e-3  # of the test of the sign, whose outcome does not depend on the step
    balance_momentum: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9)

    def law(self, lr: float, momentum: float | tuple[float, ...]) -> Unstable:
        """Return the exact laws of the direction that leads off the saddle."""
        return Unstable(self.problem.gap(), lr, np.array(momentum), self.problem.noise())


@dataclass(frozen=True, eq=False)
class EscapeResult(ByMomentum):
    """Passages of A arms through L levels, and what the laws give.

    times (A, L, N): min(T, steps); exact, diffusion (A, L): mean times; travel (A,): predicted time from half way to
    near. paths (A, N', T) of squared overlaps at path_steps (T,); law_steps (A, G) and law (A, G): the exact
    distribution at half way; bands (A, 3, 3): its quantiles, by KINDS. early (2, N''): the unstable coordinate after
    early_steps, at momentum 0.5 and headline; growth (3, 2, K): its variance over the steps early_at (K,), by KINDS.
    positive: paths that left to the positive side, of `sided`. A replica that blows up counts as one that never
    arrives; diverged (A,) of them.
    """

    config: Escape
    lab: Lab
    times: Array
    steps: int
    exact: Array
    diffusion: Array
    travel: Array
    paths: Array
    path_steps: IntArray
    law_steps: Array
    law: Array
    bands: Array
    early: Array
    early_at: IntArray
    growth: Array
    positive: int
    sided: int
    diverged: Array


def run(config: Escape, lab: Lab) -> EscapeResult:
    """Let every path go until the last has arrived, then look closer at the start and at the sides."""
    momentum = lab.momenta(config.momentum)
    law, radii, q = config.law(lab.lr, momentum), radius(LEVELS), np.array(QUANTILES)[:, None]
    slowest = config.law(lab.lr, 0.0).quantile(1 - 1e-6, radius(LEVELS[NEAR]))
    probes: dict[str, Probe[Tensor]] = {str(level): FirstPassage(beyond(level), config.look) for level in LEVELS}
    probes |= {"everyone": FirstPassage(beyond(LEVELS[NEAR]), 200, stop=True), "paths": every(config.frame, overlap)}
    arms = lab.arms(heavy_ball(lab.lr, momentum), config.replicas)
    done = arms.run(config.problem, config.problem.at(1), int(slowest), probes=probes)
    times = np.stack([done.passed(str(level)) for level in LEVELS], axis=1)
    bands = [np.quantile(times[:, HALF], QUANTILES, axis=1), law.quantile(q, 1.0), law.diffusion.quantile(q, 1.0)]
    law_steps = law.quantile(np.arange(0.01, 1.0, 0.01)[:, None], 1.0).T
    early, early_at, growth = _start(config, lab)
    positive, sided = _sides(config, lab)
    return EscapeResult(
        config, lab, times, done.steps,
        exact=np.stack([law.mean(r) for r in radii], axis=1),
        diffusion=np.stack([law.diffusion.mean(r) for r in radii], axis=1),
        travel=travel_steps(LEVELS[HALF], LEVELS[NEAR], config.problem.gap(), lab.lr, law.momentum),
        paths=done.first("paths", config.drawn), path_steps=done.at("paths"),
        law_steps=law_steps, law=config.law(lab.lr, momentum).by_arm.cdf(law_steps, 1.0),
        bands=np.stack(bands).transpose(2, 0, 1),
        early=early, early_at=early_at, growth=growth, positive=positive, sided=sided, diverged=done.lost.sum(axis=1),
    )  # fmt: skip


def _start(config: Escape, lab: Lab) -> tuple[Array, IntArray, Array]:
    """Return the unstable coordinate after the early steps (2, N''), the steps (K,), and its variances (3, 2, K)."""
    pair = (MODERATE, lab.momentum)
    arms, law = lab.arms(heavy_ball(lab.lr, pair), config.early_replicas), config.law(lab.lr, pair).by_arm
    done = arms.run(config.problem, config.problem.at(1), config.early_steps, probes={"first": every(10, column(0))})
    first, steps = done["first"][:, done.alive], done.at("first")
    return first[:, :, -1], steps, np.stack([first.var(axis=1), law.variance(steps), law.diffusion.variance(steps)])


def _sides(config: Escape, lab: Lab) -> tuple[int, int]:
    """Return how many paths left to the positive side and how many left, every arm on random numbers of its own."""
    arms = lab.arms(heavy_ball(config.balance_lr, config.balance_momentum), config.replicas, shared=False)
    slowest = config.law(config.balance_lr, 0.0).quantile(1 - 1e-6, 1.0)
    half = FirstPassage(beyond(LEVELS[HALF]), 100, stop=True)
    done = arms.run(config.problem, config.problem.at(1), int(slowest), probes={"half": half})
    left = done["half"] >= 0
    return int((left & (done.end(column(0)) > 0)).sum()), int(left.sum())


def estimates(result: EscapeResult) -> Estimates:
    """Return what streaming PCA says about P3-C1, P3-C9, P3-C15, P3-X9 and P3-X10."""
    half, travel = result.times[:, HALF], result.times[:, NEAR] - result.times[:, HALF]
    head, strong = (result.arm(m) for m in (result.lab.momentum, STRONG))
    seed, limit = result.lab.seed, result.growth[2, :, -1]
    return {
        "P3-C1.faster": paired_ratio(half[0], half[head], seed),
        "P3-C1.monotone": [log_ratio(slow, fast, seed) for slow, fast in pairwise(half)],
        "P3-C9.plain": mean(travel[0] / result.travel[0]),
        "P3-C15.balance": proportion(result.positive, result.sided),
        "P3-X9.size": mean(half[head] / result.exact[head, HALF]),
        "P3-X10.variance": variance_ratio(result.early[1], limit[1], seed),
        "P3-X10.time": mean(half[strong] / result.diffusion[strong, HALF]),
    }


def log_ratio(x: Array, y: Array, seed: int) -> Estimate:
    """Return the logarithm of mean(x)/mean(y) of paired replicas (N,)."""
    return bootstrap(lambda a, b: np.log(a.mean(1) / b.mean(1)), blocks(x), blocks(y), seed=seed)


def tables(result: EscapeResult) -> Tables:
    """Return one row per momentum and threshold, the quantiles, and the growth of the variance."""
    times, arms = result.times, result.momentum
    measured, exact, diffusion = result.growth
    return {
        "escape": tidy(
            {"momentum": arms, "level": LEVELS}, mean=each(mean, times), exact=result.exact,
            diffusion=result.diffusion, censored=(times >= result.steps).sum(axis=-1),
            diverged=result.diverged[:, None], speedup=each(paired_ratio, times[:1], times, seed=result.lab.seed),
        ),
        "escape_quantiles": tidy({"momentum": arms, "kind": KINDS, "quantile": QUANTILES}, steps=result.bands),
        "saddle_variance": tidy(
            {"momentum": (MODERATE, result.lab.momentum), "step": result.early_at},
            variance=measured, exact=exact, diffusion=diffusion,
        ),
    }  # fmt: skip


LARGE = Escape(momentum=(0.0, MODERATE, 0.7, 0.8, 0.9, STRONG, 0.99), replicas=Share(times=100), frame=100)
ESCAPE = Experiment("escape", small=Escape(), large=LARGE, run=run, estimates=estimates, tables=tables)

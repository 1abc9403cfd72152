"""Streaming PCA from its saddle: how long escape and travel take, at equal learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from pandas import DataFrame

from descent.estimate import Estimate
from descent.experiments.arms import (
    Arms,
    Array,
    arms_at,
    beyond,
    column,
    configure,
    momenta,
    paired_ratio,
    passage_times,
    survivors,
)
from descent.experiments.common import Estimates, Experiment, Settings
from descent.probes import FirstPassage, Probe, every
from descent.problems.diffusion import diffusion_mean, diffusion_quantile, diffusion_variance
from descent.problems.escape import escape_cdf, escape_mean, escape_quantile, variance_from_rest
from descent.problems.pca import StreamingPCA, overlap, radius, travel_steps
from descent.stats import mean, paired_difference, proportion, variance_ratio
from descent.train import Run, train

LEVELS = (0.1, 0.5, 0.9)  # squared overlaps with the optimum: leaving, half way, arrived
HALF, NEAR = 1, 2
MODERATE, STRONG = 0.5, 0.95  # the momenta the diffusion formulas are tested at, beside the headline


@dataclass(frozen=True)
class Escape:
    """Arms of every momentum from rest on the second eigenvector, at equal learning rate."""

    problem: StreamingPCA
    lr: float
    momentum: tuple[float, ...]
    headline: float
    replicas: int
    seed: int
    device: str
    early_replicas: int  # paths for the variance near the saddle
    early_steps: int = 100
    look: int = 10  # steps between two looks at the thresholds
    frame: int = 20  # steps between two points of a drawn path
    drawn: int = 50  # paths kept for drawing
    balance_lr: float = 3e-3  # of the test of the sign, whose outcome does not depend on the step
    balance_momentum: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9)

    @classmethod
    def cpu(cls, settings: Settings) -> Escape:
        """Take four dimensions, gap 1, Gaussian samples."""
        return cls._of(settings, settings.replicas, (0.0, MODERATE, 0.7, 0.8, 0.9, STRONG))

    @classmethod
    def paper(cls, settings: Settings) -> Escape:
        """Take a hundred times the replicas, and momenta up to 0.99."""
        return cls._of(settings, 100 * settings.replicas, (0.0, MODERATE, 0.7, 0.8, 0.9, STRONG, 0.99), frame=100)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, base: tuple[float, ...], frame: int = 20) -> Escape:
        return cls(
            StreamingPCA(), settings.lr, momenta(base, settings.momentum), settings.momentum, replicas,
            settings.seed, settings.device, early_replicas=20 * settings.replicas, frame=frame,
        )

    @property
    def mode(self) -> tuple[float, float, Array, float]:
        """Instability, lr, momenta (A,), noise: what the laws of one unstable direction ask for."""
        return self.problem.gap(), self.lr, np.array(self.momentum), self.problem.noise()

    @property
    def arms(self) -> Arms:
        """The arms of the main run."""
        return arms_at(self.lr, self.momentum, self.replicas, self.seed, self.device)

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


@dataclass(frozen=True, eq=False)
class EscapeResult:
    """Passages of A arms through L levels, and what the laws give.

    times (A, L, N): min(T, steps); exact, diffusion (A, L): mean times; travel (A,): predicted time from half way to
    near. paths (A, N', T) of squared overlaps at path_steps (T,); law_steps (A, G) and law (A, G): the exact
    distribution at half way. early (2, N''): the unstable coordinate after early_steps, at momentum 0.5 and headline;
    growth (3, 2, K): its variance over the steps early_at (K,), measured, exact, diffusion. positive: paths that left
    to the positive side, of `sided`. A replica that blows up counts as one that never arrives; diverged (A,) of them.
    """

    config: Escape
    times: Array
    steps: int
    exact: Array
    diffusion: Array
    travel: Array
    paths: Array
    path_steps: Array
    law_steps: Array
    law: Array
    bands: Array  # (A, 3, 3) quantiles 0.1, 0.5, 0.9 at half way: measured, exact, diffusion
    early: Array
    early_at: Array
    growth: Array
    positive: int
    sided: int
    diverged: Array
    seconds: float


def run(config: Escape) -> EscapeResult:
    """Release every path, then look closer at the start and at the sides."""
    clock = time.perf_counter()
    times, paths, path_steps, done = _leave(config)
    early, early_at, growth = _early(config)
    positive, sided = _sides(config)
    law = np.arange(0.01, 1.0, 0.01)
    law_steps = escape_quantile(law[:, None], 1.0, *config.mode).T
    radii = radius(LEVELS)
    lengths = np.stack([escape_mean(r, *config.mode) for r in radii], axis=1)
    limits = np.stack([diffusion_mean(r, *config.mode) for r in radii], axis=1)
    gap, lr, arms, _ = config.mode
    return EscapeResult(
        config, times, done.steps, lengths, limits, travel_steps(LEVELS[HALF], LEVELS[NEAR], gap, lr, arms),
        paths, path_steps, law_steps, escape_cdf(law_steps, 1.0, gap, lr, arms[:, None], config.problem.noise()),
        _bands(config, times), early, early_at, growth, positive, sided,
        (config.arms.split(done.diverged_at) >= 0).sum(axis=1), time.perf_counter() - clock,
    )


def _leave(config: Escape) -> tuple[Array, Array, Array, Run]:
    """Return passage times (A, L, N), drawn paths (A, N', T), their steps, and the run."""
    arms = config.arms
    gap, lr, _, noise = config.mode
    slowest = escape_quantile(1 - 1e-6, radius(LEVELS[NEAR]), gap, lr, 0.0, noise)
    probes: dict[str, Probe] = {str(level): FirstPassage(beyond(level), config.look) for level in LEVELS}
    probes |= {"everyone": FirstPassage(beyond(LEVELS[NEAR]), 200, stop=True), "paths": every(config.frame, overlap)}
    start = config.problem.at(1, arms.rows).to(config.device)
    done = train(config.problem, start, arms.hyper, int(slowest), arms.streams(), probes=probes)
    raw = np.stack([arms.split(done.records[str(level)].values) for level in LEVELS], axis=1)
    kept = done.records["paths"]
    paths = arms.split_series(kept, config.drawn)
    return passage_times(raw, done.steps, config.look), paths, kept.steps.numpy(), done


def _early(config: Escape) -> tuple[Array, Array, Array]:
    """Return the unstable coordinate after the early steps (2, N''), the steps (K,), and its variances (3, 2, K)."""
    pair = (MODERATE, config.headline)
    arms = arms_at(config.lr, pair, config.early_replicas, config.seed, config.device)
    start = config.problem.at(1, arms.rows).to(config.device)
    probe = {"first": every(10, column(0))}
    done = train(config.problem, start, arms.hyper, config.early_steps, arms.streams(), probes=probe)
    series = done.records["first"]
    first, steps = arms.split_series(series)[:, survivors(arms, done)], series.steps.numpy()
    mode = (config.problem.gap(), config.lr, np.array(pair)[:, None], config.problem.noise())
    laws = [variance_from_rest(steps, *mode), diffusion_variance(steps, *mode)]
    return first[:, :, -1], steps, np.stack([first.var(axis=1), *laws])


def _sides(config: Escape) -> tuple[int, int]:
    """Return how many paths left to the positive side and how many left, every arm on random numbers of its own."""
    arms = arms_at(
        config.balance_lr, config.balance_momentum, config.replicas, config.seed, config.device, shared=False
    )
    slowest = escape_quantile(1 - 1e-6, 1.0, config.problem.gap(), config.balance_lr, 0.0, config.problem.noise())
    probe = {"half": FirstPassage(beyond(LEVELS[HALF]), 100, stop=True)}
    start = config.problem.at(1, arms.rows).to(config.device)
    done = train(config.problem, start, arms.hyper, int(slowest), arms.streams(), probes=probe)
    left = done.records["half"].values >= 0
    return int((left & (column(0)(done.params) > 0)).sum()), int(left.sum())


def _bands(config: Escape, times: Array) -> Array:
    """Return the 0.1, 0.5 and 0.9 quantiles of the time to half way, (A, 3, 3): measured, exact, diffusion."""
    p = np.array([0.1, 0.5, 0.9])
    measured = np.quantile(times[:, HALF], p, axis=1).T
    laws = [law(p[:, None], 1.0, *config.mode).T for law in (escape_quantile, diffusion_quantile)]
    return np.stack([measured, *laws], axis=1)


def estimates(result: EscapeResult) -> Estimates:
    """Return what streaming PCA says about P3-C1, P3-C7, P3-C8, P3-C9 and P3-C15."""
    config, seed = result.config, result.config.seed
    half, travel = result.times[:, HALF], result.times[:, NEAR] - result.times[:, HALF]
    head, moderate, strong = (config.row(m) for m in (config.headline, MODERATE, STRONG))
    ou = result.growth[2, :, -1]
    return {
        "P3-C1.faster": paired_ratio(half[0], half[head], seed),
        "P3-C1.monotone": [paired_difference(slow, fast) for slow, fast in pairwise(half)],
        "P3-C1.size": mean(half[head] / result.exact[head, HALF]),
        "P3-C7.small": variance_ratio(result.early[0], ou[0], seed),
        "P3-C7.large": variance_ratio(result.early[1], ou[1], seed),
        "P3-C8.small": mean(half[moderate] / result.diffusion[moderate, HALF]),
        "P3-C8.large": mean(half[strong] / result.diffusion[strong, HALF]),
        "P3-C9.plain": mean(travel[0] / result.travel[0]),
        "P3-C9.momentum": mean(travel[head] / result.travel[head]),
        "P3-C15.balance": proportion(result.positive, result.sided),
    }


def tables(result: EscapeResult) -> dict[str, DataFrame]:
    """Return one row per momentum and threshold, the quantiles, and the growth of the variance."""
    return {
        "escape": DataFrame([_row(result, a, level) for a in range(len(result.times)) for level in range(len(LEVELS))]),
        "escape_quantiles": _quantile_table(result),
        "saddle_variance": _variance_table(result),
    }


def speedup_of(result: EscapeResult, arm: int, level: int = HALF) -> Estimate:
    """Return the mean passage time of plain descent over that of an arm."""
    return paired_ratio(result.times[0, level], result.times[arm, level], result.config.seed)


def _row(result: EscapeResult, arm: int, level: int) -> dict[str, float]:
    times, speedup = mean(result.times[arm, level]), speedup_of(result, arm, level)
    return {
        "momentum": result.config.momentum[arm],
        "level": LEVELS[level],
        "mean": times.value,
        "mean_low": times.low,
        "mean_high": times.high,
        "exact": float(result.exact[arm, level]),
        "diffusion": float(result.diffusion[arm, level]),
        "censored": int((result.times[arm, level] >= result.steps).sum()),
        "diverged": int(result.diverged[arm]),
        "speedup": speedup.value,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
    }


def _quantile_table(result: EscapeResult) -> DataFrame:
    arms, kinds, quantiles = result.bands.shape
    index = product(result.config.momentum, ("measured", "exact", "diffusion"), (0.1, 0.5, 0.9))
    frame = DataFrame(list(index), columns=["momentum", "kind", "quantile"])
    return frame.assign(steps=result.bands.reshape(arms * kinds * quantiles))


def _variance_table(result: EscapeResult) -> DataFrame:
    pair, steps = (MODERATE, result.config.headline), result.early_at
    return DataFrame(
        {
            "momentum": np.repeat(pair, len(steps)),
            "step": np.tile(steps, 2),
            "variance": result.growth[0].ravel(),
            "exact": result.growth[1].ravel(),
            "diffusion": result.growth[2].ravel(),
        }
    )


ESCAPE = Experiment(
    "escape",
    ("P3-C1", "P3-C7", "P3-C8", "P3-C9", "P3-C15"),
    lambda settings: run(configure(Escape, settings)),
    estimates,
    tables,
)

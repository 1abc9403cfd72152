"""A stiff saddle with little noise: where stability, not noise, limits the step and momentum really wins."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame

from descent.engine.probes import FirstPassage, every
from descent.engine.train import train
from descent.experiments.arms import (
    Arms,
    Array,
    column,
    configure,
    momenta,
    outside,
    paired_ratio,
    passage_times,
    settle,
)
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.saddle import StiffSaddle, best_gain
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, mean, variance_ratio
from descent.theory.escape import escape_mean, escape_quantile
from descent.theory.mode import growth, stationary_variance

MODERATE = 0.5
SHARED, OWN = 0, 1  # lr at plain descent's limit for every arm, or at each arm's own


@dataclass(frozen=True)
class Stiff:
    """A saddle of one stiffness, with arms at a share of plain descent's stability limit and of their own."""

    problem: StiffSaddle
    momentum: tuple[float, ...]
    headline: float
    replicas: int
    seed: int
    device: str
    share: float = 0.95
    radius: float = 0.3
    steps: int = 2000  # of the stationary run; the first half is burn-in
    stiffnesses: tuple[float, ...] = (10.0, 100.0, 1e3, 1e4)

    @classmethod
    def cpu(cls, settings: Settings) -> Stiff:
        """Take stiffness 100 and four times the replicas."""
        return cls._of(settings, 4 * settings.replicas)

    @classmethod
    def paper(cls, settings: Settings) -> Stiff:
        """Take two hundred times the replicas."""
        return cls._of(settings, 200 * settings.replicas)

    @classmethod
    def _of(cls, settings: Settings, replicas: int) -> Stiff:
        arms = momenta((0.0, MODERATE, 0.9, 0.99), settings.momentum)
        return cls(StiffSaddle(), arms, settings.momentum, replicas, settings.seed, settings.device)

    @property
    def lr(self) -> Array:
        """Learning rates (2, A): at plain descent's limit, and at each arm's own."""
        own = self.share * self.problem.limit(self.momentum)
        return np.stack([np.full_like(own, self.share * self.problem.limit(0.0)), own])

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


@dataclass(frozen=True, eq=False)
class StiffResult:
    """Both ways to set the step (2), A momenta.

    times (2, A, N): escape along the soft direction; exact (2, A); stiff (2, A, N, T): stationary values of the stiff
    coordinate; stiff_exact (2, A): its variance. gain (K,): best growth with momentum over the best without, at the
    stiffnesses (K,); exponent: its slope in the stiffness.
    """

    config: Stiff
    times: Array
    exact: Array
    stiff: Array
    stiff_exact: Array
    gain: Array
    exponent: float
    seconds: float


def run(config: Stiff) -> StiffResult:
    """Leave the saddle, and watch the stiff direction."""
    clock = time.perf_counter()
    problem, momentum = config.problem, np.array(config.momentum)
    gain = best_gain(config.stiffnesses, config.share)
    return StiffResult(
        config=config,
        times=np.stack([_leave(config, lr) for lr in config.lr]),
        exact=escape_mean(config.radius, problem.instability, config.lr, momentum, problem.noise),
        stiff=np.stack([_watch(config, lr) for lr in config.lr]),
        stiff_exact=stationary_variance(problem.stiffness, config.lr, momentum, problem.noise),
        gain=gain,
        exponent=float(np.polyfit(np.log(config.stiffnesses), np.log(gain), 1)[0]),
        seconds=time.perf_counter() - clock,
    )


def _arms(config: Stiff, lr: Array, replicas: int) -> Arms:
    return Arms(tuple(lr), config.momentum, replicas, config.seed, config.device)


def _leave(config: Stiff, lr: Array) -> Array:
    """Return escape times (A, N)."""
    arms = _arms(config, lr, config.replicas)
    law = (config.radius, config.problem.instability, lr, np.array(config.momentum), config.problem.noise)
    slowest = int(escape_quantile(1 - 1e-7, *law).max())
    probes = {
        "out": FirstPassage(outside(config.radius)),
        "everyone": FirstPassage(outside(config.radius), 50, stop=True),
    }
    start = torch.zeros(arms.rows, 2, device=config.device)
    done = train(config.problem, start, arms.hyper, slowest, arms.streams(), probes=probes)
    return passage_times(arms.split(done.records["out"].values), done.steps, 1)


def _watch(config: Stiff, lr: Array) -> Array:
    """Return stationary values of the stiff coordinate (A, N, T)."""
    arms, half = _arms(config, lr, max(2, config.replicas // 4)), config.steps // 2
    start = torch.zeros(arms.rows, 2, device=config.device)
    return arms.split_series(settle(config.problem, start, arms, half, half, every(10, column(1)))[1])


def gain(result: StiffResult, way: int, arm: int) -> Estimate:
    """Return the mean escape time of plain descent over that of an arm, the step set in one of the two ways."""
    return paired_ratio(result.times[way, 0], result.times[way, arm], result.config.seed)


def estimates(result: StiffResult) -> Estimates:
    """Return what the stiff saddle says about P3-C11 and P3-X5."""
    config = result.config
    head, moderate = config.row(config.headline), config.row(MODERATE)
    stiff = result.stiff[SHARED]
    return {
        "P3-C11.well": mean(result.times[SHARED, head] / result.exact[SHARED, head]),
        "P3-X5.gain": gain(result, OWN, head),
        "P3-X5.exponent": exact(result.exponent),
        "P3-X5.quiet": variance_ratio(stiff[moderate], stiff[0], config.seed),
    }


def tables(result: StiffResult) -> dict[str, DataFrame]:
    """Return escape times and stiff variances, one row per way and momentum, and the best gain against stiffness."""
    rows = [_row(result, way, a) for way in (SHARED, OWN) for a in range(len(result.config.momentum))]
    best = DataFrame({"stiffness": result.config.stiffnesses, "gain": result.gain})
    return {"stiff_saddle": DataFrame(rows), "best_gain": best.assign(square_root=np.sqrt(best["stiffness"]))}


def _row(result: StiffResult, way: int, arm: int) -> dict[str, float | str]:
    config, times, ratio = result.config, mean(result.times[way, arm]), gain(result, way, arm)
    rate, momentum = float(config.lr[way, arm]), config.momentum[arm]
    return {
        "lr_at": ("plain limit", "own limit")[way],
        "lr": rate,
        "momentum": momentum,
        "mean": times.value,
        "mean_low": times.low,
        "mean_high": times.high,
        "exact": float(result.exact[way, arm]),
        "gain": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "growth": float(growth(config.problem.instability, rate, momentum)),
        "stiff_variance": float((result.stiff[way, arm] ** 2).mean()),
        "stiff_exact": float(result.stiff_exact[way, arm]),
    }


STIFF = Experiment("stiff", ("P3-C11", "P3-X5"), lambda settings: run(configure(Stiff, settings)), estimates, tables)

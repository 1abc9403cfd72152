"""One unstable direction with additive noise: the whole law of the escape time, its ceiling, and the part of noise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame

from descent.engine.probes import FirstPassage
from descent.engine.train import train
from descent.experiments.arms import (
    Array,
    arms_at,
    blocks,
    configure,
    momenta,
    outside,
    paired_ratio,
    passage_times,
    to_numpy,
)
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.saddle import Quadratic, matching_noise
from descent.stats.estimate import Estimate
from descent.stats.intervals import KS, bootstrap, ks_distance
from descent.theory.diffusion import diffusion_mean
from descent.theory.escape import escape_cdf, escape_level, escape_mean, escape_quantile, escape_sd
from descent.theory.mode import growth, growth_ceiling

STRONG = 0.99  # the momentum at which saturation is tested
WELL_OUTSIDE = 7.0  # escape level from which the law is within 0.005 of first passage, too little to tell


@dataclass(frozen=True)
class Saddle:
    """One linear saddle of unit instability and unit noise, left at |x| ≥ radius."""

    lr: float
    radius: float
    replicas: int


@dataclass(frozen=True)
class Linear:
    """Linear saddles, each with arms of every momentum; `main` is the one the speed-up is taken apart at."""

    saddles: tuple[Saddle, ...]
    momentum: tuple[float, ...]
    headline: float
    seed: int
    device: str
    main: int = 1
    louder: float = 10.0  # factor on the noise variance in the third reading of the same paths

    @classmethod
    def cpu(cls, settings: Settings) -> Linear:
        """Take twenty thousand paths at the larger steps, two thousand at the smallest, ten times slower one."""
        n = settings.replicas
        return cls._of(settings, Saddle(0.1, 3.0, 20 * n), Saddle(0.01, 1.0, 20 * n), Saddle(0.001, 1.0, 2 * n))

    @classmethod
    def paper(cls, settings: Settings) -> Linear:
        """Take a million paths, and a step ten times smaller still."""
        n = settings.replicas
        large = [Saddle(lr, radius, 1000 * n) for lr, radius in ((0.1, 3.0), (0.01, 1.0))]
        return cls._of(settings, *large, Saddle(0.001, 1.0, 100 * n), Saddle(0.0001, 1.0, 10 * n))

    @classmethod
    def _of(cls, settings: Settings, *saddles: Saddle) -> Linear:
        arms = momenta((0.0, 0.5, 0.9, 0.95, STRONG), settings.momentum)
        return cls(saddles, arms, settings.momentum, settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class LinearResult:
    """Escape times per saddle, (A, N) each, and what the exact law and the diffusion limit give, (S, A).

    quiet: with the noise cut to what plain descent injects; loud: with the noise variance multiplied; both at the
    main saddle. ceiling (S,): largest growth rate over plain descent's as momentum → 1.
    """

    config: Linear
    times: tuple[Array, ...]
    quiet: Array
    loud: Array
    exact: Array
    diffusion: Array
    level: Array
    ceiling: Array
    seconds: float

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.config.momentum.index(momentum)


def run(config: Linear) -> LinearResult:
    """Release every path at rest on the saddle and note when it leaves.

    The system is linear, so a path with noise c·σ leaves radius R when the path with noise σ leaves R/c: the arms with
    cut and with louder noise are read off the same paths.
    """
    clock = time.perf_counter()
    readings = [np.stack([_leave(s, m, config) for m in config.momentum], axis=1) for s in config.saddles]
    rates = np.array([[s.lr] for s in config.saddles])
    radii, arms = np.array([[s.radius] for s in config.saddles]), np.array(config.momentum)
    return LinearResult(
        config=config,
        times=tuple(times[0] for times in readings),
        quiet=readings[config.main][1],
        loud=readings[config.main][2],
        exact=escape_mean(radii, 1.0, rates, arms),
        diffusion=diffusion_mean(radii, 1.0, rates, arms),
        level=escape_level(radii, 1.0, rates, arms),
        ceiling=np.asarray(growth_ceiling(1.0, rates) / growth(1.0, rates, 0.0))[:, 0],
        seconds=time.perf_counter() - clock,
    )


def _leave(saddle: Saddle, momentum: float, config: Linear) -> Array:
    """Return the times (3, N) of one arm at the radius of the plain, the quiet and the loud reading.

    Arms run one after the other (on the same noise): each ends with its own last paths, long before those that left
    first overflow.
    """
    arms = arms_at(saddle.lr, (momentum,), saddle.replicas, config.seed, config.device)
    far = saddle.radius / matching_noise(1.0, saddle.lr, momentum) ** 0.5
    steps = int(escape_quantile(1 - 1e-6, far, 1.0, saddle.lr, momentum))
    radii = {"plain": saddle.radius, "quiet": far, "loud": saddle.radius / config.louder**0.5}
    probes = {name: FirstPassage(outside(r)) for name, r in radii.items()}
    start = torch.zeros(arms.rows, 1, device=config.device)
    run = train(Quadratic((-1.0,)), start, arms.hyper, steps, arms.streams(), probes=probes, limit=1e15)
    return np.stack([passage_times(to_numpy(run.records[name].values), steps, 1) for name in radii])


def distances(result: LinearResult) -> list[tuple[int, int, KS]]:
    """Return (saddle, arm, distance to the exact law) wherever the radius is well outside the noise level."""
    valid = [(s, a) for s, a in np.argwhere(result.level >= WELL_OUTSIDE)]
    found = []
    for s, a in valid:
        saddle, momentum = result.config.saddles[s], result.config.momentum[a]
        times = result.times[s][a]

        def law(k: Array, saddle: Saddle = saddle, momentum: float = momentum) -> Array:
            return escape_cdf(k, saddle.radius, 1.0, saddle.lr, momentum)

        found.append((int(s), int(a), ks_distance(times, law, lattice=True, comparisons=len(valid))))
    return found


def estimates(result: LinearResult) -> Estimates:
    """Return what the linear saddle says about P3-C1, P3-C12 and P3-X2."""
    config = result.config
    times, exact = result.times[config.main], result.exact[config.main]
    strong, head, seed = result.row(STRONG), result.row(config.headline), config.seed
    worst = max((ks.estimate() for _, _, ks in distances(result)), key=lambda e: e.value)
    found: dict[str, Estimate | list[Estimate]] = {
        "P3-C1.law": worst,
        "P3-X2.saturates": paired_ratio(times[0], times[strong] / (1 - STRONG), seed),
        "P3-X2.size": paired_ratio(times[0] / exact[0], times[strong] / exact[strong], seed),
    }
    if config.headline > 0:  # plain descent has no speed-up to share out
        samples = [blocks(part) for part in (times[0], times[head], result.quiet[head])]
        found["P3-C12.share"] = bootstrap(_share, *samples, seed=seed)
    return found


def _share(plain: Array, fast: Array, quiet: Array) -> Array:
    """Return the share of the log speed-up that goes when the noise is cut."""
    lost = np.log(quiet.mean(1) / fast.mean(1))
    return np.asarray(lost / np.log(plain.mean(1) / fast.mean(1)))


def tables(result: LinearResult) -> dict[str, DataFrame]:
    """Return escape times and speed-ups, one row per saddle and momentum."""
    ks = {(s, a): d for s, a, d in distances(result)}
    records = []
    for s, saddle in enumerate(result.config.saddles):
        for a, momentum in enumerate(result.config.momentum):
            speedup = speedup_of(result, s, a)
            distance = ks.get((s, a))
            records.append(
                {
                    "lr": saddle.lr,
                    "momentum": momentum,
                    "radius": saddle.radius,
                    "replicas": saddle.replicas,
                    "mean": float(result.times[s][a].mean()),
                    "standard_error": float(result.times[s][a].std(ddof=1) / saddle.replicas**0.5),
                    "exact": float(result.exact[s, a]),
                    "diffusion": float(result.diffusion[s, a]),
                    "sd": float(result.times[s][a].std(ddof=1)),
                    "sd_exact": float(escape_sd(1.0, saddle.lr, momentum)),
                    "speedup": speedup.value,
                    "low": speedup.low,
                    "high": speedup.high,
                    "speedup_exact": float(result.exact[s, 0] / result.exact[s, a]),
                    "level": float(result.level[s, a]),
                    "ks": distance.distance if distance else None,
                    "ks_critical": distance.critical if distance else None,
                }
            )
    return {"linear_saddle": DataFrame(records), "linear_saddle_noise": _noise_table(result)}


def speedup_of(result: LinearResult, saddle: int, arm: int) -> Estimate:
    """Return the mean escape time of plain descent over that of an arm."""
    times = result.times[saddle]
    return paired_ratio(times[0], times[arm], result.config.seed, most=1000)


def _noise_table(result: LinearResult) -> DataFrame:
    """Tell how much later (quiet) or earlier (loud) the arms of the main saddle leave when only the noise changes."""
    saddle, arms = result.config.saddles[result.config.main], np.array(result.config.momentum)
    rate = growth(1.0, saddle.lr, arms)
    times = result.times[result.config.main]
    return DataFrame(
        {
            "momentum": arms,
            "mean": times.mean(1),
            "mean_quiet": result.quiet.mean(1),
            "mean_loud": result.loud.mean(1),
            "gained_by_loud": (times - result.loud).mean(1),
            "gained_by_loud_predicted": 0.5 * np.log(result.config.louder) / rate,
        }
    )


LINEAR = Experiment(
    "linear", ("P3-C1", "P3-C12", "P3-X2"), lambda settings: run(configure(Linear, settings)), estimates, tables
)

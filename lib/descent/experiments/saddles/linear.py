"""One unstable direction with additive noise: the whole law of the escape time, its ceiling, and the part of noise.

Here the law is known to the last step, so theory is tested without the approximations of any other problem. The
question beside it: does momentum leave sooner because it drifts faster, or because it is noisier?
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from descent.arrays import Array
from descent.engine import FirstPassage, heavy_ball, outside
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.saddle import Quadratic, matching_noise
from descent.stats import bootstrap, ks_distance, paired_ratio
from descent.stats.intervals import KS, blocks
from descent.theory.escape import Unstable, escape_level, escape_sd
from descent.theory.mode import growth, growth_ceiling

STRONG = 0.99  # the momentum at which saturation is tested
WELL_OUTSIDE = 7.0  # escape level from which the law is within 0.005 of first passage, too little to tell
OUTSIDE = 4.0  # the level it was first judged from, where it is within 0.02


@dataclass(frozen=True)
class Saddle:
    """One linear saddle of unit instability and unit noise, left at |x| ≥ radius."""

    lr: float
    radius: float
    replicas: Share

    def law(self, momentum: float) -> Unstable:
        """Return the exact law of its escape."""
        return Unstable(1.0, self.lr, momentum)

    def far(self, momentum: float) -> float:
        """Return the radius at which a path stands for one whose noise is cut to what plain descent injects."""
        return float(self.radius / matching_noise(1.0, self.lr, momentum) ** 0.5)


@dataclass(frozen=True)
class Linear:
    """Linear saddles, each with arms of every momentum; `main` is the one the speed-up is taken apart at."""

    saddles: tuple[Saddle, ...] = (
        Saddle(0.1, 3.0, Share(times=20)),
        Saddle(0.01, 1.0, Share(times=20)),
        Saddle(0.001, 1.0, Share(times=2)),
    )
    momentum: tuple[float, ...] = (0.0, 0.5, 0.9, 0.95, STRONG)  # and the headline
    main: int = 1
    louder: float = 10.0  # factor on the noise variance in the third reading of the same paths

    @property
    def places(self) -> tuple[Array, Array]:
        """Learning rates and radii, (S, 1) each."""
        rates, radii = np.array([[saddle.lr, saddle.radius] for saddle in self.saddles]).T[..., None]
        return rates, radii


@dataclass(frozen=True, eq=False)
class LinearResult(ByMomentum):
    """Escape times per saddle, (A, N) each, and what the exact law and the diffusion limit give, (S, A).

    quiet: with the noise cut to what plain descent injects; loud: with the noise variance multiplied; both at the
    main saddle, exact_quiet (A,) from the law. ceiling (S,): largest growth rate over plain descent's as momentum → 1.
    """

    config: Linear
    lab: Lab
    times: tuple[Array, ...]
    quiet: Array
    loud: Array
    exact: Array
    exact_quiet: Array
    diffusion: Array
    level: Array
    ceiling: Array

    @property
    def main(self) -> Array:
        """The escape times of the main saddle, (A, N)."""
        return self.times[self.config.main]


def run(config: Linear, lab: Lab) -> LinearResult:
    """Release every path at rest on the saddle and note when it leaves.

    The system is linear, so a path with noise c·σ leaves radius R when the path with noise σ leaves R/c: the arms with
    cut and with louder noise are read off the same paths.
    """
    momentum, (rates, radii), main = lab.momenta(config.momentum), config.places, config.saddles[config.main]
    law = Unstable(1.0, rates, np.array(momentum))
    readings = [np.stack([_leave(saddle, m, config, lab) for m in momentum], axis=1) for saddle in config.saddles]
    return LinearResult(
        config, lab,
        times=tuple(times[0] for times in readings), quiet=readings[config.main][1], loud=readings[config.main][2],
        exact=law.mean(radii), diffusion=law.diffusion.mean(radii),
        exact_quiet=np.array([float(main.law(m).mean(main.far(m))) for m in momentum]),
        level=escape_level(radii, 1.0, rates, law.momentum),
        ceiling=np.asarray(growth_ceiling(1.0, rates) / growth(1.0, rates, 0.0))[:, 0],
    )  # fmt: skip


def _leave(saddle: Saddle, momentum: float, config: Linear, lab: Lab) -> Array:
    """Return the times (3, N) of one arm at the radius of the plain, the quiet and the loud reading.

    Arms run one after the other (on the same noise): each ends with its own last paths, long before those that left
    first overflow.
    """
    far = saddle.far(momentum)
    radii = {"plain": saddle.radius, "quiet": far, "loud": saddle.radius / config.louder**0.5}
    steps = int(saddle.law(momentum).quantile(1 - 1e-6, far))
    arm = lab.arms(heavy_ball(saddle.lr, momentum), saddle.replicas)
    probes = {name: FirstPassage(outside(radius)) for name, radius in radii.items()}
    done = arm.run(Quadratic((-1.0,)), torch.zeros(1, 1), steps, probes=probes, limit=1e15)
    return np.stack([done.passed(name)[0] for name in radii])


def distances(result: LinearResult, level: float = WELL_OUTSIDE) -> dict[tuple[int, int], KS]:
    """Return the distance to the exact law by (saddle, arm), wherever the escape level is at least that high."""
    valid, found = [(int(s), int(a)) for s, a in np.argwhere(result.level >= level)], {}
    for s, a in valid:
        saddle = result.config.saddles[s]
        law = partial(saddle.law(result.momentum[a]).cdf, radius=saddle.radius)
        found[s, a] = ks_distance(result.times[s][a], law, lattice=True, comparisons=len(valid))
    return found


def speedups(result: LinearResult) -> NDArray[np.object_]:
    """Return the mean escape time of plain descent over that of every arm, estimates (S, A)."""
    return np.stack([each(paired_ratio, t[0], t, seed=result.lab.seed, most=1000) for t in result.times])


def share_of_noise(plain: Array, fast: Array, quiet: Array) -> Array:
    """Return the share of the log speed-up that goes when the noise is cut, 0 where there is no speed-up."""
    lost, gained = np.log(quiet / fast), np.log(plain / fast)
    return np.asarray(np.divide(lost, gained, out=np.zeros_like(lost), where=gained != 0))


def noise(result: LinearResult) -> Estimates:
    """Return what the cut noise says about P3-X8: the share of the speed-up that goes, and that over the law's."""
    head, main, seed = result.arm(result.lab.momentum), result.config.main, result.lab.seed
    samples = [blocks(times) for times in (result.main[0], result.main[head], result.quiet[head])]
    law = share_of_noise(result.exact[main, :1], result.exact[main, [head]], result.exact_quiet[[head]])[0]

    def share(*times: Array) -> Array:
        return share_of_noise(*(several.mean(1) for several in times))

    found = {"P3-X8.share": bootstrap(share, *samples, seed=seed)}
    return found | {"P3-X8.size": bootstrap(lambda *t: share(*t) / law, *samples, seed=seed)} if law else found


def estimates(result: LinearResult) -> Estimates:
    """Return what the linear saddle says about P3-X2, P3-X8 and P3-X9."""
    times, exact, seed = result.main, result.exact[result.config.main], result.lab.seed
    strong = result.arm(STRONG)
    return {
        "P3-X2.saturates": paired_ratio(times[0], times[strong] / (1 - STRONG), seed),
        "P3-X2.size": paired_ratio(times[0] / exact[0], times[strong] / exact[strong], seed),
        **noise(result),
        "P3-X9.law": [ks.estimate() for ks in distances(result).values()],
        "P3-X9.law_first": [ks.estimate() for ks in distances(result, OUTSIDE).values()],
    }


def tables(result: LinearResult) -> Tables:
    """Return escape times and speed-ups per saddle and momentum, and how much later or earlier other noise leaves."""
    config, arms, ks, (rates, radii) = result.config, result.momentum, distances(result), result.config.places
    counts = np.array([[result.lab.count(saddle.replicas)] for saddle in config.saddles])
    sd = np.stack([times.std(axis=1, ddof=1) for times in result.times])
    distance, critical = (np.full(sd.shape, np.nan) for _ in range(2))
    for place, found in ks.items():
        distance[place], critical[place] = found.distance, found.critical
    times = tidy(
        {"lr": rates[:, 0], "momentum": arms}, radius=radii, replicas=counts,
        mean=np.stack([times.mean(axis=1) for times in result.times]), standard_error=sd / counts**0.5,
        exact=result.exact, diffusion=result.diffusion, sd=sd, sd_exact=escape_sd(1.0, rates, arms),
        value=speedups(result), speedup_exact=result.exact[:, :1] / result.exact, level=result.level,
        ks=distance, ks_critical=critical,
    )  # fmt: skip
    noise = tidy(
        {"momentum": arms}, mean=result.main.mean(1), mean_quiet=result.quiet.mean(1), mean_loud=result.loud.mean(1),
        gained_by_loud=(result.main - result.loud).mean(1),
        gained_by_loud_predicted=0.5 * np.log(config.louder) / growth(1.0, config.saddles[config.main].lr, arms),
    )  # fmt: skip
    return {"linear_saddle": times.rename(columns={"value": "speedup"}), "linear_saddle_noise": noise}


PLACES = ((0.1, 3.0, 1000), (0.01, 1.0, 1000), (0.001, 1.0, 100), (0.0001, 1.0, 10))
LARGE = Linear(tuple(Saddle(lr, radius, Share(times=times)) for lr, radius, times in PLACES))
LINEAR = Experiment("linear", small=Linear(), large=LARGE, run=run, estimates=estimates, tables=tables)

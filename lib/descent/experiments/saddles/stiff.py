"""A stiff saddle with little noise: where stability, not noise, limits the step and momentum really wins.

Every arm runs at a share of plain descent's largest stable step, and at the same share of its own, which is up to
twice as large. The best gain grows like the root of the stiffness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import FirstPassage, column, every, heavy_ball, outside
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.saddle import StiffSaddle, best_gain
from descent.stats import exact, mean, paired_ratio, variance_ratio
from descent.theory.escape import Unstable
from descent.theory.mode import growth, stationary_variance

MODERATE = 0.5
WAYS = ("plain limit", "own limit")  # where lr is held: plain descent's limit for every arm, or each arm's own
SHARED, OWN = 0, 1


@dataclass(frozen=True)
class Stiff:
    """A saddle of one stiffness, with arms at a share of plain descent's stability limit and of their own."""

    problem: StiffSaddle = StiffSaddle()
    momentum: tuple[float, ...] = (0.0, MODERATE, 0.9, 0.99)  # and the headline
    replicas: Share = Share(times=4)
    watched: Share = Share()  # in the stationary run
    share: float = 0.95
    radius: float = 0.3
    steps: int = 2000  # of the stationary run; the first half is burn-in
    stiffnesses: tuple[float, ...] = (10.0, 100.0, 1e3, 1e4)


@dataclass(frozen=True, eq=False)
class StiffResult(ByMomentum):
    """WAYS (2) to set the step, A momenta; learning rates lr (2, A).

    times (2, A, N): escape along the soft direction; exact (2, A); stiff (2, A, N, T): stationary values of the stiff
    coordinate; stiff_exact (2, A): its variance. gain (K,): best growth with momentum over the best without, at the
    stiffnesses (K,); exponent: its slope in the stiffness.
    """

    config: Stiff
    lab: Lab
    lr: Array
    times: Array
    exact: Array
    stiff: Array
    stiff_exact: Array
    gain: Array
    exponent: float


def run(config: Stiff, lab: Lab) -> StiffResult:
    """Leave the saddle, and watch the stiff direction."""
    problem, momentum = config.problem, lab.momenta(config.momentum)
    own = config.share * problem.limit(momentum)
    lr = np.stack([np.full_like(own, config.share * problem.limit(0.0)), own])
    law = Unstable(problem.instability, lr, np.array(momentum), problem.noise)
    rest, half, gone = torch.zeros(1, 2), config.steps // 2, outside(config.radius)
    leaving = {"out": FirstPassage(gone), "everyone": FirstPassage(gone, 50, stop=True)}
    times, stiff = [], []
    for rates, slowest in zip(lr, law.quantile(1 - 1e-7, config.radius).max(axis=1), strict=True):
        rule = heavy_ball(rates.tolist(), momentum)
        times.append(lab.arms(rule, config.replicas).run(problem, rest, int(slowest), probes=leaving).passed("out"))
        settled = lab.arms(rule, config.watched).run(problem, rest, half)
        stiff.append(settled.then(2 * half, probes={"": every(10, column(1))})[""])
    gain = best_gain(config.stiffnesses, config.share)
    return StiffResult(
        config, lab, lr, np.stack(times), law.mean(config.radius), np.stack(stiff),
        stiff_exact=stationary_variance(problem.stiffness, lr, momentum, problem.noise),
        gain=gain, exponent=float(np.polyfit(np.log(config.stiffnesses), np.log(gain), 1)[0]),
    )  # fmt: skip


def estimates(result: StiffResult) -> Estimates:
    """Return what the stiff saddle says about P3-C11, P3-X5 and P3-X9."""
    seed, head, moderate = result.lab.seed, result.arm(result.lab.momentum), result.arm(MODERATE)
    times, stiff = result.times, result.stiff[SHARED]
    over = times[OWN] / result.exact[OWN, :, None]
    return {
        "P3-C11.well": paired_ratio(times[SHARED, 0], times[SHARED, head], seed),
        "P3-X5.gain": paired_ratio(times[OWN, 0], times[OWN, head], seed),
        "P3-X5.size": paired_ratio(over[0], over[head], seed),
        "P3-X5.exponent": exact(result.exponent),
        "P3-X5.quiet": variance_ratio(stiff[moderate], stiff[0], seed),
        "P3-X9.well": mean(times[SHARED, head] / result.exact[SHARED, head]),
    }


def tables(result: StiffResult) -> Tables:
    """Return escape times and stiff variances, one row per way and momentum, and the best gain against stiffness."""
    times, problem, stiffnesses = result.times, result.config.problem, np.array(result.config.stiffnesses)
    frame = tidy(
        {"lr_at": WAYS, "momentum": result.momentum}, lr=result.lr, mean=each(mean, times), exact=result.exact,
        value=each(paired_ratio, times[:, :1], times, seed=result.lab.seed),
        growth=growth(problem.instability, result.lr, result.momentum),
        stiff_variance=[[(values**2).mean() for values in arms] for arms in result.stiff],
        stiff_exact=result.stiff_exact,
    )  # fmt: skip
    best = tidy({"stiffness": stiffnesses}, gain=result.gain, square_root=np.sqrt(stiffnesses))
    return {"stiff_saddle": frame.rename(columns={"value": "gain"}), "best_gain": best}


LARGE = Stiff(replicas=Share(times=200), watched=Share(times=50))
STIFF = Experiment("stiff", small=Stiff(), large=LARGE, run=run, estimates=estimates, tables=tables)

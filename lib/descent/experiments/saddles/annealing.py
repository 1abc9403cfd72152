"""Annealing: keep momentum while it helps, then remove what hurts, beside plain descent with the matched schedule."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from descent.engine.probes import every
from descent.engine.rules import Factors, Schedule, constant, drop, heavy_ball, per_arm, repeat
from descent.engine.train import train
from descent.experiments.arms import Arms, Array, configure, paired_ratio, survivors
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.pca import StreamingPCA, error
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, paired_difference

PLAIN, MOMENTUM, STEP, SWITCHED, DECAYED, MATCHED, LATE = ARMS = (
    "plain",
    "momentum",
    "step annealed",
    "momentum annealed",
    "momentum decayed",
    "plain, matched step",
    "step annealed late",
)


@dataclass(frozen=True)
class Annealing:
    """Streaming PCA from its saddle under six schedules, and one switched late.

    The headline momentum runs at lr; at the switch its lr falls to (1 − momentum)·lr, or its momentum to 0 at once or
    in a straight line over `decay` steps. The matched arm is plain descent at lr/(1 − momentum), then lr: the same
    effective step all along. Times are in relaxation times 1/(lr·gap) of plain descent.
    """

    problem: StreamingPCA
    lr: float
    momentum: float
    replicas: int
    seed: int
    device: str
    switch: float = 1.5
    late: float = 10.0
    end: float = 18.0
    window: float = 3.0  # the final error is averaged over
    decay: float = 0.5
    frames: int = 360
    drawn: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Annealing:
        """Take the settings of the other experiments on streaming PCA."""
        return cls(StreamingPCA(), settings.lr, settings.momentum, settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Annealing:
        """Take a hundred times the replicas."""
        return replace(cls.cpu(settings), replicas=100 * settings.replicas, frames=180)

    def steps(self, relaxations: float) -> int:
        """Return a number of steps from relaxation times of plain descent."""
        return round(relaxations / (self.lr * self.problem.gap()))

    @property
    def base(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Learning rates and momenta of the arms before any schedule."""
        matched = self.lr / (1 - self.momentum)
        lr = {PLAIN: self.lr, MATCHED: matched}
        momentum = {PLAIN: 0.0, MATCHED: 0.0}
        return tuple(lr.get(arm, self.lr) for arm in ARMS), tuple(momentum.get(arm, self.momentum) for arm in ARMS)

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The schedule of every arm."""
        at, late, cut = self.steps(self.switch), self.steps(self.late), 1 - self.momentum
        return {
            PLAIN: constant(),
            MOMENTUM: constant(),
            STEP: drop(at, lr=cut),
            SWITCHED: drop(at, lr=1.0, momentum=0.0),
            DECAYED: _straight(at, at + self.steps(self.decay)),
            MATCHED: drop(at, lr=cut),
            LATE: drop(late, lr=cut),
        }


def _straight(begin: int, end: int) -> Schedule:
    """Take the momentum to 0 in a straight line from step `begin` to step `end`."""
    before, after = Factors(), Factors(momentum=0.0)

    def factors(step: int) -> Factors:
        if begin < step < end:
            return Factors(momentum=(end - step) / (end - begin))
        return before if step <= begin else after

    return factors


@dataclass(frozen=True, eq=False)
class AnnealingResult:
    """Errors of the arms (in the order of ARMS): mean and median over surviving replicas (A, T) at steps (T,).

    paths (A, N', T): errors of a few replicas; final (A, N): average over the last window; floor: stationary errors of
    the diffusion limit, plain and momentum. switch, late: steps.
    """

    config: Annealing
    steps: Array
    mean_error: Array
    median_error: Array
    paths: Array
    final: Array
    floor: tuple[float, float]
    switch: int
    late: int
    diverged: int
    seconds: float


def run(config: Annealing) -> AnnealingResult:
    """Run every schedule on the same noise.

    lr sits inside the displacement, as in x ← x − lr·g + momentum·(last displacement): a cut of lr does not touch the
    displacement already under way.
    """
    clock = time.perf_counter()
    lr, momentum = config.base
    arms = Arms(lr, momentum, config.replicas, config.seed, config.device)
    hyper = repeat(heavy_ball(list(lr), list(momentum), buffer="displacement"), config.replicas)
    schedule = per_arm(*(config.schedules[arm] for arm in ARMS), replicas=config.replicas)
    end = config.steps(config.end)
    probe = {"error": every(max(1, end // config.frames), error)}
    start = config.problem.at(1, arms.rows).to(config.device)
    done = train(config.problem, start, hyper, end, arms.streams(), probes=probe, schedule=schedule)
    alive = survivors(arms, done)
    steps, errors = done.records["error"].steps.numpy(), arms.split_series(done.records["error"])[:, alive]
    late = steps > end - config.steps(config.window)
    floor = config.problem.floor(config.lr, np.array([0.0, config.momentum]))
    return AnnealingResult(
        config,
        steps,
        errors.mean(axis=1),
        np.median(errors, axis=1),
        errors[:, : config.drawn],
        errors[:, :, late].mean(axis=2),
        (float(floor[0]), float(floor[1])),
        config.steps(config.switch),
        config.steps(config.late),
        int((~alive).sum()),
        time.perf_counter() - clock,
    )


def ratio(result: AnnealingResult, arm: str, reference: str) -> Estimate:
    """Return the final error of one arm over that of another."""
    final, seed = result.final, result.config.seed
    return paired_ratio(final[ARMS.index(arm)], final[ARMS.index(reference)], seed)


def estimates(result: AnnealingResult) -> Estimates:
    """Return what annealing says about P3-C3, P3-C4 and P3-C13."""
    return {
        "P3-C3.harm": ratio(result, MOMENTUM, PLAIN),
        "P3-C3.recovers": ratio(result, STEP, PLAIN),
        "P3-C4.recovers": ratio(result, SWITCHED, PLAIN),
        "P3-C13.same_lr": ratio(result, MOMENTUM, MATCHED),
        "P3-C13.same_effective": ratio(result, STEP, MATCHED),
    }


def tables(result: AnnealingResult) -> dict[str, DataFrame]:
    """Return final errors of every arm, and the mean error along the way."""
    curves = DataFrame(result.mean_error.T, columns=list(ARMS)).assign(step=result.steps)
    return {
        "annealing": DataFrame([_row(result, arm) for arm in ARMS]),
        "annealing_curves": curves.melt(id_vars="step", var_name="arm", value_name="error"),
    }


def _row(result: AnnealingResult, arm: str) -> dict[str, float | str | None]:
    """Return an arm's final error, its difference to plain descent, and when half its replicas are near the floor."""
    index = ARMS.index(arm)
    final, gap = mean(result.final[index]), paired_difference(result.final[index], result.final[0])
    near = np.flatnonzero(result.median_error[index] <= 2 * result.floor[0])
    return {
        "arm": arm,
        "final_error": final.value,
        "low": final.low,
        "high": final.high,
        "minus_plain": gap.value,
        "minus_plain_low": gap.low,
        "minus_plain_high": gap.high,
        "median_below_twice_floor": float(result.steps[near[0]]) if len(near) else None,
        "diverged": result.diverged,
    }


ANNEALING = Experiment(
    "annealing", ("P3-C3", "P3-C4", "P3-C13"), lambda settings: run(configure(Annealing, settings)), estimates, tables
)

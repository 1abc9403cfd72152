"""Annealing: keep momentum while it helps, then remove what hurts, beside plain descent with the matched schedule.

The headline momentum runs at the lab's lr; at the switch its lr falls to (1 − momentum)·lr, or its momentum to 0 at
once or in a straight line. The matched arm is plain descent at lr/(1 − momentum), then lr: the same effective step all
along. If it does as well, annealing is not about momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from descent.arrays import Array, IntArray
from descent.engine import Factors, Schedule, constant, drop, every
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.problems.pca import StreamingPCA, error
from descent.stats import Estimate, mean, paired_difference, paired_ratio

ARMS = (Arm.PLAIN, Arm.HEAD, Arm.STEP, Arm.SWITCHED, Arm.DECAYED, Arm.MATCHED, Arm.LATE)


@dataclass(frozen=True)
class Annealing:
    """Streaming PCA from its saddle; times are in relaxation times 1/(lr·gap) of plain descent."""

    problem: StreamingPCA = StreamingPCA()
    replicas: Share = Share(over=2, least=32)  # on one noise the paths to compare run together, so that few decide
    switch: float = 1.5
    late: float = 10.0
    end: float = 18.0
    window: float = 3.0  # the final error is averaged over
    decay: float = 0.5  # how long the momentum takes that does not fall at once
    frames: int = 360

    def steps(self, lab: Lab, relaxations: float) -> int:
        """Return a number of steps from relaxation times of plain descent."""
        return round(relaxations / (lab.lr * self.problem.gap()))

    def schedules(self, lab: Lab) -> dict[Arm, Schedule]:
        """Return the schedule of every arm."""
        at, late, cut = self.steps(lab, self.switch), self.steps(lab, self.late), 1 - lab.momentum
        end = at + self.steps(lab, self.decay)

        def straight(step: int) -> Factors:
            return Factors(momentum=min(1.0, max(0.0, (end - step) / (end - at))))

        return {
            Arm.PLAIN: constant(),
            Arm.HEAD: constant(),
            Arm.STEP: drop(at, lr=cut),
            Arm.SWITCHED: drop(at, lr=1.0, momentum=0.0),
            Arm.DECAYED: straight,
            Arm.MATCHED: drop(at, lr=cut),
            Arm.LATE: drop(late, lr=cut),
        }


@dataclass(frozen=True, eq=False)
class AnnealingResult:
    """Errors of ARMS: mean and median over surviving replicas (A, T) at steps (T,), and final (A, N) over the window.

    floor (2,): stationary errors of the diffusion limit, plain and momentum.
    """

    config: Annealing
    lab: Lab
    steps: IntArray
    mean_error: Array
    median_error: Array
    final: Array
    floor: Array
    diverged: int


def run(config: Annealing, lab: Lab) -> AnnealingResult:
    """Run every schedule on the same noise.

    lr sits inside the displacement, as in x ← x − lr·g + momentum·(last displacement): a cut of lr does not touch the
    displacement already under way.
    """
    arms = lab.arms(rule(ARMS, lab.lr, lab.momentum, buffer="displacement"), config.replicas)
    schedules, end = config.schedules(lab), config.steps(lab, config.end)
    probe = every(max(1, end // config.frames), error)
    done = arms.run(
        config.problem, config.problem.at(1), end, probes={"": probe}, schedule=[schedules[arm] for arm in ARMS]
    )
    steps, errors = done.at(""), done[""][:, done.alive]
    return AnnealingResult(
        config, lab, steps,
        mean_error=errors.mean(axis=1), median_error=np.median(errors, axis=1),
        final=errors[:, :, steps > end - config.steps(lab, config.window)].mean(axis=2),
        floor=config.problem.floor(lab.lr, np.array([0.0, lab.momentum])), diverged=int((~done.alive).sum()),
    )  # fmt: skip


def ratio(result: AnnealingResult, arm: Arm, reference: Arm = Arm.PLAIN) -> Estimate:
    """Return the final error of one arm over that of another."""
    ours, theirs = (result.final[ARMS.index(name)] for name in (arm, reference))
    return paired_ratio(ours, theirs, result.lab.seed)


def estimates(result: AnnealingResult) -> Estimates:
    """Return what annealing says about P3-C3, P3-C4 and P3-C13."""
    return {
        "P3-C3.harm": ratio(result, Arm.HEAD),
        "P3-C3.recovers": ratio(result, Arm.STEP),
        "P3-C4.recovers": ratio(result, Arm.SWITCHED),
        "P3-C13.same_lr": ratio(result, Arm.HEAD, Arm.MATCHED),
        "P3-C13.same_effective": ratio(result, Arm.STEP, Arm.MATCHED),
    }


def tables(result: AnnealingResult) -> Tables:
    """Return final errors of every arm and when half its replicas are near the floor, and mean errors on the way."""
    final, near = result.final, result.median_error <= 2 * result.floor[0]
    frame = tidy(
        {"arm": ARMS}, value=each(mean, final), minus_plain=each(paired_difference, final, final[:1]),
        median_below_twice_floor=np.where(near.any(axis=1), result.steps[near.argmax(axis=1)], np.nan),
        diverged=result.diverged,
    )  # fmt: skip
    curves = tidy({"arm": ARMS, "step": result.steps}, error=result.mean_error)
    return {"annealing": frame.rename(columns={"value": "final_error"}), "annealing_curves": curves}


LARGE = Annealing(replicas=Share(times=100), frames=180)
ANNEALING = Experiment("annealing", small=Annealing(), large=LARGE, run=run, estimates=estimates, tables=tables)

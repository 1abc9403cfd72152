"""A linear net, a convex problem: momentum and plain descent go in one direction, and are there in the limit only.

With f(X) = Σ_r Σ_patches ⟨w_r, patch⟩ all neurons feel one force, so that only their sum w = Σ w_r counts: one neuron
on the sum of the noise patches, at `neurons` times the rate. Both algorithms then converge in direction to the
separator of the largest margin, at a distance that falls as 1/log t, or 1/log(1/L), for the loss L falls as 1/t. The
gap in error is measured along a ladder of losses and continued on a straight line in 1/log(1/L) to L = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.engine import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, each, tidy
from descent.experiments.margins.arms import LARGE, AtLoss, Task, of_sets
from descent.problems.patches import Patches
from descent.stats import bounded_difference, mean


@dataclass(frozen=True)
class Linear:
    """Plain descent and momentum at one EMA rate, down a ladder of training losses."""

    task: Task = Task()
    lr: float = 0.3  # of every neuron
    targets: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    practical: float = 1e-3  # of them, the loss at which what is left of the gap is judged
    look: int = 10  # steps between two looks at the loss
    steps: int = 40_000


@dataclass(frozen=True, eq=False)
class LinearResult:
    """Small-margin errors of plain descent and momentum at each loss, (L, 2, S), and the steps to it."""

    config: Linear
    lab: Lab
    err2: Array
    step: Array

    @property
    def gaps(self) -> Array:
        """Plain minus momentum, (L, S)."""
        return np.asarray(self.err2[:, 0] - self.err2[:, 1])


def run(config: Linear, lab: Lab) -> LinearResult:
    """Train both arms down the ladder, on the sum of every example's noise patches."""
    task, data = config.task, config.task.data(lab)
    problem = Patches(replace(data, noise=data.noise.sum(2, keepdim=True)), 2, power=1)
    start = {name: leaf.sum(1, keepdim=True) for name, leaf in task.start(lab).items()}
    arms = lab.arms(ema(config.lr * task.neurons, (0.0, lab.momentum)), task.seeds)
    keeper, noise = AtLoss(problem, config.targets, config.look), task.test_noise(lab).sum(2, keepdim=True)
    keeper.train(arms, problem, start, config.steps)
    errors = [arms.split(problem.test_error(kept, task.small_margin, noise)) for kept in keeper.kept]
    return LinearResult(config, lab, np.stack(errors), np.stack([arms.split(step) for step in keeper.passed]))


def at_zero(losses: Array, values: Array) -> Array:
    """Return where straight lines through values (L, S) in 1/log(1/loss) end at vanishing loss, (S,).

    >>> at_zero(np.array([1e-2, 1e-4]), 0.1 + 1 / np.log([[1e2], [1e4]])).round(3).tolist()
    [0.1]
    """
    places = 1 / np.log(1 / losses)
    return np.asarray(np.polyfit(places, values, 1)[1])


def estimates(result: LinearResult) -> Estimates:
    """Return what the ladder says about P4-C12 and P4-N6."""
    losses, gaps = np.array(result.config.targets), result.gaps
    practical = result.err2[result.config.targets.index(result.config.practical)]
    found: Estimates = {
        "P4-C12.falls": each(bounded_difference, gaps[:-1], gaps[1:], low=-1.0),
        "P4-C12.limit": mean(at_zero(losses, gaps)),
        "P4-N6.gap": bounded_difference(*practical),
    }
    return of_sets(found)


def tables(result: LinearResult) -> Tables:
    """Return mean errors and their gap, one row per loss."""
    plain, momentum = result.err2.mean(axis=-1).T
    axes, gap = {"loss": result.config.targets}, each(mean, result.gaps)
    steps = dict(zip(("step_plain", "step_momentum"), np.median(result.step, axis=-1).T, strict=True))
    return {"linear": tidy(axes, plain=plain, momentum=momentum, gap=gap, **steps)}


LINEAR = Experiment(
    "linear", small=Linear(), run=run, estimates=estimates, tables=tables,
    large=Linear(LARGE, targets=(1e-2, 1e-3, 1e-4, 1e-5), steps=400_000),
)  # fmt: skip

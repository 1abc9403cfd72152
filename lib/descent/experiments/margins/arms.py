"""What the experiments on small margins share: the patch task, arms on common data, and results at equal loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import ArmRun, Arms, FirstPassage, Hyper, Objective, Params, Probe, Purpose
from descent.engine.arms import Start
from descent.engine.probes import Leaves
from descent.experiments.lab import Estimates, Lab, Share
from descent.problems.patches import PatchData, Patches, patch_data, random_start
from descent.stats import Estimate, bootstrap, bounded_difference

EQUAL = 0.01
"""The training loss at which arms are compared."""
MANY = Share(times=6, over=25, least=32, most=240)
"""Data sets of arms that may all end alike. Where none of n differs, the bound on a share of all is 1 − α^(1/n); in a
family of fifty, α = 0.05/50, it is below the margin of 5 % from 135 sets on, and with one that differs from 190 on."""
MORE = Share(times=4, over=25, least=32, most=160)
"""The same where runs are long: enough if none differs."""
STEP = 4
"""Steps between two looks at the loss: results "at equal loss" are those of the first look below the target."""


@dataclass(frozen=True)
class Task:
    """The patch task: sizes and margins. Every seed has data, test set and initial weights of its own."""

    seeds: Share | int = 32
    examples: int = 100
    small: int = 10  # of them with the small margin
    patches: int = 4
    dimension: int = 100
    neurons: int = 8
    large_margin: float = 1.5
    small_margin: float = 0.15
    noise: float = 1.0  # norm of a noise patch
    scale: float = 0.1  # of the initial weights
    tests: int = 400

    @property
    def share(self) -> float:
        """The share of small margins."""
        return self.small / self.examples

    def data(self, lab: Lab) -> PatchData:
        """Draw the training sets."""
        return patch_data(
            lab.streams(self.seeds), examples=self.examples, small=self.small, patches=self.patches,
            dimension=self.dimension, large_margin=self.large_margin, small_margin=self.small_margin, noise=self.noise,
        )  # fmt: skip

    def test_noise(self, lab: Lab) -> Tensor:
        """Draw the noise patches of the test sets, (S, T, J, d − 1)."""
        shape = (self.tests, self.patches, self.dimension - 1)
        drawn: Tensor = lab.streams(self.seeds).normal(Purpose.PROBE, 1, shape) * (self.noise / self.dimension**0.5)
        return drawn

    def start(self, lab: Lab) -> Leaves:
        """Draw initial weights, one row per seed."""
        return random_start(lab.streams(self.seeds), self.neurons, self.dimension, self.scale)


LARGE = Task(
    Share(over=8, least=64), examples=1000, small=100, dimension=1000, neurons=16, noise=10**0.5, scale=0.1 / 10**0.5,
    tests=1000,
)  # fmt: skip
"""Ten times the dimension and the examples: 2 GB of noise patches to train on, and as much to test.

A product of weights and noise patch grows at a rate ∝ noise²/examples, from scale · noise. Both are kept as in the
small task: with patches of norm one, memorising took ten times as long, and in that time plain descent as well learnt
the small margins.
"""


class Valued(Protocol):
    """A problem that knows its training loss."""

    def value(self, params: Params) -> Tensor:
        """Return the loss (rows,)."""


@dataclass(eq=False)
class AtLoss:
    """A probe that keeps each row's parameters as they were at the first look below each loss target."""

    problem: Valued
    targets: Sequence[float] = (EQUAL,)
    every: int = STEP
    kept: list[Leaves] = field(default_factory=list)
    passed: list[Tensor] = field(default_factory=list)
    remembers: ClassVar[bool] = True

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        """Return the loss, and keep what has to be kept."""
        leaves, loss = cast(Leaves, params), self.problem.value(params)
        if not self.kept:
            self.kept = [
                {name: torch.full_like(leaf, torch.nan) for name, leaf in leaves.items()} for _ in self.targets
            ]
            self.passed = [torch.full(loss.shape, -1, device=loss.device) for _ in self.targets]
        for target, kept, passed in zip(self.targets, self.kept, self.passed, strict=True):
            fresh = (loss < target) & (passed < 0)
            if bool(fresh.any()):
                passed.masked_fill_(fresh, step)
                for name, leaf in leaves.items():
                    kept[name][fresh] = leaf[fresh]
        return loss

    def train(
        self, arms: Arms, objective: Objective, start: Start, steps: int, probes: Mapping[str, Probe] | None = None
    ) -> ArmRun:
        """Train until every row has passed the lowest target, or for `steps` steps."""
        last = self.targets.index(min(self.targets))
        stop = FirstPassage(lambda _: self.passed[last] >= 0, every=self.every, stop=True)
        return arms.run(objective, start, steps, probes={"loss": self, "stop": stop, **(probes or {})}, limit=1e4)


@dataclass(frozen=True, eq=False)
class Race:
    """Where arms stand at one loss target: everything (A, S), not a number where the target was not met.

    step: the first look below it (−1: never). err2, err1: errors on fresh small and large margins, one where the
    target was not met. feature: the largest s; norm: of s. signal, noise: mean parts of the margins of the small
    ones. accuracy: on the training set.
    """

    step: Array
    err2: Array
    err1: Array
    feature: Array
    norm: Array
    signal: Array
    noise: Array
    accuracy: Array


def compete(
    task: Task, lab: Lab, problem: Patches, rule: Hyper, steps: int, targets: Sequence[float] = (EQUAL,), *,
    objective: Objective | None = None, probes: Mapping[str, Probe] | None = None, look: int = STEP,
) -> tuple[list[Race], ArmRun]:  # fmt: skip
    """Train all arms until each has passed the last target, or for `steps` steps; return where they stood at each.

    Rows that never got there count as failures.
    """
    keeper, arms = AtLoss(problem, targets, look), lab.arms(rule, task.seeds)
    done = keeper.train(arms, objective or problem, task.start(lab), steps, probes)
    noise = task.test_noise(lab)

    def stand(params: Leaves, step: Tensor) -> Race:
        logits = problem.logits(params)
        signal, memory = (problem.halves(part)[1] for part in logits)
        err2, err1 = (problem.test_error(params, margin, noise) for margin in (task.small_margin, task.large_margin))
        accuracy, s = (logits.total > 0).float().mean(-1), params["s"]
        return Race(*map(arms.split, (step, err2, err1, s.amax(-1), s.norm(dim=-1), signal, memory, accuracy)))

    return [stand(kept, passed) for kept, passed in zip(keeper.kept, keeper.passed, strict=True)], done


def of_sets(found: Estimates) -> Estimates:
    """Return the same estimates, which say that each of their replicas has a data set of its own."""

    def drawn(one: Estimate | Sequence[Estimate]) -> Estimate | list[Estimate]:
        return replace(one, draws=one.n) if isinstance(one, Estimate) else [replace(each, draws=each.n) for each in one]

    return {key: drawn(one) for key, one in found.items()}


def tuned_gap(err2: Array, seed: int) -> Estimate:
    """Estimate plain minus momentum, each at its best rate, errors (S, E, M), plain descent first.

    Where hardly a set has an error at the best rates, those errors have no spread to draw again from: the bound of a
    difference that hardly ever differs from zero then holds for the gap, too.
    """
    plain, others = err2[..., 0], err2[..., 1:].reshape(len(err2), -1)
    wrong = [each[:, each.mean(axis=0).argmin()] > 0 for each in (plain, others)]
    either = wrong[0] | wrong[1]
    if either.sum() < min(5, len(err2) / 2):
        return bounded_difference(either, np.zeros(len(err2)))
    return bootstrap(best_gap, err2, seed=seed)


def best_gap(err2: Array, plain: int = 0) -> Array:
    """Return plain minus momentum, each at its best rate, errors (…, S, E, M); chosen anew in every resample."""
    means = err2.mean(axis=-3)
    return np.asarray(means[..., plain].min(axis=-1) - np.delete(means, plain, axis=-1).min(axis=(-1, -2)))

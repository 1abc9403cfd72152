"""What the experiments on small margins share: the patch task, arms on common data, and results at equal loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Leaves, Params, Probe
from descent.engine.rules import Hyper, ema, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import FirstPassage, Objective, Run, train
from descent.experiments.arms import to_numpy
from descent.experiments.common import Settings
from descent.problems.patches import PatchData, Patches, patch_data, random_start

STEP = 4
"""Steps between two looks at the loss: results "at equal loss" are those of the first look below the target."""


@dataclass(frozen=True)
class Task:
    """The patch task of one experiment: sizes and margins; noise is the norm of a noise patch."""

    seeds: int
    seed: int
    device: str
    examples: int = 100
    small: int = 10
    patches: int = 4
    dimension: int = 100
    neurons: int = 8
    large_margin: float = 1.5
    small_margin: float = 0.15
    noise: float = 1.0
    scale: float = 0.1  # of the initial weights
    tests: int = 400

    @classmethod
    def cpu(cls, settings: Settings, seeds: int = 40) -> Task:
        """Take a few dozen seeds, each with data, test set and initial weights of its own."""
        return cls(max(32, min(settings.replicas // 25, seeds)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Task:
        """Take ten times the dimension and the examples: 2 GB of noise patches to train on, and as much to test.

        A product of weights and noise patch grows at a rate ∝ noise²/examples, from scale · noise. Both are kept as in
        the small task: with patches of norm one, memorising took ten times as long, and in that time plain descent as
        well learnt the small margins.
        """
        root = 10**0.5
        return cls(
            max(64, settings.replicas // 8),
            settings.seed,
            settings.device,
            examples=1000,
            small=100,
            dimension=1000,
            neurons=16,
            noise=root,
            scale=0.1 / root,
            tests=1000,
        )

    @property
    def streams(self) -> Streams:
        """The random numbers of one row per seed."""
        return Streams(replica_seeds(self.seed, self.seeds, self.device))

    @property
    def share(self) -> float:
        """The share of small margins."""
        return self.small / self.examples

    def data(self) -> PatchData:
        """Draw the training sets."""
        return patch_data(
            self.streams,
            examples=self.examples,
            small=self.small,
            patches=self.patches,
            dimension=self.dimension,
            large_margin=self.large_margin,
            small_margin=self.small_margin,
            noise=self.noise,
        )

    def test_noise(self) -> Tensor:
        """Draw the noise patches of the test sets, (S, T, J, d − 1)."""
        shape = (self.tests, self.patches, self.dimension - 1)
        drawn: Tensor = self.streams.normal(Purpose.PROBE, 1, shape) * (self.noise / self.dimension**0.5)
        return drawn

    def start(self, arms: int) -> Leaves:
        """Draw initial weights, the same for every arm."""
        return random_start(self.streams, self.neurons, self.dimension, self.scale, arms)


class Valued(Protocol):
    """A problem that knows its training loss."""

    def value(self, params: Params) -> Tensor:
        """Return the loss (rows,)."""


@dataclass(eq=False)
class AtLoss:
    """A probe that keeps each row's parameters as they were at the first look below each loss target."""

    problem: Valued
    targets: Sequence[float]
    every: int = STEP
    kept: list[Leaves] = field(default_factory=list)
    passed: list[Tensor] = field(default_factory=list)
    remembers: ClassVar[bool] = True

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        """Return the loss, and keep what has to be kept."""
        leaves, loss = cast(Leaves, params), self.problem.value(params)
        if not self.kept:
            empty = {name: torch.full_like(leaf, torch.nan) for name, leaf in leaves.items()}
            self.kept = [{name: leaf.clone() for name, leaf in empty.items()} for _ in self.targets]
            self.passed = [torch.full(loss.shape, -1, device=loss.device) for _ in self.targets]
        for target, kept, passed in zip(self.targets, self.kept, self.passed, strict=True):
            fresh = (loss < target) & (passed < 0)
            if bool(fresh.any()):
                passed.masked_fill_(fresh, step)
                for name, leaf in leaves.items():
                    kept[name][fresh] = leaf[fresh]
        return loss


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


def arms_hyper(lr: Sequence[float], momentum: Sequence[float], task: Task) -> Hyper:
    """Return EMA arms, each of one row per seed."""
    return repeat(ema(list(lr), list(momentum)), task.seeds).to(task.device)


def compete(
    task: Task,
    problem: Patches,
    hyper: Hyper,
    steps: int,
    targets: Sequence[float],
    *,
    objective: Objective | None = None,
    probes: Mapping[str, Probe] | None = None,
    look: int = STEP,
) -> tuple[list[Race], Run]:
    """Train all arms until each has passed the last target, or for `steps` steps; return where they stood at each."""
    keeper = AtLoss(problem, targets, look)
    streams = Streams(task.streams.seeds.repeat(problem.arms))
    done = train_until(keeper, objective or problem, task.start(problem.arms), hyper, steps, streams, probes)
    noise = task.test_noise()
    return [
        stand(task, problem, kept, passed, noise) for kept, passed in zip(keeper.kept, keeper.passed, strict=True)
    ], done


def train_until(
    keeper: AtLoss,
    objective: Objective,
    start: Leaves,
    hyper: Hyper,
    steps: int,
    streams: Streams,
    probes: Mapping[str, Probe] | None = None,
) -> Run:
    """Train until every row has passed the keeper's last target, or for `steps` steps."""
    last = keeper.targets.index(min(keeper.targets))
    stop = FirstPassage(lambda _: keeper.passed[last] >= 0, every=keeper.every, stop=True)
    looks: dict[str, Probe] = {"loss": keeper, "stop": stop, **(probes or {})}
    return train(objective, start, hyper, steps, streams, probes=looks, limit=1e4)


def stand(task: Task, problem: Patches, params: Leaves, step: Tensor, noise: Tensor) -> Race:
    """Measure where rows stand; rows that never got there count as failures."""
    logits = problem.logits(params)
    signal, memory = (problem.halves(part)[1] for part in logits)
    errors = [problem.test_error(params, margin, noise) for margin in (task.small_margin, task.large_margin)]
    values = (
        step,
        *errors,
        params["s"].amax(-1),
        params["s"].norm(dim=-1),
        signal,
        memory,
        (logits.total > 0).float().mean(-1),
    )
    return Race(*(to_numpy(value).reshape(problem.arms, task.seeds) for value in values))

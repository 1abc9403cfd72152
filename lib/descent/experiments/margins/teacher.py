"""Where momentum does not help: Gaussian inputs and a teacher, no feature that is shared at different margins."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import ema, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import AtLoss, train_until
from descent.problems.teacher import TEACHERS, Student, labelled, student_start
from descent.stats.intervals import paired_difference


@dataclass(frozen=True)
class Teacher:
    """A ReLU student with and without momentum on the labels of every teacher, to equal loss."""

    seeds: int
    seed: int
    device: str
    momentum: float
    examples: int = 500
    tests: int = 3000
    dimension: int = 30
    hidden: int = 50
    lr: float = 1.0
    target: float = 0.05
    steps: int = 800

    @classmethod
    def cpu(cls, settings: Settings) -> Teacher:
        """Take a few dozen seeds."""
        return cls(max(32, min(settings.replicas // 30, 64)), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Teacher:
        """Take hundreds of seeds, a wider student and a smaller loss."""
        return cls(
            max(64, settings.replicas // 5),
            settings.seed,
            settings.device,
            settings.momentum,
            hidden=500,
            tests=5000,
            target=0.01,
            steps=5000,
        )


@dataclass(frozen=True, eq=False)
class TeacherResult:
    """Test errors at equal loss of plain descent and momentum, (K, 2, S) over teachers; one where it was not met."""

    config: Teacher
    error: Array
    seconds: float


def run(config: Teacher) -> TeacherResult:
    """Race the two arms on every teacher."""
    clock = time.perf_counter()
    return TeacherResult(config, np.stack([_race(config, name) for name in TEACHERS]), time.perf_counter() - clock)


def _race(config: Teacher, teacher: str) -> Array:
    seeds = Streams(replica_seeds(config.seed, config.seeds, config.device))
    inputs, labels = (
        part.repeat(2, *[1] * (part.ndim - 1))
        for part in labelled(seeds, teacher, config.examples + config.tests, config.dimension)
    )
    n = config.examples
    problem = Student(inputs[:, :n].contiguous(), labels[:, :n].contiguous())
    start = {
        name: leaf.repeat(2, *[1] * (leaf.ndim - 1))
        for name, leaf in student_start(seeds, config.hidden, config.dimension).items()
    }
    keeper = AtLoss(problem, (config.target,), every=1)
    hyper = repeat(ema(config.lr, [0.0, config.momentum]), config.seeds).to(config.device)
    train_until(keeper, problem, start, hyper, config.steps, Streams(seeds.seeds.repeat(2)))

    def wrong(rows: slice) -> Tensor:
        student = {name: leaf[rows] for name, leaf in keeper.kept[0].items()}
        return (~(problem.outputs(student, inputs[rows, n:]) * labels[rows, n:] > 0)).float().mean(-1)

    return to_numpy(in_parts(wrong, 2 * config.seeds, 3 * 4 * config.tests * config.hidden)).reshape(2, -1)


def estimates(result: TeacherResult) -> Estimates:
    """Return what the teachers say about P4-C4."""
    gaps = [paired_difference(plain, momentum) for plain, momentum in result.error]
    return {"P4-C4.gap": max(gaps, key=lambda gap: abs(gap.value))}


def tables(result: TeacherResult) -> dict[str, DataFrame]:
    """Return mean errors, one row per teacher."""
    rows = [
        {"teacher": name, "plain": plain.mean(), "momentum": momentum.mean(), "gap": (plain - momentum).mean()}
        for name, (plain, momentum) in zip(TEACHERS, result.error, strict=True)
    ]
    return {"teacher": DataFrame(rows)}


TEACHER = Experiment("teacher", ("P4-C4",), lambda settings: run(configure(Teacher, settings)), estimates, tables)

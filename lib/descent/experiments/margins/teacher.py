"""Where momentum does not help: Gaussian inputs and a teacher, no feature that is shared at different margins.

A student is trained on labels of linear and nonlinear teachers to equal loss, with and without momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from descent.arrays import Array
from descent.engine import ema
from descent.engine.arms import in_parts
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.margins.arms import AtLoss, of_sets
from descent.problems.teacher import TEACHERS, Student, labelled, student_start
from descent.stats import bounded_difference


@dataclass(frozen=True)
class Teacher:
    """A ReLU student with and without momentum on the labels of every teacher, to equal loss."""

    seeds: Share | int = Share(over=15, least=32, most=64)
    examples: int = 500
    tests: int = 3000
    dimension: int = 30
    hidden: int = 50
    lr: float = 1.0
    target: float = 0.05
    steps: int = 800


@dataclass(frozen=True, eq=False)
class TeacherResult:
    """Test errors at equal loss of plain descent and momentum, (K, 2, S) over teachers; one where it was not met."""

    config: Teacher
    lab: Lab
    error: Array


def run(config: Teacher, lab: Lab) -> TeacherResult:
    """Race the two arms on every teacher."""
    return TeacherResult(config, lab, np.stack([_race(config, lab, name) for name in TEACHERS]))


def _race(config: Teacher, lab: Lab, teacher: str) -> Array:
    """Return the test errors of both arms, (2, S)."""
    arms, seeds = lab.arms(ema(config.lr, (0.0, lab.momentum)), config.seeds), lab.streams(config.seeds)
    n = config.examples
    inputs, labels = labelled(seeds, teacher, n + config.tests, config.dimension)
    data = arms.stack({"inputs": inputs, "labels": labels})
    problem = Student(data["inputs"][:, :n].contiguous(), data["labels"][:, :n].contiguous())
    keeper = AtLoss(problem, (config.target,), every=1)
    keeper.train(arms, problem, student_start(seeds, config.hidden, config.dimension), config.steps)

    def wrong(rows: slice) -> Tensor:
        student = {name: leaf[rows] for name, leaf in keeper.kept[0].items()}
        outputs = problem.outputs(student, data["inputs"][rows, n:])
        return (~(outputs * data["labels"][rows, n:] > 0)).float().mean(-1)

    return arms.split(in_parts(wrong, arms.rows, 3 * 4 * config.tests * config.hidden))


def estimates(result: TeacherResult) -> Estimates:
    """Return what the teachers say about P4-C4."""
    return of_sets({"P4-C4.gap": each(bounded_difference, result.error[:, 0], result.error[:, 1])})


def tables(result: TeacherResult) -> Tables:
    """Return mean errors, one row per teacher."""
    plain, momentum = result.error.mean(axis=-1).T
    gap = (result.error[:, 0] - result.error[:, 1]).mean(axis=-1)
    return {"teacher": tidy({"teacher": tuple(TEACHERS)}, plain=plain, momentum=momentum, gap=gap)}


TEACHER = Experiment(
    "teacher", small=Teacher(), run=run, estimates=estimates, tables=tables,
    large=Teacher(Share(over=5, least=64), hidden=500, tests=5000, target=0.01, steps=5000),
)  # fmt: skip

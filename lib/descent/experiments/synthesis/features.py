"""Examples of small margin under every control: whether their feature is learnt when the step is matched.

The patch task of the margins, every arm on the same data and from the same weights, compared at equal training loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from descent.arrays import Array, BoolArray
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.margins.arms import LARGE, Task, compete
from descent.experiments.synthesis.lineup import GRID, MOMENTA, Arm, Cell, Column, cells_table, rule_of
from descent.problems.patches import Patches
from descent.stats import Estimate, paired_difference, ratio_of_means

TOO_SMALL = "undefined: the smaller batch is below one example"
NOBODY = "undefined: the control makes next to no error either"
LOST = "undefined: the control diverges"

Key = tuple[str, float]
"""Kind and momentum of an arm; plain descent goes by its step."""
KINDS = {"equal_lr": "heavy", "equal_step": "heavy", "average": "average", "equal_power": "noisy"}


@dataclass(frozen=True)
class Features:
    """The patch task, every arm at equal training loss."""

    task: Task = Task(Share(over=25, least=32, most=32))
    lr: float = 1.0
    batch: int = 95  # that the smaller batches of equal noise power are parts of; all other arms see every example
    loss: float = 0.01
    steps: int = 4000

    @property
    def arms(self) -> dict[Key, Arm]:
        """Every arm that the controls ask for."""
        found: dict[Key, Arm] = {}
        for m in MOMENTA:
            far, average = self.lr / (1 - m), self.lr * (1 - m)
            found["plain", far] = Arm(far, 0.0)
            if m:
                found["heavy", m], found["average", m] = Arm(self.lr, m), Arm(average, m)
            part = round(self.batch * (1 - m) / (1 + m))
            if m and part >= 2:
                found["noisy", m] = Arm(average, m, batch=part)
        return found

    def pair(self, column: Column, momentum: float) -> tuple[Key, Key]:
        """Return the keys of an arm and of the plain descent it is compared with."""
        if momentum == 0:
            return ("plain", self.lr), ("plain", self.lr)
        step = self.lr / (1 - momentum) if column == "equal_step" else self.lr
        return (KINDS[column], momentum), ("plain", step)


@dataclass(frozen=True, eq=False)
class FeaturesResult:
    """Error on small margins at equal loss by arm, (A, S), in the order of `config.arms`, and who got there."""

    config: Features
    lab: Lab
    error: Array
    arrived: BoolArray

    def of(self, key: Key) -> Array:
        """Return the error of one arm, (S,)."""
        return np.asarray(self.error[list(self.config.arms).index(key)])

    def lost(self, key: Key) -> bool:
        """Tell whether an arm never reached the loss for some seed."""
        return not bool(self.arrived[list(self.config.arms).index(key)].all())

    def gain(self, column: Column, momentum: float) -> Estimate:
        """Return the error of an arm less that of its control, seed by seed."""
        return paired_difference(*map(self.of, self.config.pair(column, momentum)))

    @property
    def cells(self) -> list[Cell]:
        """The row of the control table: the error on small margins."""
        found = []
        for column, m in GRID:
            note, (arm, control) = _undefined(self, column, m), self.config.pair(column, m)
            value = None if note else ratio_of_means(self.of(arm), self.of(control), self.lab.seed)
            found.append(Cell("small margins", column, m, None if m else 1.0, value, note))
        return found


def run(config: Features, lab: Lab) -> FeaturesResult:
    """Train every arm to the same loss on the same data from the same weights."""
    arms = list(config.arms.values())
    problem = Patches(config.task.data(lab), len(arms), [arm.batch or None for arm in arms])
    (stand,), _ = compete(config.task, lab, problem, rule_of(arms), config.steps, (config.loss,))
    return FeaturesResult(config, lab, stand.err2, stand.step >= 0)


def _undefined(result: FeaturesResult, column: Column, momentum: float) -> str:
    """Say why a cell has no number, "" if it has one."""
    arm, control = result.config.pair(column, momentum)
    if arm not in result.config.arms:
        return TOO_SMALL
    if result.lost(control):
        return LOST
    error = result.of(control)
    return NOBODY if np.count_nonzero(error) < len(error) / 3 else ""  # a resample of seeds may hold no error


def estimates(result: FeaturesResult) -> Estimates:
    """Return what small margins say about S-12 and S-13."""
    return {
        "S-12.average": result.gain("average", 0.9),
        "S-12.moderate": result.gain("average", 0.5),
        "S-12.large_step": result.gain("equal_step", 0.9),
        "S-13.matched_noise": result.gain("equal_power", 0.9),
    }


def tables(result: FeaturesResult) -> Tables:
    """Return the cells, and the mean error of every arm."""
    arms = result.config.arms
    margins = tidy(
        {"arm": [kind for kind, _ in arms]},
        momentum=[arm.momentum for arm in arms.values()],
        lr=[arm.lr for arm in arms.values()],
        batch=[str(arm.batch or "all") for arm in arms.values()],
        error=result.error.mean(axis=-1),
        arrived=result.arrived.sum(axis=-1),
    )
    return {"margins_cells": cells_table(result.cells), "margins": margins}


FEATURES = Experiment(
    "features", small=Features(), run=run, estimates=estimates, tables=tables,
    large=Features(LARGE, batch=950, steps=20_000),
)  # fmt: skip

"""Examples of small margin under every control: whether their feature is learnt when the step is matched.

The patch task of the margins, every arm on the same data and from the same weights, compared at equal training loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from descent.arrays import Array, BoolArray
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.margins.arms import LARGE, Task, compete
from descent.experiments.synthesis.lineup import GRID, MOMENTA, Arm, Cell, Column, cells_table, rule_of
from descent.problems.patches import Patches
from descent.stats import Estimate, draw_difference, ratio_of_means

TOO_SMALL = "undefined: the smaller batch is below one example"
NOBODY = "undefined: the control makes next to no error either"
LOST = "undefined: the control diverges"

Key = tuple[str, float]  # kind and momentum of an arm; plain descent goes by its step
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
class FeaturesResult(Result[Features]):
    """Error on small margins at equal loss by arm, (A, S), in the order of `config.arms`, and who got there."""

    error: Array
    arrived: BoolArray

    def of(self, key: Key) -> Array:
        """Return the error of one arm, (S,)."""
        return np.asarray(self.error[list(self.config.arms).index(key)])

    def lost(self, key: Key) -> bool:
        """Tell whether an arm never reached the loss for some seed."""
        return not bool(self.arrived[list(self.config.arms).index(key)].all())

    def gain(self, column: Column, momentum: float) -> Estimate:
        """Return the error of an arm less that of its control, seed by seed; every seed is a draw of the data."""
        return draw_difference(*(self.of(key)[:, None] for key in self.config.pair(column, momentum)))

    @property
    def cells(self) -> Iterator[Cell]:
        """The row of the control table: the error on small margins."""
        for column, m in GRID:
            (arm, control), value, note = self.config.pair(column, m), None, ""
            if arm not in self.config.arms:
                note = TOO_SMALL
            elif self.lost(control):
                note = LOST
            elif 3 * np.count_nonzero(self.of(control)) < len(self.of(control)):  # a resample may hold no error
                note = NOBODY
            else:
                value = ratio_of_means(self.of(arm), self.of(control), self.lab.seed)
            yield Cell("small margins", column, m, None if m else 1.0, value, note)


def run(config: Features, lab: Lab) -> FeaturesResult:
    """Train every arm to the same loss on the same data from the same weights."""
    arms = list(config.arms.values())
    problem = Patches(config.task.data(lab), len(arms), [arm.batch or None for arm in arms])
    (stand,), _ = compete(config.task, lab, problem, rule_of(arms), config.steps, (config.loss,))
    return FeaturesResult(config, lab, stand.err2, stand.step >= 0)


def estimates(result: FeaturesResult) -> Estimates:
    """Return what small margins say about S-12 and S-13."""
    return {
        "S-12.average": result.gain("average", 0.9),
        "S-12.moderate": result.gain("average", 0.5),
        "S-12.large_step": result.gain("equal_step", 0.9),
        "S-12.large_step_first": result.gain("equal_step", 0.9),
        "S-13.matched_noise": result.gain("equal_power", 0.9),
    }


def tables(result: FeaturesResult) -> Tables:
    """Return the cells, and the mean error of every arm."""
    arms = result.config.arms
    margins = tidy(
        {"arm": [kind for kind, _ in arms]}, momentum=[arm.momentum for arm in arms.values()],
        lr=[arm.lr for arm in arms.values()], batch=[str(arm.batch or "all") for arm in arms.values()],
        error=result.error.mean(axis=-1), arrived=result.arrived.sum(axis=-1),
    )  # fmt: skip
    return {"margins_cells": cells_table(result.cells), "margins": margins}


FEATURES = Experiment(
    "features", small=Features(), run=run, estimates=estimates, tables=tables,
    large=Features(LARGE, batch=950, steps=20_000),
)  # fmt: skip

"""Examples of small margin under every control: whether their feature is learnt when the step is matched."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.rules import heavy_ball, repeat
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Task, compete
from descent.experiments.synthesis.lineup import COLUMNS, MOMENTA, Cell, Column, cells_table
from descent.problems.patches import Patches
from descent.stats.estimate import Estimate
from descent.stats.intervals import paired_difference, ratio_of_means

TOO_SMALL = "undefined: the smaller batch is below one example"
NOBODY = "undefined: the control makes next to no error either"
LOST = "undefined: the control diverges"


@dataclass(frozen=True)
class Features:
    """The patch task, every arm at equal training loss.

    batch: the one that the smaller batches of equal noise power are parts of; all other arms see every example.
    """

    task: Task
    lr: float = 1.0
    momenta: tuple[float, ...] = MOMENTA
    batch: int = 95
    loss: float = 0.01
    steps: int = 4000

    @classmethod
    def cpu(cls, settings: Settings) -> Features:
        """Take 32 seeds."""
        return cls(Task.cpu(settings, 32))

    @classmethod
    def paper(cls, settings: Settings) -> Features:
        """Take the large task."""
        return cls(Task.paper(settings), batch=950, steps=20_000)

    @property
    def arms(self) -> dict[tuple[str, float], tuple[float, float, int | None]]:
        """Raw rate, momentum and batch size (None: all) by kind and momentum; plain descent under ("plain", step)."""
        found: dict[tuple[str, float], tuple[float, float, int | None]] = {}
        for m in self.momenta:
            far = self.lr / (1 - m)
            found["plain", far] = (far, 0.0, None)
            if m:
                found["heavy", m] = (self.lr, m, None)
                found["average", m] = (self.lr * (1 - m), m, None)
            part = round(self.batch * (1 - m) / (1 + m))
            if m and part >= 2:
                found["noisy", m] = (self.lr * (1 - m), m, part)
        return found

    def pair(self, column: Column, momentum: float) -> tuple[tuple[str, float], tuple[str, float]]:
        """Return the keys of an arm and of the plain descent it is compared with."""
        plain = ("plain", self.lr / (1 - momentum) if column == "equal_step" else self.lr)
        if momentum == 0:
            return ("plain", self.lr), ("plain", self.lr)
        kinds = {"equal_lr": "heavy", "equal_step": "heavy", "average": "average", "equal_power": "noisy"}
        return (kinds[column], momentum), plain


@dataclass(frozen=True, eq=False)
class FeaturesResult:
    """Error on small margins at equal loss by arm, (A, S), in the order of `config.arms`, and who got there."""

    config: Features
    error: Array
    arrived: NDArray[np.bool_]
    seconds: float

    def of(self, key: tuple[str, float]) -> Array:
        """Return the error of one arm, (S,)."""
        return np.asarray(self.error[list(self.config.arms).index(key)])

    def lost(self, key: tuple[str, float]) -> bool:
        """Tell whether an arm never reached the loss for some seed."""
        return not bool(self.arrived[list(self.config.arms).index(key)].all())


def run(config: Features) -> FeaturesResult:
    """Train every arm to the same loss on the same data from the same weights."""
    clock = time.perf_counter()
    lr, momentum, batches = zip(*config.arms.values(), strict=True)
    problem = Patches(config.task.data(), len(lr), batches)
    hyper = repeat(heavy_ball(lr, momentum), config.task.seeds).to(config.task.device)
    stands, _ = compete(config.task, problem, hyper, config.steps, (config.loss,))
    return FeaturesResult(config, stands[0].err2, stands[0].step >= 0, time.perf_counter() - clock)


def cells(result: FeaturesResult) -> list[Cell]:
    """Return the row of the control table: the error on small margins."""
    config, found = result.config, []
    for column in COLUMNS:
        for m in config.momenta:
            arm, control = config.pair(column, m)
            note = ""
            if arm not in config.arms:
                note = TOO_SMALL
            elif result.lost(control):
                note = LOST
            elif np.count_nonzero(result.of(control)) < config.task.seeds / 3:  # a resample of seeds may hold no error
                note = NOBODY
            value = None if note else ratio_of_means(result.of(arm), result.of(control), config.task.seed)
            found.append(Cell("small margins", column, m, 1.0 if m == 0 else None, value, note))
    return found


def gain(result: FeaturesResult, column: Column, momentum: float) -> Estimate:
    """Return the error of an arm less that of its control, seed by seed."""
    arm, control = result.config.pair(column, momentum)
    return paired_difference(result.of(arm), result.of(control))


def estimates(result: FeaturesResult) -> Estimates:
    """Return what small margins say about S-12 and S-13."""
    return {
        "S-12.average": gain(result, "average", 0.9),
        "S-12.moderate": gain(result, "average", 0.5),
        "S-12.large_step": gain(result, "equal_step", 0.9),
        "S-13.matched_noise": gain(result, "equal_power", 0.9),
    }


def tables(result: FeaturesResult) -> dict[str, DataFrame]:
    """Return the cells, and the mean error of every arm."""
    rows = [
        {
            "arm": kind,
            "momentum": m if kind != "plain" else 0.0,
            "lr": lr,
            "batch": str(batch or "all"),
            "error": float(result.of((kind, m)).mean()),
            "arrived": int(result.arrived[i].sum()),
        }
        for i, ((kind, m), (lr, _, batch)) in enumerate(result.config.arms.items())
    ]
    return {"margins_cells": cells_table(cells(result)), "margins": DataFrame(rows)}


FEATURES = Experiment(
    "features", ("S-12", "S-13"), lambda settings: run(configure(Features, settings)), estimates, tables
)

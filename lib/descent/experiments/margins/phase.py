"""Learning rate against momentum: one number decides, and a large enough step of plain descent is another way.

Every cell of a grid is trained to equal loss. Do the cells of strong momentum lie on one curve over
λ = lr/(1 − momentum), and does momentum still gain when both are at their best rate?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit

from descent.arrays import Array, BoolArray
from descent.engine import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.margins.arms import LARGE, Task, best_gap, compete
from descent.problems.patches import Patches
from descent.stats import bootstrap


@dataclass(frozen=True)
class Phase:
    """A grid of EMA learning rates and momenta."""

    task: Task = Task()
    lrs: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95)
    patience: float = 700.0  # steps allowed times learning rate
    least: int = 120  # steps allowed at any rate
    near: float = 0.2  # the collapse is claimed for 1 − momentum up to this


@dataclass(frozen=True, eq=False)
class PhaseResult:
    """Small-margin error at equal loss, one where it was not met, and steps to it, (E, M, S) over rates and momenta."""

    config: Phase
    lab: Lab
    err2: Array
    step: Array

    @property
    def inertia(self) -> Array:
        """λ = lr/(1 − momentum) of every cell, (E, M)."""
        return np.asarray(np.array(self.config.lrs)[:, None] / (1 - np.array(self.config.momenta)))

    @property
    def near(self) -> BoolArray:
        """The momenta for which one curve is claimed, (M,)."""
        return 1 - np.array(self.config.momenta) <= self.config.near + 1e-9


def run(config: Phase, lab: Lab) -> PhaseResult:
    """Train the grid, one learning rate at a time: high rates are done sooner."""
    problem, stands = Patches(config.task.data(lab), len(config.momenta)), []
    for lr in config.lrs:
        steps, look = max(config.least, int(config.patience / lr)), min(8, max(1, int(4 / lr)))
        stands += compete(config.task, lab, problem, ema(lr, config.momenta), steps, look=look)[0]
    return PhaseResult(config, lab, np.stack([each.err2 for each in stands]), np.stack([each.step for each in stands]))


def fall(inertia: Array, half: float, steep: float) -> Array:
    """Return the curve of the collapse as a share of its height, 1/(1 + (λ/half)^steep)."""
    return np.asarray(1 / (1 + (inertia / half) ** steep))


def fitted(inertia: Array, share: Array) -> Array:
    """Return (half, steep) of the curve through errors over the plateau, at λ."""
    found, _ = curve_fit(fall, inertia, share, p0=(3.3, 3.0), bounds=([0.1, 0.5], [100.0, 20.0]))
    return np.asarray(found)


def residual(inertia: Array, drawn: Array) -> Array:
    """Return the root mean square distance from the fitted curve of mean errors between .02 and .40, (B,).

    drawn (B, S, 1 + K): the plateau, plain descent at the smallest rate, and the cells at inertia (K,).
    """

    def one(rows: Array) -> float:
        height, *means = rows.mean(axis=0)
        cells = np.array(means)
        apart = cells - height * fall(inertia, *fitted(inertia, cells / height))
        inside = (cells > 0.02) & (cells < 0.4)
        return float(np.sqrt(np.mean(apart[inside] ** 2)))

    return np.array([one(rows) for rows in drawn])


def estimates(result: PhaseResult) -> Estimates:
    """Return what the grid says about P4-C16 and P4-C17."""
    seed, near = result.lab.seed, result.near
    grid, points = np.moveaxis(result.err2, -1, 0), result.inertia[:, near].ravel()
    cells = np.column_stack([grid[:, 0, 0], grid[:, :, near].reshape(len(grid), -1)])
    return {
        "P4-C16.patches": bootstrap(best_gap, grid, seed=seed),
        "P4-C17.collapse": bootstrap(lambda drawn: residual(points, drawn), cells, seed=seed, resamples=500),
    }


def tables(result: PhaseResult) -> Tables:
    """Return mean errors, one row per cell."""
    step = result.step
    frame = tidy(
        {"lr": result.config.lrs, "momentum": result.config.momenta}, inertia=result.inertia,
        err2=result.err2.mean(axis=-1), step=np.median(step, axis=-1), met=(step >= 0).mean(axis=-1),
    )  # fmt: skip
    return {"phase": frame}


PHASE = Experiment(
    "phase", small=Phase(), run=run, estimates=estimates, tables=tables,
    large=Phase(
        LARGE, lrs=tuple(float(2 ** (k / 2)) for k in range(-2, 13)),
        momenta=(0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99), patience=3000.0,
    ),
)  # fmt: skip

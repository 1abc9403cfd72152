"""Learning rate against momentum: one number decides, and a large enough step of plain descent is another way."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.optimize import curve_fit

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Task, arms_hyper, compete
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import Patches
from descent.stats.intervals import bootstrap


@dataclass(frozen=True)
class Phase:
    """A grid of EMA learning rates and momenta, all arms to equal loss; patience: steps allowed are patience/lr."""

    task: Task
    lrs: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95)
    patience: float = 700.0
    least: int = 120  # steps allowed at any rate
    near: float = 0.2  # the collapse is claimed for 1 − momentum up to this

    @classmethod
    def cpu(cls, settings: Settings) -> Phase:
        """Take a few dozen seeds."""
        return cls(Task.cpu(settings, 32))

    @classmethod
    def paper(cls, settings: Settings) -> Phase:
        """Take a finer grid on the large task."""
        return cls(
            Task.paper(settings),
            lrs=tuple(float(2 ** (k / 2)) for k in range(-2, 13)),
            momenta=(0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
            patience=3000.0,
        )


@dataclass(frozen=True, eq=False)
class PhaseResult:
    """Small-margin error at equal loss, one where it was not met, and steps to it, (E, M, S) over rates and momenta."""

    config: Phase
    err2: Array
    step: Array
    seconds: float

    @property
    def inertia(self) -> Array:
        """λ = lr/(1 − momentum) of every cell, (E, M)."""
        return np.asarray(np.array(self.config.lrs)[:, None] / (1 - np.array(self.config.momenta)))

    @property
    def near(self) -> NDArray[np.bool_]:
        """The momenta for which one curve is claimed, (M,)."""
        return 1 - np.array(self.config.momenta) <= self.config.near + 1e-9


def run(config: Phase) -> PhaseResult:
    """Train the grid, one learning rate at a time: high rates are done sooner."""
    clock = time.perf_counter()
    task, arms = config.task, len(config.momenta)
    problem = Patches(task.data(), arms)
    found = []
    for lr in config.lrs:
        steps = max(config.least, int(config.patience / lr))
        hyper, look = arms_hyper([lr] * arms, config.momenta, task), min(8, max(1, int(4 / lr)))
        (stand,), _ = compete(task, problem, hyper, steps, (EQUAL,), look=look)
        found.append((stand.err2, stand.step))
    err2, step = (np.array(values) for values in zip(*found, strict=True))
    return PhaseResult(config, err2, step, time.perf_counter() - clock)


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


def best_gap(err2: Array, plain: int = 0) -> Array:
    """Return plain minus momentum, each at its best rate, errors (…, S, E, M); chosen anew in every resample."""
    means = err2.mean(axis=-3)
    return np.asarray(means[..., plain].min(axis=-1) - np.delete(means, plain, axis=-1).min(axis=(-1, -2)))


def estimates(result: PhaseResult) -> Estimates:
    """Return what the grid says about P4-C16 and P4-C17."""
    seed, near = result.config.task.seed, result.near
    grid = np.moveaxis(result.err2, -1, 0)
    points = result.inertia[:, near].ravel()
    cells = np.column_stack([grid[:, 0, 0], grid[:, :, near].reshape(len(grid), -1)])
    return {
        "P4-C16.patches": bootstrap(best_gap, grid, seed=seed),
        "P4-C17.collapse": bootstrap(lambda drawn: residual(points, drawn), cells, seed=seed, resamples=500),
    }


def tables(result: PhaseResult) -> dict[str, DataFrame]:
    """Return mean errors, one row per cell."""
    rows = [
        {
            "lr": lr,
            "momentum": momentum,
            "inertia": result.inertia[i, j],
            "err2": result.err2[i, j].mean(),
            "step": float(np.median(result.step[i, j])),
            "met": float((result.step[i, j] >= 0).mean()),
        }
        for i, lr in enumerate(result.config.lrs)
        for j, momentum in enumerate(result.config.momenta)
    ]
    return {"phase": DataFrame(rows)}


PHASE = Experiment("phase", ("P4-C16", "P4-C17"), lambda settings: run(configure(Phase, settings)), estimates, tables)

"""Learning rate against momentum: one number decides, and a large enough step of plain descent is another way.

Every cell of a grid is trained to equal loss. Do the cells of strong momentum lie on one curve over
λ = lr/(1 − momentum), and does momentum still gain when both are at their best rate?

At its best rate neither may err at all. Then only the number of data sets says how sure that is, so the question of the
best rate is put to many more sets than the grid has, at high rates, where runs are short.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import curve_fit

from descent.arrays import Array, BoolArray
from descent.engine import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.margins.arms import LARGE, MORE, Task, compete, of_sets, tuned_gap
from descent.problems.patches import Patches
from descent.stats import Estimate, draw_statistic


@dataclass(frozen=True)
class Phase:
    """A grid of EMA learning rates and momenta."""

    task: Task = Task()
    lrs: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95)
    patience: float = 700.0  # steps allowed times learning rate
    least: int = 120  # steps allowed at any rate
    near: float = 0.2  # the collapse is claimed for 1 − momentum up to this, …
    reach: float = 12.8  # … and judged for λ up to this, four half-values: beyond, the curve is below any margin
    many: Share | int = MORE  # sets on which the best rate is looked for, …
    tuned_lrs: tuple[float, ...] = (4.0, 16.0, 64.0, 256.0)  # … among these, of plain descent and of …
    tuned_momentum: float = 0.95


@dataclass(frozen=True, eq=False)
class PhaseResult:
    """Small-margin error at equal loss, one where it was not met, and steps to it, (E, M, S) over rates and momenta.

    tuned (E', 2, S'): that error of plain descent and of strong momentum on many sets, over fewer rates.
    """

    config: Phase
    lab: Lab
    err2: Array
    step: Array
    tuned: Array

    @property
    def inertia(self) -> Array:
        """λ = lr/(1 − momentum) of every cell, (E, M)."""
        return np.asarray(np.array(self.config.lrs)[:, None] / (1 - np.array(self.config.momenta)))

    @property
    def near(self) -> BoolArray:
        """The momenta for which one curve is claimed, (M,)."""
        return 1 - np.array(self.config.momenta) <= self.config.near + 1e-9


def run(config: Phase, lab: Lab) -> PhaseResult:
    """Train the grid, then the arms whose best rates are compared, on many sets."""
    err2, step = _grid(config, lab, config.task, config.lrs, config.momenta)
    many = replace(config.task, seeds=config.many)
    tuned, _ = _grid(config, lab, many, config.tuned_lrs, (0.0, config.tuned_momentum))
    return PhaseResult(config, lab, err2, step, tuned)


def _grid(
    config: Phase, lab: Lab, task: Task, lrs: tuple[float, ...], momenta: tuple[float, ...]
) -> tuple[Array, Array]:
    """Return errors and steps (E, M, S); one learning rate at a time, for high rates are done sooner."""
    problem, stands = Patches(task.data(lab), len(momenta)), []
    for lr in lrs:
        steps, look = max(config.least, int(config.patience / lr)), min(8, max(1, int(4 / lr)))
        stands += compete(task, lab, problem, ema(lr, momenta), steps, look=look)[0]
    return np.stack([each.err2 for each in stands]), np.stack([each.step for each in stands])


def fall(inertia: Array, half: float, steep: float) -> Array:
    """Return the curve of the collapse as a share of its height, 1/(1 + (λ/half)^steep)."""
    return np.asarray(1 / (1 + (inertia / half) ** steep))


def fitted(inertia: Array, share: Array) -> Array:
    """Return (half, steep) of the curve through errors over the plateau, at λ."""
    found, _ = curve_fit(fall, inertia, share, p0=(3.3, 3.0), bounds=([0.1, 0.5], [100.0, 20.0]))
    return np.asarray(found)


def apart(inertia: Array, drawn: Array) -> Array:
    """Return how far the mean error of every cell lies from the curve that is fitted to all of them, (B, K).

    drawn (B, S, 1 + K): the plateau, plain descent at the smallest rate, and the cells at inertia (K,).
    """

    def one(rows: Array) -> Array:
        height, *means = rows.mean(axis=0)
        cells = np.array(means)
        return np.asarray(cells - height * fall(inertia, *fitted(inertia, cells / height)))

    return np.array([one(rows) for rows in drawn])


def collapse(result: PhaseResult) -> list[Estimate]:
    """Estimate that distance for every cell within reach, by the jackknife over data sets."""
    near, grid = result.near, np.moveaxis(result.err2, -1, 0)
    points = result.inertia[:, near].ravel()
    cells = np.column_stack([grid[:, 0, 0], grid[:, :, near].reshape(len(grid), -1)])
    fits: dict[int, Array] = {}  # all cells of a choice of sets are fitted at once: with all of them, without each

    def of_cell(drawn: Array, cell: int) -> Array:
        if len(drawn) not in fits:
            fits[len(drawn)] = apart(points, drawn)
        return np.asarray(fits[len(drawn)][:, cell])

    within = np.flatnonzero(points <= result.config.reach)
    found = [draw_statistic(partial(of_cell, cell=int(cell)), cells) for cell in within]
    return [replace(one, n=one.draws) for one in found]


def estimates(result: PhaseResult) -> Estimates:
    """Return what the grid says about P4-C17, and the best rates about P4-N5."""
    tuned = np.moveaxis(result.tuned, -1, 0)
    return of_sets({"P4-N5.patches": tuned_gap(tuned, result.lab.seed), "P4-C17.collapse": collapse(result)})


def tables(result: PhaseResult) -> Tables:
    """Return mean errors, one row per cell."""
    step = result.step
    frame = tidy(
        {"lr": result.config.lrs, "momentum": result.config.momenta}, inertia=result.inertia,
        err2=result.err2.mean(axis=-1), step=np.median(step, axis=-1), met=(step >= 0).mean(axis=-1),
    )  # fmt: skip
    axes = {"lr": result.config.tuned_lrs, "momentum": (0.0, result.config.tuned_momentum)}
    tuned = tidy(axes, err2=result.tuned.mean(axis=-1), wrong=(result.tuned > 0).mean(axis=-1))
    return {"phase": frame, "phase_tuned": tuned}


PHASE = Experiment(
    "phase", small=Phase(), run=run, estimates=estimates, tables=tables,
    large=Phase(
        LARGE, lrs=tuple(float(2 ** (k / 2)) for k in range(-2, 13)),
        momenta=(0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99), patience=3000.0,
    ),
)  # fmt: skip

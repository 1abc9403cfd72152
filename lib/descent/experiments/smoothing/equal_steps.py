"""Plain and averaged descent at equal learning rate and equal steps: the noise far apart, the accuracy the same.

Both arms of a seed share initial weights and batches; they differ in momentum and, by far, in their noise. If the level
of the noise dominated generalisation, they would differ in accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import concat

from descent.arrays import Array
from descent.engine import ema, sgd, stack
from descent.engine.arms import survivors
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import Arm, Task, search_noise, task
from descent.stats import furthest, magnitude, paired_difference, ratio_of_means, smallest

PAIR = (Arm.PLAIN, Arm.AVERAGED)


@dataclass(frozen=True)
class EqualSteps:
    """A two-layer net on digits, with independent batches."""

    replicas: Share = Share(over=30, least=32)
    shares: tuple[float, ...] = (0.0, 0.2)  # of labels redrawn, clean first
    rates: tuple[float, ...] = (0.02, 0.05)
    batch_sizes: tuple[int, ...] = (16, 48)
    edge: tuple[float, int] = (0.3, 4)  # rate and batch size where plain descent hardly settles; clean labels
    steps: int = 800
    hidden: int = 32
    looks: int = 5  # at the noise along a run


@dataclass(frozen=True, eq=False)
class Cells:
    """Both arms in a grid of cells, (labels, batch sizes, rates, 2, N): test accuracy in percent, mean |ω|² of the run.

    A seed that diverged in one of the cells is dropped from all of them.
    """

    accuracy: Array
    power: Array

    @property
    def gains(self) -> Array:
        """Accuracy of averaged minus plain descent in percentage points, per cell, Estimates."""
        return np.asarray(each(paired_difference, *(self.accuracy[..., arm, :] for arm in reversed(PAIR))))

    def ratios(self, seed: int) -> Array:
        """Return the noise power of plain over that of averaged descent, per cell, Estimates."""
        return np.asarray(each(ratio_of_means, *(self.power[..., arm, :] for arm in PAIR), seed=seed))


@dataclass(frozen=True, eq=False)
class EqualStepsResult:
    """The cells of the grid, and the one at the edge of stability, on which no verdict rests."""

    config: EqualSteps
    lab: Lab
    grid: Cells
    edge: Cells


def run(config: EqualSteps, lab: Lab) -> EqualStepsResult:
    """Train both arms in every cell."""
    images = [task(lab, "digits", share, config.hidden) for share in config.shares]
    rate, size = config.edge
    grid = _cells(config, lab, images, config.batch_sizes, config.rates)
    return EqualStepsResult(config, lab, grid, _cells(config, lab, images[:1], (size,), (rate,)))


def _cells(config: EqualSteps, lab: Lab, images: Sequence[Task], sizes: Sequence[int], rates: Sequence[float]) -> Cells:
    """Train both arms on all images, at all batch sizes and rates."""
    arms = lab.arms(stack(*(rule for lr in rates for rule in (sgd(lr), ema(lr, lab.momentum)))), config.replicas)
    found = []
    for labels in images:
        for size in sizes:
            problem = labels.batches(size)
            noise = search_noise(problem, arms, config.steps // config.looks)
            done = arms.run(problem, labels.model.initial, config.steps, probes={"noise": noise})
            power = done.average("noise.power", since=1)  # without the start, where the buffer is empty
            found.append((done.end(labels.accuracy), power, done.lost))
    accuracy, power, lost = np.stack(found, axis=1).reshape(3, len(images), len(sizes), len(rates), len(PAIR), -1)
    alive = survivors(lost)
    return Cells(accuracy.compress(alive, axis=-1), power.compress(alive, axis=-1))


def estimates(result: EqualStepsResult) -> Estimates:
    """Return what the grid says about P1-C16 and P1-C20."""
    gains, clean = result.grid.gains, np.array(result.config.shares) == 0
    return {
        "P1-C16.far_apart": smallest(result.grid.ratios(result.lab.seed)),
        "P1-C16.accuracy": magnitude(furthest(gains, 0.0)),
        "P1-C20.advantage": furthest(gains[clean], 0.0),
    }


def tables(result: EqualStepsResult) -> Tables:
    """Return one row per cell, those of the grid and the edge."""
    config, (rate, size) = result.config, result.config.edge
    grid = {"redrawn": config.shares, "batch_size": config.batch_sizes, "lr": config.rates}
    edge = {"redrawn": config.shares[:1], "batch_size": (size,), "lr": (rate,)}
    rows = []
    for axes, cells in ((grid, result.grid), (edge, result.edge)):
        plain, averaged = (cells.accuracy[..., arm, :].mean(axis=-1) for arm in PAIR)
        ratio = cells.ratios(result.lab.seed)
        rows.append(tidy(axes, plain=plain, averaged=averaged, gain=cells.gains, ratio=ratio))
    return {"equal_steps": concat(rows, ignore_index=True).rename(columns={"ratio": "noise_ratio"})}


# In so many steps plain descent is lost where the small configuration has its edge, and hardly settles with
# batches of four at rates of 0.2 or more; the grid keeps clear of that.
LARGE = EqualSteps(
    Share(over=4, least=64), rates=(0.02, 0.05, 0.1, 0.2), batch_sizes=(8, 16, 64, 256), edge=(0.25, 4), steps=3000,
    looks=20,
)  # fmt: skip
EQUAL_STEPS = Experiment("equal_steps", small=EqualSteps(), large=LARGE, run=run, estimates=estimates, tables=tables)

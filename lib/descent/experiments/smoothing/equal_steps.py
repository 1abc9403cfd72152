"""Plain and averaged descent at equal learning rate and equal steps: the noise far apart, the accuracy the same.

Both arms of a net share initial weights and batches; they differ in momentum and, by far, in their noise. If the level
of the noise dominated generalisation, they would differ in accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pandas import concat

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import ema, sgd, stack
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import ENDINGS, Arm, Task, listed, over_draws, search_noise, task, whole
from descent.stats import draw_difference, draw_ratio, largest, magnitude

PAIR = (Arm.PLAIN, Arm.AVERAGED)


@dataclass(frozen=True)
class EqualSteps:
    """A two-layer net, with independent batches."""

    data: str = "digits"
    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)
    shares: tuple[float, ...] = (0.0, 0.2)  # of labels redrawn, clean first
    rates: tuple[float, ...] = (0.02, 0.05)
    batch_sizes: tuple[int, ...] = (16, 48)
    edges: tuple[tuple[float, int], ...] = ((0.3, 4),)  # rate and size where plain descent hardly settles; clean labels
    steps: int = 800
    hidden: int = 32
    looks: int = 5  # at the noise along a run


@dataclass(frozen=True, eq=False)
class Cells:
    """Both arms in a grid of cells, (labels, batch sizes, rates, 2, N): test accuracy in percent, mean |ω|² of the run.

    Net i is of draw i mod D of the sets. One that diverged in some cell is not a number in any of them.
    """

    sets: Draws
    accuracy: Array
    power: Array

    @property
    def gains(self) -> Array:
        """Accuracy of averaged minus plain descent in percentage points, per cell, Estimates."""
        arms = (self.accuracy[..., arm, :] for arm in reversed(PAIR))
        return np.asarray(each(over_draws(self.sets, draw_difference), *arms))

    @property
    def ratios(self) -> Array:
        """The noise power of plain over that of averaged descent, per cell, Estimates."""
        return np.asarray(each(over_draws(self.sets, draw_ratio), *(self.power[..., arm, :] for arm in PAIR)))


@dataclass(frozen=True, eq=False)
class EqualStepsResult:
    """The cells of the grid, and those at the edge of stability, on which no verdict rests."""

    config: EqualSteps
    lab: Lab
    grid: Cells
    edges: tuple[Cells, ...]


def run(config: EqualSteps, lab: Lab) -> EqualStepsResult:
    """Train both arms in every cell."""
    tasks = [task(lab, config.data, share, config.hidden, config.draws) for share in config.shares]
    grid = _cells(config, lab, tasks, config.batch_sizes, config.rates)
    edges = (_cells(config, lab, tasks[:1], (size,), (rate,)) for rate, size in config.edges)
    return EqualStepsResult(config, lab, grid, tuple(edges))


def _cells(config: EqualSteps, lab: Lab, tasks: Sequence[Task], sizes: Sequence[int], rates: Sequence[float]) -> Cells:
    """Train both arms on all tasks, at all batch sizes and rates."""
    rule = stack(*(rule for lr in rates for rule in (sgd(lr), ema(lr, lab.momentum))))
    arms, found = lab.arms(rule, lab.per_draw(config.replicas, config.draws)), []
    for labels in tasks:
        for size in sizes:
            problem = labels.batches(size)
            noise = search_noise(problem, arms, config.steps // config.looks)
            done = arms.run(problem, labels.model.initial, config.steps, probes={"noise": noise})
            power = done.average("noise.power", since=1)  # without the start, where the buffer is empty
            found.append((done.end(labels.accuracy), power, done.lost))
    shape = (len(tasks), len(sizes), len(rates), len(PAIR), -1)
    accuracy, power, lost = (np.stack(values).reshape(shape) for values in zip(*found, strict=True))
    return Cells(tasks[0].sets, whole(accuracy, lost), whole(power, lost))


def estimates(result: EqualStepsResult) -> Estimates:
    """Return what digits, or glyphs, say about P1-C16 and P1-C20; the first way of asking is that of digits alone."""
    gains, end = result.grid.gains, ENDINGS[result.config.data]
    clean = gains[np.array(result.config.shares) == 0]
    return {
        f"P1-C16.far_apart{end}": listed(result.grid.ratios),
        f"P1-C16.accuracy{end}": [magnitude(gain) for gain in listed(gains)],
        f"P1-C20.advantage{end}": listed(clean),
        **({} if end else {"P1-C16.accuracy_first": largest(gains)}),
    }


def tables(result: EqualStepsResult) -> Tables:
    """Return one row per cell, those of the grid and the edges."""
    config = result.config
    places = [(config.shares, config.batch_sizes, config.rates)]
    places += [(config.shares[:1], (size,), (rate,)) for rate, size in config.edges]
    rows = []
    for place, cells in zip(places, (result.grid, *result.edges), strict=True):
        axes = dict(zip(("redrawn", "batch_size", "lr"), place, strict=True))
        plain, averaged = (np.nanmean(cells.accuracy[..., arm, :], axis=-1) for arm in PAIR)
        rows.append(tidy(axes, plain=plain, averaged=averaged, gain=cells.gains, ratio=cells.ratios))
    name = "equal_steps" if config.data == "digits" else f"equal_steps_{config.data}"
    return {name: concat(rows, ignore_index=True).rename(columns={"ratio": "noise_ratio"})}


# In so many steps plain descent is lost where the small configuration has its edge, and hardly settles with
# batches of four at rates of 0.2 or more; the grid keeps clear of that.
LARGE = EqualSteps(
    draws=32, replicas=Share(over=4, least=64), rates=(0.02, 0.05, 0.1, 0.2), batch_sizes=(8, 16, 64, 256),
    edges=((0.25, 4),), steps=3000, looks=20,
)  # fmt: skip
EQUAL_STEPS = Experiment("equal_steps", small=EqualSteps(), large=LARGE, run=run, estimates=estimates, tables=tables)
GLYPHS = Experiment(  # fresh sets cost nothing: every net has its own
    "equal_steps_glyphs", small=EqualSteps("glyphs", draws=32, edges=()),
    large=replace(LARGE, data="glyphs", draws=250, edges=()), run=run, estimates=estimates, tables=tables,
)  # fmt: skip

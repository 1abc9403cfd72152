"""What the benefit needs: a shared feature, and examples that differ in margin; and what a linear net makes of it.

Plain descent and momentum are raced on data of other shares of small margins, and of other large margins. A target must
lie below what unfitted small margins cost, p ln 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pandas import concat

from descent.arrays import Array
from descent.engine import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, each, tidy
from descent.experiments.margins.arms import EQUAL, LARGE, Task, compete
from descent.problems.patches import Patches
from descent.stats import furthest, paired_difference, smallest


@dataclass(frozen=True)
class Heterogeneity:
    """Plain descent and momentum, to the smaller of `equal` and .15 p ln 2 on every kind of data."""

    task: Task = Task()
    lr: float = 1.0
    small: tuple[int, ...] = (5, 10, 20, 40, 70, 100)
    large_margins: tuple[float, ...] = (0.15, 0.3, 0.75)
    equal: float = EQUAL
    steps: int = 1000
    linear_lr: float = 0.3
    linear_targets: tuple[float, ...] = (0.01, 0.001)
    linear_steps: int = 2000


@dataclass(frozen=True, eq=False)
class HeterogeneityResult:
    """Small-margin errors of plain descent and momentum, (2, S): over shares, over large margins, of a linear net."""

    config: Heterogeneity
    lab: Lab
    by_share: Array  # (K, 2, S)
    by_margin: Array  # (M, 2, S)
    linear: Array  # (targets, 2, S)


def run(config: Heterogeneity, lab: Lab) -> HeterogeneityResult:
    """Race the two arms on every kind of data."""
    shares = [_pair(config, lab, replace(config.task, small=small)) for small in config.small]
    margins = [_pair(config, lab, replace(config.task, large_margin=alpha)) for alpha in config.large_margins]
    problem, rule = Patches(config.task.data(lab), 2, power=1), ema(config.linear_lr, (0.0, lab.momentum))
    linear, _ = compete(config.task, lab, problem, rule, config.linear_steps, config.linear_targets)
    found = map(np.stack, (shares, margins, [stand.err2 for stand in linear]))
    return HeterogeneityResult(config, lab, *found)


def _pair(config: Heterogeneity, lab: Lab, task: Task) -> Array:
    """Return the small-margin errors of plain descent and momentum on a task, (2, S)."""
    target, rule = min(config.equal, 0.15 * task.share * float(np.log(2))), ema(config.lr, (0.0, lab.momentum))
    (found,), _ = compete(task, lab, Patches(task.data(lab), 2), rule, config.steps, (target,))
    return found.err2


def estimates(result: HeterogeneityResult) -> Estimates:
    """Return what the data say about P4-C11, and the linear net about P4-C12."""
    config = result.config
    shares = np.array(config.small) / config.task.examples
    mixed = result.by_share[(shares >= 0.05) & (shares <= 0.7)]
    alone = paired_difference(*result.by_share[int(np.argmax(shares == 1))])
    ratio = np.array(config.large_margins) / config.task.small_margin
    same, near = (paired_difference(*result.by_margin[int(np.argmin(np.abs(ratio - at)))]) for at in (1, 2))
    gaps = result.linear[:, 0] - result.linear[:, 1]
    return {
        "P4-C11.heterogeneous": smallest(each(paired_difference, mixed[:, 0], mixed[:, 1])),
        "P4-C11.equal": furthest((alone, same), 0.0),
        "P4-C11.near": near,
        "P4-C12.gap": paired_difference(*result.linear[-1]),
        "P4-C12.closes": paired_difference(gaps[0], gaps[-1]),
    }


def tables(result: HeterogeneityResult) -> Tables:
    """Return mean errors of both arms, one row per kind of data."""
    config = result.config
    kinds = (
        ("share", np.array(config.small) / config.task.examples, result.by_share),
        ("large margin", config.large_margins, result.by_margin),
        ("linear, loss", config.linear_targets, result.linear),
    )
    means = [(name, values, pairs.mean(axis=-1).T) for name, values, pairs in kinds]
    rows = [tidy({"varied": [name], "value": at}, plain=plain, momentum=other) for name, at, (plain, other) in means]
    return {"heterogeneity": concat(rows, ignore_index=True)}


HETEROGENEITY = Experiment(
    "heterogeneity", small=Heterogeneity(), run=run, estimates=estimates, tables=tables,
    large=Heterogeneity(LARGE, small=(50, 100, 200, 400, 700, 1000), steps=5000, linear_steps=20_000),
)  # fmt: skip

"""What the benefit needs: a shared feature, and examples that differ in margin.

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
from descent.experiments.margins.arms import EQUAL, LARGE, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import bounded_difference


@dataclass(frozen=True)
class Heterogeneity:
    """Plain descent and momentum, to the smaller of `equal` and .15 p ln 2 on every kind of data."""

    task: Task = Task()
    lr: float = 1.0
    small: tuple[int, ...] = (5, 10, 20, 40, 70, 100)
    large_margins: tuple[float, ...] = (0.15, 0.3, 0.75)
    equal: float = EQUAL
    steps: int = 1000


@dataclass(frozen=True, eq=False)
class HeterogeneityResult:
    """Small-margin errors of plain descent and momentum, (2, S): over shares, over large margins."""

    config: Heterogeneity
    lab: Lab
    by_share: Array  # (K, 2, S)
    by_margin: Array  # (M, 2, S)


def run(config: Heterogeneity, lab: Lab) -> HeterogeneityResult:
    """Race the two arms on every kind of data."""
    shares = [_pair(config, lab, replace(config.task, small=small)) for small in config.small]
    margins = [_pair(config, lab, replace(config.task, large_margin=alpha)) for alpha in config.large_margins]
    return HeterogeneityResult(config, lab, np.stack(shares), np.stack(margins))


def _pair(config: Heterogeneity, lab: Lab, task: Task) -> Array:
    """Return the small-margin errors of plain descent and momentum on a task, (2, S)."""
    target, rule = min(config.equal, 0.15 * task.share * float(np.log(2))), ema(config.lr, (0.0, lab.momentum))
    (found,), _ = compete(task, lab, Patches(task.data(lab), 2), rule, config.steps, (target,))
    return found.err2


def estimates(result: HeterogeneityResult) -> Estimates:
    """Return what the data say about P4-C11."""
    config = result.config
    shares = np.array(config.small) / config.task.examples
    mixed = result.by_share[(shares >= 0.05) & (shares <= 0.7)]
    alone = bounded_difference(*result.by_share[int(np.argmax(shares == 1))])
    ratio = np.array(config.large_margins) / config.task.small_margin
    same, near = (bounded_difference(*result.by_margin[int(np.argmin(np.abs(ratio - at)))]) for at in (1, 2))
    found: Estimates = {
        "P4-C11.heterogeneous": each(bounded_difference, mixed[:, 0], mixed[:, 1]),
        "P4-C11.equal": [alone, same],
        "P4-C11.near": near,
        "P4-C11.near_first": near,
    }
    return of_sets(found)


def tables(result: HeterogeneityResult) -> Tables:
    """Return mean errors of both arms, one row per kind of data."""
    config = result.config
    kinds = (
        ("share", np.array(config.small) / config.task.examples, result.by_share),
        ("large margin", config.large_margins, result.by_margin),
    )
    means = [(name, values, pairs.mean(axis=-1).T) for name, values, pairs in kinds]
    rows = [tidy({"varied": [name], "value": at}, plain=plain, momentum=other) for name, at, (plain, other) in means]
    return {"heterogeneity": concat(rows, ignore_index=True)}


HETEROGENEITY = Experiment(
    "heterogeneity", small=Heterogeneity(), run=run, estimates=estimates, tables=tables,
    large=Heterogeneity(LARGE, small=(50, 100, 200, 400, 700, 1000), steps=5000),
)  # fmt: skip

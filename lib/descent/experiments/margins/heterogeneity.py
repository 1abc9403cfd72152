"""What the benefit needs: a shared feature, and examples that differ in margin; and what a linear net makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Race, Task, arms_hyper, compete
from descent.problems.patches import Patches
from descent.stats.intervals import paired_difference


@dataclass(frozen=True)
class Heterogeneity:
    """Plain descent and momentum on data of other shares of small margins, and of other large margins.

    A target must lie below what unfitted small margins cost, p ln 2: it is the smaller of `equal` and .15 p ln 2.
    """

    task: Task
    momentum: float
    lr: float = 1.0
    small: tuple[int, ...] = (5, 10, 20, 40, 70, 100)
    large_margins: tuple[float, ...] = (0.15, 0.3, 0.75)
    equal: float = 0.01
    steps: int = 1000
    linear_lr: float = 0.3
    linear_targets: tuple[float, ...] = (0.01, 0.001)
    linear_steps: int = 2000

    @classmethod
    def cpu(cls, settings: Settings) -> Heterogeneity:
        """Take a few dozen seeds."""
        return cls(Task.cpu(settings, 32), settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Heterogeneity:
        """Take the large task; shares in percent of its examples."""
        task = Task.paper(settings)
        small = tuple(share * task.examples // 100 for share in (5, 10, 20, 40, 70, 100))
        return cls(task, settings.momentum, small=small, steps=5000, linear_steps=20_000)


@dataclass(frozen=True, eq=False)
class HeterogeneityResult:
    """Small-margin errors of plain descent and momentum, (2, S): over shares, over large margins, of a linear net."""

    config: Heterogeneity
    by_share: Array  # (K, 2, S)
    by_margin: Array  # (M, 2, S)
    linear: Array  # (targets, 2, S)
    linear_met: Array  # (targets, 2) share of seeds that met the target
    seconds: float


def run(config: Heterogeneity) -> HeterogeneityResult:
    """Race the two arms on every kind of data."""
    clock = time.perf_counter()
    task = config.task
    by_share = [_pair(config, replace(task, small=small)).err2 for small in config.small]
    by_margin = [_pair(config, replace(task, large_margin=alpha)).err2 for alpha in config.large_margins]
    problem = Patches(task.data(), 2, power=1)
    hyper = arms_hyper([config.linear_lr] * 2, [0.0, config.momentum], task)
    linear, _ = compete(task, problem, hyper, config.linear_steps, config.linear_targets)
    met = np.array([(stand.step >= 0).mean(axis=1) for stand in linear])
    return HeterogeneityResult(
        config,
        np.stack(by_share),
        np.stack(by_margin),
        np.stack([stand.err2 for stand in linear]),
        met,
        time.perf_counter() - clock,
    )


def _pair(config: Heterogeneity, task: Task) -> Race:
    problem = Patches(task.data(), 2)
    target = min(config.equal, 0.15 * task.share * float(np.log(2)))
    hyper = arms_hyper([config.lr] * 2, [0.0, config.momentum], task)
    (found,), _ = compete(task, problem, hyper, config.steps, (target,))
    return found


def estimates(result: HeterogeneityResult) -> Estimates:
    """Return what the data say about P4-C11, and the linear net about P4-C12."""
    config = result.config
    shares = np.array(config.small) / config.task.examples
    mixed = [paired_difference(*pair) for pair in result.by_share[(shares >= 0.05) & (shares <= 0.7)]]
    alone = paired_difference(*result.by_share[int(np.argmax(shares == 1))])
    ratio = np.array(config.large_margins) / config.task.small_margin
    same, near = (paired_difference(*result.by_margin[int(np.argmin(np.abs(ratio - at)))]) for at in (1, 2))
    late = paired_difference(*result.linear[-1])
    gaps = result.linear[:, 0] - result.linear[:, 1]
    return {
        "P4-C11.heterogeneous": min(mixed, key=lambda gap: gap.value),
        "P4-C11.equal": max((alone, same), key=lambda gap: abs(gap.value)),
        "P4-C11.near": near,
        "P4-C12.gap": late,
        "P4-C12.closes": paired_difference(gaps[0], gaps[-1]),
    }


def tables(result: HeterogeneityResult) -> dict[str, DataFrame]:
    """Return mean errors of both arms, one row per kind of data."""
    config = result.config
    kinds = [
        ("share", small / config.task.examples, pair) for small, pair in zip(config.small, result.by_share, strict=True)
    ]
    kinds += [("large margin", alpha, pair) for alpha, pair in zip(config.large_margins, result.by_margin, strict=True)]
    kinds += [("linear, loss", target, pair) for target, pair in zip(config.linear_targets, result.linear, strict=True)]
    rows = [
        {"varied": name, "value": value, "plain": pair[0].mean(), "momentum": pair[1].mean()}
        for name, value, pair in kinds
    ]
    return {"heterogeneity": DataFrame(rows)}


HETEROGENEITY = Experiment(
    "heterogeneity", ("P4-C11", "P4-C12"), lambda settings: run(configure(Heterogeneity, settings)), estimates, tables
)

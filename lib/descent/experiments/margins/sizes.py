"""Larger problems: dimension and examples grow together, and plain descent should go on erring, momentum gaining.

The theorems are about large dimension. Here d = N on every rung. A product of weights and noise patch grows at a rate
∝ noise²/N, from scale · noise; both are kept, so that memorising takes about as many steps at every size, and plain
descent is given no more time to learn the small margins than at the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.engine import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.margins.arms import Race, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import bounded_difference, bounded_mean


@dataclass(frozen=True)
class Sizes:
    """Plain descent and momentum at one EMA rate; sizes d = N and the data sets of each."""

    sizes: tuple[int, ...] = (50, 100, 200, 400, 800)
    seeds: tuple[int, ...] = (32, 32, 32, 16, 10)
    task: Task = Task()  # at `base` examples
    base: int = 100
    lr: float = 1.0
    steps: int = 1200

    def at(self, size: int, seeds: int) -> Task:
        """Return the task of a size: the same share of small margins, and memorising at the same pace."""
        grown = size / self.base
        return replace(
            self.task, seeds=seeds, examples=size, small=round(self.task.small * grown), dimension=size,
            noise=self.task.noise * grown**0.5, scale=self.task.scale / grown**0.5,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SizesResult:
    """Where plain descent and momentum stand at equal loss, (2, S), at every size."""

    config: Sizes
    lab: Lab
    stands: tuple[Race, ...]


def run(config: Sizes, lab: Lab) -> SizesResult:
    """Race both arms at every size."""
    rule, stands = ema(config.lr, (0.0, lab.momentum)), []
    for size, seeds in zip(config.sizes, config.seeds, strict=True):
        task = config.at(size, seeds)
        stands += compete(task, lab, Patches(task.data(lab), 2), rule, config.steps)[0]
    return SizesResult(config, lab, tuple(stands))


def estimates(result: SizesResult) -> Estimates:
    """Return what the ladder says about P4-C5 and P4-C6."""
    errors = [stand.err2 for stand in result.stands]
    found: Estimates = {
        "P4-C5.sizes": [bounded_mean(plain, 0, 1) for plain, _ in errors],
        "P4-C6.sizes": [bounded_difference(plain, momentum) for plain, momentum in errors],
    }
    return of_sets(found)


def tables(result: SizesResult) -> Tables:
    """Return mean errors and features and median steps, one row per size and arm."""
    stands, momenta = result.stands, (0.0, result.lab.momentum)
    columns: dict[str, Array] = {
        "err2": np.array([stand.err2.mean(axis=-1) for stand in stands]),
        "feature": np.array([np.nanmean(stand.feature, axis=-1) for stand in stands]),
        "step": np.array([np.median(stand.step, axis=-1) for stand in stands]),
    }
    sets = [[stand.err2.shape[-1]] for stand in stands]
    return {"sizes": tidy({"size": result.config.sizes, "momentum": momenta}, sets=sets, **columns)}


SIZES = Experiment(
    "sizes", small=Sizes(), run=run, estimates=estimates, tables=tables,
    large=Sizes((100, 200, 400, 800, 1600), (64, 64, 64, 32, 16)),
)  # fmt: skip

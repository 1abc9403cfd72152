"""Hopping over a barrier at equal effective step: the prefactor is the growth rate of the saddle.

Temperature, and with it the Boltzmann factor, depend on the effective step alone. What is left for momentum is the
rate at which it leaves the top of the barrier, which is slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.arrays import Array
from descent.engine import column, every, heavy_ball
from descent.engine.arms import in_parts
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.saddle import DoubleWell, hops
from descent.stats import Estimate, mean, paired_ratio
from descent.theory.escape import kramers_time
from descent.theory.mode import growth, matched_lr


@dataclass(frozen=True)
class Hopping:
    """A double well with arms of every momentum at lr = e(1 − momentum), the noise set by the height of the barrier."""

    effective: tuple[float, ...] = (0.05, 0.2)  # claims are stated at the first; at 0.2 plain descent is visibly hotter
    momentum: tuple[float, ...] = (0.0, 0.5, 0.9, 0.99)  # and the headline
    replicas: Share = Share(least=20)  # fewer may not hop at all
    height: float = 5.0  # barrier over temperature
    hops: float = 4.0  # length of a run in mean hopping times of plain descent
    look: int = 20  # steps between two looks
    commit: float = 0.5  # a hop counts once it has come from beyond one of ±commit to beyond the other

    def well(self, effective: float) -> DoubleWell:
        """Return the well whose noise makes the temperature ½·effective·noise equal to barrier/height."""
        return DoubleWell(noise=2 * DoubleWell().barrier / (self.height * effective))


@dataclass(frozen=True, eq=False)
class HoppingResult(ByMomentum):
    """Committed hops, per effective step (A, N) of surviving replicas, each watched for `steps` (E,) steps.

    kramers (E, A): mean times of the rate formula; slowing (E, A): plain growth rate over each arm's, the predicted
    ratio of hopping times; diverged (E,): replicas dropped.
    """

    config: Hopping
    lab: Lab
    counts: tuple[Array, ...]
    steps: tuple[int, ...]
    kramers: Array
    slowing: Array
    diverged: tuple[int, ...]


def run(config: Hopping, lab: Lab) -> HoppingResult:
    """Watch every replica hop to and fro."""
    momentum, wells = lab.momenta(config.momentum), [config.well(e) for e in config.effective]
    lr = matched_lr(np.array(config.effective)[:, None], momentum)
    rates = growth(1.0, lr, momentum)
    kramers = [
        kramers_time(well.barrier, well.curvature, well.instability, row, momentum, well.noise)
        for well, row in zip(wells, lr, strict=True)
    ]
    steps = [round(config.hops * float(times[0])) for times in kramers]
    found = [_watch(config, lab, *task) for task in zip(wells, lr, steps, strict=True)]
    counts, diverged = zip(*found, strict=True)
    return HoppingResult(config, lab, counts, tuple(steps), np.stack(kramers), rates[:, :1] / rates, diverged)


def _watch(config: Hopping, lab: Lab, well: DoubleWell, lr: Array, steps: int) -> tuple[Array, int]:
    """Return hops (A, N) of surviving replicas, and the replicas lost."""
    arms = lab.arms(heavy_ball(lr.tolist(), lab.momenta(config.momentum)), config.replicas)
    done = arms.run(well, torch.ones(1, 1), steps, probes={"x": every(config.look, column(0))})
    x = done.whole.records["x"].values  # counted in parts, as a path is long

    def count(rows: slice) -> Tensor:
        return torch.from_numpy(hops(x[:, rows].cpu().numpy(), config.commit))

    counts = arms.split(in_parts(count, arms.rows, 8 * 8 * len(x)))
    return counts[:, done.alive], int((~done.alive).sum())


def slower(result: HoppingResult) -> NDArray[np.object_]:
    """Return mean hopping times over plain descent's, the inverse ratio of hops in equal time: estimates (E, A)."""
    return np.stack([each(paired_ratio, counts[:1], counts, seed=result.lab.seed) for counts in result.counts])


def hopping_times(result: HoppingResult) -> NDArray[np.object_]:
    """Return mean hopping times in steps, estimates (E, A)."""
    return np.stack([each(_waiting, counts, steps=n) for counts, n in zip(result.counts, result.steps, strict=True)])


def _waiting(counts: Array, steps: int) -> Estimate:
    """Return time watched over hops, the maximum-likelihood estimate under censoring; mean and interval inverted."""
    rate = mean(counts)
    longest = steps / rate.low if rate.low > 0 else math.inf
    return replace(rate, value=steps / rate.value, low=steps / rate.high, high=longest)


def estimates(result: HoppingResult) -> Estimates:
    """Return what hopping says about P3-X6."""
    head, counts, seed = result.arm(result.lab.momentum), result.counts[0], result.lab.seed
    return {
        "P3-X6.slower": paired_ratio(counts[0], counts[head], seed),
        "P3-X6.size": paired_ratio(counts[0], counts[head] * result.slowing[0, head], seed),
    }


def tables(result: HoppingResult) -> Tables:
    """Return hopping times, one row per effective step and momentum."""
    frame = tidy(
        {"effective_step": result.config.effective, "momentum": result.momentum},
        hops=[counts.sum(axis=1) for counts in result.counts], time=hopping_times(result), kramers=result.kramers,
        value=slower(result), ratio_predicted=result.slowing, diverged=np.array(result.diverged)[:, None],
    )  # fmt: skip
    return {"hopping": frame.rename(columns={"value": "ratio"})}


LARGE = Hopping(effective=(0.05, 0.2, 0.5), replicas=Share(times=20))
HOPPING = Experiment("hopping", small=Hopping(), large=LARGE, run=run, estimates=estimates, tables=tables)

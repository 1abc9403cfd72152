"""Hopping over a barrier at equal effective step: the prefactor is the growth rate of the saddle."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.engine.probes import every
from descent.engine.train import train
from descent.experiments.arms import (
    Arms,
    Array,
    column,
    configure,
    in_parts,
    momenta,
    paired_ratio,
    survivors,
    to_numpy,
)
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.saddle import DoubleWell, hops
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean
from descent.theory.escape import kramers_time
from descent.theory.mode import growth, matched_lr


@dataclass(frozen=True)
class Hopping:
    """A double well with arms of every momentum at lr = e(1 − momentum), the noise set by the height of the barrier."""

    effective: tuple[float, ...]  # the first is the one claims are stated at
    momentum: tuple[float, ...]
    headline: float
    replicas: int
    seed: int
    device: str
    height: float = 5.0  # barrier over temperature
    hops: float = 4.0  # length of a run in mean hopping times of plain descent
    look: int = 20  # steps between two looks
    commit: float = 0.5  # a hop counts once it has come from beyond one of ±commit to beyond the other

    @classmethod
    def cpu(cls, settings: Settings) -> Hopping:
        """Take effective steps 0.05, and 0.2, at which plain descent is visibly hotter than for small steps."""
        return cls._of(settings, max(settings.replicas, 20), 0.05, 0.2)  # fewer may not hop at all

    @classmethod
    def paper(cls, settings: Settings) -> Hopping:
        """Take twenty times the replicas, and a larger effective step."""
        return cls._of(settings, 20 * settings.replicas, 0.05, 0.2, 0.5)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, *effective: float) -> Hopping:
        arms = momenta((0.0, 0.5, 0.9, 0.99), settings.momentum)
        return cls(effective, arms, settings.momentum, replicas, settings.seed, settings.device)

    def problem(self, effective: float) -> DoubleWell:
        """Return the well whose noise makes the temperature ½·effective·noise equal to barrier/height."""
        return DoubleWell(noise=2 * DoubleWell().barrier / (self.height * effective))

    def kramers(self, effective: float) -> Array:
        """Return Kramers' mean hopping times (A,)."""
        well, arms = self.problem(effective), np.array(self.momentum)
        lr = matched_lr(effective, arms)
        return kramers_time(well.barrier, well.curvature, well.instability, lr, arms, well.noise)

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


@dataclass(frozen=True, eq=False)
class HoppingResult:
    """Committed hops (E, A, N) of surviving replicas, each watched for `steps` (E,) steps.

    kramers (E, A): mean times of the rate formula; slowing (E, A): plain growth rate over each arm's, the predicted
    ratio of hopping times.
    """

    config: Hopping
    counts: tuple[Array, ...]
    steps: tuple[int, ...]
    kramers: Array
    slowing: Array
    diverged: tuple[int, ...]
    seconds: float


def run(config: Hopping) -> HoppingResult:
    """Watch every replica hop to and fro."""
    clock = time.perf_counter()
    found = [_watch(config, e) for e in config.effective]
    arms = np.array(config.momentum)
    rates = np.stack([growth(1.0, matched_lr(e, arms), arms) for e in config.effective])
    return HoppingResult(
        config=config,
        counts=tuple(counts for counts, _, _ in found),
        steps=tuple(steps for _, steps, _ in found),
        kramers=np.stack([config.kramers(e) for e in config.effective]),
        slowing=rates[:, :1] / rates,
        diverged=tuple(lost for _, _, lost in found),
        seconds=time.perf_counter() - clock,
    )


def _watch(config: Hopping, effective: float) -> tuple[Array, int, int]:
    """Return hops (A, N) of surviving replicas, the steps watched, and the replicas lost."""
    lr = tuple(float(rate) for rate in matched_lr(effective, config.momentum))
    arms = Arms(lr, config.momentum, config.replicas, config.seed, config.device)
    steps = round(config.hops * float(config.kramers(effective)[0]))
    start = torch.ones(arms.rows, 1, device=config.device)
    probe = {"x": every(config.look, column(0))}
    done = train(config.problem(effective), start, arms.hyper, steps, arms.streams(), probes=probe)
    alive = survivors(arms, done)
    x = done.records["x"].values

    def count(rows: slice) -> Tensor:
        return torch.from_numpy(hops(x[:, rows].cpu().numpy(), config.commit))

    counts = to_numpy(in_parts(count, arms.rows, 8 * 8 * len(x))).reshape(len(lr), -1)[:, alive]
    return counts, steps, int((~alive).sum())


def slower(result: HoppingResult, index: int, arm: int) -> Estimate:
    """Return the mean hopping time of an arm over plain descent's: the inverse ratio of hops in equal time."""
    counts = result.counts[index]
    return paired_ratio(counts[0], counts[arm], result.config.seed)


def hopping_time(result: HoppingResult, index: int, arm: int) -> Estimate:
    """Return the mean hopping time in steps, time watched over hops: the maximum-likelihood estimate under censoring.

    The interval is that of the mean number of hops, inverted.
    """
    steps, rate = result.steps[index], mean(result.counts[index][arm])
    longest = steps / rate.low if rate.low > 0 else math.inf
    return replace(rate, value=steps / rate.value, low=steps / rate.high, high=longest)


def estimates(result: HoppingResult) -> Estimates:
    """Return what hopping says about P3-X6."""
    head, counts = result.config.row(result.config.headline), result.counts[0]
    slowing = result.slowing[0, head]
    return {
        "P3-X6.slower": slower(result, 0, head),
        "P3-X6.size": paired_ratio(counts[0], counts[head] * slowing, result.config.seed),
    }


def tables(result: HoppingResult) -> dict[str, DataFrame]:
    """Return hopping times, one row per effective step and momentum."""
    pairs = [(e, a) for e in range(len(result.counts)) for a in range(len(result.config.momentum))]
    return {"hopping": DataFrame([_row(result, e, a) for e, a in pairs])}


def _row(result: HoppingResult, index: int, arm: int) -> dict[str, float]:
    times, ratio = hopping_time(result, index, arm), slower(result, index, arm)
    return {
        "effective_step": result.config.effective[index],
        "momentum": result.config.momentum[arm],
        "hops": float(result.counts[index][arm].sum()),
        "time": times.value,
        "time_low": times.low,
        "time_high": times.high,
        "kramers": float(result.kramers[index, arm]),
        "ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "ratio_predicted": float(result.slowing[index, arm]),
        "diverged": result.diverged[index],
    }


HOPPING = Experiment("hopping", ("P3-X6",), lambda settings: run(configure(Hopping, settings)), estimates, tables)

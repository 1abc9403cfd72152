"""Noise that stays at the minimiser: the error settles at a floor, exact at any step, ∝ lr/batch_size at small ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import every
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.quadratics import Ensemble, noise_floor
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, slope_of_mean

ROOTS = ((0.2**0.5,), (0.2**0.5,), (1.8**0.5,), (1.8**0.5,))
OFFSETS = ((1.0,), (-1.0,), (1.0,), (-1.0,))
"""Curvature 0.2 or 1.8 and gradient ±1 at the minimiser, independent of one another: rows x of curvature x², and r."""


@dataclass(frozen=True)
class Arm:
    """One step, momentum and batch size."""

    lr: float
    momentum: float
    batch_size: int

    @property
    def exact(self) -> float:
        """The stationary E v²."""
        return float(noise_floor(ROOTS, OFFSETS, self.lr, self.batch_size, self.momentum)[0, 0])


@dataclass(frozen=True)
class Floors:
    """The arms of the two stated floors, and small steps for the exponent, over three decades of lr/batch_size."""

    replicas: int
    seed: int
    device: str
    stated: tuple[Arm, Arm] = (Arm(0.5, 0.0, 4), Arm(0.2, 0.9, 4))
    small: tuple[Arm, ...] = tuple(Arm(lr, 0.0, k) for k in (1, 4, 16) for lr in (0.02, 0.05, 0.1))
    steps: int = 1200  # that are watched, after `burn` of them; the small steps for half as long
    burn: int = 300

    @classmethod
    def cpu(cls, settings: Settings) -> Floors:
        """Take two runs for every replica."""
        return cls(2 * settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Floors:
        """Take a hundred times more, and steps ten times smaller.

        Batches larger than 64 would have to be drawn example by example, which takes all the time there is.
        """
        small = tuple(Arm(lr, 0.0, k) for k in (1, 4, 16, 64) for lr in (0.002, 0.005, 0.01))
        return cls(200 * settings.replicas, settings.seed, settings.device, small=small, steps=12_000, burn=3000)

    @property
    def every(self) -> int:
        """Steps between two looks: 600 of them fit into memory."""
        return max(2, self.steps // 600)


@dataclass(frozen=True, eq=False)
class FloorsResult:
    """Time means of v² of every replica: stated (2, N), small (S, N/4)."""

    config: Floors
    stated: Array
    small: Array
    seconds: float


def run(config: Floors) -> FloorsResult:
    """Start at the minimiser and watch v² settle."""
    clock = time.perf_counter()
    stated = _watch(config.stated, config.replicas, config.steps, config)
    small = _watch(config.small, max(32, config.replicas // 4), config.steps // 2, config)
    return FloorsResult(config, stated, small, time.perf_counter() - clock)


def _watch(arms: tuple[Arm, ...], replicas: int, steps: int, config: Floors) -> Array:
    """Return the mean of v² over `steps` steps, (A, N)."""
    objective = Ensemble(ROOTS, tuple(arm.batch_size for arm in arms), OFFSETS)
    rule = repeat(heavy_ball([arm.lr for arm in arms], [arm.momentum for arm in arms]), replicas)
    streams = Streams(replica_seeds(config.seed, replicas, config.device).repeat(len(arms)), torch.float64)
    start = torch.zeros(len(streams.seeds), 1, dtype=torch.float64, device=config.device)
    probes = {"square": every(config.every, lambda params: cast(Tensor, params)[:, 0].square())}
    run = train(objective, start, rule.to(config.device), config.burn + steps, streams, probes=probes)
    record = run.records["square"]
    return np.asarray(record.values[int((record.steps <= config.burn).sum()) :].mean(0).view(len(arms), -1).cpu())


def floor(result: FloorsResult, arm: int) -> Estimate:
    """Return the measured over the exact floor of a stated arm."""
    return mean(result.stated[arm] / result.config.stated[arm].exact)


def estimates(result: FloorsResult) -> Estimates:
    """Return what the floors say about P2-C6."""
    ratios = [arm.lr / arm.batch_size for arm in result.config.small]
    return {
        "P2-C6.floor": floor(result, 0),
        "P2-C6.momentum": floor(result, 1),
        "P2-C6.proportional": slope_of_mean(ratios, result.small.T, result.config.seed),
    }


def tables(result: FloorsResult) -> dict[str, DataFrame]:
    """Return measured and exact floors, one row per arm."""
    config, records = result.config, []
    for arm, squares in zip((*config.stated, *config.small), (*result.stated, *result.small), strict=True):
        found = mean(squares)
        records.append(
            {
                "lr": arm.lr,
                "momentum": arm.momentum,
                "batch_size": arm.batch_size,
                "exact": arm.exact,
                "floor": found.value,
                "low": found.low,
                "high": found.high,
            }
        )
    return {"noise_floors": DataFrame(records)}


FLOORS = Experiment("floors", ("P2-C6",), lambda settings: run(configure(Floors, settings)), estimates, tables)

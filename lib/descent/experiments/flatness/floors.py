"""Noise that stays at the minimiser: the error settles at a floor, exact at any step, ∝ lr/batch_size at small ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import column, every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.problems.quadratics import Ensemble, noise_floor
from descent.stats import mean, slope_of_mean

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

    replicas: Share = Share(times=2)
    small_replicas: Share = Share(over=2, least=32)
    stated: tuple[Arm, Arm] = (Arm(0.5, 0.0, 4), Arm(0.2, 0.9, 4))
    small: tuple[Arm, ...] = tuple(Arm(lr, 0.0, k) for k in (1, 4, 16) for lr in (0.02, 0.05, 0.1))
    steps: int = 1200  # that are watched, after `burn` of them; the small steps for half as long
    burn: int = 300

    @property
    def every(self) -> int:
        """Steps between two looks: 600 of them fit into memory."""
        return max(2, self.steps // 600)


@dataclass(frozen=True, eq=False)
class FloorsResult(Result[Floors]):
    """Time means of v² of every replica: stated (2, N), small (S, N/4)."""

    stated: Array
    small: Array


def run(config: Floors, lab: Lab) -> FloorsResult:
    """Start at the minimiser and watch v² settle."""
    stated = _watch(config.stated, config.replicas, config.steps, config, lab)
    small = _watch(config.small, config.small_replicas, config.steps // 2, config, lab)
    return FloorsResult(config, lab, stated, small)


def _watch(settings: tuple[Arm, ...], replicas: Share, steps: int, config: Floors, lab: Lab) -> Array:
    """Return the mean of v² over `steps` steps, (A, N)."""

    def square(x: Tensor) -> Tensor:
        return column(0)(x).square()

    objective = Ensemble(ROOTS, tuple(arm.batch_size for arm in settings), OFFSETS)
    rule = heavy_ball([arm.lr for arm in settings], [arm.momentum for arm in settings])
    arms = lab.arms(rule, replicas, torch.float64)
    start = torch.zeros(1, 1, dtype=torch.float64)
    probes = {"square": every(config.every, square)}
    return arms.run(objective, start, config.burn + steps, probes=probes).average("square", config.burn + 1)


def estimates(result: FloorsResult) -> Estimates:
    """Return what the floors say about P2-C6."""
    plain, strong = (mean(v / arm.exact) for arm, v in zip(result.config.stated, result.stated, strict=True))
    ratios = np.array([arm.lr / arm.batch_size for arm in result.config.small])
    return {
        "P2-C6.floor": plain,
        "P2-C6.momentum": strong,
        "P2-C6.proportional": slope_of_mean(ratios, result.small.T, result.lab.seed),
    }


def tables(result: FloorsResult) -> Tables:
    """Return measured and exact floors, one row per arm."""
    arms = (*result.config.stated, *result.config.small)
    frame = tidy(
        {"lr": [arm.lr for arm in arms]}, momentum=[arm.momentum for arm in arms],
        batch_size=[arm.batch_size for arm in arms], exact=[arm.exact for arm in arms],
        value=[*each(mean, result.stated), *each(mean, result.small)],
    )  # fmt: skip
    return {"noise_floors": frame.rename(columns={"value": "floor"})}


FLOORS = Experiment(
    "floors", small=Floors(), run=run, estimates=estimates, tables=tables,
    large=Floors(
        Share(times=200), Share(times=50, least=32), steps=12_000, burn=3000,
        small=tuple(Arm(lr, 0.0, k) for k in (1, 4, 16, 64) for lr in (0.002, 0.005, 0.01)),
    ),  # batches larger than 64 would have to be drawn example by example, which takes all the time there is
)  # fmt: skip

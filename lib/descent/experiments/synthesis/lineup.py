"""The control table: what a mechanism comes to with momentum over what it comes to without, under four controls.

equal_lr: heavy ball at lr η against plain SGD at η, as papers compare; equal_step: the same against plain SGD at
η/(1 − β), which travels as far per step; average: momentum as an average of gradients at η, raw rate η(1 − β), against
plain SGD at η, which is the same comparison at a smaller step; equal_power: that average with a batch smaller by
(1 − β)/(1 + β), so that the noise of its direction has plain SGD's power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from pandas import DataFrame
from torch import Tensor

from descent.engine.rules import Hyper, heavy_ball, repeat
from descent.stats.estimate import Estimate

__all__ = [
    "COLUMNS",
    "FRACTION",
    "MOMENTA",
    "UNDEFINED",
    "Arm",
    "Cell",
    "Column",
    "Lineup",
    "cells_table",
    "furthest",
    "noise_of",
    "rules_of",
]

UNDEFINED = "control undefined: plain SGD is unstable at this step"
FRACTION = "predicted only: the smaller batch is not a whole number of examples"

Column = Literal["equal_lr", "equal_step", "average", "equal_power"]
COLUMNS: tuple[Column, ...] = ("equal_lr", "equal_step", "average", "equal_power")
MOMENTA = (0.0, 0.5, 0.9, 0.99)


class Arm(NamedTuple):
    """A heavy-ball rule at its raw rate, and the factor on the variance of its gradient noise."""

    lr: float
    momentum: float
    noise: float = 1.0


@dataclass(frozen=True)
class Cell:
    """A ratio to plain SGD: predicted (None where no formula applies), measured (None with the reason in `note`)."""

    mechanism: str
    column: Column
    momentum: float
    predicted: float | None
    measured: Estimate | None
    note: str = ""


@dataclass(frozen=True)
class Lineup:
    """Every arm that a row of the table needs at the learning rate `lr`; plain SGD comes first."""

    lr: float
    momenta: tuple[float, ...] = MOMENTA

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Plain SGD, then heavy ball, its control, the average and the average at a smaller batch per momentum."""
        found = [Arm(self.lr, 0.0)]
        for m in self.moving:
            average = self.lr * (1 - m)
            found += [Arm(self.lr, m), Arm(self.lr / (1 - m), 0.0), Arm(average, m), Arm(average, m, (1 + m) / (1 - m))]
        return tuple(found)

    @property
    def moving(self) -> tuple[float, ...]:
        """The momenta that are not zero: at zero every arm is plain SGD, and every ratio 1."""
        return tuple(m for m in self.momenta if m)

    def pair(self, column: Column, momentum: float) -> tuple[int, int]:
        """Return the places of an arm and of the plain SGD it is compared with."""
        if momentum == 0:
            return 0, 0
        first = 1 + 4 * self.moving.index(momentum)
        arm = first + {"equal_lr": 0, "equal_step": 0, "average": 2, "equal_power": 3}[column]
        return arm, first + 1 if column == "equal_step" else 0

    @property
    def cells(self) -> list[tuple[Column, float]]:
        """Every column with every momentum."""
        return [(column, m) for column in COLUMNS for m in self.momenta]

    def hyper(self, replicas: int, device: str) -> Hyper:
        """Return the rules of the stack, arm-major."""
        return rules_of(self.arms, replicas, device)

    def noise(self, replicas: int, device: str) -> Tensor:
        """Return the factor on the noise variance of every row, (A·N, 1)."""
        return noise_of(self.arms, replicas, device)


class HeavyBall(Protocol):
    """A raw rate and a momentum."""

    @property
    def lr(self) -> float:
        """The raw rate."""

    @property
    def momentum(self) -> float:
        """The momentum."""


def rules_of(arms: Sequence[HeavyBall], replicas: int, device: str) -> Hyper:
    """Return the rules of a stack of arms, arm-major."""
    return repeat(heavy_ball([a.lr for a in arms], [a.momentum for a in arms]), replicas).to(device)


def noise_of(arms: Sequence[Arm], replicas: int, device: str) -> Tensor:
    """Return the factor on the noise variance of every row of a stack, (A·N, 1)."""
    return torch.tensor([a.noise for a in arms], device=device).repeat_interleave(replicas)[:, None]


def furthest(found: Sequence[Estimate]) -> Estimate:
    """Return the estimate furthest from one."""
    return max(found, key=lambda estimate: abs(estimate.value - 1))


def cells_table(cells: Sequence[Cell]) -> DataFrame:
    """Return the cells as a table, one row each; empty where nothing was predicted or measured."""
    rows = []
    for cell in cells:
        ends = {name: getattr(cell.measured, name) if cell.measured else None for name in ("value", "low", "high")}
        rows.append(
            {
                "mechanism": cell.mechanism,
                "control": cell.column,
                "momentum": cell.momentum,
                "predicted": cell.predicted,
                "measured": ends["value"],
                "low": ends["low"],
                "high": ends["high"],
                "note": cell.note,
            }
        )
    return DataFrame(rows)

"""Runs released at the sharper minimiser of a quadratic–circle sum, at many steps on the same luck: who leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import FirstPassage, heavy_ball
from descent.experiments.flatness.batches import Batch
from descent.experiments.lab import Lab, Share
from descent.measure.thresholds import Curve, Scan
from descent.problems.circle import Circle, Section

LOOK = 10  # steps between two looks at who has left: a run that crossed the boundary stays across
NEAR = 0.1  # of the room the sharper minimiser has: its neighbourhood


class Cell(NamedTuple):
    """A batch size and a momentum."""

    batch_size: Batch
    momentum: float = 0.0


@dataclass(frozen=True, eq=False)
class Departures:
    """When N runs left, in K cells at A steps each."""

    cells: tuple[Cell, ...]
    lr: Array  # (K, A), rising: times the sharpness of the minimiser left
    basin: Array  # (K, N, A): the steps after which a run was first seen outside the basin, −1 for never
    neighbourhood: Array  # (K, N, A): and farther away than NEAR of the room

    def curve(self, batch_size: Batch, momentum: float = 0.0, *, steps: int | None = None, near: bool = False) -> Curve:
        """Return who had left the basin (with `near`: the neighbourhood) by a number of steps, of one cell."""
        cell = Cell(batch_size, momentum)
        if cell not in self.cells:
            raise KeyError(f"no runs with batch size {batch_size} and momentum {momentum}; there are {self.cells}")
        row = self.cells.index(cell)
        times = (self.neighbourhood if near else self.basin)[row]
        return Curve(self.lr[row], (times >= 0) & (True if steps is None else times <= steps))


def leave(
    lab: Lab, runs: Share | int, circle: Circle, cells: Sequence[Cell], lr: Array, start: float, steps: int
) -> Departures:
    """Start at that distance from the minimiser, all cells and steps on the same random numbers."""
    dtype = torch.float32 if circle.jitter else torch.float64  # exact noise takes distances down to 1e-300
    section = Section(replace(circle, batch_size=tuple(cell.batch_size for cell in cells)))
    begin = torch.full((1, lr.shape[1]), -start, dtype=dtype)

    def outside(params: Tensor) -> Tensor:
        return torch.stack([section.left(params), params.abs() > NEAR * circle.room], dim=1)

    arms = lab.arms(heavy_ball(1.0, [cell.momentum for cell in cells]), runs, dtype)
    scan, probes = Scan(section, lr / circle.sharpness), {"out": FirstPassage(outside, LOOK)}
    times = arms.run(scan, begin, steps, probes=probes, check=steps)["out"]
    return Departures(tuple(cells), lr, times[:, :, 0], times[:, :, 1])

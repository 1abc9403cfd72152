"""When runs at one minimiser first get as far as each of several radii, and where the slow ones stop being followed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from descent.arrays import Array, BoolArray
from descent.engine.streams import Streams
from descent.problems.exponents import Walk

__all__ = ["Passages", "first_passages"]

DROP = 0.8  # share of rows still followed below which the stack is cut down to them


@dataclass(frozen=True, eq=False)
class Passages:
    """First passages of N runs through L rising radii.

    times (N, L): steps until |x| ≥ radius, or steps followed without it; seen (N, L): whether it was reached.
    """

    times: Array
    seen: BoolArray


def first_passages(
    walk: Walk, start: float, radii: Array, steps: int, streams: Streams, floor: float = 0.0
) -> Passages:
    """Follow plain descent in one dimension until it reaches the largest radius, falls below `floor` or time is up.

    Not `train`: only the farthest point matters, and most runs are over long before the last, so that cutting the
    stack down pays several times over.

    walk: the minimiser with its rate; floor: the distance below which a run is over.
    """
    minimum, levels = walk.minimum, torch.tensor(radii, device=streams.device)
    rows = torch.arange(streams.replicas, device=streams.device)
    x = torch.full((len(rows), 1), start, dtype=torch.float64, device=streams.device)
    far, times, active = x[:, 0].abs(), torch.zeros_like(x * levels), torch.ones_like(rows, dtype=torch.bool)
    farthest, waited = far.clone(), times.clone()
    for step in range(steps):
        waited += active[:, None] & (far[:, None] < levels)
        x.sub_(minimum.gradient(x, streams, step), alpha=walk.lr)
        size = x[:, 0].abs()
        far = torch.where(active, torch.fmax(far, size), far)  # a run that is over may overflow until it is dropped
        active &= (far < levels[-1]) & (size > floor)
        if active.sum() <= DROP * len(rows):
            times[rows], farthest[rows] = waited, far
            rows, x, far, waited = rows[active], x[active], far[active], waited[active]
            streams, active = streams.subset(active.nonzero()[:, 0]), active[active]
        if not len(rows):
            break
    times[rows], farthest[rows] = waited, far
    return Passages(times.cpu().numpy(), (farthest[:, None] >= levels).cpu().numpy())

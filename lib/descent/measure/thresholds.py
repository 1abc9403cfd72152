"""The step at which half of the runs have left: scan many steps at once, read off the median step with its interval.

A run is put through all steps of a scan on the same random numbers, and so are the arms to compare. Thresholds of one
scan, and of two, are then estimated on the same luck, which takes most of the noise out of their differences.

    watched = train(Scan(objective, lr), start, rules.heavy_ball(ones, momentum), …)    # start (N, A, …)
    curve = Curve(lr, left)                                                             # left (N, A)
    median_steps(lambda c: c, curve, seed=0), median_steps(lambda c, d: c / d, curve, other, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine.streams import Streams
from descent.engine.train import Objective
from descent.stats.estimate import Estimate
from descent.stats.intervals import blocks, bootstrap

__all__ = ["Curve", "Scan", "median_step", "median_steps"]


BLOCKS = 100
"""Of replicas, which the bootstrap resamples whole."""


@dataclass(frozen=True, eq=False)
class Scan:
    """An objective descended at A steps side by side: parameters (R, A, …), the gradient multiplied by each step.

    lr: (A,), or (K, A) for K equal consecutive blocks of replicas. Use with a rule of lr 1. The objective must take the
    axis of steps, and may let it share its random numbers.
    """

    objective: Objective[Tensor]
    lr: Array

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return lr·g, shaped like the parameters."""
        slope = self.objective.gradient(params, streams, step)
        lr = slope.new_tensor(np.atleast_2d(self.lr))
        blocks, arms = lr.shape
        slope.view(blocks, -1, arms, *slope.shape[2:]).mul_(lr.view(blocks, 1, arms, *[1] * (slope.ndim - 2)))
        return slope


@dataclass(frozen=True, eq=False)
class Curve:
    """Who has left at which step: lr (A,) rising, left (N, A)."""

    lr: Array  # the rates of the scan
    left: BoolArray  # whether a replica has left at a rate

    @property
    def share(self) -> Array:
        """Share of runs that have left, (A,)."""
        return np.asarray(self.left.mean(axis=0))

    def at(self, lr: float) -> BoolArray:
        """Return who has left at one of the steps, (N,)."""
        if lr not in self.lr:
            raise KeyError(f"the step {lr} is not in the scan; it has {self.lr}")
        return np.asarray(self.left[:, int(np.flatnonzero(self.lr == lr)[0])])


def median_step(lr: ArrayLike, share: ArrayLike) -> Array:
    """Return the step at which a share of ½ has left, (…, A) → (…).

    The share is made to rise, halfway between its running maximum from below and minimum from above, and read off
    straight between neighbouring steps.

    lr: the rates of the scan, rising; share: of the runs that have left, at every rate.

    Raises: ValueError where it does not pass ½ within the scan.
    """
    steps, raw = np.asarray(lr, dtype=np.float64), np.asarray(share, dtype=np.float64)
    above = np.minimum.accumulate(raw[..., ::-1], axis=-1)[..., ::-1]
    rising = (np.maximum.accumulate(raw, axis=-1) + above) / 2
    if (rising[..., 0] >= 0.5).any() or (rising[..., -1] < 0.5).any():
        raise ValueError(
            f"the share that left does not pass one half between the steps {steps[0]:g} and {steps[-1]:g} "
            f"(it goes from {raw[..., 0].mean():.3g} to {raw[..., -1].mean():.3g}); scan a wider range"
        )
    after = (rising >= 0.5).argmax(axis=-1)
    (low, high), (before, beyond) = (
        [np.take_along_axis(a, i[..., None], axis=-1)[..., 0] for i in (after - 1, after)]
        for a in (np.broadcast_to(steps, rising.shape), rising)
    )
    return np.asarray(low + (high - low) * (0.5 - before) / (beyond - before))


def median_steps(function: Callable[..., Array], *curves: Curve, seed: int) -> Estimate:
    """Estimate a function of the median steps of several curves with the same replicas, (B,) each → (B,).

    The bootstrap resamples replicas, the same ones in every curve.

    curves: of the same replicas each.
    """
    ends = np.cumsum([len(curve.lr) for curve in curves])[:-1]
    together = blocks(np.concatenate([curve.left for curve in curves], axis=1), BLOCKS)

    def statistic(drawn: Array) -> Array:
        shares = np.split(drawn.mean(axis=1), ends, axis=-1)
        return function(*(median_step(c.lr, s) for c, s in zip(curves, shares, strict=True)))

    return replace(bootstrap(statistic, together, seed=seed), n=len(curves[0].left))

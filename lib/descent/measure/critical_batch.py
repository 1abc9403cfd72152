"""The critical batch size as a valley: the batch sizes whose cost in gradients is close to the least.

T(B) steps to some goal cost B·T(B) gradients. The cost is so flat around its minimum that the best of a few tried
sizes says little. Here the valley is the set of sizes within a tolerance of the least cost; its ends and its centre,
the geometric mean of the ends, are read off the cost interpolated between the sizes, logarithm against logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from descent.arrays import Array
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap

__all__ = ["Valley", "critical_exponent", "valley"]


TOLERANCE = 0.05
_NEVER = 1e300  # the cost of a goal that is never reached: finite, so that it can be averaged and interpolated


@dataclass(frozen=True)
class Valley:
    """The tried sizes within the tolerance of the least mean cost, and the interpolated ends and centre.

    open_below, open_above: the valley reaches the end of the range, so its end there is only a bound.
    """

    sizes: tuple[int, ...]  # the batch sizes within the tolerance
    low: Estimate  # the lower end
    centre: Estimate  # between the ends
    high: Estimate  # the upper end
    open_below: bool
    open_above: bool


def valley(batch_sizes: ArrayLike, steps: ArrayLike, seed: int, *, tolerance: float = TOLERANCE) -> Valley:
    """Return the valley of steps (R, B) to a goal, one row per run; intervals resample the runs.

    Infinite steps are goals never reached: a size at which any run fails is out.

    tolerance: the relative excess of the mean cost that counts as none. steps: to the goal, ∞ where it was not reached.
    """
    sizes, cost = _costs(batch_sizes, steps)
    logs = np.log(sizes)
    mean = np.log(cost.mean(axis=0))
    inside = mean <= mean.min() + np.log1p(tolerance)

    def end(which: int) -> Estimate:
        return bootstrap(lambda c: np.exp(_ends(logs, np.log(c.mean(1)), tolerance)[which]), cost, seed=seed)

    low, high, centre = (end(which) for which in range(3))
    chosen = tuple(int(size) for size in sizes[inside])
    return Valley(chosen, low, centre, high, bool(inside[0]), bool(inside[-1]))


def critical_exponent(
    x: ArrayLike, batch_sizes: ArrayLike, steps: ArrayLike, seed: int, *, tolerance: float = TOLERANCE
) -> Estimate:
    """Return the least-squares slope of log centre against log x; x (A,), steps (R, A, B), runs resampled together.

    tolerance: the relative excess of the mean cost that counts as none. steps: to the goal, ∞ where it was not reached;
    x: what the critical batch is a power of.
    """
    sizes, cost = _costs(batch_sizes, steps)
    logs, abscissa = np.log(sizes), np.log(np.asarray(x, dtype=np.float64))
    weights = (abscissa - abscissa.mean()) / np.square(abscissa - abscissa.mean()).sum()
    return bootstrap(lambda c: _ends(logs, np.log(c.mean(1)), tolerance)[2] @ weights, cost, seed=seed)


def _costs(batch_sizes: ArrayLike, steps: ArrayLike) -> tuple[Array, Array]:
    """Return the sizes (B,) and the costs (R, …, B) in gradients."""
    sizes, taken = (np.asarray(values, dtype=np.float64) for values in (batch_sizes, steps))
    if sizes.ndim != 1 or len(sizes) < 3 or (np.diff(sizes) <= 0).any():
        raise ValueError(f"a valley needs at least three rising batch sizes, got {sizes.tolist()}")
    if taken.ndim < 2 or taken.shape[-1] != len(sizes) or np.isnan(taken).any():
        raise ValueError(
            f"steps must be (runs, …, {len(sizes)}) without NaN, got shape {taken.shape}; "
            "write infinity for a goal never reached"
        )
    if np.isinf(taken).any(axis=0).all(axis=-1).any():
        raise ValueError("at every batch size some run never reached the goal; run longer, or ask for less precision")
    return sizes, np.where(np.isinf(taken), _NEVER, sizes * taken)


def _ends(logs: Array, cost: Array, tolerance: float) -> Array:
    """Return the logs of low end, high end and centre of the valleys of log cost (…, B), (3, …)."""
    level = cost.min(axis=-1, keepdims=True) + np.log1p(tolerance)
    low, high = _left_end(logs, cost - level), -_left_end(-logs[::-1], (cost - level)[..., ::-1])
    return np.stack([low, high, (low + high) / 2])


def _left_end(logs: Array, excess: Array) -> Array:
    """Return where excess (…, B), linear between the logs (B,), first falls to zero; the first log if it is there."""
    first = np.argmax(excess <= 0, axis=-1)
    before = np.maximum(first - 1, 0)
    above, below = (np.take_along_axis(excess, at[..., None], -1)[..., 0] for at in (before, first))
    share = np.where(first > 0, above / np.where(first > 0, above - below, 1.0), 0.0)
    return np.asarray(logs[before] + share * (logs[first] - logs[before]))

"""The mean of a bounded quantity whose replicas nearly all have the same value: no spread, and yet no certainty.

Where k of n replicas differ from the value c of all others, at most a share p of all replicas that could be drawn does,
by Clopper and Pearson's one-sided bound; p = 1 − α^(1/n) for k = 0. A quantity between a and b has a mean between
c − p(c − a) and c + p(b − c) then, whatever its law. Student's t would say far too much, or, of none, nothing at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from descent.stats.estimate import FEW_DIFFER, LEAST, STUDENT, Estimate, differing
from descent.stats.intervals import mean

__all__ = ["bounded_difference", "bounded_mean"]


def bounded_mean(x: ArrayLike, low: float, high: float, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of x, shape (R,), a quantity between `low` and `high`.

    By Student's t where at least five replicas differ from the commonest value; else by the exact bound, and the value
    is that of all others.

    >>> print(bounded_mean([0.0] * 240, 0, 1))
    0.000 [0.000, 0.012]
    """
    a = np.asarray(x, dtype=np.float64)
    if not (low < high and ((a >= low) & (a <= high)).all()):
        raise ValueError(f"expected finite values between {low} and {high}, got {a.min()} to {a.max()}")
    values, counts = np.unique(a, return_counts=True)
    common, k = float(values[counts.argmax()]), len(a) - int(counts.max())
    if a.ndim != 1 or len(a) < 2 or k >= min(LEAST[STUDENT], len(a) - 1):
        return mean(a, level=level)
    share = differing(k, len(a), level)
    ends = common - share * (common - low), common + share * (high - common)
    return Estimate(common, *ends, len(a), FEW_DIFFER, k, level)


def bounded_difference(x: ArrayLike, y: ArrayLike, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Estimate the mean of x − y, replica by replica, both between `low` and `high`, by `bounded_mean`.

    >>> print(bounded_difference([0.0] * 240, [0.0] * 240))
    0.000 [−0.012, 0.012]
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired samples need equal shapes, got {a.shape} and {b.shape}")
    return bounded_mean(a - b, low - high, high - low)

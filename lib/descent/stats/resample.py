"""The bootstrap: a statistic of whole rows drawn again, with percentiles that are not too narrow for few rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from descent.arrays import Array
from descent.stats.estimate import BOOTSTRAP, BOOTSTRAP_PAIRED, Estimate, critical_t

__all__ = ["RESAMPLES", "resample"]

RESAMPLES = 2000
"""How often a bootstrap draws the data anew, unless told otherwise."""

_CHUNK = 4_000_000  # numbers gathered at a time: 32 MB per sample, whatever the number of replicas


def resample(
    statistic: Callable[..., Array],
    arrays: Sequence[Array],
    seed: int,
    paired: bool = True,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Estimate a statistic of arrays (n, …) by drawing rows again, all arrays together when they are paired.

    The interval is the expanded percentile interval, percentiles at Φ(∓√(n/(n−1)) t(n−1)), which removes the
    narrowness of the plain percentiles at small n.

    arrays: the samples.
    """
    found = np.concatenate(
        [statistic(*(array[None] for array in arrays)), _resampled(statistic, arrays, seed, paired, resamples)]
    )
    bad = int(np.count_nonzero(~np.isfinite(found)))
    if bad:
        raise ValueError(
            f"the statistic is not finite on {bad} of {resamples} resamples; does a denominator reach zero?"
        )
    n, value = min(map(len, arrays)), float(found[0])
    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * critical_t(level, n - 1)))
    low, high = (float(end) for end in np.quantile(found[1:], [tail, 1 - tail]))
    method = BOOTSTRAP_PAIRED if paired and len(arrays) > 1 else BOOTSTRAP
    return Estimate(value, min(low, value), max(high, value), n, method, n - 1, level)


def _resampled(
    statistic: Callable[..., Array], arrays: Sequence[Array], seed: int, paired: bool, resamples: int
) -> Array:
    rng = np.random.Generator(np.random.Philox(seed))
    step = max(1, _CHUNK // max(array.size for array in arrays))
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        rows = [rng.integers(len(a), size=(count, len(a))) for a in (arrays[:1] if paired else arrays)]
        rows = rows * len(arrays) if paired else rows
        drawn = [np.take(array, row, axis=0) for array, row in zip(arrays, rows, strict=True)]
        parts.append(statistic(*drawn))
    return np.concatenate(parts)

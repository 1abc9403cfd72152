"""Estimates over draws of the data: samples of shape (draws, replicas), the replicas of a draw sharing its data.

Replicas of one draw resemble one another, so they are averaged first and each draw counts once. Where the statistic
is linear, Student's t over the draw means is exact for normal noise whatever the replicas share. A smooth statistic is
taken without each draw in turn (jackknife), with Student's t; one that is not, such as a median, resamples draws.
To resample the replicas inside a draw as well would count their noise twice: it is in the draw means already.

A replica that diverged is nan and left out of its draw. A draw with none left is lost, and the method names it,
counting from 0: "Student t; draws 3, 7 lost".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from descent.arrays import Array
from descent.stats.estimate import CLOPPER_PEARSON, JACKKNIFE, STUDENT_LOG, Estimate, clopper_pearson, critical_t
from descent.stats.intervals import mean
from descent.stats.resample import resample

__all__ = ["draw_difference", "draw_fraction", "draw_mean", "draw_ratio", "draw_share", "draw_statistic"]


def draw_mean(x: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of x, shape (draws, replicas), by Student's t over the means of the draws.

    >>> found = draw_mean([[1.0, 3.0], [4.0, 6.0], [3.0, float("nan")]])
    >>> print(found, found.source)
    3 [0, 7] 3 draws, 5 replicas
    """
    (a,), lost = _kept(x)
    return _over(mean(np.nanmean(a, axis=1), level=level), a, lost)


def draw_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of a − b, replica by replica, both (draws, replicas), by Student's t over the draws.

    a, b: the samples.
    """
    first, second = _grids(a, b)
    return draw_mean(first - second, level=level)


def draw_ratio(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate mean(a)/mean(b) of paired samples (draws, replicas) by the jackknife over draws.

    Where it is positive without any one draw, the interval is made on its logarithm.

    a: numerator; b: denominator.
    """
    (x, y), lost = _kept(a, b)
    pairs = np.stack([np.nanmean(x, axis=1), np.nanmean(y, axis=1)], axis=1)
    if (np.sign(pairs[:, 1]) != np.sign(pairs[0, 1])).any():
        raise ValueError("the denominator is not of one sign over the draws: estimate a difference instead")
    value, others = _without_each(lambda p: np.divide(*p.mean(1).T), [pairs])
    if value > 0 and (others > 0).all():
        half = _jackknife(np.log(others), level)
        found = Estimate(value, value * math.exp(-half), value * math.exp(half), 2, STUDENT_LOG, len(x) - 1, level)
    else:
        half = _jackknife(others, level)
        found = Estimate(value, value - half, value + half, 2, JACKKNIFE, len(x) - 1, level)
    return _over(found, x, lost)


def draw_share(hits: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate a probability from hits (draws, replicas) of 0 and 1, draws alike or not, after Korn and Graubard.

    Clopper and Pearson's interval for as many independent trials as the spread of the shares over draws allows,
    p(1 − p)/var(p), at most all replicas, times (t(n − 1)/t(draws − 1))². Where all replicas agree nothing is known of
    how draws differ: the trials are then the draws alone.

    hits: 0 or 1.

    >>> print(draw_share(np.zeros((10, 4))))
    0.00 [0.00, 0.31]
    """
    (x,), lost = _kept(np.asarray(hits, dtype=np.float64))
    if not np.isin(x[~np.isnan(x)], (0, 1)).all():
        raise ValueError("a share counts hits: give 0, 1, or nan for a replica that diverged")
    p, trials = float(np.nanmean(x, axis=1).mean()), _trials(x, level)
    low, high = clopper_pearson(p * trials, trials, level)
    return _over(Estimate(p, min(low, p), max(high, p), 2, CLOPPER_PEARSON, trials, level), x, lost)


def draw_fraction(x: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of a number between 0 and 1, x (draws, replicas), as `draw_mean` does.

    Where all replicas stand at one end there is no spread, and yet a bound: were the mean of a draw p, all n draws
    would stand at 1 with a probability of at most pⁿ. That is Clopper and Pearson's interval for n trials, the draws.

    x: numbers between 0 and 1.

    >>> print(draw_fraction(np.ones((10, 3))), draw_fraction([[0.5, 0.7], [0.6, 0.6], [0.4, 0.5]]))
    1.00 [0.69, 1.00] 0.55 [0.33, 0.77]
    """
    (a,), lost = _kept(x)
    if not ((a >= 0) & (a <= 1) | np.isnan(a)).all():
        raise ValueError("a fraction lies between 0 and 1, or is nan for a replica that diverged")
    ends = np.unique(a[~np.isnan(a)])
    if len(ends) > 1 or ends[0] not in (0, 1):
        return draw_mean(x, level=level)
    end, n = float(ends[0]), len(a)
    low, high = clopper_pearson(end * n, n, level)
    return _over(Estimate(end, low, high, n, CLOPPER_PEARSON, n, level), a, lost)


def draw_statistic(
    statistic: Callable[..., Array], *samples: ArrayLike, seed: int | None = None, level: float = 0.95
) -> Estimate:
    """Estimate any function of samples (draws, replicas), paired by draw.

    `statistic` receives arrays (B, draws, replicas), one per sample, B choices of draws at once, and returns (B,); it
    leaves out nan, as np.nanmean does. Without a seed the jackknife over draws is taken: for smooth statistics. With
    one, draws are resampled: for medians, ranks and whatever else jumps.

    Raises: ValueError for samples that are not paired, for fewer than two draws, or a statistic that is not finite.
    """
    arrays, lost = _kept(*samples)
    if seed is not None:
        return _over(resample(statistic, arrays, seed, level=level), arrays[0], lost)
    value, others = _without_each(statistic, arrays)
    half = _jackknife(others, level)
    return _over(Estimate(value, value - half, value + half, 2, JACKKNIFE, len(others) - 1, level), arrays[0], lost)


def _without_each(statistic: Callable[..., Array], arrays: Sequence[Array]) -> tuple[float, Array]:
    """Return the statistic of all draws, and without each of them, (draws,)."""
    count = len(arrays[0])
    rows = np.array([np.delete(np.arange(count), d) for d in range(count)])
    value = float(statistic(*(array[None] for array in arrays))[0])
    others = np.asarray(statistic(*(array[rows] for array in arrays)), dtype=np.float64)
    if not np.isfinite([value, *others]).all():
        raise ValueError("the statistic is not finite on all draws but one; does a denominator reach zero?")
    return value, others


def _jackknife(others: Array, level: float) -> float:
    """Return the half-width t(m − 1)·√((m − 1)/m Σ(θ₋ᵢ − mean)²) from the statistic without each of m draws."""
    m = len(others)
    return critical_t(level, m - 1) * math.sqrt((m - 1) ** 2 / m * float(others.var(ddof=1)))


def _trials(x: Array, level: float) -> float:
    """Return how many independent trials tell as much as these hits."""
    shares, n = np.nanmean(x, axis=1), int(np.count_nonzero(~np.isnan(x)))
    p, m = float(shares.mean()), len(x)
    if p in (0.0, 1.0):
        return float(m)
    noise = float(shares.var(ddof=1)) / m
    alike = min(float(n), p * (1 - p) / noise) if noise > 0 else float(n)
    return alike * (critical_t(level, n - 1) / critical_t(level, m - 1)) ** 2


def _grids(*samples: ArrayLike) -> list[Array]:
    grids = [np.asarray(sample, dtype=np.float64) for sample in samples]
    shapes = {grid.shape for grid in grids}
    if len(shapes) > 1 or grids[0].ndim != 2:
        found = " and ".join(str(grid.shape) for grid in grids)
        raise ValueError(f"samples over draws have one shape (draws, replicas), got {found}")
    return grids


def _kept(*samples: ArrayLike) -> tuple[list[Array], list[int]]:
    """Return the samples without lost draws, nan where any replica of a pair diverged, and which draws were lost."""
    grids = _grids(*samples)
    if any(np.isinf(grid).any() for grid in grids):
        raise ValueError("a replica is infinite: mark one that diverged as nan, so that it is left out and counted")
    gone = np.logical_or.reduce([np.isnan(grid) for grid in grids])
    lost = gone.all(axis=1)
    names = [int(d) for d in np.flatnonzero(lost)]
    if len(lost) - len(names) < 2:
        raise ValueError(f"need at least 2 draws with a replica left, got {len(lost)} of which {names} are lost")
    return [np.where(gone, np.nan, grid)[~lost] for grid in grids], names


def _over(found: Estimate, x: Array, lost: list[int]) -> Estimate:
    """Return an estimate that says how many draws and replicas stand behind it, and which draws were lost."""
    suffix = f"; draws {', '.join(map(str, lost))} lost" if lost else ""
    return replace(found, n=int(np.count_nonzero(~np.isnan(x))), draws=len(x), method=f"{found.method}{suffix}")

"""Estimates with intervals from a stack of replicas.

The replica axis always comes first. Means use Student's t; ratios, medians, quantiles, variances and
slopes resample whole replicas (2000 times, all samples together when they are paired) and read percentiles
expanded for small samples; proportions and exponential means are exact. Nothing is dropped silently: a
non-finite value raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from descent.arrays import Array
from descent.stats.estimate import (
    CLOPPER_PEARSON,
    EXACT,
    EXPONENTIAL,
    EXPONENTIAL_CENSORED,
    KOLMOGOROV,
    STUDENT,
    STUDENT_LOG,
    Estimate,
    clopper_pearson,
    critical_t,
    exponential_interval,
)
from descent.stats.resample import RESAMPLES, resample

__all__ = [
    "BLOCKS", "KS", "RESAMPLES", "Estimate", "blocks", "bootstrap", "censored_mean", "censored_ratio", "exact",
    "geometric_ratio", "ks_distance", "mean", "median", "paired_difference", "paired_ratio", "power",
    "proportion", "quantile", "ratio_of_means", "ratio_of_medians", "replicas_for_power", "replicas_to_settle",
    "slope", "slope_of_mean", "spearman", "tost", "variance_ratio",
]  # fmt: skip


BLOCKS = 20_000
"""Replicas, or averages of them, that a bootstrap of a large stack resamples."""


def exact(value: float) -> Estimate:
    """Return a deterministic number as an estimate of zero width."""
    return Estimate(float(value), float(value), float(value), 1, EXACT)


def mean(x: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of x, shape (R,), by Student's t.

    >>> print(mean([1.0, 2.0, 3.0, 4.0]))
    2.5 [0.4, 4.6]
    """
    a = _sample(x)
    if a.ndim != 1:
        raise ValueError(f"mean expects one number per replica, shape (R,), got {a.shape}; reduce the other axes first")
    centre, dof = float(a.mean()), len(a) - 1
    half = critical_t(level, dof) * float(a.std(ddof=1)) / math.sqrt(len(a))
    return Estimate(centre, centre - half, centre + half, len(a), STUDENT, dof, level)


def paired_difference(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of x − y, replica by replica, by Student's t.

    >>> print(paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0]))
    2.0 [−0.5, 4.5]
    """
    a, b = _pair(x, y)
    return mean(a - b, level=level)


def geometric_ratio(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate exp(mean log(x/y)) for positive paired samples, by Student's t on the logarithms."""
    a, b = _pair(_positive(x), _positive(y))
    logs = mean(np.log(a / b), level=level)
    value, low, high = (math.exp(number) for number in (logs.value, logs.low, logs.high))
    return Estimate(value, low, high, logs.n, STUDENT_LOG, logs.dof, level)


def bootstrap(
    statistic: Callable[..., Array],
    *samples: ArrayLike,
    seed: int,
    paired: bool = True,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Estimate:
    """Estimate any function of whole samples by resampling replicas.

    `statistic` receives arrays of shape (B, n, …), one per sample, and returns (B,): B resamples at once.
    Paired samples share the drawn replicas. The interval is the expanded percentile interval, percentiles
    at Φ(∓√(n/(n−1)) t(n−1)), which removes the narrowness of the plain percentiles at small n.

    Raises: ValueError for non-finite input, unequal paired lengths, or a statistic that is not finite.
    """
    arrays = [_sample(sample, f"sample {index}") for index, sample in enumerate(samples)]
    lengths = [len(array) for array in arrays]
    if paired and len(set(lengths)) > 1:
        raise ValueError(f"paired samples need equal lengths, got {lengths}; use paired=False if independent")
    return resample(statistic, arrays, seed, paired, resamples, level)


def ratio_of_means(x: ArrayLike, y: ArrayLike, seed: int, *, paired: bool = True, level: float = 0.95) -> Estimate:
    """Estimate mean(x)/mean(y) by the (paired) bootstrap; x and y of shape (R,)."""
    return bootstrap(lambda a, b: a.mean(1) / b.mean(1), x, y, seed=seed, paired=paired, level=level)


def paired_ratio(x: ArrayLike, y: ArrayLike, seed: int, *, most: int = BLOCKS) -> Estimate:
    """Estimate mean(x)/mean(y) of paired replicas (R,) by the bootstrap over at most that many blocks of them."""
    return ratio_of_means(blocks(x, most), blocks(y, most), seed)


def blocks(values: ArrayLike, most: int = BLOCKS) -> Array:
    """Average replicas (R, …) in at most that many equal blocks: a bootstrap of a million becomes cheap."""
    x = np.asarray(values)
    count = min(most, len(x))
    return np.asarray(x[: len(x) // count * count].reshape(count, -1, *x.shape[1:]).mean(axis=1))


def ratio_of_medians(x: ArrayLike, y: ArrayLike, seed: int, *, paired: bool = True, level: float = 0.95) -> Estimate:
    """Estimate median(x)/median(y) by the (paired) bootstrap; x and y of shape (R,)."""
    return bootstrap(lambda a, b: np.median(a, 1) / np.median(b, 1), x, y, seed=seed, paired=paired, level=level)


def median(x: ArrayLike, seed: int, *, level: float = 0.95) -> Estimate:
    """Estimate the median of x, shape (R,), by the bootstrap."""
    return quantile(x, 0.5, seed, level=level)


def quantile(x: ArrayLike, p: float, seed: int, *, level: float = 0.95) -> Estimate:
    """Estimate the p-quantile of x, shape (R,), by the bootstrap; keep R·min(p, 1−p) above about 10."""
    if not 0 < p < 1:
        raise ValueError(f"p must lie strictly between 0 and 1, got {p}")
    return bootstrap(lambda a: np.quantile(a, p, axis=1), x, seed=seed, level=level)


def variance_ratio(
    x: ArrayLike, reference: ArrayLike, seed: int, *, paired: bool = True, level: float = 0.95
) -> Estimate:
    """Estimate var(x)/reference (a number), or var(x)/var(reference) (a sample), by the bootstrap.

    x: (R,) or (R, T); the T values of a replica are pooled into the variance and resampled together. Covers 0.94 at 100
    replicas of one normal value each, 0.91 at 32. reference: a number, or the other sample.
    """
    known = np.asarray(reference, dtype=np.float64)
    if known.ndim == 0:
        return bootstrap(lambda a: _pooled_variance(a) / known, _moments(x), seed=seed, level=level)
    return bootstrap(
        lambda a, b: _pooled_variance(a) / _pooled_variance(b),
        _moments(x),
        _moments(known),
        seed=seed,
        paired=paired,
        level=level,
    )


def _moments(x: ArrayLike) -> Array:
    """Reduce each replica to its first two moments about the overall mean (centred against cancellation)."""
    a = _sample(x)
    a = a.reshape(len(a), -1) - a.mean()
    return np.stack([a.mean(1), (a**2).mean(1)], axis=1)


def _pooled_variance(moments: Array) -> Array:
    n = moments.shape[1]
    first, second = moments.mean(1).T
    return np.asarray((second - first**2) * n / (n - 1))


def slope(x: ArrayLike, y: ArrayLike, seed: int, *, level: float = 0.95) -> Estimate:
    """Estimate the mean over replicas of the least-squares slope of log y against log x; x (T,), y (R, T)."""
    weights = _slope_weights(x)
    return bootstrap(lambda a: a.mean(1), np.log(_positive(y)) @ weights, seed=seed, level=level)


def slope_of_mean(x: ArrayLike, y: ArrayLike, seed: int, *, level: float = 0.95) -> Estimate:
    """Estimate the least-squares slope of log(mean of y over replicas) against log x; x (T,), y (R, T)."""
    weights = _slope_weights(x)
    return bootstrap(lambda a: np.log(a.mean(1)) @ weights, _positive(y), seed=seed, level=level)


def _slope_weights(x: ArrayLike) -> Array:
    logs = np.log(_positive(x))
    centred: Array = logs - logs.mean()
    return centred / float(centred @ centred)


def proportion(k: int, n: int, *, level: float = 0.95) -> Estimate:
    """Estimate a probability from k successes in n by the exact Clopper–Pearson interval.

    >>> print(proportion(9, 10))
    0.90 [0.55, 1.00]
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"need 0 <= k <= n and n >= 1, got k = {k}, n = {n}")
    return Estimate(k / n, *clopper_pearson(k, n, level), n, CLOPPER_PEARSON, level=level)


def censored_mean(times: ArrayLike, observed: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean of an exponential waiting time: total time watched / events seen.

    times: (R,) time of the event, or time watched without one; observed: (R,) bool. The χ² interval is exact
    when every event was seen, and covers at least `level` with censoring. Without any event the value and
    the upper end are infinite.

    >>> print(censored_mean([3.0, 5.0, 8.0, 10.0], [True, True, True, False]))
    9 [3, 42]
    """
    t, seen = _watched(times, observed)
    total, events, censored = float(t.sum()), int(seen.sum()), not bool(seen.all())
    method = EXPONENTIAL_CENSORED if censored else EXPONENTIAL
    interval = exponential_interval(total, events, censored, level)
    return Estimate(total / events if events else math.inf, *interval, len(t), method, 2.0 * events, level)


def censored_ratio(
    times: ArrayLike,
    observed: ArrayLike,
    other_times: ArrayLike,
    other_observed: ArrayLike,
    seed: int,
    *,
    paired: bool = True,
    level: float = 0.95,
) -> Estimate:
    """Estimate the ratio of two exponential means (see censored_mean) by the (paired) bootstrap.

    times: how long each replica was watched; observed: whether its event was seen; other_times: of the denominator;
    other_observed: likewise.
    """
    first = np.stack(_watched(times, observed), axis=1)
    other = np.stack(_watched(other_times, other_observed), axis=1)

    def ratio(a: Array, b: Array) -> Array:
        (time, events), (other_time, other_events) = a.sum(1).T, b.sum(1).T
        with np.errstate(divide="ignore", invalid="ignore"):  # no event in a resample: refused by name later
            return np.asarray(time / events / (other_time / other_events))

    return bootstrap(ratio, first, other, seed=seed, paired=paired, level=level)


@dataclass(frozen=True)
class KS:
    """Kolmogorov–Smirnov distance of n samples to a law, with the critical value of a test at level `alpha`.

    `comparisons` divides alpha (Bonferroni) when several settings are tested together.
    """

    distance: float  # the largest between the two distribution functions
    n: int
    alpha: float = 0.01  # chance to reject a true law
    comparisons: int = 1

    @property
    def critical(self) -> float:
        """The distance exceeded with probability alpha/comparisons under the law; ≈ 1.628/√n at 1 %."""
        from scipy.stats import kstwo  # takes seconds to load, and few need it

        return float(kstwo.isf(self.alpha / self.comparisons, self.n))

    @property
    def pvalue(self) -> float:
        """Probability under the law of a distance at least this large (conservative for laws with jumps)."""
        from scipy.stats import kstwo

        return float(kstwo.sf(self.distance, self.n))

    def estimate(self) -> Estimate:
        """Return distance/critical, to be judged against 1.

        A test, not a measurement: the sampling error already sits in the critical value, so the upper end
        is the statistic itself and "below 1" means not rejected at alpha. The lower end is the 95 % bound of
        Dvoretzky, Kiefer and Wolfowitz on the distance between the true law and the stated one: "above 1"
        asks for a departure larger than the critical value itself; what lies between is inconclusive.
        """
        band = math.sqrt(math.log(2 / 0.05) / (2 * self.n))
        ratio = self.distance / self.critical
        return Estimate(ratio, max(0.0, self.distance - band) / self.critical, ratio, self.n, KOLMOGOROV)


def ks_distance(
    samples: ArrayLike,
    cdf: Callable[[Array], ArrayLike],
    *,
    lattice: bool = False,
    censored: int = 0,
    alpha: float = 0.01,
    comparisons: int = 1,
) -> KS:
    """Measure sup|F_n − F| between samples (R,) and a law with distribution function `cdf`.

    lattice: the law lives on the integers (step counts), so its left limit at k is cdf(k − 1); without it a law with
    jumps looks wrong by the height of a jump. censored: further replicas known only to exceed every sample. alpha:
    chance to reject a true law; cdf: distribution function of the law.
    """
    points, counts = np.unique(_sample(samples), return_counts=True)
    n = int(counts.sum()) + censored
    after = np.cumsum(counts) / n
    before = after - counts / n
    at = np.asarray(cdf(points), dtype=np.float64)
    left = np.asarray(cdf(points - 1), dtype=np.float64) if lattice else at
    return KS(float(max(np.abs(after - at).max(), np.abs(left - before).max())), n, alpha, comparisons)


def spearman(x: ArrayLike, y: ArrayLike) -> Array:
    """Return Spearman's rank correlation along the last axis, (…, n) → (…); 0 where all values are alike.

    >>> float(spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0]))
    0.5
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=-1) for values in (x, y)]
    one, other = (r - r.mean(axis=-1, keepdims=True) for r in ranks)
    size = np.sqrt((one * one).sum(-1) * (other * other).sum(-1))
    return np.asarray(np.where(size > 0, (one * other).sum(-1) / np.where(size > 0, size, 1.0), 0.0))


def tost(x: ArrayLike, target: float, tolerance: float) -> float:
    """Return the p-value of "the mean of x lies outside target ± tolerance" (two one-sided t tests).

    Below 0.05 exactly when the 90 % Student interval lies inside target ± tolerance; 1 for a constant sample, which
    shows nothing.

    tolerance: the largest deviation that does not matter.
    """
    if tolerance <= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    a = _sample(x)
    error = float(a.std(ddof=1)) / math.sqrt(len(a))
    margin = tolerance - abs(float(a.mean()) - target)
    if error == 0:
        return 1.0
    return float(special.stdtr(len(a) - 1, -margin / error))


def replicas_to_settle(estimate: Estimate, region: tuple[float, float]) -> int | None:
    """Return how many replicas would shrink the interval until it straddles no end of `region` (low, high).

    n·(h/d)², h the half-width towards an end, d the distance to it, the larger of both ends (infinite ends
    allowed). None when no number would help: a deterministic value, or one exactly on the boundary.
    """
    ends = [end for end in region if math.isfinite(end)]
    if not ends or estimate.low == estimate.high or estimate.value in ends:
        return None
    halves = [(estimate.high if end > estimate.value else estimate.low) - estimate.value for end in ends]
    worst = max(abs(half / (end - estimate.value)) for half, end in zip(halves, ends, strict=True))
    return max(estimate.n, math.ceil(estimate.n * worst**2 - 1e-9)) if math.isfinite(worst) else None


def power(effect: float, sd: float, n: int, *, family: int = 1, level: float = 0.95) -> float:
    """Return the probability that the interval of a mean of n replicas excludes 0 when it is `effect`.

    Noncentral t; `family` widens the interval as Estimate.widened does.
    """
    from scipy.stats import nct

    if n < 2 or sd <= 0:
        raise ValueError(f"need n >= 2 and sd > 0, got n = {n}, sd = {sd}")
    critical, shift = critical_t(1 - (1 - level) / family, n - 1), abs(effect) / sd * math.sqrt(n)
    return float(nct.sf(critical, n - 1, shift) + nct.cdf(-critical, n - 1, shift))


def replicas_for_power(effect: float, sd: float, *, target: float = 0.9, family: int = 1, level: float = 0.95) -> int:
    """Return the smallest number of replicas with `power` at least `target`.

    >>> replicas_for_power(effect=0.5, sd=1.0)
    44
    """
    if effect == 0 or not 0 < target < 1:
        raise ValueError(f"need a nonzero effect and 0 < target < 1, got {effect} and {target}")
    low, high = 1, 2
    while power(effect, sd, high, family=family, level=level) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(effect, sd, middle, family=family, level=level) >= target
        low, high = (low, middle) if enough else (middle, high)
    return high


def _sample(x: ArrayLike, name: str = "x") -> Array:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim == 0 or len(array) < 2:
        raise ValueError(f"{name} needs at least 2 entries along its first axis, got shape {array.shape}")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(
            f"{name}: {bad} of {array.size} values are not finite; count and report diverged "
            "replicas first, then pass the finite ones"
        )
    return array


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    a, b = _sample(x), _sample(y, "y")
    if a.shape != b.shape:
        raise ValueError(f"paired samples need equal shapes, got {a.shape} and {b.shape}")
    return a, b


def _positive(x: ArrayLike) -> Array:
    a = _sample(x)
    if (a <= 0).any():
        raise ValueError(f"logarithms need positive values, {int((a <= 0).sum())} of {a.size} are not")
    return a


def _watched(times: ArrayLike, observed: ArrayLike) -> tuple[Array, Array]:
    t, seen = _pair(times, np.asarray(observed, dtype=np.float64))
    if (t < 0).any():
        raise ValueError(
            "times must not be negative: replace a 'not yet' mark by the time watched, with observed = False"
        )
    return t, seen

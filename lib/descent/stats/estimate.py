"""The record every claim is judged by: a value, its interval, and how the interval was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scipy import special  # and not scipy.stats, the same to the last digit, which takes seconds to load

STUDENT = "Student t"
STUDENT_LOG = "Student t on logarithms"
JACKKNIFE = "jackknife with Student t"
BOOTSTRAP = "bootstrap"
BOOTSTRAP_PAIRED = "paired bootstrap"
CLOPPER_PEARSON = "Clopper-Pearson"
FEW_DIFFER = "exact bound, few differ"
EXPONENTIAL = "exponential"
EXPONENTIAL_CENSORED = "exponential, censored"
KOLMOGOROV = "Kolmogorov-Smirnov over its critical value"
EXACT = "exact"

LEAST = {STUDENT: 5, STUDENT_LOG: 5, JACKKNIFE: 5, BOOTSTRAP: 10, BOOTSTRAP_PAIRED: 10, KOLMOGOROV: 100}
"""Replicas, or draws where there are draws, below which no verdict may rest on an interval made that way.

From so many on means, their ratios and slopes cover about nine times in ten where noise is as skewed as an exponential
law (tests/benchmarks/interval_coverage.py prints it; a ratio of variances covers 60 % then, 82 % with a hundred
replicas, and needs near-normal noise), and a distance of 0.16 is not seen by fewer than a hundred samples. What is
exact for any number, such as a share, may decide with any.
"""
ALIKE = 1e-12
"""Relative width below which the numbers behind an interval are alike but for round-off."""

DIGITS = 7
"""Decimals of a number between one and ten beyond which nothing is written, however narrow its interval."""


@dataclass(frozen=True)
class Estimate:
    """A value with an interval of coverage `level`, from `n` replicas by `method`.

    `dof` are the degrees of freedom behind the interval (infinite where it has none). `draws` counts the draws of the
    data that the n replicas share, each of which counts once in the interval; 0 where none stand behind it.
    """

    value: float
    low: float
    high: float
    n: int
    method: str  # how the interval was made
    dof: float = math.inf  # behind the interval, infinite where it has none
    level: float = 0.95
    draws: int = 0

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"need low <= value <= high, got {self.low}, {self.value}, {self.high}")
        if self.draws < 0 or self.draws > self.n:
            raise ValueError(f"`draws` counts draws of data behind n replicas, 0 or 1 to {self.n}, got {self.draws}")

    @property
    def law(self) -> str:
        """The method alone: "Student t" of "largest of 12: Student t; draws 3, 7 lost"."""
        return self.method.rpartition(": ")[2].partition("; ")[0]

    @property
    def chosen(self) -> bool:
        """Whether it was picked out of several, by `descent.stats.extremes`."""
        return ": " in self.method

    @property
    def least(self) -> int:
        """How many replicas, or draws where there are draws, a verdict by this method needs at least."""
        return LEAST.get(self.law, 1)

    @property
    def insufficient(self) -> str:
        """Why no verdict may rest on it, "" if one may: too few replicas, or none that differs from the others.

        n replicas alike say, at 95 %, only that less than 1 − 0.05^(1/n) of all others differ, not by how much.

        >>> Estimate(1.0, 1.0, 1.0, n=40, method="Student t", dof=39).insufficient
        '40 replicas show no spread: up to 7.2 % of others may differ'
        """
        if self.method == EXACT:
            return ""
        number, word = (self.draws, "draw") if self.draws else (self.n, "replica")
        if number < self.least:
            return f"too few {word}s: {number}, at least {self.least}"
        if self.high - self.low > ALIKE * abs(self.value):
            return ""
        others = 100 * (1 - 0.05 ** (1 / number))
        return f"{counted(number, word)} show no spread: up to {others:.2g} % of others may differ"

    @property
    def source(self) -> str:
        """What the number comes from: "deterministic", "40 replicas", "10 draws × 4", "10 draws, 39 replicas".

        >>> Estimate(1.0, 0.9, 1.1, n=40, method="Student t", dof=9, draws=10).source
        '10 draws × 4'
        """
        if self.method == EXACT:
            return "deterministic"
        if not self.draws:
            return counted(self.n, "replica")
        (each, rest), drawn = divmod(self.n, self.draws), counted(self.draws, "draw")
        return f"{drawn}, {counted(self.n, 'replica')}" if rest else f"{drawn} × {each}"

    def widened(self, family: int) -> Estimate:
        """Return the estimate with an interval that holds jointly in a family of that many (Bonferroni).

        Proportions, bounds and exponential means are recomputed at the new level, exactly. Otherwise each
        half-width is multiplied by t(1 − q/2m)/t(1 − q/2) at `dof`, with q = 1 − level and m = family:
        exact for Student's t (taken on logarithms where the interval was made there), an extrapolation
        of the normal shape for the bootstrap, whose far tails 2000 resamples do not reach, and wide for the
        extreme of several, whose ends are widened for their number already.

        >>> print(Estimate(2.5, 2.0, 3.0, n=40, method="Student t", dof=39).widened(20))
        2.5 [1.7, 3.3]
        """
        if family < 1:
            raise ValueError(f"family counts the claims judged together, at least 1, got {family}")
        level = 1 - (1 - self.level) / family
        if self.law == FEW_DIFFER:
            low, high = self._stretched(*(differing(round(self.dof), self.n, one) for one in (level, self.level)))
        elif self.law == CLOPPER_PEARSON and not self.chosen:
            low, high = self._share(level)
        elif not self.chosen and self.law in (EXPONENTIAL, EXPONENTIAL_CENSORED):
            low, high = self._exponential(level)
        else:
            low, high = self._stretched(*(critical_t(one, self.dof) for one in (level, self.level)))
        floor = 0.0 if self.law == KOLMOGOROV else -math.inf  # a distance is never negative
        return replace(self, low=max(low, floor), high=high, level=level)

    def _stretched(self, width: float, before: float) -> tuple[float, float]:
        value, low, high, factor = self.value, self.low, self.high, width / before
        if self.law == STUDENT_LOG and low > 0:
            return value * (low / value) ** factor, value * (high / value) ** factor
        return value - factor * (value - low), value + factor * (high - value)

    def _share(self, level: float) -> tuple[float, float]:
        """Return the exact interval; over draws `dof` are the independent trials that stand behind the share."""
        if not self.draws:
            return clopper_pearson(round(self.value * self.n), self.n, level)
        low, high = clopper_pearson(self.value * self.dof, self.dof, level)
        return min(low, self.value), max(high, self.value)

    def _exponential(self, level: float) -> tuple[float, float]:
        events, censored = round(self.dof / 2), self.law == EXPONENTIAL_CENSORED
        if events:
            return exponential_interval(self.value * events, events, censored, level)
        unit, _ = exponential_interval(1.0, 0, True, self.level)
        return exponential_interval(self.low / unit, 0, True, level)

    def __str__(self) -> str:
        """Return the finished string, such as "13.1 [12.6, 13.6]"; the width chooses the digits."""
        if self.low == self.high:
            return _tidy(f"{self.value:.4g}")
        write = _writer([self.value, self.low, self.high])
        return f"{write(self.value)} [{write(self.low)}, {write(self.high)}]"


def counted(n: int, word: str) -> str:
    """Return a count with its word, such as "1 replica" or "40 replicas".

    word: in the singular.
    """
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def critical_t(level: float, dof: float) -> float:
    """Return the two-sided critical value of Student's t (of the normal law at infinite dof)."""
    tail = (1 - level) / 2
    return float(-special.ndtri(tail) if math.isinf(dof) else -special.stdtrit(dof, tail))


def clopper_pearson(k: float, n: float, level: float) -> tuple[float, float]:
    """Return the exact interval of a probability after k successes in n, which need not be whole."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betainccinv(k + 1, n - k, tail)) if k < n else 1.0
    return low, high


def differing(k: int, n: int, level: float) -> float:
    """Return the largest share of all that can differ when k of n do: Clopper and Pearson's upper end, one-sided.

    >>> round(differing(0, 240, 0.95), 4)
    0.0124
    """
    return clopper_pearson(k, n, 2 * level - 1)[1]


def exponential_interval(total: float, events: int, censored: bool, level: float) -> tuple[float, float]:
    """Return the interval of an exponential mean after that many events in a total time.

    2·total/χ² with 2·events degrees of freedom, two more for the lower end when the watch was cut.

    total: time watched in all; events: how many were seen; censored: whether the watch was cut.
    """
    tail = (1 - level) / 2
    low = 2 * total / float(special.chdtri(2 * events + 2 * censored, tail))
    return low, 2 * total / float(2 * special.gammaincinv(events, tail)) if events else math.inf


def _writer(numbers: Sequence[float]) -> Callable[[float], str]:
    """Choose one format for all three: the half-width keeps one digit, two if it starts below 3.55."""
    finite = [number for number in numbers if math.isfinite(number)]
    half = (max(finite) - min(finite)) / 2
    if half == 0:
        return lambda number: _tidy(f"{number:.3g}")
    place = math.floor(math.log10(half))
    order = math.floor(math.log10(max(abs(number) for number in finite)))
    decimals = min(-place + (half / 10.0**place < 3.55), DIGITS - order)
    if order < -3 or order > 5:
        return lambda number: _tidy(f"{number:.{max(0, order + decimals)}e}")
    return lambda number: _tidy(f"{round(number, decimals) + 0.0:.{max(0, decimals)}f}")


def _tidy(text: str) -> str:
    mantissa, mark, exponent = text.partition("e")
    text = f"{mantissa}e{int(exponent)}" if mark else text
    return text.replace("inf", "∞").replace("-", "−")

"""The record every claim is judged by: a value, its interval, and how the interval was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scipy import stats as _law

STUDENT = "Student t"
STUDENT_LOG = "Student t on logarithms"
BOOTSTRAP = "bootstrap"
BOOTSTRAP_PAIRED = "paired bootstrap"
CLOPPER_PEARSON = "Clopper-Pearson"
EXPONENTIAL = "exponential"
EXPONENTIAL_CENSORED = "exponential, censored"
KOLMOGOROV = "Kolmogorov-Smirnov over its critical value"
EXACT = "exact"

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
    method: str
    dof: float = math.inf
    level: float = 0.95
    draws: int = 0

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"need low <= value <= high, got {self.low}, {self.value}, {self.high}")
        if self.draws < 0 or self.draws > self.n:
            raise ValueError(f"`draws` counts draws of data behind n replicas, 0 or 1 to {self.n}, got {self.draws}")

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

        Proportions and exponential means are recomputed at the new level, exactly. Otherwise each
        half-width is multiplied by t(1 − q/2m)/t(1 − q/2) at `dof`, with q = 1 − level and m = family:
        exact for Student's t (taken on logarithms where the interval was made there), an extrapolation
        of the normal shape for the bootstrap, whose far tails 2000 resamples do not reach.

        >>> print(Estimate(2.5, 2.0, 3.0, n=40, method="Student t", dof=39).widened(20))
        2.5 [1.7, 3.3]
        """
        if family < 1:
            raise ValueError(f"family counts the claims judged together, at least 1, got {family}")
        level = 1 - (1 - self.level) / family
        if self.method == CLOPPER_PEARSON:
            low, high = clopper_pearson(round(self.value * self.n), self.n, level)
        elif self.method in (EXPONENTIAL, EXPONENTIAL_CENSORED):
            low, high = self._exponential(level)
        else:
            low, high = self._stretched(critical_t(level, self.dof) / critical_t(self.level, self.dof))
        floor = 0.0 if self.method == KOLMOGOROV else -math.inf  # a distance is never negative
        return replace(self, low=max(low, floor), high=high, level=level)

    def _stretched(self, factor: float) -> tuple[float, float]:
        value, low, high = self.value, self.low, self.high
        if self.method == STUDENT_LOG:
            return value * (low / value) ** factor, value * (high / value) ** factor
        return value - factor * (value - low), value + factor * (high - value)

    def _exponential(self, level: float) -> tuple[float, float]:
        events, censored = round(self.dof / 2), self.method == EXPONENTIAL_CENSORED
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
    """Return a count with its word, such as "1 replica" or "40 replicas"."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def critical_t(level: float, dof: float) -> float:
    """Return the two-sided critical value of Student's t (of the normal law at infinite dof)."""
    tail = (1 - level) / 2
    return float(_law.norm.isf(tail) if math.isinf(dof) else _law.t.isf(tail, dof))


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """Return the exact interval of a probability after k successes in n."""
    tail = (1 - level) / 2
    low = float(_law.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(_law.beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def exponential_interval(total: float, events: int, censored: bool, level: float) -> tuple[float, float]:
    """Return the interval of an exponential mean after that many events in a total time.

    2·total/χ² with 2·events degrees of freedom, two more for the lower end when the watch was cut.
    """
    tail = (1 - level) / 2
    low = 2 * total / float(_law.chi2.isf(tail, 2 * events + 2 * censored))
    return low, 2 * total / float(_law.chi2.ppf(tail, 2 * events)) if events else math.inf


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

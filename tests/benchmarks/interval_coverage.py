"""Print how often every interval of descent.stats covers the truth: normal and skewed noise, few and many replicas.

    python tests/benchmarks/interval_coverage.py --experiments 2000

Nominal is 95 %; of 2000 experiments the share has an error of 0.5 points. Skewed is exponential for single samples and
lognormal (0.8) over draws, where a row names how many replicas a draw has and how much of the variance is the draws'.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from descent import stats
from descent.stats import Estimate
from descent.stats.estimate import LEAST

Draw = Callable[[np.random.Generator], Any]
NUMBERS = (5, 10, 20, 32, 100)
RESAMPLED = 0.2
"""Share of the experiments that a bootstrap, forty times as dear, is tried in."""


def noise(rng: np.random.Generator, shape: tuple[int, ...], skewed: bool) -> np.ndarray:
    """Return noise of mean 3 and variance 1."""
    return 2 + rng.exponential(size=shape) if skewed else 3 + rng.normal(size=shape)


def singles(n: int, skewed: bool) -> dict[str, tuple[Callable[[np.random.Generator], Estimate], float, float]]:
    """Return each interval of one sample of n: how it is made, the truth, and the share of experiments."""
    one: Draw = lambda rng: noise(rng, (n,), skewed)  # noqa: E731
    times = np.array([1.0, 2.0, 4.0])
    middle = 2 + math.log(2) if skewed else 3.0
    upper = 2 + math.log(4) if skewed else 3 + 0.6744897502
    return {
        "mean": (lambda r: stats.mean(one(r)), 3, 1),
        "paired_difference": (lambda r: stats.paired_difference(one(r), one(r)), 0, 1),
        "geometric_ratio": (lambda r: stats.geometric_ratio(np.exp(one(r)), np.exp(one(r))), 1, 1),
        "ratio_of_means": (lambda r: stats.ratio_of_means(5 + one(r), 5 + one(r), 1), 1, RESAMPLED),
        "ratio_of_medians": (lambda r: stats.ratio_of_medians(5 + one(r), 5 + one(r), 1), 1, RESAMPLED),
        "median": (lambda r: stats.median(one(r), 1), middle, RESAMPLED),
        "quantile 0.75": (lambda r: stats.quantile(one(r), 0.75, 1), upper, RESAMPLED),
        "variance_ratio": (lambda r: stats.variance_ratio(one(r), 1.0, 1), 1, RESAMPLED),
        "slope": (lambda r: stats.slope(times, np.exp(noise(r, (n, 3), skewed)), 1), 0, RESAMPLED),
        "slope_of_mean": (lambda r: stats.slope_of_mean(times, 5 + noise(r, (n, 3), skewed), 1), 0, RESAMPLED),
        "censored_mean": (lambda r: watched(r, n), 1, 1),
        "censored_ratio": (lambda r: stats.censored_ratio(*seen(r, n), *seen(r, n), 1), 1, RESAMPLED if n > 10 else 0),
        "proportion 0.1": (lambda r: stats.proportion(int(r.binomial(n, 0.1)), n), 0.1, 1),
        "largest of 4": (lambda r: stats.largest([stats.mean(one(r)) for _ in range(4)]), 3, RESAMPLED),
        "furthest of 4": (lambda r: stats.furthest([stats.mean(one(r)) for _ in range(4)], 3.0), 3, RESAMPLED),
    }


def seen(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return exponential times of mean 1 (whatever the noise), watched until 1.5."""
    times = rng.exponential(size=n)
    return np.minimum(times, 1.5), times < 1.5


def watched(rng: np.random.Generator, n: int) -> Estimate:
    """Return the estimate of their mean."""
    return stats.censored_mean(*seen(rng, n))


def levels(replicas: int, between: float, skewed: bool) -> dict[str, tuple[Callable[..., Estimate], float, float]]:
    """Return each interval over ten draws, as `singles` does."""

    def one(rng: np.random.Generator) -> np.ndarray:
        unit = math.sqrt(1 - between) * rng.normal(size=(10, replicas)) + math.sqrt(between) * rng.normal(size=(10, 1))
        return np.exp(0.8 * unit) if skewed else 10 + unit

    spread = 0.5 * math.log(math.expm1(0.64) * math.exp(0.64)) if skewed else 0.0
    middle = 1.0 if skewed else 10.0
    return {
        "draw_mean": (lambda r: stats.draw_mean(one(r)), math.exp(0.32) if skewed else 10, 1),
        "draw_difference": (lambda r: stats.draw_difference(one(r), one(r)), 0, 1),
        "draw_ratio": (lambda r: stats.draw_ratio(one(r), one(r)), 1, 1),
        "draw_share 0.5": (lambda r: stats.draw_share(one(r) > middle), 0.5, 0.5),
        "draw_statistic log sd": (lambda r: stats.draw_statistic(log_sd, one(r)), spread, 0.5),
        "draw_statistic median": (lambda r: stats.draw_statistic(medians, one(r), seed=1), middle, RESAMPLED / 2),
    }


def log_sd(x: np.ndarray) -> np.ndarray:
    """Return log of the standard deviation of each (B, draws, replicas)."""
    return np.log(x.std(axis=(1, 2)))


def medians(x: np.ndarray) -> np.ndarray:
    """Return the median of each (B, draws, replicas)."""
    return np.median(x.reshape(len(x), -1), axis=1)


def covered(make: Callable[[np.random.Generator], Estimate], truth: float, experiments: int) -> str:
    """Return how often the interval covers, in per cent; where nothing is tried, or it has no value, a dash."""
    rng = np.random.default_rng(17)
    found = [make(rng) for _ in range(experiments)]
    return f"{100 * np.mean([one.low <= truth <= one.high for one in found]):.1f}" if found else "–"


def rows(experiments: int) -> Iterator[tuple[str, str, list[str]]]:
    """Yield noise, interval, and its coverage for each number of replicas or kind of draws."""
    for skewed in (False, True):
        word = "skewed" if skewed else "normal"
        for name in singles(5, skewed):
            cells = [singles(n, skewed)[name] for n in NUMBERS]
            yield word, name, [covered(make, truth, int(experiments * share)) for make, truth, share in cells]
    for skewed in (False, True):
        word = "skewed" if skewed else "normal"
        for name in levels(2, 0.0, skewed):
            cells = [levels(k, between, skewed)[name] for k in (2, 8) for between in (0.0, 0.5, 0.9)]
            yield word, name, [covered(make, truth, int(experiments * share)) for make, truth, share in cells]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=2000)
    print(f"least numbers for a verdict: {LEAST}")
    print(f"{'noise':8} {'interval':22} n = {NUMBERS}; over ten draws: 2, then 8 replicas × share 0, 0.5, 0.9 between")
    for word, name, cells in rows(parser.parse_args().experiments):
        print(f"{word:8} {name:22} " + " ".join(f"{cell:>6}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

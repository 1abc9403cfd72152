"""The exact threshold between its bounds: random ensembles, and how all of them move with the batch size."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.quadratics import (
    FOUR_ATOMS,
    Finite,
    Gaussian,
    Moments,
    Weighted,
    bounds,
    cheap_bounds,
    step_range,
    threshold,
)
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, median

LOWER, THRESHOLD, UPPER, TOP, MEAN = range(5)
NAMES = ("lower", "threshold", "upper", "cheap_top", "cheap_mean")

STEEP = Gaussian((10.0, 1.0, 0.1))
ISOTROPIC = Gaussian((1.0,) * 10)


@dataclass(frozen=True)
class Sandwich:
    """Ensembles of `least` to `most` examples in two to four dimensions, at one example and at a random batch size.

    Half of them have Hessians of rank one, half of rank two; sizes of examples differ by factors of e.
    """

    ensembles: int
    seed: int
    device: str
    batch_sizes: tuple[int, ...] = (2, 4, 8, 32)
    dimensions: tuple[int, ...] = (2, 3, 4)
    least: int = 2
    most: int = 8
    curve: tuple[int, ...] = tuple(int(k) for k in np.unique(np.geomspace(1, 1000, 31).round()))
    large: tuple[int, ...] = (10_000, 100_000, 1_000_000)  # at which the limit and its rate are read off

    @classmethod
    def cpu(cls, settings: Settings) -> Sandwich:
        """Take an ensemble for every replica."""
        return cls(max(32, settings.replicas), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Sandwich:
        """Take thirty times more."""
        return cls(30 * settings.replicas, settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class SandwichResult:
    """Bounds and thresholds in the order of NAMES.

    single (N, 5): random ensembles at one example per step; batched (N, 5): at `batch_size` (N,); limit (N + 4,): the
    threshold at the largest batch over that of descent, named ensembles last; atoms, steep (K, 5): against the batch
    size; steps (K, 2): largest one-step ratio just below the lower bound and smallest just above the upper, four atoms;
    rate: exponent in k of what the threshold still lacks.
    """

    config: Sandwich
    single: Array
    batched: Array
    batch_size: NDArray[np.int64]
    limit: Array
    atoms: Array
    steep: Array
    steps: Array
    rate: float
    seconds: float


def run(config: Sandwich) -> SandwichResult:
    """Bound the threshold of every ensemble; nothing here is simulated."""
    clock = time.perf_counter()
    drawn, sizes = _ensembles(config)
    atoms = Finite(FOUR_ATOMS)
    named: list[Moments] = [atoms, STEEP, ISOTROPIC, Weighted()]
    return SandwichResult(
        config=config,
        single=np.array([row(problem, 1) for problem in drawn]),
        batched=np.array([row(problem, int(k)) for problem, k in zip(drawn, sizes, strict=True)]),
        batch_size=sizes,
        limit=np.array([threshold(p, config.large[-1]) * p.curvatures.max() / 2 for p in (*drawn, *named)]),
        atoms=np.array([row(atoms, k) for k in config.curve]),
        steep=np.array([row(STEEP, k) for k in config.curve]),
        steps=np.array([_one_step(atoms, k) for k in config.curve]),
        rate=_rate(atoms, config.large),
        seconds=time.perf_counter() - clock,
    )


def row(problem: Moments, batch_size: int) -> tuple[float, ...]:
    """Return the bounds and the threshold in the order of NAMES."""
    low, high = bounds(problem, batch_size)
    return (low, threshold(problem, batch_size), high, *cheap_bounds(problem, batch_size))


def _ensembles(config: Sandwich) -> tuple[list[Moments], NDArray[np.int64]]:
    """Draw the ensembles, and a batch size for each."""
    streams = Streams(replica_seeds(config.seed, config.ensembles), torch.float64)
    d = max(config.dimensions)
    roots = streams.normal(Purpose.DATA, 0, (config.most, 2, d)).numpy()  # two vectors per example
    scales = streams.normal(Purpose.DATA, 1, (config.most,)).numpy()
    kinds = streams.integers(Purpose.DATA, 2, len(config.dimensions)).numpy()
    counts = config.least + streams.integers(Purpose.DATA, 3, config.most - config.least + 1).numpy()
    ranks = 1 + streams.integers(Purpose.DATA, 4, 2).numpy()
    sizes = np.array(config.batch_sizes)[streams.integers(Purpose.DATA, 5, len(config.batch_sizes)).numpy()]
    factors = roots * np.exp(scales)[:, :, None, None]
    drawn = [
        _examples(f[:n, :rank, : config.dimensions[kind]])
        for f, n, rank, kind in zip(factors, counts, ranks, kinds, strict=True)
    ]
    return drawn, sizes


def _examples(factors: Array) -> Moments:
    """Return the ensemble of Hessians Σ_j f_j f_jᵀ, factors (n, rank, d)."""
    return Finite(factors[:, 0] if factors.shape[1] == 1 else factors.swapaxes(1, 2) @ factors)


def _one_step(problem: Moments, batch_size: int) -> tuple[float, float]:
    low, high = bounds(problem, batch_size)
    return step_range(problem, 0.99 * low, batch_size)[1], step_range(problem, 1.01 * high, batch_size)[0]


def _rate(problem: Moments, batch_sizes: tuple[int, ...]) -> float:
    """Return the slope of log(2/λ₁ − C*(k)) in log k."""
    lacking = [2 / problem.curvatures.max() - threshold(problem, k) for k in batch_sizes]
    return float(np.polyfit(np.log(batch_sizes), np.log(lacking), 1)[0])


def ratios(result: SandwichResult) -> dict[str, Array]:
    """Return how far each bound is from the threshold at one example per step, as ratios ≥ 1, (N,) each."""
    low, star, high, top, mean = result.single.T
    return {"lower": star / low, "upper": high / star, "top": top / star, "mean": mean / star}


def estimates(result: SandwichResult) -> Estimates:
    """Return what the bounds say about P2-C4, P2-C5, P2-C7 and P2-X1."""
    both = np.concatenate([result.single, result.batched])
    star, cheap = both[:, THRESHOLD], both[:, TOP:].min(axis=1)
    seed = result.config.seed
    return {
        "P2-C4.bound": exact((both[:, LOWER] / star).max()),
        "P2-C4.contracts": exact(result.steps[:, 0].max()),
        "P2-C5.bound": exact((star / both[:, UPPER]).max()),
        "P2-C5.expands": exact(result.steps[:, 1].min()),
        "P2-C7.limit": exact(result.limit[np.abs(result.limit - 1).argmax()]),
        "P2-C7.rate": exact(result.rate),
        "P2-X1.loose": looseness(result),
        "P2-X1.cheap": median(cheap / star, seed),
    }


def looseness(result: SandwichResult) -> Estimate:
    """Return the median over ensembles of the threshold over its lower bound, at one example per step."""
    return median(ratios(result)["lower"], result.config.seed)


def tables(result: SandwichResult) -> dict[str, DataFrame]:
    """Return the bounds of all random ensembles, and those of two named ones against the batch size."""
    config = result.config
    single = DataFrame(result.single, columns=NAMES).assign(batch_size=1)
    batched = DataFrame(result.batched, columns=NAMES).assign(batch_size=result.batch_size)
    curves = [
        DataFrame(curve, columns=NAMES).assign(ensemble=name, batch_size=config.curve)
        for name, curve in (("four atoms", result.atoms), ("Gaussian 10, 1, 0.1", result.steep))
    ]
    return {
        "bounds_random": pd.concat([single, batched], ignore_index=True),
        "bounds_curves": pd.concat(curves, ignore_index=True),
    }


SANDWICH = Experiment(
    "sandwich",
    ("P2-C4", "P2-C5", "P2-C7", "P2-X1"),
    lambda settings: run(configure(Sandwich, settings)),
    estimates,
    tables,
)

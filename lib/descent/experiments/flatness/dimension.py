"""The gap between the two thresholds in few and in many directions, and the thresholds of single runs with momentum."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure, in_parts
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.growth import Descent
from descent.problems.exponents import Features, Minimum, almost_sure_threshold, mean_square_threshold
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap
from descent.theory.mode import mode_edge
from descent.theory.weights import Gamma

FEATURE = Gamma(0.5)  # squares of one Gaussian feature
MOMENTUM = 0.9
AROUND = (0.9, 1.0, 1.1)  # multiples of a first guess between which a threshold is interpolated


@dataclass(frozen=True)
class Dimension:
    """Exact gaps on a grid of dimensions and batch sizes; some thresholds measured on runs, some with momentum."""

    dimensions: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    measured: tuple[tuple[int, int], ...]
    replicas: int
    steps: int
    seed: int
    device: str
    momentum_batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    momentum_steps: int = 1000
    burn: int = 100
    tests: tuple[int, ...] = (1, 10, 30)
    growing: tuple[int, ...] = (1, 4, 16, 64)  # batch sizes at which ten directions are compared

    @classmethod
    def cpu(cls, settings: Settings) -> Dimension:
        """Measure at k = 1 in every dimension and in ten dimensions at every k, on a fifth of the replicas."""
        return cls._of(settings, max(32, settings.replicas // 5), (1, 2, 3, 5, 10, 30, 100), ())

    @classmethod
    def paper(cls, settings: Settings) -> Dimension:
        """Take a hundred times the replicas, dimensions up to a thousand, and k = 16 in every dimension as well."""
        dimensions = (1, 2, 3, 5, 10, 30, 100, 300, 1000)
        return cls._of(settings, 20 * settings.replicas, dimensions, tuple((d, 16) for d in dimensions[:6]))

    @classmethod
    def _of(
        cls, settings: Settings, replicas: int, dimensions: tuple[int, ...], more: tuple[tuple[int, int], ...]
    ) -> Dimension:
        batch_sizes, steps = (1, 4, 16, 64), 150
        measured = {(d, 1) for d in dimensions} | {(10, k) for k in batch_sizes} | set(more)
        return cls(dimensions, batch_sizes, tuple(sorted(measured)), replicas, steps, settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class Threshold:
    """Log growth per step of single runs, (N, 3), at the learning rates (3,) around their threshold."""

    lr: Array
    growth: Array


@dataclass(frozen=True, eq=False)
class DimensionResult:
    """gap (D, K): exact almost-sure over mean-square threshold; features, momentum: thresholds measured on runs."""

    config: Dimension
    gap: Array
    features: dict[tuple[int, int], Threshold]
    momentum: dict[int, Threshold]
    seconds: float


def run(config: Dimension) -> DimensionResult:
    """Evaluate the exact gaps and watch runs close to the thresholds."""
    clock = time.perf_counter()
    gap = [[exact_gap(d, k) for k in config.batch_sizes] for d in config.dimensions]
    features = {(d, k): _features(d, k, config) for d, k in config.measured}
    momentum = {k: _with_momentum(k, config) for k in config.momentum_batches}
    return DimensionResult(config, np.array(gap), features, momentum, time.perf_counter() - clock)


def exact_gap(dimension: int, batch_size: int) -> float:
    """Return C_as/C*(k) of isotropic Gaussian features."""
    law = Features(dimension)
    return almost_sure_threshold(law, batch_size) / mean_square_threshold(law, batch_size)


def _features(dimension: int, batch_size: int, config: Dimension) -> Threshold:
    """Watch plain descent on feature vectors drawn in full, from a unit vector; by symmetry no burn-in is needed."""
    law = Features(dimension)
    lr = almost_sure_threshold(law, batch_size) * np.array(AROUND)
    growth = growth_of_runs(Minimum(law, batch_size), lr, 0.0, config.replicas, config.steps, 0, config)
    return Threshold(lr, growth)


def _with_momentum(batch_size: int, config: Dimension) -> Threshold:
    """Look for the change of sign on a coarse grid of few runs first: no closed form is known with momentum."""
    low = float(mode_edge(1.0, MOMENTUM, FEATURE.variance / batch_size))
    grid = np.geomspace(0.9 * low, 2.2 * (1 + MOMENTUM), 24)
    minimum, steps = Minimum(FEATURE, batch_size), config.momentum_steps
    few = max(16, config.replicas // 10)
    coarse = growth_of_runs(minimum, grid, MOMENTUM, few, steps // 2, config.burn, config).mean(0)
    guess = float(np.interp(0.0, np.maximum.accumulate(coarse), grid))
    lr = guess * np.array(AROUND)
    return Threshold(lr, growth_of_runs(minimum, lr, MOMENTUM, config.replicas, steps, config.burn, config))


def growth_of_runs(
    minimum: Minimum, lr: Array, momentum: float, replicas: int, steps: int, burn: int, config: Dimension
) -> Array:
    """Return log growth per step of single runs, (replicas, arms), every arm on the same random numbers.

    The state is scaled back to unit length after every step, so that nothing over- or underflows.
    """
    seeds = replica_seeds(config.seed, replicas, config.device)

    def watched(rows: slice) -> Tensor:
        some = seeds[rows]
        streams = Streams(some.repeat(len(lr)), torch.float64)
        step = Descent(minimum, repeat(heavy_ball(list(lr), momentum), len(some)).to(config.device), streams)
        start = torch.zeros(len(streams.seeds), minimum.dimension, dtype=torch.float64, device=config.device)
        start[:, 0] = 1
        state, total = step.state(start), torch.zeros_like(start[:, 0])
        for t in range(burn + steps):
            state = step(state, t)
            size = state.flatten(1).norm(dim=1)
            state = state / size[:, None, None]
            if t >= burn:
                total += size.log()
        return total.div(steps).view(len(lr), len(some)).T

    width = minimum.dimension * ((minimum.batch_size or 0) + 10)  # numbers that a run holds: its batch, a few states
    return np.asfortranarray(in_parts(watched, replicas, 8 * len(lr) * width).cpu())  # arm by arm: sums go that way


def crossing(lr: Array, growth: Array) -> Array:
    """Return the lr at which growth (B, 3) vanishes, by inverse interpolation through its three values, (B,)."""
    others = [(i, [j for j in range(3) if j != i]) for i in range(3)]
    shares = [np.prod([growth[:, j] / (growth[:, j] - growth[:, i]) for j in rest], axis=0) for i, rest in others]
    return np.asarray(np.stack(shares, axis=1) @ lr)


def threshold(found: Threshold, seed: int, unit: float = 1.0) -> Estimate:
    """Return the almost-sure threshold over `unit`, by the bootstrap over runs."""
    return bootstrap(lambda g: crossing(found.lr, g.mean(1)) / unit, found.growth, seed=seed)


def measured_gap(result: DimensionResult, dimension: int, batch_size: int) -> Estimate:
    """Return the measured almost-sure over the exact mean-square threshold."""
    unit = mean_square_threshold(Features(dimension), batch_size)
    return threshold(result.features[dimension, batch_size], result.config.seed, unit)


def rises(found: Sequence[Threshold], seed: int) -> list[Estimate]:
    """Return by how much each threshold exceeds the one before."""

    def rise(low: Threshold, high: Threshold) -> Estimate:
        return bootstrap(
            lambda g, h: crossing(high.lr, h.mean(1)) - crossing(low.lr, g.mean(1)), low.growth, high.growth, seed=seed
        )

    return [rise(low, high) for low, high in pairwise(found)]


def estimates(result: DimensionResult) -> Estimates:
    """Return what the thresholds of single runs say about P2-C9 and P2-X4."""
    seed, (one, ten, thirty) = result.config.seed, result.config.tests
    return {
        "P2-C9.momentum": rises(list(result.momentum.values()), seed),
        "P2-C9.dimension": rises([result.features[ten, k] for k in result.config.growing], seed),
        "P2-X4.one": measured_gap(result, one, 1),
        "P2-X4.ten": measured_gap(result, ten, 1),
        "P2-X4.thirty": measured_gap(result, thirty, 1),
    }


def tables(result: DimensionResult) -> dict[str, DataFrame]:
    """Return the gap per dimension and batch size, exact and measured, and the thresholds with momentum."""
    return {"dimension_gap": _gap_table(result), "momentum_thresholds": _momentum_table(result)}


def _gap_table(result: DimensionResult) -> DataFrame:
    config, records = result.config, []
    for d, row in zip(config.dimensions, result.gap, strict=True):
        for k, exact in zip(config.batch_sizes, row, strict=True):
            record = {
                "dimension": d,
                "batch_size": k,
                "mean_square": mean_square_threshold(Features(d), k),
                "gap_exact": exact,
            }
            if (d, k) in result.features:
                found = measured_gap(result, d, k)
                record |= {"gap": found.value, "low": found.low, "high": found.high}
            records.append(record)
    return DataFrame(records)


def _momentum_table(result: DimensionResult) -> DataFrame:
    """Return per batch size the measured almost-sure threshold with momentum, and the exact ones around it."""
    records = []
    for k, found in result.momentum.items():
        measured = threshold(found, result.config.seed)
        records.append(
            {
                "batch_size": k,
                "almost_sure": measured.value,
                "low": measured.low,
                "high": measured.high,
                "mean_square": float(mode_edge(1.0, MOMENTUM, FEATURE.variance / k)),
                "almost_sure_plain": almost_sure_threshold(FEATURE, k),
                "mean_square_plain": mean_square_threshold(FEATURE, k),
            }
        )
    return DataFrame(records)


DIMENSION = Experiment(
    "dimension", ("P2-C9", "P2-X4"), lambda settings: run(configure(Dimension, settings)), estimates, tables
)

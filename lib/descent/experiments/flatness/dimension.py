"""The gap between the two thresholds in few and in many directions, and the thresholds of single runs with momentum.

In one direction single runs outlast the mean square by far. The question is how soon more directions close the gap,
and whether momentum brings back the order of batch sizes that noise in one direction reverses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from pandas import concat

from descent.arrays import Array
from descent.engine import heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.growth import crossing, growth_of_runs
from descent.problems.exponents import Features, Minimum, almost_sure_threshold, mean_square_threshold
from descent.stats import Estimate, bootstrap
from descent.theory.mode import mode_edge
from descent.theory.weights import Gamma

FEATURE = Gamma(0.5)  # squares of one Gaussian feature
MOMENTUM = 0.9
AROUND = (0.9, 1.0, 1.1)  # multiples of a first guess between which a threshold is interpolated
TEN = tuple((10, k) for k in (1, 4, 16, 64))
DIMENSIONS = (1, 2, 3, 5, 10, 30, 100)


@dataclass(frozen=True)
class Dimension:
    """Exact gaps on a grid of dimensions and batch sizes; some thresholds measured on runs, some with momentum."""

    dimensions: tuple[int, ...] = DIMENSIONS
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64)
    measured: tuple[tuple[int, int], ...] = (*((d, 1) for d in DIMENSIONS), *TEN[1:])  # dimension and batch size
    replicas: Share = Share(over=2, least=32)  # so many resolve a fall of a hundredth, from 30 directions to 100
    coarse: Share = Share(over=30, least=32)  # replicas that a threshold with momentum is looked for with
    steps: int = 150
    momentum_batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    momentum_steps: int = 1000
    burn: int = 100
    ladder: tuple[int, ...] = (1, 3, 10, 30, 100)  # numbers of directions along which the gap should close, k = 1
    crowd: int = 10  # directions in which batch sizes are compared, …
    growing: tuple[int, ...] = (1, 4, 16, 64)  # … these


@dataclass(frozen=True, eq=False)
class Threshold:
    """Log growth per step of single runs, (N, 3), at the learning rates (3,) around their threshold."""

    lr: Array
    growth: Array

    def at(self, drawn: Array) -> Array:
        """Return the lr at which runs neither grow nor shrink, of several draws (B, N, 3) → (B,)."""
        return crossing(self.lr, drawn.mean(1))

    def almost_sure(self, seed: int, unit: float = 1.0) -> Estimate:
        """Estimate it, over `unit`, by the bootstrap over runs."""
        return bootstrap(lambda drawn: self.at(drawn) / unit, self.growth, seed=seed)


@dataclass(frozen=True, eq=False)
class DimensionResult(Result[Dimension]):
    """gap (D, K): exact almost-sure over mean-square threshold; features, momentum: thresholds measured on runs."""

    gap: Array
    features: dict[tuple[int, int], Threshold]
    momentum: dict[int, Threshold]

    def measured_gap(self, dimension: int, batch_size: int) -> Estimate:
        """Return the measured almost-sure over the exact mean-square threshold."""
        unit = mean_square_threshold(Features(dimension), batch_size)
        return self.features[dimension, batch_size].almost_sure(self.lab.seed, unit)


def run(config: Dimension, lab: Lab) -> DimensionResult:
    """Evaluate the exact gaps and watch runs close to the thresholds."""
    gap = np.array([[exact_gap(d, k) for k in config.batch_sizes] for d in config.dimensions])
    features, momentum, steps, burn = {}, {}, config.momentum_steps, config.burn
    for d, k in config.measured:  # on feature vectors drawn in full; by symmetry no burn-in is needed
        lr = almost_sure_threshold(Features(d), k) * np.array(AROUND)
        features[d, k] = Threshold(lr, _growth(Minimum(Features(d), k), lr, lab, config.replicas, config.steps))
    for k in config.momentum_batches:  # no closed form is known: a coarse grid of few runs says where growth begins
        low, minimum = float(mode_edge(1.0, MOMENTUM, FEATURE.variance / k)), Minimum(FEATURE, k)
        grid = np.geomspace(0.9 * low, 2.2 * (1 + MOMENTUM), 24)
        coarse = _growth(minimum, grid, lab, config.coarse, steps // 2, MOMENTUM, burn).mean(0)
        lr = float(np.interp(0.0, np.maximum.accumulate(coarse), grid)) * np.array(AROUND)
        momentum[k] = Threshold(lr, _growth(minimum, lr, lab, config.replicas, steps, MOMENTUM, burn))
    return DimensionResult(config, lab, gap, features, momentum)


def exact_gap(dimension: int, batch_size: int) -> float:
    """Return C_as/C*(k) of isotropic Gaussian features."""
    law = Features(dimension)
    return almost_sure_threshold(law, batch_size) / mean_square_threshold(law, batch_size)


def _growth(
    minimum: Minimum, lr: Array, lab: Lab, runs: Share, steps: int, momentum: float = 0.0, burn: int = 0
) -> Array:
    """Return log growth per step of single runs from a unit vector, (N, arms)."""
    start, streams = torch.eye(1, minimum.dimension, dtype=torch.float64), lab.streams(runs, torch.float64)
    held = minimum.dimension * ((minimum.batch_size or 0) + 10)  # its batch, a few states
    return growth_of_runs(minimum, heavy_ball(lr.tolist(), momentum), start, steps, streams, burn=burn, held=held)


def estimates(result: DimensionResult) -> Estimates:
    """Return what the thresholds of single runs say about P2-C9 and P2-X4."""
    config, seed = result.config, result.lab.seed

    def rise(low: Threshold, high: Threshold) -> Estimate:
        return bootstrap(lambda g, h: high.at(h) / low.at(g), low.growth, high.growth, seed=seed)

    def fall(few: int, many: int) -> Estimate:  # of the gap, from few directions to many
        near, far = (result.features[d, 1] for d in (few, many))
        unit, other = (mean_square_threshold(Features(d), 1) for d in (few, many))
        return bootstrap(lambda g, h: near.at(g) / unit - far.at(h) / other, near.growth, far.growth, seed=seed)

    by_size = [result.features[config.crowd, k] for k in config.growing]
    return {
        "P2-C9.momentum": [rise(*pair) for pair in pairwise(result.momentum.values())],
        "P2-C9.dimension": [rise(*pair) for pair in pairwise(by_size)],
        "P2-X4.one": result.measured_gap(config.ladder[0], 1),
        "P2-X4.falls": [fall(*pair) for pair in pairwise(config.ladder)],
        "P2-X4.last": result.measured_gap(config.ladder[-1], 1),
    }


def tables(result: DimensionResult) -> Tables:
    """Return the gap per dimension and batch size, exact and measured, and the thresholds with momentum."""
    dimensions, sizes, momenta = result.config.dimensions, result.config.batch_sizes, list(result.momentum)
    edges = [[mean_square_threshold(Features(d), k) for k in sizes] for d in dimensions]
    exact = tidy({"dimension": dimensions, "batch_size": sizes}, mean_square=edges, gap_exact=result.gap)
    gaps = [tidy({"dimension": [d], "batch_size": [k]}, value=result.measured_gap(d, k)) for d, k in result.features]
    with_momentum = tidy(
        {"batch_size": momenta}, value=[found.almost_sure(result.lab.seed) for found in result.momentum.values()],
        mean_square=mode_edge(1.0, MOMENTUM, FEATURE.variance / np.array(momenta)),
        almost_sure_plain=[almost_sure_threshold(FEATURE, k) for k in momenta],
        mean_square_plain=[mean_square_threshold(FEATURE, k) for k in momenta],
    )  # fmt: skip
    return {
        "dimension_gap": exact.merge(concat(gaps).rename(columns={"value": "gap"}), how="left"),
        "momentum_thresholds": with_momentum.rename(columns={"value": "almost_sure"}),
    }


DIMENSION = Experiment(
    "dimension", small=Dimension(), run=run, estimates=estimates, tables=tables,
    large=Dimension(
        dimensions=(*DIMENSIONS, 300, 1000),
        measured=(*((d, 1) for d in (*DIMENSIONS, 300, 1000)), *TEN[1:], *((d, 16) for d in (1, 2, 3, 5, 30))),
        replicas=Share(times=20), coarse=Share(times=2, least=32),
    ),
)  # fmt: skip

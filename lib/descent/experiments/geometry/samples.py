"""Worst and typical alignment of linear models against the number of examples, for several spectra."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.alignment import Extremes, linear_extremes
from descent.stats.intervals import mean, slope_of_mean
from descent.theory.isserlis import population_extremes


@dataclass(frozen=True)
class Samples:
    """Gaussian inputs of covariance diag(i^−decay), a linear model, and every residual it can produce."""

    replicas: int
    seed: int
    device: str
    decays: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    dimension: int = 100
    examples: tuple[int, ...] = (4, 10, 30, 100, 150, 300, 1000)
    probes: int = 64  # random parameters, for the typical alignment
    few: int = 10
    draws: int = 8  # data sets with few examples, times the replicas: they are small, and the worst case varies
    dimensions: tuple[int, ...] = (100, 200, 400, 800, 1600, 3200)  # with few examples
    many: tuple[int, ...] = (400, 1600, 6400)  # with many examples, isotropic

    @classmethod
    def cpu(cls, settings: Settings) -> Samples:
        """Draw a few dozen data sets."""
        return cls(max(32, min(settings.replicas // 25, 64)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Samples:
        """Draw a few hundred, to larger sizes."""
        return cls(
            max(64, settings.replicas // 4),
            settings.seed,
            settings.device,
            dimension=200,
            examples=(4, 10, 30, 100, 200, 300, 1000, 3000, 10_000, 30_000),
            dimensions=(100, 400, 1600, 6400, 25_600),
            many=(800, 3200, 12_800, 51_200),
        )


@dataclass(frozen=True, eq=False)
class SamplesResult:
    """Uncentred loss alignment per data set: low, high, typical (D, E, N) over decays and examples.

    few (K, draws·N): the worst case with few examples, per dimension; many (M, N): with many, isotropic.
    """

    config: Samples
    low: Array
    high: Array
    typical: Array
    few: Array
    many: Array
    seconds: float

    @property
    def limits(self) -> Array:
        """The population values of worst and best, (2, D)."""
        index = np.arange(1, self.config.dimension + 1.0)
        return np.array([population_extremes(index**-decay) for decay in self.config.decays]).T


def run(config: Samples) -> SamplesResult:
    """Measure the extremes over residuals on every kind of data."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)
    table = [[to_numpy(_alignments(config, streams, decay, n)) for n in config.examples] for decay in config.decays]
    small = Streams(replica_seeds(config.seed, config.draws * config.replicas, config.device), torch.float64)
    few = [to_numpy(_worst(small, config.few, d)) for d in config.dimensions]
    many = [to_numpy(_worst(streams, n, config.dimension)) for n in config.many]
    low, high, typical = np.moveaxis(np.array(table), -1, 0)
    return SamplesResult(config, low, high, typical, np.array(few), np.array(many), time.perf_counter() - clock)


def _inputs(streams: Streams, examples: int, dimension: int, decay: float) -> Tensor:
    """Draw inputs (N, n, d); another size is another step of the stream."""
    scale = torch.arange(1, dimension + 1, dtype=torch.float64, device=streams.device).pow(-decay / 2)
    return streams.normal(Purpose.DATA, 10_000 * examples + dimension, (examples, dimension)) * scale


def _bytes(examples: int, width: int) -> int:
    """Return what one data set takes in float64, the integers that random numbers are made from included."""
    return 10 * 8 * examples * width


def _worst(streams: Streams, examples: int, dimension: int) -> Tensor:
    """Return the least alignment of isotropic data sets, (N,)."""

    def measure(rows: slice) -> Tensor:
        return linear_extremes(_inputs(streams.subset(rows), examples, dimension, 0.0)).low

    return in_parts(measure, len(streams.seeds), _bytes(examples, dimension))


def _alignments(config: Samples, streams: Streams, decay: float, examples: int) -> Tensor:
    """Return the least, the greatest and the typical alignment, (N, 3)."""

    def measure(rows: slice) -> Tensor:
        some = streams.subset(rows)
        inputs = _inputs(some, examples, config.dimension, decay)
        ends: Extremes = linear_extremes(inputs)
        weights = some.normal(Purpose.INIT, examples, (config.dimension, config.probes))
        power = (inputs @ weights).square()  # (N, n, P)
        curved = inputs @ (inputs.mT @ inputs / examples)
        scores = (curved * inputs).sum(-1, keepdim=True)
        typical = (power * scores).mean(1) / (power.mean(1) * scores.mean(1))
        return torch.stack([ends.low, ends.high, typical.mean(-1)], dim=-1)

    return in_parts(measure, config.replicas, _bytes(examples, config.dimension + config.probes))


def estimates(result: SamplesResult) -> Estimates:
    """Return what the sizes say about P5-C2, P5-C3 and P5-X4."""
    config = result.config
    root = np.sqrt(np.log(config.few) / np.array(config.dimensions))
    gap = population_extremes(np.ones(config.dimension))[0] - result.many
    square = config.decays.index(1.0), config.examples.index(config.dimension)
    return {
        "P5-C2.exponent": slope_of_mean(root, (1 - result.few).T, config.seed),
        "P5-C2.close": mean(result.few[-1]),
        "P5-C3.root": slope_of_mean(np.array(config.many), gap.T, config.seed),
        "P5-C3.close": mean(result.many[-1]),
        "P5-X4.worst": mean(result.low[square]),
        "P5-X4.typical": mean(result.typical[square]),
    }


def tables(result: SamplesResult) -> dict[str, DataFrame]:
    """Return mean alignments, one row per spectrum and number of examples."""
    config = result.config
    rows = [
        {
            "decay": decay,
            "examples": n,
            "worst": result.low[i, j].mean(),
            "best": result.high[i, j].mean(),
            "typical": result.typical[i, j].mean(),
        }
        for i, decay in enumerate(config.decays)
        for j, n in enumerate(config.examples)
    ]
    return {"samples": DataFrame(rows)}


SAMPLES = Experiment(
    "samples", ("P5-C2", "P5-C3", "P5-X4"), lambda settings: run(configure(Samples, settings)), estimates, tables
)

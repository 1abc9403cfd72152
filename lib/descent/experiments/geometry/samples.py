"""Worst and typical alignment of linear models against the number of examples, for several spectra.

A linear model can be put at parameters that produce any residual its inputs span, so that the worst case over all
parameters is an eigenvalue problem. How many examples make it harmless, and is it ever met at random parameters?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, Streams
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.alignment import linear_extremes
from descent.stats import mean, slope_of_mean
from descent.theory.isserlis import population_extremes

BYTES = 10 * 8  # of a coordinate of an example in float64, with the integers that random numbers are made from


@dataclass(frozen=True)
class Samples:
    """Gaussian inputs of covariance diag(i^−decay), a linear model, and every residual it can produce."""

    replicas: Share = Share(over=25, least=32, most=64)
    decays: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    dimension: int = 100
    examples: tuple[int, ...] = (4, 10, 30, 100, 150, 300, 1000)
    probes: int = 64  # random parameters, for the typical alignment
    few: int = 10
    draws: Share = Share(over=25, least=32, most=64, each=8)  # data sets with few examples: the worst case varies
    # with few examples; the gap to one is about 4.4/√d, from the least of ten χ²(d), so within 5 % from d ≈ 8000 on
    dimensions: tuple[int, ...] = (100, 200, 400, 800, 1600, 3200, 12_800)
    many: tuple[int, ...] = (400, 1600, 6400)  # with many examples, isotropic


@dataclass(frozen=True, eq=False)
class SamplesResult(Result[Samples]):
    """Uncentred loss alignment per data set: (D, E, N) over decays and examples."""

    low: Array
    high: Array
    typical: Array
    few: Array  # (K, 8·N): the worst case with few examples, per dimension
    many: Array  # (M, N): with many, isotropic

    @property
    def limits(self) -> Array:
        """The population values of worst and best, (2, D)."""
        index = np.arange(1, self.config.dimension + 1.0)
        return np.array([population_extremes(index**-decay) for decay in self.config.decays]).T


def run(config: Samples, lab: Lab) -> SamplesResult:
    """Measure the extremes over residuals on every kind of data."""
    streams, small = lab.streams(config.replicas, torch.float64), lab.streams(config.draws, torch.float64)
    grid = [[_alignments(config, streams, decay, n) for n in config.examples] for decay in config.decays]
    few = [_worst(small, config.few, d) for d in config.dimensions]
    many = [_worst(streams, n, config.dimension) for n in config.many]
    low, high, typical = np.moveaxis(np.array(grid), -1, 0)
    return SamplesResult(config, lab, low, high, typical, np.array(few), np.array(many))


def gaussian(streams: Streams, examples: int, dimension: int, decay: float = 0.0, *, step: int | None = None) -> Tensor:
    """Draw inputs (N, n, d) of covariance diag(i^−decay); another size is another step of the stream, unless told."""
    step = 10_000 * examples + dimension if step is None else step
    scale = torch.arange(1, dimension + 1, dtype=streams.dtype, device=streams.device).pow(-decay / 2)
    return streams.normal(Purpose.DATA, step, (examples, dimension)) * scale


def _worst(streams: Streams, examples: int, dimension: int) -> Array:
    """Return the least alignment of isotropic data sets, (N,)."""

    def measure(rows: slice) -> Tensor:
        return linear_extremes(gaussian(streams.subset(rows), examples, dimension)).low

    return to_numpy(in_parts(measure, streams.replicas, BYTES * examples * dimension))


def _alignments(config: Samples, streams: Streams, decay: float, examples: int) -> Array:
    """Return the least, the greatest and the typical alignment, (N, 3)."""

    def measure(rows: slice) -> Tensor:
        some = streams.subset(rows)
        inputs = gaussian(some, examples, config.dimension, decay)
        ends = linear_extremes(inputs)
        weights = some.normal(Purpose.INIT, examples, (config.dimension, config.probes))
        power = (inputs @ weights).square()  # (N, n, P)
        curved = inputs @ (inputs.mT @ inputs / examples)
        scores = (curved * inputs).sum(-1, keepdim=True)
        typical = (power * scores).mean(1) / (power.mean(1) * scores.mean(1))
        return torch.stack([ends.low, ends.high, typical.mean(-1)], dim=-1)

    return to_numpy(in_parts(measure, streams.replicas, BYTES * examples * (config.dimension + config.probes)))


def estimates(result: SamplesResult) -> Estimates:
    """Return what the sizes say about P5-C2, P5-C3 and P5-X4."""
    config, seed = result.config, result.lab.seed
    root = np.sqrt(np.log(config.few) / np.array(config.dimensions))
    population = population_extremes(np.ones(config.dimension))[0]
    square = config.decays.index(1.0), config.examples.index(config.dimension)
    return {
        "P5-C2.exponent": slope_of_mean(root, (1 - result.few).T, seed),
        "P5-C2.close": mean(result.few[-1]),
        "P5-C3.root": slope_of_mean(np.array(config.many), (population - result.many).T, seed),
        "P5-C3.close": mean(result.many[-1] / population),
        "P5-X4.worst": mean(result.low[square]),
        "P5-X4.typical": mean(result.typical[square]),
    }


def tables(result: SamplesResult) -> Tables:
    """Return mean alignments, one row per spectrum and number of examples."""
    means = {"worst": result.low, "best": result.high, "typical": result.typical}
    axes = {"decay": result.config.decays, "examples": result.config.examples}
    return {"samples": tidy(axes, **{name: values.mean(axis=-1) for name, values in means.items()})}


SAMPLES = Experiment(
    "samples", small=Samples(), run=run, estimates=estimates, tables=tables,
    large=Samples(
        Share(over=4, least=64), draws=Share(over=4, least=64, each=8), dimension=200,
        examples=(4, 10, 30, 100, 200, 300, 1000, 3000, 10_000, 30_000),
        dimensions=(100, 400, 1600, 6400, 25_600), many=(800, 3200, 12_800, 51_200),
    ),
)  # fmt: skip

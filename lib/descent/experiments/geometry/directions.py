"""Alignment along every direction at once: how many examples it takes, and why no fewer.

The extremes over residual and direction together are sought on isotropic inputs of several dimensions, and compared at
equal numbers of examples per dimension, and per squared dimension. Curves that coincide name the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, Streams
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.geometry.samples import gaussian
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.alignment import extreme_directions
from descent.stats import Estimate, bootstrap, exact, mean, ratio_of_means

SQUARES = (1.0, 2.0)  # examples per squared dimension at which the largest alignment is compared


@dataclass(frozen=True)
class Directions:
    """Isotropic inputs; the extremes over residual AND direction, sought from several starts."""

    replicas: Share = Share(over=10, least=32, most=100)
    dimensions: tuple[int, ...] = (8, 16)
    ratios: tuple[float, ...] = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0)  # examples per dimension
    starts: int = 6
    iterations: int = 10

    def examples(self, dimension: int) -> list[int]:
        """Return the numbers of examples in a dimension, those by its square after the others, itself as the last."""
        linear = [round(ratio * dimension) for ratio in self.ratios]
        return [*linear, *(round(square * dimension * dimension) for square in SQUARES), dimension]


@dataclass(frozen=True, eq=False)
class DirectionsResult(Result[Directions]):
    """Extreme centred alignments (D, Q, N) per dimension, examples per dimension, data set."""

    low: Array
    high: Array
    squares: Array  # (D, 2, N): largest at n = q·d²
    leverage: Array  # (D, N): largest at n = d, over the bound d²/n that one example's leverage gives
    blind: Array  # (D, N): of the direction that 2(d − 1) examples leave without noise, by construction


def run(config: Directions, lab: Lab) -> DirectionsResult:
    """Seek the extremes on every grid of sizes."""
    streams = lab.streams(config.replicas, torch.float64)
    found = np.array([[_extremes(config, streams, d, n) for n in config.examples(d)] for d in config.dimensions])
    blind, linear = [], len(config.ratios)
    for d in config.dimensions:  # u ⊥ the first d − 1 examples and v ⊥ the others: no example sees both
        inputs = gaussian(streams, 2 * (d - 1), d)
        u, v = (torch.linalg.svd(part)[2][:, -1:].mT for part in (inputs[:, : d - 1], inputs[:, d - 1 :]))
        a, b = (inputs @ u).squeeze(-1), (inputs @ v).squeeze(-1)
        power = a.square().mean(-1) * b.square().mean(-1)
        blind.append(to_numpy((a.square() * b.square()).mean(-1) / power - (a * b).mean(-1).square() / power))
    (low, high), squares = np.moveaxis(found[:, :linear], 2, 0), found[:, linear:-1, 1]
    leverage = found[:, -1, 1] / np.array(config.dimensions)[:, None]
    return DirectionsResult(config, lab, low, high, squares, leverage, blind=np.array(blind))


def _extremes(config: Directions, streams: Streams, dimension: int, examples: int) -> Array:
    """Return the least and the largest alignment, (2, N)."""

    def measure(rows: slice) -> Tensor:
        some = streams.subset(rows)
        starts = some.normal(Purpose.PROBE, examples, (config.starts, dimension))
        ends = extreme_directions(gaussian(some, examples, dimension), starts, config.iterations)
        return torch.stack([ends.low, ends.high], dim=-1)

    # products of all pairs of coordinates of every example, and what they are made from
    return to_numpy(in_parts(measure, streams.replicas, 4 * 8 * examples * dimension**2)).T


def estimates(result: DirectionsResult) -> Estimates:
    """Return what the extremes say about P5-C7, P5-C8 and P5-X11."""
    near, far, seed = result.config.ratios.index(4.0), result.config.ratios.index(32.0), result.lab.seed
    return {
        "P5-C7.collapse": _apart(result.low, seed),
        "P5-C7.level": [mean(found) for found in result.low[:, far]],
        "P5-C7.zero": mean(np.abs(result.blind).max(axis=0)),
        "P5-C8.collapse": _apart(result.squares, seed, relative=True),
        "P5-C8.not_linear": ratio_of_means(result.high[1, near], result.high[0, near], seed, paired=False),
        "P5-X11.leverage_first": [exact(found.max()) for found in result.leverage],  # algebra: no data enter
    }


def _apart(values: Array, seed: int, *, relative: bool = False) -> list[Estimate]:
    """Return the distance between means of dimensions, over their mean or not, of every column of (D, Q, N)."""

    def spread(*dimensions: Array) -> Array:
        centres = np.array([found.mean(axis=-1) for found in dimensions])
        return np.asarray(np.ptp(centres, axis=0) / (centres.mean(axis=0) if relative else 1.0))

    return [bootstrap(spread, *column, seed=seed, paired=False) for column in values.swapaxes(0, 1)]


def tables(result: DirectionsResult) -> Tables:
    """Return mean extremes, one row per dimension and number of examples; of the last ones the largest alone."""
    dimensions, linear = result.config.dimensions, len(result.config.ratios)
    sizes = np.array([result.config.examples(d) for d in dimensions])
    squares = sizes[:, linear:-1]
    parts = (sizes[:, :linear], result.low.mean(axis=-1), result.high), (squares, np.nan, result.squares)
    frames = [
        tidy({"dimension": dimensions, "at": range(n.shape[1])}, examples=n, least=low, largest=high.mean(axis=-1))
        for n, low, high in parts
    ]
    return {"directions": concat(frames, ignore_index=True).drop(columns="at")}


DIRECTIONS = Experiment(
    "directions", small=Directions(), run=run, estimates=estimates, tables=tables,
    # eigenvectors of millions of small matrices take the time
    large=Directions(
        Share(over=16, least=64), (8, 16, 32, 64), (1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 128.0), starts=12, iterations=20
    ),
)  # fmt: skip

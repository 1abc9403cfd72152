"""Alignment along every direction at once: how many examples it takes, and why no fewer."""

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
from descent.measure.alignment import extreme_directions
from descent.stats.intervals import bootstrap, mean, ratio_of_means


@dataclass(frozen=True)
class Directions:
    """Isotropic inputs; the extremes over residual AND direction, sought from several starts."""

    replicas: int
    seed: int
    device: str
    dimensions: tuple[int, ...] = (8, 16)
    ratios: tuple[float, ...] = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0)  # examples per dimension
    starts: int = 6
    iterations: int = 10

    @classmethod
    def cpu(cls, settings: Settings) -> Directions:
        """Draw a few dozen data sets in 8 and 16 dimensions."""
        return cls(max(32, min(settings.replicas // 10, 100)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Directions:
        """Draw up to 64 dimensions, from more starts; eigenvectors of millions of small matrices take the time."""
        return cls(
            max(64, settings.replicas // 16),
            settings.seed,
            settings.device,
            dimensions=(8, 16, 32, 64),
            ratios=(1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 128.0),
            starts=12,
            iterations=20,
        )


@dataclass(frozen=True, eq=False)
class DirectionsResult:
    """Least and largest centred alignment (D, Q, N) per dimension, examples per dimension, data set.

    squares (D, Q, N): largest alignment at n = q·d²; blind (D, N): alignment of the direction that 2(d − 1) examples
    leave without noise, by construction.
    """

    config: Directions
    low: Array
    high: Array
    squares: Array
    blind: Array
    seconds: float


SQUARES = (1.0, 2.0)
"""Examples per squared dimension at which the largest alignment is compared."""


def run(config: Directions) -> DirectionsResult:
    """Seek the extremes on every grid of sizes."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)
    found = [[_extremes(config, streams, d, round(q * d)) for q in config.ratios] for d in config.dimensions]
    squares = [[_extremes(config, streams, d, round(q * d * d))[1] for q in SQUARES] for d in config.dimensions]
    return DirectionsResult(
        config=config,
        low=np.array([[cell[0] for cell in row] for row in found]),
        high=np.array([[cell[1] for cell in row] for row in found]),
        squares=np.array(squares),
        blind=np.array([_blind(streams, d) for d in config.dimensions]),
        seconds=time.perf_counter() - clock,
    )


def _extremes(config: Directions, streams: Streams, dimension: int, examples: int) -> tuple[Array, Array]:
    def measure(rows: slice) -> Tensor:
        some = streams.subset(rows)
        starts = some.normal(Purpose.PROBE, examples, (config.starts, dimension))
        ends = extreme_directions(_inputs(some, examples, dimension), starts, config.iterations)
        return torch.stack([ends.low, ends.high], dim=-1)

    # products of all pairs of coordinates of every example, and what they are made from
    low, high = to_numpy(in_parts(measure, config.replicas, 4 * 8 * examples * dimension**2)).T
    return low, high


def _inputs(streams: Streams, examples: int, dimension: int) -> Tensor:
    return streams.normal(Purpose.DATA, 10_000 * examples + dimension, (examples, dimension))


def _blind(streams: Streams, dimension: int) -> Array:
    """Return g of u ⊥ the first d − 1 examples and v ⊥ the others: no example sees both."""
    half = dimension - 1
    inputs = _inputs(streams, 2 * half, dimension)
    u, v = (torch.linalg.svd(part)[2][:, -1:].mT for part in (inputs[:, :half], inputs[:, half:]))
    a, b = (inputs @ u).squeeze(-1), (inputs @ v).squeeze(-1)
    power = a.square().mean(-1) * b.square().mean(-1)
    return to_numpy((a.square() * b.square()).mean(-1) / power - (a * b).mean(-1).square() / power)


def estimates(result: DirectionsResult) -> Estimates:
    """Return what the extremes say about P5-C7 and P5-C8."""
    config = result.config
    far = config.ratios.index(32.0)
    near = config.ratios.index(4.0)
    spread = [bootstrap(_spread, *column, seed=config.seed, paired=False) for column in result.low.swapaxes(0, 1)]
    squares = result.squares.swapaxes(0, 1)
    relative = [bootstrap(_relative, *column, seed=config.seed, paired=False) for column in squares]
    return {
        "P5-C7.collapse": max(spread, key=lambda e: e.value),
        "P5-C7.level": mean(result.low[-1, far]),
        "P5-C7.zero": mean(np.abs(result.blind).max(axis=0)),
        "P5-C8.collapse": max(relative, key=lambda e: e.value),
        "P5-C8.not_linear": ratio_of_means(result.high[1, near], result.high[0, near], config.seed, paired=False),
    }


def _spread(*dimensions: Array) -> Array:
    """Return largest minus smallest mean over the dimensions, each (…, N)."""
    return np.asarray(np.ptp([values.mean(axis=-1) for values in dimensions], axis=0))


def _relative(*dimensions: Array) -> Array:
    """Return the same over the mean."""
    centres = np.array([values.mean(axis=-1) for values in dimensions])
    return np.asarray(np.ptp(centres, axis=0) / centres.mean(axis=0))


def tables(result: DirectionsResult) -> dict[str, DataFrame]:
    """Return mean extremes, one row per dimension and number of examples."""
    config = result.config
    rows = [
        {
            "dimension": d,
            "examples": round(q * d),
            "least": result.low[i, j].mean(),
            "largest": result.high[i, j].mean(),
        }
        for i, d in enumerate(config.dimensions)
        for j, q in enumerate(config.ratios)
    ]
    rows += [
        {"dimension": d, "examples": round(q * d * d), "least": np.nan, "largest": result.squares[i, j].mean()}
        for i, d in enumerate(config.dimensions)
        for j, q in enumerate(SQUARES)
    ]
    return {"directions": DataFrame(rows)}


DIRECTIONS = Experiment(
    "directions", ("P5-C7", "P5-C8"), lambda settings: run(configure(Directions, settings)), estimates, tables
)

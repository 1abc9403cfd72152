"""Which directions carry an escape under every control: exactly, and by walkers copied as they grow."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.lineup import FRACTION, MOMENTA, Arm, Cell, Lineup, cells_table, furthest, rules_of
from descent.measure.growth import Descent, resampled_mean
from descent.problems.quadratics import GaussianFeatures
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, geometric_ratio
from descent.theory.linear import aligned_edge, critical_batch, edge_profile
from descent.theory.noise_escape import gaussian_escape, outside


@dataclass(frozen=True)
class Directions:
    """Regression on Gaussian features with curvatures i^−½, released at equal displacement in all directions.

    beyond: base step over plain SGD's edge; equal: batch over its critical value at which own edges are compared.
    Populations of walkers are independent, so that their spread gives the interval.
    """

    populations: int
    walkers: int
    seed: int
    device: str
    dimension: int = 20
    batch_size: int = 8
    beyond: float = 1.1
    steps: int = 30
    equal: float = 0.5
    edge_steps: int = 150

    @classmethod
    def cpu(cls, settings: Settings) -> Directions:
        """Take 32 populations."""
        return cls(32, max(50, settings.replicas // 5), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Directions:
        """Take more and larger populations: three million walkers in all arms, a few gigabytes."""
        return cls(64, 5 * settings.replicas, settings.seed, settings.device)

    @property
    def curvatures(self) -> Array:
        """The spectrum, falling."""
        return np.arange(1, self.dimension + 1.0) ** -0.5

    @property
    def lineup(self) -> Lineup:
        """The arms, a little beyond plain SGD's edge."""
        return Lineup(self.beyond * aligned_edge(self.curvatures, 0.0, 1 / self.batch_size, gaussian=True))

    def equal_batch(self, momentum: float) -> int:
        """Return the batch at the stated part of its critical value."""
        return round(self.equal * float(critical_batch(self.curvatures, momentum)))

    def own_edge(self, momentum: float, batch_size: float) -> float:
        """Return D_1 at the edge of a momentum and batch."""
        return float(outside(edge_profile(self.curvatures, momentum, 1 / batch_size, gaussian=True), 1))


@dataclass(frozen=True, eq=False)
class DirectionsResult:
    """D_1 of the escaping loss: per arm after some steps, exactly (A,) and by population (A, P).

    edge: D_1 at the own edge of each moving momentum at equal B/B_c, over its exact value, by population (M, P).
    """

    config: Directions
    exact: Array
    measured: Array
    edge: Array
    seconds: float


def run(config: Directions) -> DirectionsResult:
    """Follow every arm exactly and by walkers; then every momentum at its own edge."""
    clock = time.perf_counter()
    arms = config.lineup.arms
    truth = [
        float(
            outside(gaussian_escape(config.curvatures, a.lr, a.momentum, a.noise / config.batch_size, config.steps), 1)
        )
        for a in arms
    ]
    walked = [a for a in arms if a.noise == 1]
    found = iter(_walk(config, walked, config.batch_size, config.steps))
    empty = np.full(config.populations, np.nan)
    measured = [next(found) if a.noise == 1 else empty for a in arms]
    return DirectionsResult(config, np.array(truth), np.array(measured), _edges(config), time.perf_counter() - clock)


def _walk(config: Directions, arms: list[Arm], batch_size: int, steps: int) -> Array:
    """Return D_1 by population, (A, P), every arm on the same random numbers."""
    rows = config.populations * config.walkers
    streams = Streams(replica_seeds(config.seed, rows, config.device).repeat(len(arms)))
    hyper = rules_of(arms, rows, config.device)
    step = Descent(GaussianFeatures(tuple(config.curvatures), batch_size), hyper, streams)
    start = streams.signs(0, 0, (config.dimension,)).to(streams.dtype)
    spectrum = torch.as_tensor(config.curvatures).to(start)
    loss = resampled_mean(
        step,
        step.state(start),
        steps,
        streams,
        lambda state: spectrum * state[:, 0].square(),
        arms=len(arms) * config.populations,
    )
    return outside(loss, 1).reshape(len(arms), config.populations)


def _edges(config: Directions) -> Array:
    """Return D_1 at each momentum's own edge at equal B/B_c over its exact value, (M, P)."""
    found = []
    for m in MOMENTA[:3]:  # the batch at the strongest would be a thousand, and its lag longer than the run
        size = config.equal_batch(m)
        lr = aligned_edge(config.curvatures, m, 1 / size, gaussian=True)
        found.append(_walk(config, [Arm(lr, m)], size, config.edge_steps)[0] / config.own_edge(m, size))
    return np.array(found)


def cells(result: DirectionsResult) -> list[Cell]:
    """Return the row of the control table: the loss that leaves outside the sharpest direction."""
    config, found = result.config, []
    for column, m in config.lineup.cells:
        arm, control = config.lineup.pair(column, m)
        predicted = float(result.exact[arm] / result.exact[control])
        if np.isnan(result.measured[arm]).any():
            found.append(Cell("flat escape", column, m, predicted, None, FRACTION))
        else:
            ratio = geometric_ratio(result.measured[arm], result.measured[control])
            found.append(Cell("flat escape", column, m, predicted, ratio))
    return found


def collapse(config: Directions) -> float:
    """Return the largest relative difference of D_1 at own edges between momenta at exactly equal B/B_c."""
    values = [config.own_edge(m, config.equal * float(critical_batch(config.curvatures, m))) for m in MOMENTA]
    return float(np.ptp(values) / values[0])


def estimates(result: DirectionsResult) -> Estimates:
    """Return what the directions say about S-14."""
    config = result.config
    one = np.ones(config.populations)
    edges = [geometric_ratio(row, one) for row in result.edge]
    pairs = [config.lineup.pair("average", m) for m in (0.5, 0.9)]
    flatter: list[Estimate] = [geometric_ratio(result.measured[a], result.measured[c]) for a, c in pairs]
    return {
        "S-14.exact": exact(collapse(config)),
        "S-14.measured": furthest(edges),
        "S-14.flatter": min(flatter, key=lambda e: e.low),
    }


def tables(result: DirectionsResult) -> dict[str, DataFrame]:
    """Return the cells, and D_1 at own edges by momentum and batch."""
    config = result.config
    rows = [
        {
            "momentum": m,
            "batch_size": b,
            "critical": float(critical_batch(config.curvatures, m)),
            "D1": config.own_edge(m, b),
        }
        for m in MOMENTA
        for b in (8, 64)
    ]
    return {"directions": cells_table(cells(result)), "own_edges": DataFrame(rows)}


DIRECTIONS = Experiment(
    "directions", ("S-14",), lambda settings: run(configure(Directions, settings)), estimates, tables
)

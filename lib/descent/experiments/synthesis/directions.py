"""Which directions carry an escape under every control: exactly, and by walkers copied as they grow.

Regression on Gaussian features with curvatures i^−½, released at equal displacement in all directions. What is measured
is D_1, the share of the escaping loss outside the sharpest direction over the share in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.experiments.synthesis.lineup import (
    FRACTION,
    GRID,
    MOMENTA,
    Arm,
    Cell,
    Column,
    arms_at,
    cells_table,
    pair,
    rule_of,
)
from descent.measure.growth import Descent, resampled_mean
from descent.problems.quadratics import GaussianFeatures
from descent.stats import Estimate, exact, geometric_ratio
from descent.theory.linear import aligned_edge, critical_batch, edge_profile
from descent.theory.noise_escape import gaussian_escape, outside


@dataclass(frozen=True)
class Directions:
    """Populations of walkers are independent, so that their spread gives the interval."""

    populations: int = 32
    walkers: Share = Share(over=5, least=50)  # of a population
    dimension: int = 20
    batch_size: int = 8
    beyond: float = 1.1  # base step over plain SGD's edge
    steps: int = 30
    equal: float = 0.5  # batch over its critical value at which own edges are compared
    edge_walkers: Share = Share()  # of a population there: what a population's size leaves falls in proportion
    edge_steps: int = 150
    settled: int = 50  # of them, after which the exact profile is its limit; what follows is averaged

    @property
    def curvatures(self) -> Array:
        """The spectrum, falling."""
        return np.arange(1, self.dimension + 1.0) ** -0.5

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms, a little beyond plain SGD's edge."""
        return arms_at(self.beyond * aligned_edge(self.curvatures, 0.0, 1 / self.batch_size, gaussian=True))

    def critical(self, momentum: float) -> float:
        """Return the critical batch."""
        return float(critical_batch(self.curvatures, momentum))

    def equal_batch(self, momentum: float) -> int:
        """Return the batch at the stated part of its critical value."""
        return round(self.equal * self.critical(momentum))

    def own_edge(self, momentum: float, batch_size: float) -> float:
        """Return D_1 at the edge of a momentum and batch."""
        return float(outside(edge_profile(self.curvatures, momentum, 1 / batch_size, gaussian=True), 1))

    @property
    def collapse(self) -> float:
        """The largest relative difference of D_1 at own edges between momenta at exactly equal B/B_c."""
        values = [self.own_edge(m, self.equal * self.critical(m)) for m in MOMENTA]
        return float(np.ptp(values) / values[0])


@dataclass(frozen=True, eq=False)
class DirectionsResult(Result[Directions]):
    """D_1 of the escaping loss."""

    exact: Array  # (A,): per arm after some steps
    measured: Array  # (A, P): the same by population
    edge: Array  # (M, P): at the own edge of each moving momentum at equal B/B_c, over its exact value

    def ratio(self, column: Column, momentum: float) -> Estimate:
        """Return D_1 of an arm over that of its control."""
        return geometric_ratio(*self.measured[list(pair(column, momentum))])

    @property
    def cells(self) -> Iterator[Cell]:
        """The row of the control table: the loss that leaves outside the sharpest direction."""
        for column, m in GRID:
            arm, control = pair(column, m)
            ratio, note = (None, FRACTION) if np.isnan(self.measured[arm]).any() else (self.ratio(column, m), "")
            yield Cell("flat escape", column, m, float(self.exact[arm] / self.exact[control]), ratio, note)


def run(config: Directions, lab: Lab) -> DirectionsResult:
    """Follow every arm exactly and by walkers; then every momentum at its own edge."""
    arms, size = config.arms, config.batch_size
    escapes = [gaussian_escape(config.curvatures, a.lr, a.momentum, a.noise / size, config.steps) for a in arms]
    whole = np.array([arm.noise == 1 for arm in arms])  # the others' batches are no whole number of examples
    measured = np.full((len(arms), config.populations), np.nan)
    measured[whole] = _walk(config, lab, [arm for arm in arms if arm.noise == 1], size, config.walkers, config.steps)
    edge = []
    for m in MOMENTA[:3]:  # the batch at the strongest would be a thousand, and its lag longer than the run
        own = config.equal_batch(m)
        arm = Arm(aligned_edge(config.curvatures, m, 1 / own, gaussian=True), m)
        found = _walk(config, lab, [arm], own, config.edge_walkers, config.edge_steps, config.settled)
        edge.append(found[0] / config.own_edge(m, own))
    return DirectionsResult(config, lab, np.array([float(outside(e, 1)) for e in escapes]), measured, np.array(edge))


def _walk(
    config: Directions, lab: Lab, arms: Sequence[Arm], batch_size: int, walkers: Share, steps: int, since: int = -1
) -> Array:
    """Return D_1 by population, (A, P), every arm on the same random numbers: at the end, or averaged since a step."""
    stack = lab.arms(rule_of(arms), config.populations * lab.count(walkers))
    streams, parts = stack.streams, len(arms) * config.populations
    step = Descent(GaussianFeatures(tuple(config.curvatures), batch_size), stack.hyper, streams)
    start = streams.signs(0, 0, (config.dimension,)).to(streams.dtype)
    spectrum = torch.as_tensor(config.curvatures).to(start)
    loss = resampled_mean(
        step, step.state(start), steps, streams, lambda state: spectrum * state[:, 0].square(), arms=parts, since=since
    )
    return outside(loss, 1).reshape(len(arms), config.populations)


def estimates(result: DirectionsResult) -> Estimates:
    """Return what the directions say about S-14."""
    return {
        "S-14.exact": exact(result.config.collapse),
        "S-14.measured": each(geometric_ratio, result.edge, 1.0),
        "S-14.flatter": [result.ratio("average", m) for m in (0.5, 0.9)],
    }


def tables(result: DirectionsResult) -> Tables:
    """Return the cells, and D_1 at own edges by momentum and batch."""
    config, sizes = result.config, (8, 64)
    own = tidy(
        {"momentum": MOMENTA, "batch_size": sizes},
        critical=[[config.critical(m)] for m in MOMENTA],
        D1=[[config.own_edge(m, size) for size in sizes] for m in MOMENTA],
    )
    return {"directions": cells_table(result.cells), "own_edges": own}


DIRECTIONS = Experiment(
    "directions", small=Directions(), run=run, estimates=estimates, tables=tables,
    # three million walkers in all arms, a few gigabytes
    large=Directions(64, Share(times=5), edge_walkers=Share(times=5)),
)  # fmt: skip

"""How large a step a sharp direction tolerates under every control: in mean square, and for single runs.

At a small batch the noise of its curvature limits the step, at a large one its mean does; momentum changes both edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.lineup import FRACTION, GRID, MOMENTA, MOVING, Cell, Column, cells_table
from descent.measure.growth import Descent, onset, resampled_growth
from descent.problems.quadratics import RandomWeights
from descent.stats import Estimate, bootstrap
from descent.theory.mode import crossover_batch, mode_edge
from descent.theory.weights import Gamma

HEAD = 0.9


@dataclass(frozen=True)
class Tolerance:
    """One direction of unit curvature under Exp(1) weights; each momentum and batch has its own steps."""

    replicas: Share = Share(times=3, over=10, least=32)
    batch_sizes: tuple[int, ...] = (4, 76, 256)
    around: tuple[float, ...] = (0.96, 0.985, 1.01, 1.035)  # raw steps over the exact mean-square edge
    beyond: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3)  # of the room to the edge without noise
    steps: int = 1500
    burn: int = 300

    def edge(self, momentum: float, batch_size: float) -> float:
        """Return the exact mean-square edge."""
        return float(mode_edge(1.0, momentum, 1 / batch_size))

    def predicted(self, column: Column, momentum: float, batch_size: int) -> float:
        """Return the exact ratio of mean-square edges under a control."""
        plain = self.edge(0.0, batch_size)
        if column == "equal_lr":
            return self.edge(momentum, batch_size) / plain
        size = batch_size * (1 - momentum) / (1 + momentum) if column == "equal_power" else batch_size
        return self.edge(momentum, size) / (1 - momentum) / plain

    def grid(self, momentum: float, batch_size: int) -> Array:
        """Return the steps (G,) tried: first those around the mean-square edge, then those for single runs."""
        edge, quiet = self.edge(momentum, batch_size), 2 * (1 + momentum)
        reach = min(1.2, 1.2 * (quiet / edge - 1))  # single runs bear at most about twice the mean-square edge
        wide = max(1.0, 0.06 / (1 - momentum))  # growth per step is slow where the memory is long
        return edge * np.concatenate([1 + wide * (np.array(self.around) - 1), 1 + reach * np.array(self.beyond)])


@dataclass(frozen=True, eq=False)
class ToleranceResult(Result[Tolerance]):
    """Growth by momentum and batch, on the same random numbers, at the steps of its grid (G,)."""

    square: dict[tuple[float, int], Array]  # blocks of the mean square's, (B, G)
    single: dict[tuple[float, int], Array]  # time means of single runs, (N, G)

    def threshold(self, momentum: float, batch_size: int, *, almost_sure: bool = False) -> Estimate:
        """Return the raw step at which growth begins."""
        return self._compare([(momentum, batch_size, 1.0)], almost_sure)

    def ratio(self, momentum: float, batch_size: int, *, matched: bool, almost_sure: bool = False) -> Estimate:
        """Return the threshold over plain SGD's, in raw or (matched) effective steps."""
        unit = 1 / (1 - momentum) if matched else 1.0
        return self._compare([(momentum, batch_size, unit), (0.0, batch_size, 1.0)], almost_sure)

    def _compare(self, parts: list[tuple[float, int, float]], almost_sure: bool) -> Estimate:
        """Return the onset of growth in one part, or that of the first over that of the second."""
        split = len(self.config.around)
        part, growth = (slice(split, None), self.single) if almost_sure else (slice(split), self.square)
        grids = [self.config.grid(m, size)[part] * unit for m, size, unit in parts]

        def statistic(*drawn: Array) -> Array:
            found = [onset(grid, values.mean(axis=1)) for grid, values in zip(grids, drawn, strict=True)]
            return found[0] if len(found) == 1 else found[0] / found[1]

        return bootstrap(statistic, *(growth[m, size][:, part] for m, size, _ in parts), seed=self.lab.seed)

    @property
    def cells(self) -> Iterator[Cell]:
        """The rows of the control table: a small batch and a large one, in mean square."""
        for name, size in (("tolerance, batch 4", 4), ("tolerance, batch 256", 256)):
            for column, m in GRID:
                unknown = column == "equal_power" and m > 0
                ratio = None if unknown else self.ratio(m, size, matched=column != "equal_lr")
                value = self.config.predicted(column, m, size)
                yield Cell(name, column, m, value, ratio, FRACTION if unknown else "")


def run(config: Tolerance, lab: Lab) -> ToleranceResult:
    """Grow every population at every step of its grid."""
    square: dict[tuple[float, int], Array] = {}
    single: dict[tuple[float, int], Array] = {}
    for size in config.batch_sizes:
        lr = np.stack([config.grid(m, size) for m in MOMENTA])
        rule = heavy_ball(lr.ravel().tolist(), np.repeat(MOMENTA, lr.shape[1]).tolist())
        arms = lab.arms(rule, config.replicas, torch.float64)  # in single precision a run can hit 0 exactly
        step = Descent(RandomWeights(Gamma(1.0), batch_size=size), arms.hyper, arms.streams)
        start = arms.spread(torch.ones(len(arms), 1, dtype=torch.float64))
        found = resampled_growth(
            step, step.state(start), config.steps, arms.streams, arms=len(arms), burn=config.burn, blocks=24
        )
        blocks, logs = (np.stack(part, axis=1) for part in zip(*((own.blocks, own.logs) for own in found), strict=True))
        for kept, values in ((square, blocks), (single, logs)):
            kept |= zip([(m, size) for m in MOMENTA], np.split(values, len(MOMENTA), axis=1), strict=True)
    return ToleranceResult(config, lab, square, single)


def estimates(result: ToleranceResult) -> Estimates:
    """Return what the edge says about S-10 and S-11."""
    moving = [(m, size) for m in MOVING for size in (4, 256)]
    return {
        "S-10.below": result.ratio(HEAD, 4, matched=False),
        "S-10.above": result.ratio(HEAD, 76, matched=False),
        "S-11.single": [result.ratio(*case, matched=True, almost_sure=True) for case in moving],
        "S-11.square": [result.ratio(*case, matched=True) for case in moving],
    }


def tables(result: ToleranceResult) -> Tables:
    """Return the cells, and both thresholds by momentum and batch size."""
    sizes = result.config.batch_sizes
    thresholds = tidy(
        {"batch_size": sizes, "momentum": MOMENTA},
        crossover=crossover_batch(1.0, np.array(MOMENTA), 1.0),
        value=[[result.threshold(m, size) for m in MOMENTA] for size in sizes],
        exact=[[result.config.edge(m, size) for m in MOMENTA] for size in sizes],
        single=[[result.threshold(m, size, almost_sure=True) for m in MOMENTA] for size in sizes],
    ).rename(columns={"value": "mean_square", "single": "almost_sure"})
    return {"tolerance": cells_table(result.cells), "thresholds": thresholds}


TOLERANCE = Experiment(
    "tolerance", small=Tolerance(), run=run, estimates=estimates, tables=tables,
    large=Tolerance(Share(times=10), steps=10_000, burn=1000),
)  # fmt: skip

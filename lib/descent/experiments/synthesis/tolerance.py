"""How large a step a sharp direction tolerates under every control: in mean square, and for single runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.lineup import COLUMNS, FRACTION, MOMENTA, Cell, Column, cells_table
from descent.measure.growth import Descent, onset, resampled_growth
from descent.problems.quadratics import RandomWeights
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap
from descent.theory.mode import crossover_batch, mode_edge
from descent.theory.weights import Gamma

HEAD = 0.9


@dataclass(frozen=True)
class Tolerance:
    """One direction of unit curvature under Exp(1) weights; each momentum and batch has its own steps around its edge.

    around: raw steps over the exact mean-square edge at which the mean square is measured; beyond: factors on the room
    between that edge and the one without noise at which single runs are.
    """

    replicas: int
    seed: int
    device: str
    batch_sizes: tuple[int, ...] = (4, 76, 256)
    momenta: tuple[float, ...] = MOMENTA
    around: tuple[float, ...] = (0.96, 0.985, 1.01, 1.035)
    beyond: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.3)
    steps: int = 1500
    burn: int = 300

    @classmethod
    def cpu(cls, settings: Settings) -> Tolerance:
        """Take three tenths of the replicas at every step."""
        return cls(max(32, 3 * settings.replicas // 10), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Tolerance:
        """Take ten times the replicas and more steps."""
        return cls(10 * settings.replicas, settings.seed, settings.device, steps=10_000, burn=1000)

    def edge(self, momentum: float, batch_size: float) -> float:
        """Return the exact mean-square edge."""
        return float(mode_edge(1.0, momentum, 1 / batch_size))

    def grid(self, momentum: float, batch_size: int) -> Array:
        """Return the steps (G,) tried: first those around the mean-square edge, then those for single runs."""
        edge, quiet = self.edge(momentum, batch_size), 2 * (1 + momentum)
        reach = min(1.2, 1.2 * (quiet / edge - 1))  # single runs bear at most about twice the mean-square edge
        wide = max(1.0, 0.06 / (1 - momentum))  # growth per step is slow where the memory is long
        return edge * np.concatenate([1 + wide * (np.array(self.around) - 1), 1 + reach * np.array(self.beyond)])


@dataclass(frozen=True, eq=False)
class ToleranceResult:
    """Growth by momentum and batch, on the same random numbers: over the steps of its grid (G,).

    square: blocks of the mean square's growth, (B, G); single: time means of single runs, (N, G).
    """

    config: Tolerance
    square: dict[tuple[float, int], Array]
    single: dict[tuple[float, int], Array]
    seconds: float

    def threshold(self, momentum: float, batch_size: int, almost_sure: bool = False) -> Estimate:
        """Return the raw step at which growth begins."""
        return self._compare([(momentum, batch_size, 1.0)], almost_sure)

    def ratio(self, momentum: float, batch_size: int, *, matched: bool, almost_sure: bool = False) -> Estimate:
        """Return the threshold over plain SGD's, in raw or (matched) effective steps."""
        unit = 1 / (1 - momentum) if matched else 1.0
        return self._compare([(momentum, batch_size, unit), (0.0, batch_size, 1.0)], almost_sure)

    def _compare(self, parts: list[tuple[float, int, float]], almost_sure: bool) -> Estimate:
        config, split = self.config, len(self.config.around)
        part = slice(split, None) if almost_sure else slice(split)
        growth = self.single if almost_sure else self.square
        grids = [config.grid(m, k)[part] * unit for m, k, unit in parts]
        samples = [growth[m, k][:, part] for m, k, _ in parts]

        def statistic(*drawn: Array) -> Array:
            found = [onset(grid, values.mean(axis=1)) for grid, values in zip(grids, drawn, strict=True)]
            return found[0] if len(found) == 1 else found[0] / found[1]

        return bootstrap(statistic, *samples, seed=config.seed)


def run(config: Tolerance) -> ToleranceResult:
    """Grow every population at every step of its grid."""
    clock = time.perf_counter()
    square: dict[tuple[float, int], Array] = {}
    single: dict[tuple[float, int], Array] = {}
    for size in config.batch_sizes:
        grids = [config.grid(m, size) for m in config.momenta]
        lr = np.concatenate(grids)
        momentum = np.repeat(config.momenta, len(grids[0]))
        streams = Streams(
            replica_seeds(config.seed, config.replicas, config.device).repeat(len(lr)), torch.float64
        )  # in single precision a run can hit 0 exactly
        hyper = repeat(heavy_ball(lr.tolist(), momentum.tolist()), config.replicas).to(config.device)
        step = Descent(RandomWeights(Gamma(1.0), batch_size=size), hyper, streams)
        start = torch.ones(len(lr) * config.replicas, 1, dtype=torch.float64, device=config.device)
        found = resampled_growth(
            step, step.state(start), config.steps, streams, arms=len(lr), burn=config.burn, blocks=24
        )
        for i, m in enumerate(config.momenta):
            own = found[i * len(grids[0]) : (i + 1) * len(grids[0])]
            square[m, size] = np.stack([g.blocks for g in own], axis=1)
            single[m, size] = np.stack([g.logs for g in own], axis=1)
    return ToleranceResult(config, square, single, time.perf_counter() - clock)


def predicted(config: Tolerance, column: Column, momentum: float, batch_size: int) -> float:
    """Return the exact ratio of mean-square edges under a control."""
    plain = config.edge(0.0, batch_size)
    if column == "equal_lr":
        return config.edge(momentum, batch_size) / plain
    size = batch_size * (1 - momentum) / (1 + momentum) if column == "equal_power" else batch_size
    return config.edge(momentum, size) / (1 - momentum) / plain


def cells(result: ToleranceResult) -> list[Cell]:
    """Return the rows of the control table: a small batch and a large one, in mean square."""
    found = []
    for name, size in (("tolerance, batch 4", 4), ("tolerance, batch 256", 256)):
        for column in COLUMNS:
            for m in result.config.momenta:
                value = predicted(result.config, column, m, size)
                if column == "equal_power" and m:
                    found.append(Cell(name, column, m, value, None, FRACTION))
                else:
                    ratio = result.ratio(m, size, matched=column != "equal_lr")
                    found.append(Cell(name, column, m, value, ratio))
    return found


def estimates(result: ToleranceResult) -> Estimates:
    """Return what the edge says about S-10 and S-11."""
    moving = [m for m in result.config.momenta if m]
    single = [result.ratio(m, k, matched=True, almost_sure=True) for m in moving for k in (4, 256)]
    square = [result.ratio(m, k, matched=True) for m in moving for k in (4, 256)]
    return {
        "S-10.below": result.ratio(HEAD, 4, matched=False),
        "S-10.above": result.ratio(HEAD, 76, matched=False),
        "S-11.single": min(single, key=lambda e: e.low),
        "S-11.square": min(square, key=lambda e: e.low),
    }


def tables(result: ToleranceResult) -> dict[str, DataFrame]:
    """Return the cells, and both thresholds by momentum and batch size."""
    config, rows = result.config, []
    for k in config.batch_sizes:
        for m in config.momenta:
            square, single = result.threshold(m, k), result.threshold(m, k, almost_sure=True)
            rows.append(
                {
                    "batch_size": k,
                    "momentum": m,
                    "crossover": float(crossover_batch(1.0, m, 1.0)),
                    "mean_square": square.value,
                    "low": square.low,
                    "high": square.high,
                    "exact": config.edge(m, k),
                    "almost_sure": single.value,
                    "single_low": single.low,
                    "single_high": single.high,
                }
            )
    return {"tolerance": cells_table(cells(result)), "thresholds": DataFrame(rows)}


TOLERANCE = Experiment(
    "tolerance", ("S-10", "S-11"), lambda settings: run(configure(Tolerance, settings)), estimates, tables
)

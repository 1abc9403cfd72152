"""One direction, noise that vanishes at the minimiser: how single runs grow, and who leaves from how close."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, in_parts
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.passages import Array, first_passages
from descent.problems.exponents import (
    Minimum,
    almost_sure_threshold,
    exit_spread,
    exit_time,
    exponent,
    lyapunov,
    mean_square_threshold,
)
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, mean, proportion
from descent.theory.weights import Gamma, WeightLaw

BLOCKS = 1000  # of walks, which the bootstrap resamples whole
NEAR, FAR = 10.0, 1000.0  # radius over starting distance, at which runs above the threshold are compared


@dataclass(frozen=True)
class Setting:
    """Plain descent at one step and batch size, with its exact exponent and growth."""

    law: WeightLaw
    lr: float
    batch_size: int

    @classmethod
    def between(cls, law: WeightLaw, batch_size: int, share: float) -> Setting:
        """Go that share of the way from the mean-square to the almost-sure threshold."""
        low, high = mean_square_threshold(law, batch_size), almost_sure_threshold(law, batch_size)
        return cls(law, low + share * (high - low), batch_size)

    @classmethod
    def above(cls, law: WeightLaw, batch_size: int, multiple: float) -> Setting:
        """Take a multiple of the almost-sure threshold."""
        return cls(law, multiple * almost_sure_threshold(law, batch_size), batch_size)

    @property
    def minimum(self) -> Minimum:
        """The objective."""
        return Minimum(self.law, self.batch_size)

    @property
    def exponent(self) -> float:
        """The exact α of the chance to leave."""
        return exponent(self.law, self.lr, self.batch_size)

    @property
    def growth(self) -> float:
        """The exact γ of single runs."""
        return lyapunov(self.law, self.lr, self.batch_size)


@dataclass(frozen=True)
class Exits:
    """Settings between the two thresholds and above both; walks: runs of each whose way out is watched."""

    walks: int
    replicas: int
    seed: int
    device: str
    law: WeightLaw = field(default_factory=lambda: Gamma(0.5))
    between: tuple[tuple[int, float], ...] = ((1, 0.5), (1, 0.75), (4, 0.25), (4, 0.5), (4, 0.75), (16, 0.75))
    above: tuple[tuple[int, float], ...] = ((1, 1.1), (1, 1.5), (4, 1.5), (16, 1.5))
    head: tuple[int, int] = (0, 3)  # the settings between at k = 1 and k = 4 that claims are stated at
    barely: int = 1  # settings above that sit too close to the threshold for a claim
    decays: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)  # −log of the chance to leave, up to a constant
    forget: float = 6.0  # a run is given up when its chance to come back is e^−forget of what it was
    decades: tuple[float, ...] = (1.0, 3.0, 6.0, 12.0)
    steps: int = 200  # over which the growth of single runs is measured
    patience: int = 20_000

    @classmethod
    def cpu(cls, settings: Settings) -> Exits:
        """Take thirty walks for every replica."""
        replicas = max(32, settings.replicas)
        return cls(30 * replicas, replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Exits:
        """Take 300 times more walks, and follow the chance to leave down to where some twenty of them are left."""
        walks, replicas = 9000 * settings.replicas, 20 * settings.replicas
        decays = tuple(float(d) for d in np.arange(1.0, min(8.1, np.log(walks / 20)), 0.5))
        return cls(walks, replicas, settings.seed, settings.device, decays=decays, forget=9.0)

    def settings(self) -> tuple[list[Setting], list[Setting]]:
        """Return the settings between and above."""
        between = [Setting.between(self.law, *where) for where in self.between]
        return between, [Setting.above(self.law, *where) for where in self.above]


@dataclass(frozen=True, eq=False)
class ExitsResult:
    """What N walks did.

    ratios (S, L): radius over starting distance; left: per setting between, (blocks, L) shares of walks that got
    there; times: per setting above, (N, D) exit times per number of decades, seen alike; growth: per setting, between
    before above, (R,) log growth per step of single runs.
    """

    config: Exits
    between: list[Setting]
    above: list[Setting]
    ratios: Array
    left: list[Array]
    times: list[Array]
    seen: list[NDArray[np.bool_]]
    growth: list[Array]
    seconds: float


def run(config: Exits) -> ExitsResult:
    """Release all runs at distance 1; a radius that is `ratio` away is the same as a start 1/ratio from radius 1."""
    clock = time.perf_counter()
    between, above = config.settings()
    ratios = np.array([np.exp(np.array(config.decays) / setting.exponent) for setting in between])
    left = [_left(setting, row, config) for setting, row in zip(between, ratios, strict=True)]
    passages = [
        first_passages(
            setting.minimum,
            setting.lr,
            1.0,
            10.0 ** np.array(config.decades),
            config.patience,
            _streams(config, config.walks // 20),
            floor=np.exp(-60.0),
        )
        for setting in above
    ]
    growth = [_growth(setting, config) for setting in (*between, *above)]
    times, seen = [p.times for p in passages], [p.seen for p in passages]
    return ExitsResult(config, between, above, ratios, left, times, seen, growth, time.perf_counter() - clock)


def _streams(config: Exits, count: int) -> Streams:
    return Streams(replica_seeds(config.seed, count, config.device), torch.float64)


def _left(setting: Setting, ratios: Array, config: Exits) -> Array:
    """Return the shares of walks that got that far out, block by block."""
    floor = float(np.exp(-config.forget / setting.exponent))
    streams = _streams(config, config.walks)

    def seen(rows: slice) -> Tensor:
        some = streams.subset(rows)
        found = first_passages(setting.minimum, setting.lr, 1.0, ratios, config.patience, some, floor=floor)
        return torch.from_numpy(found.seen)

    there = np.asarray(in_parts(seen, config.walks, 8 * 8 * (8 + len(ratios))))
    blocks = min(BLOCKS, config.walks // 20)
    return np.asarray(there[: config.walks // blocks * blocks].reshape(blocks, -1, len(ratios)).mean(1))


def _growth(setting: Setting, config: Exits) -> Array:
    start = torch.ones(config.replicas, 1, dtype=torch.float64, device=config.device)
    rule = repeat(sgd(setting.lr), config.replicas).to(config.device)
    streams = _streams(config, config.replicas)
    end = train(setting.minimum, start, rule, config.steps, streams, limit=1e150, check=config.steps).params
    return np.asarray(torch.as_tensor(end)[:, 0].abs().log().div(config.steps).cpu())


def leaving_exponent(result: ExitsResult, row: int, unit: float = 1.0) -> Estimate:
    """Return the least-squares slope of the log chance to leave against log starting distance, over `unit`."""
    logs = -unit * np.log(result.ratios[row])
    weights = (logs - logs.mean()) / float(((logs - logs.mean()) ** 2).sum())
    return bootstrap(lambda a: np.log(a.mean(1)) @ weights, result.left[row], seed=result.config.seed)


def stayed(result: ExitsResult, row: int) -> Estimate:
    """Return the share of runs above the threshold that leave from 1/NEAR of the radius but not from 1/FAR."""
    near, far = (result.config.decades.index(float(np.log10(ratio))) for ratio in (NEAR, FAR))
    seen = result.seen[row]
    return proportion(int((seen[:, near] & ~seen[:, far]).sum()), len(seen))


def relative_growth(result: ExitsResult, row: int) -> Estimate:
    """Return the measured over the exact growth of single runs in a setting above the threshold."""
    return mean(result.growth[len(result.between) + row] / result.above[row].growth)


def estimates(result: ExitsResult) -> Estimates:
    """Return what exits in one direction say about P2-C11, P2-C12 and P2-X2."""
    single, several = result.config.head
    clear = range(result.config.barely, len(result.above))
    rates = [relative_growth(result, row) for row in clear]
    powers = [leaving_exponent(result, row, s.exponent) for row, s in enumerate(result.between)]
    return {
        "P2-C11.above": max(rates, key=_deviation),
        "P2-C11.between": mean(result.growth[single]),
        "P2-C12.above": max((stayed(result, row) for row in clear), key=lambda e: e.high),
        "P2-C12.between": leaving_exponent(result, several),
        "P2-X2.power": max(powers, key=_deviation),
    }


def _deviation(ratio: Estimate) -> float:
    return abs(ratio.value - 1)


def tables(result: ExitsResult) -> dict[str, DataFrame]:
    """Return the settings, the chances to leave between the thresholds, and the exit times above them."""
    return {"exits": _settings_table(result), "exit_chance": _chance_table(result), "exit_times": _times_table(result)}


def _settings_table(result: ExitsResult) -> DataFrame:
    records = []
    for row, (setting, grown) in enumerate(zip((*result.between, *result.above), result.growth, strict=True)):
        found = mean(grown)
        record = {
            "batch_size": setting.batch_size,
            "lr": setting.lr,
            "exponent": setting.exponent,
            "growth_exact": setting.growth,
            "growth": found.value,
            "growth_low": found.low,
            "growth_high": found.high,
        }
        if row < len(result.between):
            power = leaving_exponent(result, row)
            record |= {"measured_exponent": power.value, "exponent_low": power.low, "exponent_high": power.high}
        else:
            record |= {"stayed": stayed(result, row - len(result.between)).value}
        records.append(record)
    return DataFrame(records)


def _chance_table(result: ExitsResult) -> DataFrame:
    records = []
    for setting, ratios, left in zip(result.between, result.ratios, result.left, strict=True):
        for ratio, shares in zip(ratios, left.T, strict=True):
            found = proportion(round(shares.mean() * result.config.walks), result.config.walks)
            records.append(
                {
                    "batch_size": setting.batch_size,
                    "lr": setting.lr,
                    "start_over_radius": 1 / ratio,
                    "chance": found.value,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return DataFrame(records)


def _times_table(result: ExitsResult) -> DataFrame:
    """Return mean exit times and their spread among the runs that leave, beside the drift alone."""
    records = []
    for setting, times, seen in zip(result.above, result.times, result.seen, strict=True):
        for decades, column, gone in zip(result.config.decades, times.T, seen.T, strict=True):
            found, widths = mean(column[gone]), decades * np.log(10)
            exact = exit_time(setting.law, setting.lr, setting.batch_size, widths)
            records.append(
                {
                    "batch_size": setting.batch_size,
                    "lr": setting.lr,
                    "decades": decades,
                    "mean": found.value,
                    "low": found.low,
                    "high": found.high,
                    "drift_alone": exact,
                    "spread": float(column[gone].std(ddof=1)) / found.value,
                    "spread_limit": exit_spread(setting.law, setting.lr, setting.batch_size, widths),
                    "share_left": float(gone.mean()),
                }
            )
    return DataFrame(records)


EXITS = Experiment(
    "exits", ("P2-C11", "P2-C12", "P2-X2"), lambda settings: run(configure(Exits, settings)), estimates, tables
)

"""One noisy direction under every control: noise of the search direction, floor at an optimum, escape from a saddle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import FirstPassage, Params
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Noisy, train
from descent.experiments.arms import blocks, configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.lineup import (
    UNDEFINED,
    Arm,
    Cell,
    Column,
    Lineup,
    cells_table,
    furthest,
    noise_of,
    rules_of,
)
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, mean, ratio_of_means
from descent.theory.escape import escape_mean
from descent.theory.mode import kernel, search_noise_power, stationary_variance


@dataclass(frozen=True)
class Modes:
    """A mode of curvature 1 with additive and multiplicative noise, and a saddle of instability 1; unit noise.

    strong: a multiplicative variance at which the floor is compared again; sizes: e·h at which averaged directions are
    compared with the gradient, below 2 and above.
    """

    lr: float
    replicas: int
    leaving: int  # replicas on the saddle, and under the strong noise
    seed: int
    device: str
    multiplicative: float = 0.25
    strong: float = 20.0  # a mean-square load of a tenth at lr 0.01
    burn: int = 1000
    watch: int = 2000
    sizes: tuple[float, ...] = (0.1, 1.0, 1.9, 2.1, 3.0)
    averages: tuple[float, ...] = (0.5, 0.9)

    @classmethod
    def cpu(cls, settings: Settings) -> Modes:
        """Take effective step 0.01."""
        return cls(0.01, settings.replicas, 4 * settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Modes:
        """Take a step ten times smaller and a hundred times the replicas.

        More would sharpen nothing that is told apart, and their records and random numbers would fill the memory.
        """
        many = 100 * settings.replicas
        return cls(0.001, many, many, settings.seed, settings.device, burn=10_000, watch=20_000)

    @property
    def lineup(self) -> Lineup:
        """The arms."""
        return Lineup(self.lr)

    @property
    def every(self) -> int:
        """Steps between two looks at the optimum: a hundred looks, and a whole record fits into memory."""
        return max(1, self.watch // 100)

    def streams(self, arms: int, replicas: int) -> Streams:
        """Return random numbers that every arm shares."""
        return Streams(replica_seeds(self.seed, replicas, self.device).repeat(arms))


@dataclass(frozen=True, eq=False)
class ModesResult:
    """Time averages and passages per arm and replica, (A, N); more replicas on the saddle and in `strong`.

    power: of the direction's noise; floor: E x²; passage: steps to leave the saddle. strong (1 + M, N): E x² of plain
    SGD and of averages under the stronger multiplicative noise. levels (Z, M, N): power of averaged directions over
    the gradient's, by e·h and momentum.
    """

    config: Modes
    power: Array
    floor: Array
    strong: Array
    passage: Array
    levels: Array
    seconds: float


@dataclass(frozen=True)
class _Second:
    """A probe of x² and of the squared noise of the direction, v − x before the step, in units of `unit`·v."""

    lr: Tensor
    unit: Tensor
    every: int

    def __call__(self, step: int, params: Params, velocity: Params) -> dict[str, Tensor]:
        """Return both, (R,)."""
        x, v = cast(Tensor, params)[:, 0], cast(Tensor, velocity)[:, 0]
        return {"floor": x.square(), "power": (self.unit * v - (x + self.lr * v)).square()}


def run(config: Modes) -> ModesResult:
    """Watch the optimum under both noises, leave the saddle, and average directions at every e·h."""
    clock = time.perf_counter()
    arms = config.lineup.arms
    power, floor = _hover(config, arms, config.multiplicative)
    few = (arms[0], *(Arm(config.lr * (1 - m), m) for m in config.averages))
    _, strong = _hover(config, few, config.strong, config.leaving)
    return ModesResult(config, power, floor, strong, _leave(config), _levels(config), time.perf_counter() - clock)


def _noisy(curvature: float, multiplicative: float, factor: Tensor) -> Noisy:
    """Return (curvature + s ξ)x + ζ with the variance of both noises times `factor` (R, 1)."""
    size = factor.sqrt()

    def noise(params: Params, streams: Streams, step: int) -> Tensor:
        drawn = streams.normal(Purpose.NOISE, step, (2,))
        found: Tensor = size * (multiplicative**0.5 * drawn[:, :1] * cast(Tensor, params) + drawn[:, 1:])
        return found

    return Noisy(lambda params: curvature * cast(Tensor, params), noise)


def _hover(
    config: Modes, arms: tuple[Arm, ...], multiplicative: float, replicas: int | None = None, *, averages: bool = False
) -> tuple[Array, Array]:
    """Return time averages of the direction's noise power and of x², (A, N); infinite where an arm is lost.

    averages: every arm is an average of gradients, whatever its rate.
    """
    n = replicas or config.replicas
    hyper, factor = rules_of(arms, n, config.device), noise_of(arms, n, config.device)
    # heavy ball's own units at equal lr, those of the gradient where momentum is an average
    raw = torch.tensor([a.lr == config.lr and not averages for a in arms], device=config.device).repeat_interleave(n)
    unit = torch.where(raw, 1.0, 1 - hyper.momentum).float()
    probe = _Second(hyper.lr.float(), unit, config.every)
    streams, start = config.streams(len(arms), n), torch.zeros(len(arms) * n, 1, device=config.device)
    problem = _noisy(1.0, multiplicative, factor)
    early = train(problem, start, hyper, config.burn, streams)
    done = train(
        problem,
        early.params,
        hyper,
        config.burn + config.watch,
        streams,
        velocity=early.velocity,
        begin=config.burn,
        probes={"": probe},
    )
    found = [
        to_numpy(done.records[f".{name}"].values.double().mean(0)).reshape(len(arms), n) for name in ("power", "floor")
    ]
    stable = np.array([a.lr < 2 * (1 + a.momentum) for a in arms])[:, None]
    return np.where(stable, found[0], np.inf), np.where(stable, found[1], np.inf)


def _leave(config: Modes) -> Array:
    """Return the steps until |x| ≥ 1 from rest on the saddle, (A, N)."""
    lineup, n = config.lineup, config.leaving
    count = len(lineup.arms)
    left = {"out": FirstPassage(lambda params: cast(Tensor, params)[:, 0].abs() >= 1, stop=True)}
    start = torch.zeros(count * n, 1, device=config.device)
    problem = _noisy(-1.0, 0.0, lineup.noise(n, config.device))
    steps = round(40 / (config.lr * (1 - max(lineup.momenta)) ** 0.5))  # far beyond the slowest arm's last run
    done = train(problem, start, lineup.hyper(n, config.device), steps, config.streams(count, n), probes=left)
    return to_numpy(done.records["out"].values).reshape(count, n)


def _levels(config: Modes) -> Array:
    """Return the noise power of averaged directions, additive unit noise, (Z, M, N)."""
    arms = tuple(Arm(z * (1 - m), m) for z in config.sizes for m in config.averages)
    power, _ = _hover(config, arms, 0.0, averages=True)
    return power.reshape(len(config.sizes), len(config.averages), -1)


def predicted(config: Modes, mechanism: str, arm: Arm) -> float:
    """Return the exact value of a mechanism for an arm; infinite where nothing is stationary."""
    if mechanism == "escape":
        return float(escape_mean(1.0, 1.0, arm.lr, arm.momentum, arm.noise))
    noises = (arm.noise, arm.noise * config.multiplicative)
    if mechanism == "floor":
        return float(stationary_variance(1.0, arm.lr, arm.momentum, *noises))
    raw = arm.lr == config.lr
    power = search_noise_power(1.0, arm.lr, arm.momentum, *noises, convention="heavy_ball" if raw else "ema")
    return float(power)


def ratio(result: ModesResult, values: Array, column: Column, momentum: float) -> Estimate:
    """Return the mean over replicas with momentum over that of its control."""
    arm, control = result.config.lineup.pair(column, momentum)
    return ratio_of_means(blocks(values[arm]), blocks(values[control]), result.config.seed)


def cells(result: ModesResult) -> list[Cell]:
    """Return the rows of the control table: direction, floor and escape."""
    config = result.config
    arms, found = config.lineup.arms, []
    parts = {"direction": result.power, "floor": result.floor, "escape": result.passage}
    for mechanism, values in parts.items():
        for column, m in config.lineup.cells:
            arm, control = (arms[i] for i in config.lineup.pair(column, m))
            below, above = (predicted(config, mechanism, a) for a in (control, arm))
            if not np.isfinite(below):
                found.append(Cell(mechanism, column, m, None, None, UNDEFINED))
                continue
            found.append(Cell(mechanism, column, m, above / below, ratio(result, values, column, m)))
    return found


def estimates(result: ModesResult) -> Estimates:
    """Return what one direction says about S-5 to S-8."""
    config = result.config
    sides = np.array([1.0 if z < 2 else -1.0 for z in config.sizes])
    levels = [mean(side * (1 - row)) for side, rows in zip(sides, result.levels, strict=True) for row in rows]
    floors = [ratio(result, result.floor, "average", m) for m in config.averages]
    floors += [ratio_of_means(blocks(row), blocks(result.strong[0]), config.seed) for row in result.strong[1:]]
    slower = [ratio(result, result.passage, "equal_step", m) for m in (0.5, 0.9)]
    return {
        "S-5.sign": levels,
        "S-6.floor": furthest(floors),
        "S-6.half": exact(_half_load(config)),
        "S-7.floor": ratio(result, result.floor, "equal_power", 0.5),
        "S-7.size": _over_prediction(result, "floor", result.floor, "equal_power", 0.5),
        "S-8.slower": min(slower, key=lambda e: e.low),
        "S-8.size": furthest([_over_prediction(result, "escape", result.passage, "equal_step", m) for m in (0.5, 0.9)]),
    }


def _half_load(config: Modes) -> float:
    """Return the exact floor ratio of averages to plain SGD at load one half, the furthest from 1."""
    half = float(kernel(1.0, 1.0, config.lr, 0.0)) / 2
    plain = stationary_variance(1.0, config.lr, 0.0, 1.0, half)
    ratios = [float(stationary_variance(1.0, config.lr * (1 - m), m, 1.0, half) / plain) for m in config.averages]
    return max(ratios, key=lambda r: abs(r - 1))


def _over_prediction(result: ModesResult, mechanism: str, values: Array, column: Column, momentum: float) -> Estimate:
    """Return a measured ratio over its exact value."""
    arms, places = result.config.lineup.arms, result.config.lineup.pair(column, momentum)
    over = predicted(result.config, mechanism, arms[places[0]]) / predicted(result.config, mechanism, arms[places[1]])
    return ratio_of_means(blocks(values[places[0]]), blocks(values[places[1]]) * over, result.config.seed)


def tables(result: ModesResult) -> dict[str, DataFrame]:
    """Return the cells, and the power of averaged directions by e·h."""
    config = result.config
    rows = []
    for z, parts in zip(config.sizes, result.levels, strict=True):
        for m, part in zip(config.averages, parts, strict=True):
            found = mean(part)
            exactly = float(search_noise_power(1.0, z * (1 - m), m, 1.0, convention="ema"))
            rows.append(
                {"eh": z, "momentum": m, "power": found.value, "low": found.low, "high": found.high, "exact": exactly}
            )
    return {"modes": cells_table(cells(result)), "direction_noise": DataFrame(rows)}


MODES = Experiment(
    "modes", ("S-5", "S-6", "S-7", "S-8"), lambda settings: run(configure(Modes, settings)), estimates, tables
)

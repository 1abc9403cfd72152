"""Search-direction noise where it is known in closed form: on a noisy parabola, and in shuffled epochs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import Hyper, ema, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.noise import SearchNoise
from descent.nets.dense import MLP, SquaredError
from descent.nets.supervised import Sampling, Supervised
from descent.problems.saddle import Quadratic
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, ratio_of_means
from descent.theory.search_noise import bound, flat_power, shuffled_power, stationary_ratio

SAMPLINGS: tuple[Sampling, ...] = ("shuffled_epochs", "with_replacement")


@dataclass(frozen=True)
class Parabola:
    """Averaged momentum on x²/2 with unit gradient noise, z = lr × curvature; and at parameters that stand still.

    Cells beyond nine tenths of the stability limit z < 2(1 + β)/(1 − β) are left out. `curved` is the cell in which
    the paper's bound is tried. The gradients of `examples` examples in `dimensions` coordinates are averaged over
    batches, drawn anew or in shuffled epochs.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    momenta: tuple[float, ...] = (0.5, 0.9)
    places: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 4.0, 10.0, 20.0)
    curved: tuple[float, float] = (20.0, 0.9)
    looks: int = 250
    every: int = 4
    samplers: int = 32
    examples: int = 200
    batch_sizes: tuple[int, ...] = (5, 10, 20, 50)
    dimensions: int = 64
    epochs: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Parabola:
        """Take as many walkers per cell as the chapter has replicas, and a tenth as many samplers."""
        return cls(
            settings.replicas,
            settings.seed,
            settings.device,
            settings.momentum,
            samplers=max(32, settings.replicas // 10),
        )

    @classmethod
    def paper(cls, settings: Settings) -> Parabola:
        """Take twenty times as many, at more momenta and curvatures, over eight times as many steps."""
        return cls(
            20 * settings.replicas,
            settings.seed,
            settings.device,
            settings.momentum,
            momenta=(0.5, 0.8, 0.9, 0.99),
            places=(0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 10.0, 20.0),
            every=32,
            samplers=max(32, settings.replicas),
            examples=1000,
            batch_sizes=(5, 20, 50, 250),
        )

    @property
    def cells(self) -> tuple[tuple[float, float], ...]:
        """The stable pairs (z, momentum)."""
        momenta = sorted({*self.momenta, self.momentum} - {0.0})
        return tuple((z, m) for m, z in product(momenta, self.places) if z < 0.9 * 2 * (1 + m) / (1 - m))

    @property
    def burn(self) -> int:
        """Steps after which the start has lost all but e⁻¹⁰ of its weight, in every cell."""
        slowest = max(1 / min(self.places), *(2 / (1 - momentum) for _, momentum in self.cells))
        return round(10 * slowest)


@dataclass(frozen=True, eq=False)
class ParabolaResult:
    """Power over the noise of one step, time averages per replica: parabola (C, N) over cells, plain 1.

    resting (S, B, M): at parameters that stand still, over samplings, batch sizes and samplers, in units of C²/B.
    """

    config: Parabola
    power: Array
    resting: Array
    seconds: float


@dataclass(frozen=True, eq=False)
class _Resting:
    """Gradients (n, D) of the examples at parameters that stand still; `draws` says which make up a batch."""

    gradients: Tensor
    draws: Supervised

    def gradient(self, params: Params, streams: Streams, step: int) -> Tensor:
        """Return the mean over the batch, (R, D), wherever the parameters may be."""
        return self.gradients[self.draws.indices(streams, step)].mean(dim=1)


@dataclass(frozen=True, eq=False)
class _Power:
    """The squared norm of the buffer, which is ω where the full gradient vanishes and the rule is an average."""

    every: int = 1

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        assert isinstance(velocity, Tensor)
        return velocity.square().sum(dim=1)


@dataclass(frozen=True, eq=False)
class _Level:
    """|ω|² alone: the parts of ω would take several times the memory."""

    noise: SearchNoise

    @property
    def every(self) -> int:
        return self.noise.every

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        return self.noise(step, params, velocity)["power"]


def run(config: Parabola) -> ParabolaResult:
    """Simulate all cells as one stack, then the samplings."""
    clock = time.perf_counter()
    resting = [[_resting(config, sampling, size) for size in config.batch_sizes] for sampling in SAMPLINGS]
    return ParabolaResult(config, _parabola(config), np.array(resting), time.perf_counter() - clock)


def _parabola(config: Parabola) -> Array:
    """Return the mean power over the looks, (C, N)."""
    z, momentum = zip(*config.cells, strict=True)
    hyper = repeat(ema(list(z), list(momentum)), config.replicas).to(config.device)
    seeds = replica_seeds(config.seed, config.replicas, config.device).repeat(len(z))
    streams, problem = Streams(seeds, torch.float64), Quadratic((1.0,))
    start = torch.zeros(len(seeds), 1, dtype=torch.float64, device=config.device)
    early = train(problem, start, hyper, config.burn, streams)
    probe = _Level(SearchNoise(problem, lambda params: params, hyper, streams, config.every))  # ∇(x²/2) = x
    late = train(
        problem,
        early.params,
        hyper,
        config.burn + config.looks * config.every,
        streams,
        velocity=early.velocity,
        begin=config.burn,
        probes={"omega": probe},
    )
    return to_numpy(late.records["omega"].values.mean(dim=0)).reshape(len(z), -1)


def _resting(config: Parabola, sampling: Sampling, size: int) -> Array:
    """Return the mean power over whole epochs, in units of C²/B, (M,)."""
    gradients = Streams(replica_seeds(config.seed, 1, config.device), torch.float64).normal(
        Purpose.DATA, 0, (config.examples, config.dimensions)
    )[0]
    gradients = gradients - gradients.mean(dim=0)
    draws = Supervised(MLP((1, 1)), SquaredError(), gradients, gradients, size, sampling)
    streams = Streams(replica_seeds(config.seed, config.samplers, config.device), torch.float64)
    hyper, length = repeat(_average(config), config.samplers).to(config.device), config.examples // size
    burn = -(-round(10 / (1 - config.momentum)) // length) * length
    start = gradients.new_zeros(config.samplers, config.dimensions)
    found = (
        train(
            _Resting(gradients, draws),
            start,
            hyper,
            burn + config.epochs * length,
            streams,
            probes={"power": _Power()},
            check=length,
        )
        .records["power"]
        .values
    )
    return to_numpy(found[burn + 1 :].mean(dim=0) / (gradients.square().sum(dim=1).mean() / size))


def _average(config: Parabola) -> Hyper:
    return ema(1.0, config.momentum)


def law(config: Parabola) -> Array:
    """Return the closed form of every cell, (C,)."""
    z, momentum = zip(*config.cells, strict=True)
    return stationary_ratio(z, momentum)


def resting_law(config: Parabola) -> Array:
    """Return the closed forms at parameters that stand still, shuffled and drawn anew, (S, B)."""
    rule = _average(config)
    shuffled = [float(shuffled_power(rule, size, config.examples)[0]) for size in config.batch_sizes]
    return np.array([shuffled, [float(flat_power(rule)[0])] * len(shuffled)])


def estimates(result: ParabolaResult) -> Estimates:
    """Return what closed forms and simulation say about P1-C3, P1-X2 and P1-X7."""
    config, seed = result.config, result.config.seed
    over = [_mean(power / exact, seed) for power, exact in zip(result.power, law(config), strict=True)]
    edge = [_mean(power, seed) for (z, _), power in zip(config.cells, result.power, strict=True) if z == 2]
    z, momentum = config.curved
    bounded = float(bound("ema", 1.0, momentum=momentum))
    curved = bootstrap(lambda a: bounded / a.mean(1), result.power[config.cells.index((z, momentum))], seed=seed)
    found: Estimates = {"P1-C3.curved": curved, "P1-X2.law": _furthest(over), "P1-X2.boundary": _furthest(edge)}
    if config.momentum == 0:
        return found
    shuffled, exact = result.resting[0], resting_law(config)[0]
    formula = _furthest([_mean(power / value, seed) for power, value in zip(shuffled, exact, strict=True)])
    quarter = config.batch_sizes.index(config.examples // 4)
    less = ratio_of_means(shuffled[quarter], result.resting[1, quarter], seed)
    return {**found, "P1-X7.formula": formula, "P1-X7.less": less}


def _mean(values: Array, seed: int) -> Estimate:
    return bootstrap(lambda a: a.mean(1), values, seed=seed)


def _furthest(found: list[Estimate]) -> Estimate:
    return max(found, key=lambda estimate: abs(estimate.value - 1))


def tables(result: ParabolaResult) -> dict[str, DataFrame]:
    """Return one row per cell; and one per sampling and batch size."""
    config = result.config
    cells = [
        {"momentum": m, "z": z, "power": power.mean(), "law": exact}
        for (z, m), power, exact in zip(config.cells, result.power, law(config), strict=True)
    ]
    resting = [
        {"sampling": sampling, "batch_size": size, "momentum": config.momentum, "power": power.mean(), "law": exact}
        for sampling, powers, laws in zip(SAMPLINGS, result.resting, resting_law(config), strict=True)
        for size, power, exact in zip(config.batch_sizes, powers, laws, strict=True)
    ]
    return {"quadratic": DataFrame(cells), "shuffled": DataFrame(resting)}


QUADRATIC = Experiment(
    "quadratic", ("P1-C3", "P1-X2", "P1-X7"), lambda settings: run(configure(Parabola, settings)), estimates, tables
)

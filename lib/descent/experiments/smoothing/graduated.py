"""Graduated optimisation: lowering the degree of smoothing during a run against keeping it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import Factors, Hyper, Schedule, constant, ema, heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import blocks, configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.smoothed import Rugged
from descent.stats.intervals import ratio_of_means


@dataclass(frozen=True)
class Graduated:
    """The rugged parabola from a side well with a fixed number of steps; each rule constant and annealed.

    Polynomial decay (1 − t/T)^power of the learning rate; momentum falls from its value to 0 in a straight line.
    lr: of plain descent and of the averaged rule; heavy_lr: of heavy ball, whose effective rate is ten times larger.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    rugged: Rugged = field(default_factory=Rugged)
    start: float = 0.9
    steps: int = 1500
    lr: float = 0.12
    heavy_lr: float = 0.012
    power: float = 0.9
    noise: float = 0.8  # standard deviation
    heavy_noise: float = 2.0

    @classmethod
    def cpu(cls, settings: Settings) -> Graduated:
        """Send out as many walkers as the chapter has replicas."""
        return cls(settings.replicas, settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Graduated:
        """Send out a hundred times as many, over ten times as many steps."""
        return cls(100 * settings.replicas, settings.seed, settings.device, settings.momentum, steps=15_000)


@dataclass(frozen=True, eq=False)
class GraduatedResult:
    """Final objective (A, 2, N) per arm, constant and annealed, and who is in the well at 0, likewise."""

    config: Graduated
    final: Array
    home: Array
    seconds: float


ARMS = ("lr", "shb", "nshb")
"""What is annealed: the learning rate of plain descent, the momentum of heavy ball, that of the averaged rule."""


def run(config: Graduated) -> GraduatedResult:
    """Run every arm with its constants, and annealed, on the same random numbers."""
    clock = time.perf_counter()

    def decay(step: int) -> Factors:
        return Factors(lr=(1 - step / config.steps) ** config.power)

    def release(step: int) -> Factors:
        return Factors(momentum=1 - step / config.steps)

    arms: list[tuple[Hyper, float, Schedule]] = [
        (ema(config.lr, 0.0), config.noise, decay),
        (heavy_ball(config.heavy_lr, config.momentum), config.heavy_noise, release),
        (ema(config.lr, config.momentum), config.noise, release),
    ]
    ends = np.array([[_run(config, rule, noise, s) for s in (constant(), schedule)] for rule, noise, schedule in arms])
    home = (np.abs(ends) < config.rugged.home).astype(np.float64)
    return GraduatedResult(config, config.rugged.value(ends), home, time.perf_counter() - clock)


def _run(config: Graduated, rule: Hyper, noise: float, schedule: Schedule) -> Array:
    """Return where the walkers end, (N,)."""
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    start = torch.full((config.replicas, 1), config.start, device=config.device)
    hyper = repeat(rule, config.replicas).to(config.device)
    problem = replace(config.rugged, noise=noise**2)
    final = train(problem, start, hyper, config.steps, streams, schedule=schedule).params
    assert isinstance(final, Tensor)
    return to_numpy(final[:, 0])


def estimates(result: GraduatedResult) -> Estimates:
    """Return what annealing says about P1-C22; without momentum there is none to anneal."""
    seed = result.config.seed
    arms = ARMS if result.config.momentum > 0 else ARMS[:1]
    return {
        f"P1-C22.{name}": ratio_of_means(blocks(held), blocks(annealed), seed)
        for name, (held, annealed) in zip(arms, result.final, strict=False)
    }


def tables(result: GraduatedResult) -> dict[str, DataFrame]:
    """Return mean final objective and share of walkers at home, one row per arm."""
    rows = [
        {
            "annealed": name,
            "constant": final[0].mean(),
            "annealed_to": final[1].mean(),
            "home_constant": home[0].mean(),
            "home_annealed": home[1].mean(),
        }
        for name, final, home in zip(ARMS, result.final, result.home, strict=True)
    ]
    return {"graduated": DataFrame(rows)}


GRADUATED = Experiment(
    "graduated", ("P1-C22",), lambda settings: run(configure(Graduated, settings)), estimates, tables
)

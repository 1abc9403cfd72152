"""Graduated optimisation: lowering the degree of smoothing during a run against keeping it.

Walkers on the rugged parabola have a fixed number of steps, with each rule's constants or annealed: the learning rate
of plain descent polynomially, the momentum of the two others in a straight line to 0. Only the first two lower the
temperature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import Factors, column, constant, ema, heavy_ball, repeat, stack
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.problems.smoothed import Rugged
from descent.stats import paired_ratio

ARMS = ("lr", "shb", "nshb")
"""What is annealed: the learning rate of plain descent, the momentum of heavy ball, that of the averaged rule."""


@dataclass(frozen=True)
class Graduated:
    """The rugged parabola from a side well."""

    replicas: Share = Share()  # walkers
    rugged: Rugged = Rugged()
    start: float = 0.9
    steps: int = 1500
    lr: float = 0.12  # of plain descent and of the averaged rule
    heavy_lr: float = 0.012  # of heavy ball, whose effective rate is ten times larger
    power: float = 0.9  # of the decay (1 − t/T)^power of the learning rate
    noise: float = 0.8  # standard deviation
    heavy_noise: float = 2.0


@dataclass(frozen=True, eq=False)
class GraduatedResult:
    """Final objective (A, 2, N) per arm, constant and annealed, and who is in the well at 0, likewise."""

    config: Graduated
    lab: Lab
    final: Array
    home: Array


def run(config: Graduated, lab: Lab) -> GraduatedResult:
    """Run every arm with its constants, and annealed, on the same random numbers."""

    def decay(step: int) -> Factors:
        return Factors(lr=(1 - step / config.steps) ** config.power)

    def release(step: int) -> Factors:
        return Factors(momentum=1 - step / config.steps)

    rule = stack(ema(config.lr, 0.0), heavy_ball(config.heavy_lr, lab.momentum), ema(config.lr, lab.momentum))
    plans = [plan for annealed in (decay, release, release) for plan in (constant(), annealed)]
    arms = lab.arms(repeat(rule, 2), config.replicas)
    noise = np.repeat([config.noise, config.heavy_noise, config.noise], 2) ** 2
    problem = replace(config.rugged, noise=arms.spread(noise))
    done = arms.run(problem, torch.full((1, 1), config.start), config.steps, schedule=plans)
    ends = done.end(column(0)).reshape(len(ARMS), 2, -1)
    return GraduatedResult(config, lab, config.rugged.value(ends), (np.abs(ends) < config.rugged.home).astype(float))


def estimates(result: GraduatedResult) -> Estimates:
    """Return what annealing says about P1-C22."""
    plain, heavy, averaged = (paired_ratio(held, annealed, result.lab.seed) for held, annealed in result.final)
    return {"P1-C22.lr": plain, "P1-C22.shb": heavy, "P1-C22.nshb": averaged}


def tables(result: GraduatedResult) -> Tables:
    """Return mean final objective and share of walkers at home, one row per arm."""
    (constant, annealed), (held, released) = (x.mean(axis=-1).T for x in (result.final, result.home))
    return {
        "graduated": tidy(
            {"annealed": ARMS}, constant=constant, annealed_to=annealed, home_constant=held, home_annealed=released
        )
    }


LARGE = Graduated(Share(times=100), steps=15_000)
GRADUATED = Experiment("graduated", small=Graduated(), large=LARGE, run=run, estimates=estimates, tables=tables)

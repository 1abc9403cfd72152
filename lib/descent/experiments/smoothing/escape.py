"""Escape from shallow minima, by the degree of smoothing or by the temperature; and what smoothing itself does.

Walkers start in a side well of a rugged parabola and have a fixed time lr × steps to come home. If the degree of
smoothing decided, rates would need equal lr × noise; if the temperature lr × variance/2 does, equal temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, ema
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.problems.smoothed import Kernel, Rugged, rastrigin
from descent.stats import blocks, bootstrap, exact, paired_difference

KERNELS: dict[Kernel, float] = {"ball": 1.0, "gaussian": 6.0}
"""How far the kernels reach, in degrees."""


class Average(NamedTuple):
    """A running average."""

    lr: float
    momentum: float


@dataclass(frozen=True)
class Escape:
    """Walkers at several temperatures, from which the noise of an arm is set."""

    replicas: Share = Share()  # walkers per temperature
    rugged: Rugged = Rugged()
    start: float = 0.9
    horizon: float = 60.0  # lr × steps
    rates: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.12)
    temperatures: tuple[float, ...] = (0.009, 0.011, 0.013, 0.0145, 0.016, 0.018, 0.021, 0.025)
    averaged: Average = Average(0.02, 0.8)  # with a bearable memory
    inertial: Average = Average(0.12, 0.9)  # strong momentum, compared with plain descent …
    quiet: float = 0.005  # … at this temperature
    points: tuple[float, ...] = (0.12, 0.2, 0.7, 0.85, 1.4)  # where one smoothed step is checked
    degree: float = 0.1
    draws: int = 500


@dataclass(frozen=True, eq=False)
class EscapeResult:
    """Who came home: home (H, T, N) over plain rates, averaged (T, N) with momentum, ballistic (2, N) plain, momentum.

    drift (K, P, N): mean smoothed slope per replica of draws over its closed form, at each point.
    """

    config: Escape
    lab: Lab
    home: Array
    averaged: Array
    ballistic: Array
    drift: Array

    @property
    def half(self) -> Array:
        """The temperature at which half of the walkers come home, per rate (H,)."""
        return _half(self.config.temperatures, self.home.mean(axis=-1))


def run(config: Escape, lab: Lab) -> EscapeResult:
    """Send out the walkers of every arm."""
    home = [_walk(config, lab, Average(rate, 0.0), config.temperatures) for rate in config.rates]
    averaged = _walk(config, lab, config.averaged, config.temperatures)
    pair = (config.inertial._replace(momentum=0.0), config.inertial)
    ballistic = [_walk(config, lab, rule, (config.quiet,))[0] for rule in pair]
    return EscapeResult(config, lab, np.array(home), averaged, np.array(ballistic), _drift(config, lab))


def _walk(config: Escape, lab: Lab, rule: Average, temperatures: tuple[float, ...]) -> Array:
    """Return who ends in the well at 0, (T, N); the walkers of every temperature see the same random numbers."""
    arms = lab.arms(ema([rule.lr] * len(temperatures), rule.momentum), config.replicas)
    problem = replace(config.rugged, noise=arms.spread(2 * torch.tensor(temperatures) / rule.lr))
    done = arms.run(problem, torch.full((1, 1), config.start), round(config.horizon / rule.lr))
    return done.end(lambda x: x[:, 0].abs() < problem.home)


def _drift(config: Escape, lab: Lab) -> Array:
    """Return the mean of f′(x − δu) over draws of u, over f_δ′(x), (K, P, N)."""
    streams = lab.streams(config.replicas, torch.float64)

    def measure(rows: slice) -> Tensor:
        some, count = streams.subset(rows), (config.draws,)
        draws = (2 * some.uniform(Purpose.PROBE, 0, count) - 1, some.normal(Purpose.PROBE, 1, count))
        found = []
        for kernel, u in zip(KERNELS, draws, strict=True):
            shifts, smooth = config.degree * to_numpy(u), config.rugged.smoothed(config.degree, kernel)
            found.append([config.rugged.slope(x - shifts).mean(axis=1) / smooth.slope(x) for x in config.points])
        return torch.from_numpy(np.moveaxis(np.array(found), -1, 0))

    return np.moveaxis(to_numpy(in_parts(measure, streams.replicas, 10 * 8 * config.draws)), 0, -1)


def lemma(rugged: Rugged) -> float:
    """Return the largest sup |f_δ − f| over δ times the Lipschitz constant of f where the kernel reaches."""
    at, found = np.linspace(-2, 2, 2001), []
    for kernel, objective, degree in product(KERNELS, (rugged, rastrigin()), (0.01, 0.1, 0.5)):
        end = 2 + KERNELS[kernel] * degree
        moved = np.abs(objective.smoothed(degree, kernel).value(at) - objective.value(at)).max()
        found.append(float(moved / (degree * np.abs(objective.slope(np.linspace(-end, end, 4001))).max())))
    return max(found)


def _half(temperatures: tuple[float, ...], share: Array) -> Array:
    """Return where the share (…, T) of walkers at home first passes one half, linear in the logarithm.

    The first passage: beyond the best temperature walkers spread out again.
    """
    logs = np.log(temperatures)
    above = np.argmax(share >= 0.5, axis=-1)
    if not ((share >= 0.5).any(axis=-1) & (above > 0)).all():
        raise ValueError(f"half of the walkers must come home inside the temperatures {temperatures}; widen them")
    high, low = (np.take_along_axis(share, i[..., None], -1)[..., 0] for i in (above, above - 1))
    weight = (0.5 - low) / (high - low)
    return np.asarray(np.exp(logs[above - 1] + weight * (logs[above] - logs[above - 1])))


def estimates(result: EscapeResult) -> Estimates:
    """Return what the walkers say about P1-C7 to P1-C9, P1-X3 and P1-X9."""
    config, seed = result.config, result.lab.seed
    logs = np.log(config.rates) - np.log(config.rates).mean()
    half = partial(_half, config.temperatures)
    home, averaged = (blocks(np.moveaxis(walkers, -1, 0)) for walkers in (result.home, result.averaged))  # (N, …, T)
    exponent = bootstrap(lambda a: np.log(half(a.mean(axis=1))) @ logs / (logs @ logs), home, seed=seed)
    momentum = (averaged, home[:, config.rates.index(config.averaged.lr)])
    drift = [bootstrap(lambda a: a.mean(axis=1), blocks(row), seed=seed) for kernel in result.drift for row in kernel]
    return {
        "P1-C7.one_step": drift,
        "P1-C8.law": exponent,
        "P1-C9.lemma": exact(lemma(config.rugged)),
        "P1-X3.law": exponent,
        "P1-X3.momentum": bootstrap(lambda a, b: half(a.mean(axis=1)) / half(b.mean(axis=1)), *momentum, seed=seed),
        "P1-X9.ballistic": paired_difference(result.ballistic[1], result.ballistic[0]),
    }


def tables(result: EscapeResult) -> Tables:
    """Return the shares of walkers at home, one row per arm and temperature."""
    config = result.config
    arms = [*(Average(rate, 0.0) for rate in config.rates), config.averaged]
    rates, heats = np.array([arm.lr for arm in arms])[:, None], np.array(config.temperatures)
    return {
        "escape": tidy(
            {"arm": range(len(arms)), "temperature": heats}, lr=rates, momentum=[[arm.momentum] for arm in arms],
            degree=np.sqrt(2 * heats * rates), home=np.stack([*result.home, result.averaged]).mean(axis=-1),
        ).drop(columns="arm")
    }  # fmt: skip


LARGE = Escape(Share(times=100), rates=(0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.12))
ESCAPE = Experiment("escape", small=Escape(), large=LARGE, run=run, estimates=estimates, tables=tables)

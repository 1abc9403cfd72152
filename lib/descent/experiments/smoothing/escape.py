"""Escape from shallow minima, by the degree of smoothing or by the temperature; and what smoothing itself does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import Hyper, ema, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import BLOCKS, configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.smoothed import Kernel, Rugged, rastrigin
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, exact, paired_difference

KERNELS: tuple[Kernel, ...] = ("ball", "gaussian")


@dataclass(frozen=True)
class Escape:
    """Walkers on a rugged parabola from a side well, over a fixed time lr × steps, at several temperatures.

    The noise of an arm is set from its temperature, lr × variance/2. `quiet` is the temperature at which strong
    momentum (its rate `inertial`) is compared with plain descent.
    """

    replicas: int
    seed: int
    device: str
    rugged: Rugged = field(default_factory=Rugged)
    start: float = 0.9
    horizon: float = 60.0
    rates: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.12)
    temperatures: tuple[float, ...] = (0.009, 0.011, 0.013, 0.0145, 0.016, 0.018, 0.021, 0.025)
    momentum: tuple[float, float] = (0.02, 0.8)  # rate and momentum of the averaged arm with a bearable memory
    inertial: tuple[float, float] = (0.12, 0.9)
    quiet: float = 0.005
    points: tuple[float, ...] = (0.12, 0.2, 0.7, 0.85, 1.4)  # where one smoothed step is checked
    degree: float = 0.1
    draws: int = 500

    @classmethod
    def cpu(cls, settings: Settings) -> Escape:
        """Send out as many walkers per temperature as the chapter has replicas."""
        return cls(settings.replicas, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Escape:
        """Send out a hundred times as many, over more rates."""
        return cls(
            100 * settings.replicas, settings.seed, settings.device, rates=(0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.12)
        )


@dataclass(frozen=True, eq=False)
class EscapeResult:
    """Who came home: home (H, N, T) over plain rates, averaged (N, T) with momentum, ballistic (2, N) plain, momentum.

    drift (K, P, N): mean smoothed slope per replica of draws over its closed form, at each point; lemma (K, …):
    change by smoothing over degree × Lipschitz constant.
    """

    config: Escape
    home: Array
    averaged: Array
    ballistic: Array
    drift: Array
    lemma: Array
    seconds: float

    @property
    def half(self) -> Array:
        """The temperature at which half of the walkers come home, per rate (H,)."""
        return np.array([_half(self.config.temperatures, part.mean(axis=0)) for part in self.home])


def run(config: Escape) -> EscapeResult:
    """Send out the walkers of every arm."""
    clock = time.perf_counter()
    home = [_walk(config, ema(rate, 0.0), rate, config.temperatures) for rate in config.rates]
    averaged = _walk(config, ema(*config.momentum), config.momentum[0], config.temperatures)
    rate, momentum = config.inertial
    ballistic = [_walk(config, ema(rate, m), rate, (config.quiet,))[:, 0] for m in (0.0, momentum)]
    return EscapeResult(
        config,
        np.array(home),
        averaged,
        np.array(ballistic),
        _drift(config),
        _lemma(config),
        time.perf_counter() - clock,
    )


def _walk(config: Escape, rule: Hyper, lr: float, temperatures: tuple[float, ...]) -> Array:
    """Return who ends in the well at 0, (N, T); the walkers of every temperature see the same random numbers."""
    heat = torch.tensor(temperatures, device=config.device).repeat_interleave(config.replicas)
    problem = replace(config.rugged, noise=2 * heat / lr)
    seeds = replica_seeds(config.seed, config.replicas, config.device).repeat(len(temperatures))
    start = torch.full((len(heat), 1), config.start, device=config.device)
    hyper = repeat(rule, len(heat)).to(config.device)
    final = train(problem, start, hyper, round(config.horizon / lr), Streams(seeds)).params
    assert isinstance(final, Tensor)
    return to_numpy(final[:, 0].abs() < problem.home).reshape(len(temperatures), -1).T


def _drift(config: Escape) -> Array:
    """Return the mean of f′(x − δu) over draws of u, over f_δ′(x), (K, P, N)."""
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)

    def measure(rows: slice) -> Tensor:
        some, found = streams.subset(rows), []
        for kernel in KERNELS:
            if kernel == "ball":
                u = 2 * some.uniform(Purpose.PROBE, 0, (config.draws,)) - 1
            else:
                u = some.normal(Purpose.PROBE, 1, (config.draws,))
            shifts = config.degree * to_numpy(u)
            smooth = config.rugged.smoothed(config.degree, kernel)
            found.append([config.rugged.slope(x - shifts).mean(axis=1) / smooth.slope(x) for x in config.points])
        return torch.from_numpy(np.moveaxis(np.array(found), -1, 0))

    return np.moveaxis(to_numpy(in_parts(measure, config.replicas, 10 * 8 * config.draws)), 0, -1)


def _lemma(config: Escape) -> Array:
    """Return sup |f_δ − f| over δ times the Lipschitz constant of f where the kernel reaches, (K, objectives, δ)."""
    at, objectives = np.linspace(-2, 2, 2001), (config.rugged, rastrigin())
    table = []
    for kernel, reach in zip(KERNELS, (1.0, 6.0), strict=True):
        for objective in objectives:
            for degree in (0.01, 0.1, 0.5):
                wide = np.linspace(-2 - reach * degree, 2 + reach * degree, 4001)
                steepest = np.abs(objective.slope(wide)).max()
                change = np.abs(objective.smoothed(degree, kernel).value(at) - objective.value(at)).max()
                table.append(change / (degree * steepest))
    return np.array(table).reshape(len(KERNELS), len(objectives), -1)


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
    config, seed = result.config, result.config.seed
    logs = np.log(config.rates) - np.log(config.rates).mean()

    def law(home: Array) -> Array:  # (B, N, H, T)
        return np.asarray(np.log(_half(config.temperatures, home.mean(axis=1))) @ logs / (logs @ logs))

    exponent = bootstrap(law, _blocks(np.moveaxis(result.home, 0, 1)), seed=seed)
    plain = result.home[config.rates.index(config.momentum[0])]
    same = bootstrap(
        lambda a, b: _half(config.temperatures, a.mean(axis=1)) / _half(config.temperatures, b.mean(axis=1)),
        _blocks(result.averaged),
        _blocks(plain),
        seed=seed,
    )
    return {
        "P1-C7.one_step": _furthest(result.drift.reshape(-1, config.replicas), seed),
        "P1-C8.law": exponent,
        "P1-C9.lemma": exact(float(result.lemma.max())),
        "P1-X3.law": exponent,
        "P1-X3.momentum": same,
        "P1-X9.ballistic": paired_difference(result.ballistic[1], result.ballistic[0]),
    }


def _blocks(walkers: Array) -> Array:
    """Average walkers (N, …) in at most BLOCKS equal blocks, which the bootstrap resamples whole."""
    count = min(BLOCKS, len(walkers))
    return np.asarray(walkers[: len(walkers) // count * count].reshape(count, -1, *walkers.shape[1:]).mean(axis=1))


def _furthest(rows: Array, seed: int) -> Estimate:
    found = [bootstrap(lambda a: a.mean(axis=1), _blocks(row), seed=seed) for row in rows]
    return max(found, key=lambda estimate: abs(estimate.value - 1))


def tables(result: EscapeResult) -> dict[str, DataFrame]:
    """Return the shares of walkers at home, one row per arm and temperature."""
    config = result.config
    arms = [(rate, 0.0, part) for rate, part in zip(config.rates, result.home, strict=True)]
    arms.append((*config.momentum, result.averaged))
    rows = [
        {
            "lr": rate,
            "momentum": momentum,
            "temperature": heat,
            "degree": float(np.sqrt(2 * heat * rate)),
            "home": part[:, i].mean(),
        }
        for rate, momentum, part in arms
        for i, heat in enumerate(config.temperatures)
    ]
    return {"escape": DataFrame(rows)}


ESCAPE = Experiment(
    "escape",
    ("P1-C7", "P1-C8", "P1-C9", "P1-X3", "P1-X9"),
    lambda settings: run(configure(Escape, settings)),
    estimates,
    tables,
)

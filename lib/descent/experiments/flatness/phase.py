"""The map of step and batch size: where runs leave the sharp ring of a quadratic–circle sum, and three thresholds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.leaving import Cell, Departures, leave
from descent.problems.circle import Circle
from descent.problems.exponents import almost_sure_threshold, exponent_threshold
from descent.theory.weights import WeightLaw

NOISES = ("jitter", "exact")
ALPHAS = (2, 1, 0)


@dataclass(frozen=True)
class Phase:
    """Runs released next to the sharp ring over a grid of steps (times the sharpness) and batch sizes."""

    lr: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    replicas: int
    seed: int
    device: str
    circle: Circle = field(default_factory=Circle)
    jitter: float = 0.1
    start: float = 1e-3
    steps: int = 2000

    @classmethod
    def cpu(cls, settings: Settings) -> Phase:
        """Take 45 steps, about 16 batch sizes and a sixteenth of the replicas."""
        return cls._of(settings, 45, 18, settings.replicas // 16)

    @classmethod
    def paper(cls, settings: Settings) -> Phase:
        """Take 120 steps, 40 batch sizes and as many replicas as given."""
        return cls._of(settings, 120, 40, settings.replicas)

    @classmethod
    def _of(cls, settings: Settings, steps: int, sizes: int, replicas: int) -> Phase:
        batch_sizes = tuple(int(k) for k in np.unique(np.geomspace(1, 1000, sizes).round()))
        lr = tuple(float(c) for c in np.linspace(0.8, 3.0, steps))
        return cls(lr, batch_sizes, max(32, replicas), settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class PhaseResult:
    """Departures at every batch size and step, per noise."""

    config: Phase
    departures: dict[str, Departures]
    seconds: float

    def share(self, noise: str) -> Array:
        """Return the share of runs that left, (K, A)."""
        return np.asarray((self.departures[noise].basin >= 0).mean(axis=1))


def run(config: Phase) -> PhaseResult:
    """Release all runs, with jitter and with exact noise on the same random numbers."""
    clock = time.perf_counter()
    cells = [Cell(k) for k in config.batch_sizes]
    lr = np.broadcast_to(np.array(config.lr), (len(cells), len(config.lr)))
    sums = {"jitter": replace(config.circle, jitter=config.jitter), "exact": config.circle}
    found = {
        noise: leave(circle, cells, lr, config.start, config.steps, config.replicas, config.seed, config.device)
        for noise, circle in sums.items()
    }
    return PhaseResult(config, found, time.perf_counter() - clock)


def threshold(law: WeightLaw, batch_size: int, alpha: float) -> float:
    """Return the step, times the sharpness, of exponent α: 2 the mean-square, 0 the almost-sure threshold."""
    return exponent_threshold(law, batch_size, alpha) if alpha else almost_sure_threshold(law, batch_size)


def estimates(result: PhaseResult) -> Estimates:
    """Return nothing: the map judges no claim."""
    return {}


def tables(result: PhaseResult) -> dict[str, DataFrame]:
    """Return the share that left per noise, batch size and step, and the thresholds per batch size."""
    config = result.config
    rows = [
        {"noise": noise, "batch_size": k, "lr_sharpness": lr, "left": left}
        for noise in NOISES
        for k, shares in zip(config.batch_sizes, result.share(noise), strict=True)
        for lr, left in zip(config.lr, shares, strict=True)
    ]
    law = config.circle.weights
    curves = [{"batch_size": k} | {f"alpha_{a}": threshold(law, k, a) for a in ALPHAS} for k in config.batch_sizes]
    return {"phase_map": DataFrame(rows), "phase_thresholds": DataFrame(curves)}


PHASE = Experiment("phase", (), lambda settings: run(configure(Phase, settings)), estimates, tables)

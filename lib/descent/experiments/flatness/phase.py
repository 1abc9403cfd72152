"""The map of step and batch size: where runs leave the sharp ring of a quadratic–circle sum, and three thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.experiments.flatness.leaving import Cell, Departures, leave
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.problems.circle import Circle
from descent.problems.exponents import almost_sure_threshold, exponent_threshold
from descent.theory.weights import WeightLaw

NOISES = ("jitter", "exact")
ALPHAS = (2, 1, 0)


def _steps(count: int) -> tuple[float, ...]:
    return tuple(np.linspace(0.8, 3.0, count).tolist())


def _sizes(count: int) -> tuple[int, ...]:
    """Return at most that many different batch sizes."""
    return tuple(np.unique(np.geomspace(1, 1000, count).round()).astype(int).tolist())


@dataclass(frozen=True)
class Phase:
    """Runs released next to the sharp ring over a grid of steps (times the sharpness) and batch sizes."""

    lr: tuple[float, ...] = _steps(45)
    batch_sizes: tuple[int, ...] = _sizes(18)
    replicas: Share = Share(over=16, least=32)
    circle: Circle = Circle()
    jitter: float = 0.1
    start: float = 1e-3
    steps: int = 2000


@dataclass(frozen=True, eq=False)
class PhaseResult(Result[Phase]):
    """Departures at every batch size and step, per noise."""

    departures: dict[str, Departures]

    def share(self, noise: str) -> Array:
        """Return the share of runs that left, (K, A)."""
        return np.asarray((self.departures[noise].basin >= 0).mean(axis=1))


def run(config: Phase, lab: Lab) -> PhaseResult:
    """Release all runs, with jitter and with exact noise on the same random numbers."""
    cells = [Cell(k) for k in config.batch_sizes]
    lr = np.broadcast_to(np.array(config.lr), (len(cells), len(config.lr)))
    given = (cells, lr, config.start, config.steps)
    circles = replace(config.circle, jitter=config.jitter), config.circle
    found = (leave(lab, config.replicas, circle, *given) for circle in circles)
    return PhaseResult(config, lab, dict(zip(NOISES, found, strict=True)))


def threshold(law: WeightLaw, batch_size: int, alpha: float) -> float:
    """Return the step, times the sharpness, of exponent α: 2 the mean-square, 0 the almost-sure threshold."""
    return exponent_threshold(law, batch_size, alpha) if alpha else almost_sure_threshold(law, batch_size)


def estimates(result: PhaseResult) -> Estimates:
    """Return nothing: the map judges no claim."""
    return {}


def tables(result: PhaseResult) -> Tables:
    """Return the share that left per noise, batch size and step, and the thresholds per batch size."""
    config, law, sizes = result.config, result.config.circle.weights, result.config.batch_sizes
    left = np.stack([result.share(noise) for noise in NOISES])
    edges = {f"alpha_{a}": [threshold(law, k, a) for k in sizes] for a in ALPHAS}
    return {
        "phase_map": tidy({"noise": NOISES, "batch_size": sizes, "lr_sharpness": config.lr}, left=left),
        "phase_thresholds": tidy({"batch_size": sizes}, **edges),
    }


PHASE = Experiment("phase", Phase(), Phase(_steps(120), _sizes(40), Share(least=32)), run, estimates, tables)

"""Momentum raises the critical batch by up to c: a noisy quadratic with a spectrum, by the recursion of moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from descent.arrays import Array
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.stats import exact
from descent.theory.memory import momentum_factor


@dataclass(frozen=True)
class Critical:
    """Curvatures i^−exponent, squared starts i^start, noise of covariance H; expected loss to `target` of the first."""

    modes: int = 100
    exponents: tuple[float, ...] = (1.5, 1.0)  # the first carries the verdicts
    start: float = 0.5
    target: float = 0.02
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)
    steps: int = 224  # effective steps that the best is taken of, up to the edge; twice as many move it by a thousandth
    lowest: float = 1e-3  # of the edge, the smallest of them
    batches: tuple[float, ...] = tuple(float(b) for b in np.geomspace(0.5, 2**14, 31))
    excess: float = 1.5  # samples over the least, at the critical batch


@dataclass(frozen=True, eq=False)
class CriticalResult(Result[Critical]):
    """Least samples to the target by exponent, momentum and batch, (X, M, B), and the critical batch, (X, M)."""

    samples: Array
    critical: Array

    @property
    def gain(self) -> Array:
        """Critical batch over descent's and over c, (X, M)."""
        return np.asarray(self.critical / self.critical[:, :1] / momentum_factor(self.config.momenta))


def run(config: Critical, lab: Lab) -> CriticalResult:
    """Count samples; nothing here is random."""
    samples = np.array([[_samples(config, x, m) for m in config.momenta] for x in config.exponents])
    return CriticalResult(config, lab, samples, np.apply_along_axis(lambda s: _critical(config, s), -1, samples))


def _samples(config: Critical, exponent: float, momentum: float) -> Array:
    """Return the least number of samples over the steps, for every batch, (B,)."""
    i = np.arange(1, config.modes + 1.0)
    h, start = i**-exponent, i**config.start
    edge = 2 * momentum_factor(momentum)
    effective = edge * np.geomspace(config.lowest, 0.98, config.steps)
    batch = np.array(config.batches)
    powers = [_moments(h, effective[:, None], momentum)]  # of 1, 2, 4, … steps, (E, modes, 4, 4) each
    for _ in range(23):
        powers.append(powers[-1] @ powers[-1])
    steps = np.array([_passed(powers, h, start, 1 / b, config) for b in batch])
    return np.asarray(np.min(steps * batch[:, None], axis=1))


def _moments(h: Array, effective: Array, momentum: float) -> Array:
    """Return the map of E(x², xΔ, Δ²) and of the constant 1 of every mode, unit noise h in the last column."""
    pull = (1 - momentum) * effective * h
    x, d = 1 - pull, np.full_like(pull, momentum)
    noise = ((1 - momentum) * effective) ** 2 * h
    zero, one = np.zeros_like(pull), np.ones_like(pull)
    rows = [
        [x**2, 2 * x * d, d**2, noise],
        [-pull * x, d * (x - pull), d**2, noise],
        [pull**2, -2 * pull * d, d**2, noise],
        [zero, zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _passed(powers: Sequence[Array], h: Array, start: Array, noise: float, config: Critical) -> Array:
    """Return the steps until the expected loss is at the target for good, (E,); infinite where the floor is above it.

    By the powers 2^k of the map: the longest time that leaves it above.
    """
    state = np.zeros((*powers[0].shape[:2], 4))
    state[..., 0], state[..., 3] = start, noise
    goal = config.target * float(h @ start)
    steps = np.zeros(len(state))
    for k in reversed(range(len(powers))):
        there = (powers[k] @ state[..., None])[..., 0]
        above = ~(there[..., 0] @ h <= goal)
        state = np.where(above[:, None, None], there, state)
        steps += above * 2.0**k
    return np.where(steps >= 2.0 ** len(powers) - 1, np.inf, steps + 1)


def _critical(config: Critical, samples: Array) -> float:
    """Return the batch from which on samples stay above so many times the least, log-linear between two batches."""
    log, batch = np.log(samples / samples.min() / config.excess), np.log(config.batches)
    last = int(np.flatnonzero(log <= 0)[-1])
    if last + 1 == len(log):
        raise ValueError("no batch is too large: add larger ones to `batches`")
    share = -log[last] / (log[last + 1] - log[last])
    return float(np.exp(batch[last] + share * (batch[last + 1] - batch[last])))


def estimates(result: CriticalResult) -> Estimates:
    """Return what momentum gains over c, for S-44."""
    return {"S-44.moderate": exact(result.gain[0, 1]), "S-44.strong": exact(result.gain[0, 2])}


def tables(result: CriticalResult) -> Tables:
    """Return critical batches, and samples by batch."""
    config = result.config
    axes = {"exponent": config.exponents, "momentum": config.momenta}
    least = tidy({**axes, "batch": config.batches}, samples=result.samples)
    return {"critical": tidy(axes, batch=result.critical, gain=result.gain), "critical_samples": least}


CRITICAL = Experiment(
    "critical", small=Critical(), large=Critical(exponents=(1.5, 1.25, 1.0)), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip

"""Which law the exit time follows: a barrier crossed by additive noise, a power of the radius, or its logarithm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame

from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.passages import Array, first_passages
from descent.problems.exponents import Minimum, almost_sure_threshold, exponent, exponent_threshold, lyapunov
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, censored_mean, mean
from descent.theory.mode import stationary_variance
from descent.theory.weights import Gamma, TwoPoint, WeightLaw

BARRIER, POWER, LOGARITHM = "barrier", "power", "logarithm"
ADDITIVE, BETWEEN, ABOVE = range(3)  # the mechanisms that claims are stated at come first, in this order
BLOCKS = 200  # of runs, which the bootstrap resamples whole
WEIGHTS = Gamma(1.0)
CONSTANT = TwoPoint(0.0)  # every weight is 1: the noise is additive


@dataclass(frozen=True)
class Mechanism:
    """Plain descent released at a minimiser with gradient noise, watched until it first gets to each radius."""

    name: str
    law: WeightLaw
    lr: float
    batch_size: int
    jitter: float
    radii: tuple[float, ...]

    @property
    def minimum(self) -> Minimum:
        """The objective."""
        return Minimum(self.law, self.batch_size, self.jitter)

    @property
    def variance(self) -> float:
        """Stationary variance under the additive noise alone."""
        return float(stationary_variance(1.0, self.lr, 0.0, self.jitter**2 / self.batch_size))

    @property
    def unit(self) -> float:
        """The exact slope of the law of this mechanism, in the coordinates of `LAWS`."""
        if self.law.variance == 0:
            return 1 / (2 * self.variance)
        alpha = exponent(self.law, self.lr, self.batch_size)
        return alpha if alpha > 0 else 1 / lyapunov(self.law, self.lr, self.batch_size)


def additive(levels: tuple[float, ...]) -> Mechanism:
    """Return additive noise at lr 0.5, with radii at these values of R²/(2 Var)."""
    whole = Mechanism("additive noise", CONSTANT, 0.5, 1, 1.0, ())
    radii = tuple(float(r) for r in np.sqrt(2 * whole.variance * np.array(levels)))
    return Mechanism(whole.name, CONSTANT, whole.lr, 1, 1.0, radii)


def multiplicative(name: str, lr: float, batch_size: int, low: float, high: float, count: int = 6) -> Mechanism:
    """Return exponential weights with a little jitter, and radii evenly spaced on a logarithmic axis."""
    radii = tuple(float(r) for r in np.geomspace(low, high, count))
    return Mechanism(name, WEIGHTS, lr, batch_size, 1e-3, radii)


@dataclass(frozen=True)
class Mechanisms:
    """Three mechanisms, and more of the same kinds; runs still inside after `steps` steps are censored."""

    mechanisms: tuple[Mechanism, ...]
    replicas: int
    steps: int
    seed: int
    device: str

    @classmethod
    def cpu(cls, settings: Settings) -> Mechanisms:
        """Take twice the replicas, and radii that most runs reach."""
        return cls._of(settings, 2, 8000, (1.5, 2.25, 3.25, 4.25, 5.5, 6.75))

    @classmethod
    def paper(cls, settings: Settings) -> Mechanisms:
        """Take fifty times the replicas, a higher barrier, and a scan of the step."""
        steps = [exponent_threshold(WEIGHTS, 4, a) for a in (2.0, 1.5, 0.5, 0.25)]
        steps += [m * almost_sure_threshold(WEIGHTS, 4) for m in (1.05, 1.1, 1.5)]
        scan = tuple(multiplicative("scan of the step", lr, 4, 0.006, 0.6) for lr in steps)
        return cls._of(settings, 50, 200_000, (1.5, 2.25, 3.25, 4.25, 5.5, 6.75, 8.0, 9.25), *scan)

    @classmethod
    def _of(cls, settings: Settings, share: int, steps: int, levels: tuple[float, ...], *more: Mechanism) -> Mechanisms:
        edges = [1.2 * almost_sure_threshold(WEIGHTS, k) for k in (4, 16)]
        all_of_them = (
            additive(levels),
            multiplicative("between the thresholds", exponent_threshold(WEIGHTS, 4, 1.0), 4, 0.006, 0.6),
            multiplicative("above both", edges[0], 4, 0.1, 1000.0),
            multiplicative("between the thresholds", exponent_threshold(WEIGHTS, 1, 0.75), 1, 0.02, 2.0),
            multiplicative("above both", edges[1], 16, 0.1, 1000.0),
            *more,
        )
        return cls(all_of_them, max(32, share * settings.replicas), steps, settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class MechanismsResult:
    """Exit times per mechanism, (N, L): steps to each radius, or steps followed where `seen` is False."""

    config: Mechanisms
    times: list[Array]
    seen: list[NDArray[np.bool_]]
    seconds: float

    def mean_times(self, row: int) -> Array:
        """Return the mean exit times of a mechanism, (L,)."""
        return np.asarray(_mean_times(self.samples(row)[None])[0])

    def samples(self, row: int) -> Array:
        """Return time followed and exits, block by block, (blocks, L, 2)."""
        both = np.stack([self.times[row], self.seen[row].astype(np.float64)], axis=2)
        blocks = min(BLOCKS, len(both))
        return np.asarray(both[: len(both) // blocks * blocks].reshape(blocks, -1, *both.shape[1:]).mean(1))


def run(config: Mechanisms) -> MechanismsResult:
    """Release all runs at the minimiser, all mechanisms on the same random numbers."""
    clock = time.perf_counter()
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)
    found = [first_passages(m.minimum, m.lr, 0.0, np.array(m.radii), config.steps, streams) for m in config.mechanisms]
    times, seen = [p.times for p in found], [p.seen for p in found]
    return MechanismsResult(config, times, seen, time.perf_counter() - clock)


LAWS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    BARRIER: (np.square, np.log),
    POWER: (np.log, np.log),
    LOGARITHM: (np.log, np.asarray),
}
"""What each law says is a straight line: a function of the radius, and a function of the mean exit time."""


def _mean_times(samples: Array) -> Array:
    """Return mean exit times (B, L) from samples (B, blocks, L, 2): time followed over exits seen."""
    followed, exits = np.moveaxis(samples.mean(1), -1, 0)
    with np.errstate(divide="ignore"):  # nobody got there: an infinite time, which the bootstrap refuses by name
        return np.asarray(followed / exits)


def exit_time(times: Array, seen: NDArray[np.bool_]) -> Estimate:
    """Return the mean exit time: by Student's t where every run left, as an exponential mean where some were cut."""
    return mean(times) if seen.all() else censored_mean(times, seen)


def slope_of(law: str, times: Array, radii: Array) -> Array:
    """Return the least-squares slope of a law's straight line, (B, L) → (B,)."""
    x, y = LAWS[law][0](radii), LAWS[law][1](times)
    return np.asarray(y @ (x - x.mean()) / ((x - x.mean()) ** 2).sum())


def predicted(law: str, times: Array, radii: Array, at: Array) -> Array:
    """Return the log exit times at radii `at` (M,) by a law fitted to mean times at `radii`, (B, L) → (B, M).

    Where the logarithmic law passes below one step, one step is predicted.
    """
    x, y = LAWS[law][0](radii), LAWS[law][1](times)
    line = y.mean(1)[:, None] + np.multiply.outer(slope_of(law, times, radii), LAWS[law][0](at) - x.mean())
    return np.asarray(np.log(np.maximum(line, 1.0)) if law == LOGARITHM else line)


def prediction_error(law: str, times: Array, radii: Array) -> Array:
    """Return how far a law, fitted to all but the largest radius, misses the log mean time there, (B, L) → (B,)."""
    guess = predicted(law, times[:, :-1], radii[:-1], radii[-1:])[:, 0]
    return np.asarray(np.abs(guess - np.log(times[:, -1])))


def slope(result: MechanismsResult, row: int, law: str) -> Estimate:
    """Return the measured slope of a mechanism's law over its exact value."""
    mechanism = result.config.mechanisms[row]
    radii = np.array(mechanism.radii)

    def measured(samples: Array) -> Array:
        return slope_of(law, _mean_times(samples), radii) / mechanism.unit

    return bootstrap(measured, result.samples(row), seed=result.config.seed)


def excess_error(result: MechanismsResult, row: int, *others: str) -> Estimate:
    """Return the prediction error of the barrier law minus the smallest of the others."""
    radii = np.array(result.config.mechanisms[row].radii)

    def difference(samples: Array) -> Array:
        times = _mean_times(samples)
        best = np.min([prediction_error(law, times, radii) for law in others], axis=0)
        return np.asarray(prediction_error(BARRIER, times, radii) - best)

    return bootstrap(difference, result.samples(row), seed=result.config.seed)


def estimates(result: MechanismsResult) -> Estimates:
    """Return what exit times say about P2-C2 and P2-X10."""
    return {
        "P2-C2.above": excess_error(result, ABOVE, LOGARITHM),
        "P2-C2.between": excess_error(result, BETWEEN, POWER),
        "P2-C2.additive": excess_error(result, ADDITIVE, POWER, LOGARITHM),
        "P2-X10.barrier": slope(result, ADDITIVE, BARRIER),
        "P2-X10.power": slope(result, BETWEEN, POWER),
        "P2-X10.logarithm": slope(result, ABOVE, LOGARITHM),
    }


def tables(result: MechanismsResult) -> dict[str, DataFrame]:
    """Return mean exit times, one row per mechanism and radius, and the prediction errors of the three laws."""
    rows, errors = [], []
    for row, mechanism in enumerate(result.config.mechanisms):
        about = {"mechanism": mechanism.name, "batch_size": mechanism.batch_size, "lr": mechanism.lr}
        radii, all_times = np.array(mechanism.radii), result.mean_times(row)[None]
        if np.isfinite(all_times).all():  # otherwise the largest radius was never reached
            errors.append(about | {law: float(prediction_error(law, all_times, radii)[0]) for law in LAWS})
        for radius, times, seen in zip(radii, result.times[row].T, result.seen[row].T, strict=True):
            found = exit_time(times, seen)
            barrier = radius**2 / (2 * mechanism.variance) if mechanism.law.variance == 0 else None
            spread = float(times.std(ddof=1) / times.mean()) if seen.all() else None
            rows.append(
                about
                | {
                    "radius": radius,
                    "radius_over_jitter": radius / mechanism.jitter,
                    "barrier": barrier,
                    "mean": found.value,
                    "low": found.low,
                    "high": found.high,
                    "spread": spread,
                    "share_left": float(seen.mean()),
                }
            )
    return {"exit_laws": DataFrame(rows), "exit_law_errors": DataFrame(errors)}


MECHANISMS = Experiment(
    "mechanisms", ("P2-C2", "P2-X10"), lambda settings: run(configure(Mechanisms, settings)), estimates, tables
)

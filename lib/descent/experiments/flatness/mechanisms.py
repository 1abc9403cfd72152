"""Which law the exit time follows: a barrier crossed by additive noise, a power of the radius, or its logarithm.

Each mechanism has its own exact law. Each law, fitted to all radii but the largest, predicts the time to the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from pandas import DataFrame, concat

from descent.arrays import Array, BoolArray
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.exit_laws import BARRIER, LAWS, LOGARITHM, POWER, prediction_error, slope_of
from descent.measure.passages import first_passages
from descent.problems.exponents import Walk, almost_sure_threshold, exponent_threshold
from descent.stats import Estimate, blocks, bootstrap, censored_mean, mean
from descent.theory.weights import Gamma, TwoPoint

BLOCKS = 200  # of runs, which the bootstrap resamples whole
WEIGHTS = Gamma(1.0)
CONSTANT = TwoPoint(0.0)  # every weight is 1: the noise is additive


class Case(IntEnum):
    """The mechanisms that claims are stated at, which come first in every configuration."""

    ADDITIVE = 0
    BETWEEN = 1
    ABOVE = 2


@dataclass(frozen=True)
class Mechanism:
    """Plain descent released at a minimiser with gradient noise, watched until it first gets to each radius."""

    name: str
    walk: Walk
    radii: tuple[float, ...]

    @property
    def unit(self) -> float:
        """The exact slope of the law of this mechanism, in the coordinates of `LAWS`."""
        if self.walk.law.variance == 0:
            return 1 / (2 * self.walk.variance)
        alpha = self.walk.exponent
        return alpha if alpha > 0 else 1 / self.walk.growth


def additive(*levels: float) -> Mechanism:
    """Return additive noise at lr 0.5, with radii at these values of R²/(2 Var)."""
    walk = Walk(CONSTANT, 0.5, 1, 1.0)
    return Mechanism("additive noise", walk, tuple(np.sqrt(2 * walk.variance * np.array(levels)).tolist()))


def multiplicative(name: str, lr: float, batch_size: int, low: float, high: float) -> Mechanism:
    """Return exponential weights with a little jitter, and radii evenly spaced on a logarithmic axis."""
    return Mechanism(name, Walk(WEIGHTS, lr, batch_size, 1e-3), tuple(np.geomspace(low, high, 6).tolist()))


LEVELS = (1.5, 2.25, 3.25, 4.25, 5.5, 6.75)
MULTIPLICATIVE = (
    multiplicative("between the thresholds", exponent_threshold(WEIGHTS, 4, 1.0), 4, 0.006, 0.6),
    multiplicative("above both", 1.2 * almost_sure_threshold(WEIGHTS, 4), 4, 0.1, 1000.0),
    multiplicative("between the thresholds", exponent_threshold(WEIGHTS, 1, 0.75), 1, 0.02, 2.0),
    multiplicative("above both", 1.2 * almost_sure_threshold(WEIGHTS, 16), 16, 0.1, 1000.0),
)
STEPS = (
    *(exponent_threshold(WEIGHTS, 4, a) for a in (2.0, 1.5, 0.5, 0.25)),
    *(multiple * almost_sure_threshold(WEIGHTS, 4) for multiple in (1.05, 1.1, 1.5)),
)  # from the mean-square threshold to above both
SCAN = tuple(multiplicative("scan of the step", lr, 4, 0.006, 0.6) for lr in STEPS)


@dataclass(frozen=True)
class Mechanisms:
    """Three mechanisms, and more of the same kinds; runs still inside after `steps` steps are censored."""

    mechanisms: tuple[Mechanism, ...] = (additive(*LEVELS), *MULTIPLICATIVE)
    replicas: Share = Share(times=2, least=32)
    steps: int = 8000


@dataclass(frozen=True, eq=False)
class MechanismsResult(Result[Mechanisms]):
    """Exit times per mechanism, (N, L): steps to each radius, or steps followed where `seen` is False."""

    times: list[Array]
    seen: list[BoolArray]

    def mean_times(self, row: int) -> Array:
        """Return the mean exit times of a mechanism, (L,)."""
        return np.asarray(_mean_times(self.samples(row)[None])[0])

    def exit_times(self, row: int) -> list[Estimate]:
        """Estimate them: by Student's t where every run left, as an exponential mean where some were cut."""
        columns = zip(self.times[row].T, self.seen[row].T, strict=True)
        return [mean(times) if seen.all() else censored_mean(times, seen) for times, seen in columns]

    def samples(self, row: int) -> Array:
        """Return time followed and exits, block by block, (blocks, L, 2)."""
        return blocks(np.stack([self.times[row], self.seen[row].astype(np.float64)], axis=2), BLOCKS)


def run(config: Mechanisms, lab: Lab) -> MechanismsResult:
    """Release all runs at the minimiser, all mechanisms on the same random numbers."""
    streams = lab.streams(config.replicas, torch.float64)
    found = [first_passages(m.walk, 0.0, np.array(m.radii), config.steps, streams) for m in config.mechanisms]
    return MechanismsResult(config, lab, [passage.times for passage in found], [passage.seen for passage in found])


def _mean_times(samples: Array) -> Array:
    """Return mean exit times (B, L) from samples (B, blocks, L, 2): time followed over exits seen."""
    followed, exits = np.moveaxis(samples.mean(1), -1, 0)
    with np.errstate(divide="ignore"):  # nobody got there: an infinite time, which the bootstrap refuses by name
        return np.asarray(followed / exits)


def slope(result: MechanismsResult, row: int, law: str) -> Estimate:
    """Return the measured slope of a mechanism's law over its exact value."""
    mechanism, samples = result.config.mechanisms[row], result.samples(row)
    radii, unit = np.array(mechanism.radii), mechanism.unit
    return bootstrap(lambda drawn: slope_of(law, _mean_times(drawn), radii) / unit, samples, seed=result.lab.seed)


def estimates(result: MechanismsResult) -> Estimates:
    """Return what exit times say about P2-C2 and P2-X10."""

    def excess(case: Case, *others: str) -> Estimate:  # of the error of the barrier law over the smallest of the others
        radii = np.array(result.config.mechanisms[case].radii)

        def difference(samples: Array) -> Array:
            error = {law: prediction_error(law, _mean_times(samples), radii) for law in (BARRIER, *others)}
            return np.asarray(error[BARRIER] - np.min([error[law] for law in others], axis=0))

        return bootstrap(difference, result.samples(case), seed=result.lab.seed)

    return {
        "P2-C2.above": excess(Case.ABOVE, LOGARITHM),
        "P2-C2.between": excess(Case.BETWEEN, POWER),
        "P2-X10.barrier": slope(result, Case.ADDITIVE, BARRIER),
        "P2-X10.power": slope(result, Case.BETWEEN, POWER),
        "P2-X10.logarithm": slope(result, Case.ABOVE, LOGARITHM),
        "P2-X10.additive": excess(Case.ADDITIVE, POWER, LOGARITHM),
    }


def tables(result: MechanismsResult) -> Tables:
    """Return mean exit times, one row per mechanism and radius, and the prediction errors of the three laws."""
    laws, errors = [], []
    for row, mechanism in enumerate(result.config.mechanisms):
        walk, radii = mechanism.walk, np.array(mechanism.radii)
        about: dict[str, Sequence[object]]
        about = {"mechanism": [mechanism.name], "batch_size": [walk.batch_size], "lr": [walk.lr]}
        times, seen, means = result.times[row], result.seen[row], result.mean_times(row)[None]
        spread = [column.std(ddof=1) / column.mean() for column in times.T]
        frame = tidy(
            {**about, "radius": mechanism.radii}, radius_over_jitter=radii / walk.jitter,
            barrier=radii**2 / (2 * walk.variance) if walk.law.variance == 0 else np.nan,
            value=result.exit_times(row), spread=np.where(seen.all(axis=0), spread, np.nan),
            share_left=seen.mean(axis=0),
        )  # fmt: skip
        laws.append(frame.rename(columns={"value": "mean"}))
        if np.isfinite(means).all():  # otherwise the largest radius was never reached
            errors.append(tidy(about, **{law: prediction_error(law, means, radii) for law in LAWS}))
    return {
        "exit_laws": concat(laws, ignore_index=True),
        "exit_law_errors": concat([DataFrame(), *errors], ignore_index=True),
    }


MECHANISMS = Experiment(
    "mechanisms", small=Mechanisms(), run=run, estimates=estimates, tables=tables,
    large=Mechanisms((additive(*LEVELS, 8.0, 9.25), *MULTIPLICATIVE, *SCAN), Share(times=50, least=32), 200_000),
)  # fmt: skip

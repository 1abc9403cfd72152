"""A continuum of minimisers: how sharp the ones are that descent with small and with full batches converges to.

Every arm starts from the same points and takes the same effective step. Full-batch descent must leave what is sharper
than that step allows; the question is whether small batches leave sooner, with noise that vanishes at the minimisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.stats import quantile_test
from torch import Tensor

from descent.arrays import Array
from descent.engine import Arms, Purpose, heavy_ball, train
from descent.engine.arms import to_numpy
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.problems.exponents import almost_sure_threshold
from descent.problems.hyperbola import Hyperbola, flow_sharpness, residual, sharpness
from descent.stats import blocks, bootstrap, proportion
from descent.theory.mode import matched_lr

EDGE = 2.0  # effective step × sharpness from which full-batch descent without momentum cannot stay
MEMORIES = 80  # of 1/(1 − momentum) steps each, within which velocities die away
QUANTILES = (0.5, 0.9, 0.99)


class Fate(IntEnum):
    """What has become of a run."""

    MOVING = 0
    CONVERGED = 1
    INFINITE = 2


@dataclass(frozen=True)
class Continuum:
    """Normal starts (u, v), every batch size without and with the headline momentum, all arms on the same luck."""

    batch_sizes: tuple[Batch, ...] = (1, 2, 4, 16, 64, None)
    replicas: Share = Share(times=10, least=100)
    jitter_replicas: Share | int = Share(times=2, least=20)
    jittered: tuple[int, ...] = (1, 4)  # batch sizes run again, without momentum, with noise left at the minimisers
    jitter: float = 0.001
    effective: float = 0.1  # step of all arms, lr/(1 − momentum)
    spread: float = 3.0  # standard deviation of the starts
    steps: int = 4000  # at least: strong momentum is given the time it takes
    stride: int = 100  # steps after which runs that are over leave the stack
    tolerance: float = 1e-12  # of uv − 1 and of the velocity: too close to come back
    near: float = 0.1  # of uv − 1, for runs that jitter keeps moving

    def patience(self, momentum: float) -> int:
        """Return how long runs are waited for."""
        return max(self.steps, round(MEMORIES / (1 - momentum)))


@dataclass(frozen=True, eq=False)
class Arm:
    """N runs: fate (N,), and in the end effective step × sharpness (N,)."""

    batch_size: Batch
    momentum: float
    jitter: float
    fate: NDArray[np.int64]
    hardness: Array

    @property
    def kept(self) -> Array:
        """Effective step × sharpness of the runs that converged."""
        return np.asarray(self.hardness[self.fate == Fate.CONVERGED])


@dataclass(frozen=True, eq=False)
class ContinuumResult(Result[Continuum]):
    """All arms; flow (N,): effective step × sharpness of the minimisers that gradient flow from the starts ends in."""

    momentum: tuple[float, ...]
    arms: tuple[Arm, ...]
    flow: Array

    def arm(self, batch_size: Batch, momentum: float = 0.0, jitter: float = 0.0) -> Arm:
        """Return one arm; raise KeyError naming it when it was not run."""
        wanted = (batch_size, momentum, jitter)
        found = [arm for arm in self.arms if (arm.batch_size, arm.momentum, arm.jitter) == wanted]
        if not found:
            raise KeyError(f"no arm of batch size, momentum, jitter {wanted} in this configuration")
        return found[0]


def run(config: Continuum, lab: Lab) -> ContinuumResult:
    """Descend from every start in every arm."""
    momentum = lab.momenta(())
    arms = [arm for k in config.batch_sizes for arm in _descend(config, lab, k, 0.0, momentum)]
    for k in config.jittered:
        arms += _descend(config, lab, k, config.jitter, (0.0,))
    start = config.spread * lab.streams(config.replicas, torch.float64).normal(Purpose.INIT, 0, (2,))
    return ContinuumResult(config, lab, momentum, tuple(arms), config.effective * to_numpy(flow_sharpness(start)))


def _descend(config: Continuum, lab: Lab, batch_size: Batch, jitter: float, momentum: tuple[float, ...]) -> list[Arm]:
    """Return the arms of one batch size, one per momentum."""
    rule = heavy_ball(matched_lr(config.effective, momentum).tolist(), momentum)
    arms = lab.arms(rule, config.jitter_replicas if jitter else config.replicas, torch.float64)
    problem = Hyperbola(batch_size=batch_size, jitter=jitter)
    end, fate = follow(config, problem, arms, config.patience(lab.momentum))
    if jitter:
        fate[(fate == Fate.MOVING) & (residual(end).abs() < config.near)] = Fate.CONVERGED
    parts = arms.split(fate).astype(np.int64), arms.split(config.effective * sharpness(end))
    return [Arm(batch_size, m, jitter, *found) for m, *found in zip(momentum, *parts, strict=True)]


def follow(config: Continuum, problem: Hyperbola, arms: Arms, steps: int) -> tuple[Tensor, Tensor]:
    """Return where every run ended (R, 2), and its fate (R,); most are over long before the last step."""
    start, device = config.spread * arms.streams.normal(Purpose.INIT, 0, (2,)), arms.streams.device
    end, fate = start.clone(), torch.full((arms.rows,), Fate.MOVING, device=device)
    rows, x, velocity = torch.arange(arms.rows, device=device), start, torch.zeros_like(start)
    for begin in range(0, steps, config.stride):
        hyper, streams = arms.hyper.subset(rows), arms.streams.subset(rows)
        done = train(problem, x, hyper, begin + config.stride, streams, velocity=velocity, begin=begin, check=10)
        x, velocity = done.params, done.velocity
        at_rest = torch.maximum(residual(x).abs(), velocity.abs().amax(dim=1)) < config.tolerance
        end[rows], fate[rows] = x, torch.where(at_rest, Fate.CONVERGED, Fate.MOVING)
        fate[rows[done.diverged_at >= 0]] = Fate.INFINITE
        moving = fate[rows] == Fate.MOVING
        rows, x, velocity = rows[moving], x[moving], velocity[moving]
        if not len(rows):
            break
    return end, fate


def estimates(result: ContinuumResult) -> Estimates:
    """Return what the hyperbola says about P2-X8."""

    def beyond(arm: Arm) -> Array:  # who converged, and who to a minimiser beyond the edge, (blocks, 2)
        converged = arm.fate == Fate.CONVERGED
        return blocks(np.stack([converged, converged & (arm.hardness > EDGE)], axis=1).astype(np.float64))

    def excess(runs: Array, full: Array) -> Array:  # of the shares beyond the edge, (B, blocks, 2) twice → (B,)
        (kept, above), (full_kept, full_above) = runs.mean(axis=1).T, full.mean(axis=1).T
        return np.asarray(above / kept - full_above / full_kept)

    samples = (beyond(result.arm(k)) for k in (1, None))
    return {"P2-X8.hyperbola": bootstrap(excess, *samples, seed=result.lab.seed)}


def tables(result: ContinuumResult) -> Tables:
    """Return who converged in every arm and how sharp the minimisers are, and the same for gradient flow."""
    problem, rows = Hyperbola(), []
    for arm in result.arms:
        matched, counts = 1 - arm.momentum, np.bincount(arm.fate, minlength=len(Fate)) / len(arm.fate)
        mean_square = problem.threshold(arm.batch_size, arm.momentum) / matched
        plain = almost_sure_threshold(problem.weights, arm.batch_size) if arm.momentum == 0 else math.nan
        rows.append({
            "batch_size": batch_name(arm.batch_size), "momentum": arm.momentum, "jitter": arm.jitter,
            "lr": result.config.effective * matched, "mean_square": mean_square, "almost_sure": plain,
            "starts": len(arm.fate), "converged": counts[Fate.CONVERGED], "infinite": counts[Fate.INFINITE],
            "moving": counts[Fate.MOVING], "above_mean_square": float((arm.kept > mean_square).mean()),
            **_quantiles(arm.kept),
        })  # fmt: skip
    return {"hyperbola": DataFrame(rows), "hyperbola_flow": DataFrame([_quantiles(result.flow)])}


def _quantiles(hardness: Array) -> dict[str, float]:
    """Return the share beyond the edge, and quantiles with the intervals of order statistics, NaN where too few."""
    beyond = proportion(int((hardness > EDGE).sum()), len(hardness))
    found = {"above_edge": beyond.value, "above_edge_low": beyond.low, "above_edge_high": beyond.high}
    for p in QUANTILES:
        value, name = float(np.quantile(hardness, p)), f"q{100 * p:.0f}"
        interval = quantile_test(hardness, q=value, p=p).confidence_interval()
        found |= {name: value, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
    return found | {"largest": float(hardness.max())}


HYPERBOLA = Experiment(
    "hyperbola", small=Continuum(), run=run, estimates=estimates, tables=tables,
    large=Continuum((1, 2, 4, 8, 16, 32, 64, 256, None), Share(times=1000, least=100), Share(times=200, least=20)),
)  # fmt: skip

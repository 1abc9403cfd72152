"""A continuum of minimisers: how sharp the ones are that descent with small and with full batches converges to.

Every arm starts from the same points and takes the same effective step. Full-batch descent must leave what is sharper
than that step allows; the question is whether small batches leave sooner, with noise that vanishes at the minimisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.stats import quantile_test
from torch import Tensor

from descent.arrays import Array
from descent.engine import Arms, Purpose, Streams, heavy_ball, train
from descent.engine.arms import to_numpy
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables
from descent.problems.exponents import almost_sure_threshold
from descent.problems.hyperbola import Hyperbola, flow_sharpness, residual, sharpness
from descent.stats import blocks, bootstrap, proportion
from descent.theory.mode import matched_lr

MOVING, CONVERGED, INFINITE = range(3)
EDGE = 2.0  # effective step × sharpness from which full-batch descent without momentum cannot stay
MEMORIES = 80  # of 1/(1 − momentum) steps each, within which velocities die away
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Continuum:
    """Normal starts (u, v), every batch size without and with the headline momentum at one effective step.

    The effective step is lr/(1 − momentum); all arms are on the same luck.
    """

    batch_sizes: tuple[Batch, ...] = (1, 2, 4, 16, 64, None)
    replicas: Share = Share(times=10, least=100)
    jitter_replicas: Share | int = Share(times=2, least=20)
    jittered: tuple[int, ...] = (1, 4)  # batch sizes run again, without momentum, with noise left at the minimisers
    jitter: float = 0.001
    effective: float = 0.1
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
        return np.asarray(self.hardness[self.fate == CONVERGED])


@dataclass(frozen=True, eq=False)
class ContinuumResult:
    """All arms; flow (N,): effective step × sharpness of the minimisers that gradient flow from the starts ends in."""

    config: Continuum
    lab: Lab
    momentum: tuple[float, ...]
    arms: tuple[Arm, ...]
    flow: Array

    def arm(self, batch_size: Batch, momentum: float = 0.0, jitter: float = 0.0) -> Arm:
        """Return one arm; raise KeyError naming it when it was not run."""
        wanted = (batch_size, momentum, jitter)
        for found in self.arms:
            if (found.batch_size, found.momentum, found.jitter) == wanted:
                return found
        raise KeyError(f"no arm of batch size, momentum, jitter {wanted} in this configuration")


def run(config: Continuum, lab: Lab) -> ContinuumResult:
    """Descend from every start in every arm."""
    momentum = lab.momenta(())
    arms = [arm for k in config.batch_sizes for arm in _descend(config, lab, k, 0.0, momentum)]
    for k in config.jittered:
        arms += _descend(config, lab, k, config.jitter, (0.0,))
    flow = config.effective * to_numpy(flow_sharpness(_starts(config, lab.streams(config.replicas, torch.float64))))
    return ContinuumResult(config, lab, momentum, tuple(arms), flow)


def _starts(config: Continuum, streams: Streams) -> Tensor:
    """Return where every run starts, (R, 2)."""
    return config.spread * streams.normal(Purpose.INIT, 0, (2,))


def _descend(config: Continuum, lab: Lab, batch_size: Batch, jitter: float, momentum: tuple[float, ...]) -> list[Arm]:
    """Return the arms of one batch size, one per momentum."""
    rule = heavy_ball(matched_lr(config.effective, momentum).tolist(), momentum)
    arms = lab.arms(rule, config.jitter_replicas if jitter else config.replicas, torch.float64)
    problem = Hyperbola(batch_size=batch_size, jitter=jitter)
    end, fate = follow(config, problem, arms, config.patience(lab.momentum))
    if jitter:
        fate[(fate == MOVING) & (residual(end).abs() < config.near)] = CONVERGED
    parts = arms.split(fate).astype(np.int64), arms.split(config.effective * sharpness(end))
    return [Arm(batch_size, m, jitter, *found) for m, *found in zip(momentum, *parts, strict=True)]


def follow(config: Continuum, problem: Hyperbola, arms: Arms, steps: int) -> tuple[Tensor, Tensor]:
    """Return where every run ended (R, 2), and its fate (R,); most are over long before the last step."""
    start, device = _starts(config, arms.streams), arms.streams.device
    end, fate = start.clone(), torch.full((arms.rows,), MOVING, device=device)
    rows, x, velocity = torch.arange(arms.rows, device=device), start, torch.zeros_like(start)
    for begin in range(0, steps, config.stride):
        hyper, streams = arms.hyper.subset(rows), arms.streams.subset(rows)
        done = train(problem, x, hyper, begin + config.stride, streams, velocity=velocity, begin=begin, check=10)
        x, velocity = cast(Tensor, done.params), cast(Tensor, done.velocity)
        at_rest = torch.maximum(residual(x).abs(), velocity.abs().amax(dim=1)) < config.tolerance
        end[rows], fate[rows] = x, torch.where(at_rest, CONVERGED, MOVING)
        fate[rows[done.diverged_at >= 0]] = INFINITE
        moving = fate[rows] == MOVING
        rows, x, velocity = rows[moving], x[moving], velocity[moving]
        if not len(rows):
            break
    return end, fate


def estimates(result: ContinuumResult) -> Estimates:
    """Return what the hyperbola says about P2-X8."""
    samples = [blocks(_above(result.arm(k))) for k in (1, None)]
    return {"P2-X8.hyperbola": bootstrap(_excess, *samples, seed=result.lab.seed)}


def _above(arm: Arm) -> Array:
    """Tell per run whether it converged, and whether to a minimiser beyond the edge, (N, 2)."""
    converged = arm.fate == CONVERGED
    return np.stack([converged, converged & (arm.hardness > EDGE)], axis=1).astype(np.float64)


def _excess(runs: Array, full: Array) -> Array:
    """Return the difference of the shares beyond the edge among converged runs, (B, blocks, 2) twice → (B,)."""
    (kept, above), (full_kept, full_above) = runs.mean(axis=1).T, full.mean(axis=1).T
    return np.asarray(above / kept - full_above / full_kept)


def tables(result: ContinuumResult) -> Tables:
    """Return who converged in every arm and how sharp the minimisers are, and the same for gradient flow."""
    return {
        "hyperbola": DataFrame([_row(result.config, arm) for arm in result.arms]),
        "hyperbola_flow": DataFrame([_quantiles(result.flow)]),
    }


def _row(config: Continuum, arm: Arm) -> dict[str, float | str]:
    problem, matched, counts = Hyperbola(), 1 - arm.momentum, np.bincount(arm.fate, minlength=3) / len(arm.fate)
    mean_square = problem.threshold(arm.batch_size, arm.momentum) / matched
    plain = almost_sure_threshold(problem.weights, arm.batch_size) if arm.momentum == 0 else math.nan
    return {
        "batch_size": batch_name(arm.batch_size), "momentum": arm.momentum, "jitter": arm.jitter,
        "lr": config.effective * matched, "mean_square": mean_square, "almost_sure": plain, "starts": len(arm.fate),
        "converged": counts[CONVERGED], "infinite": counts[INFINITE], "moving": counts[MOVING],
        "above_mean_square": float((arm.kept > mean_square).mean()), **_quantiles(arm.kept),
    }  # fmt: skip


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
    "hyperbola",
    small=Continuum(),
    large=Continuum(
        (1, 2, 4, 8, 16, 32, 64, 256, None), Share(times=1000, least=100), Share(times=200, least=20)
    ),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip

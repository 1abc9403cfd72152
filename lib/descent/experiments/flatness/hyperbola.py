"""A continuum of minimisers: how sharp the ones are that descent with small and with full batches converges to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.stats import quantile_test
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import Hyper, heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import BLOCKS, configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.wells import Batch, batch_name
from descent.problems.exponents import almost_sure_threshold
from descent.problems.hyperbola import Hyperbola, flow_sharpness, residual, sharpness
from descent.stats.intervals import bootstrap, proportion
from descent.theory.mode import matched_lr

MOVING, CONVERGED, INFINITE = range(3)
EDGE = 2.0  # effective step × sharpness from which full-batch descent without momentum cannot stay
MEMORIES = 80  # of 1/(1 − momentum) steps each, within which velocities die away
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Continuum:
    """Normal starts (u, v), every batch size and momentum at one effective step lr/(1 − momentum), on the same luck."""

    batch_sizes: tuple[Batch, ...]
    momentum: tuple[float, ...]
    replicas: int
    jitter_replicas: int
    seed: int
    device: str
    jittered: tuple[int, ...] = (1, 4)  # batch sizes run again, without momentum, with noise left at the minimisers
    jitter: float = 0.001
    effective: float = 0.1
    spread: float = 3.0  # standard deviation of the starts
    steps: int = 4000
    stride: int = 100  # steps after which runs that are over leave the stack
    tolerance: float = 1e-12  # of uv − 1 and of the velocity: too close to come back
    near: float = 0.1  # of uv − 1, for runs that jitter keeps moving

    @classmethod
    def cpu(cls, settings: Settings) -> Continuum:
        """Take ten times the replicas as starts."""
        return cls._of(settings, 10, (1, 2, 4, 16, 64, None))

    @classmethod
    def paper(cls, settings: Settings) -> Continuum:
        """Take a thousand times the replicas, and more batch sizes."""
        return cls._of(settings, 1000, (1, 2, 4, 8, 16, 32, 64, 256, None))

    @classmethod
    def _of(cls, settings: Settings, times: int, batch_sizes: tuple[Batch, ...]) -> Continuum:
        momentum = tuple(sorted({0.0, settings.momentum}))
        starts = max(100, times * settings.replicas)
        steps = max(cls.steps, round(MEMORIES / (1 - settings.momentum)))
        return cls(batch_sizes, momentum, starts, starts // 5, settings.seed, settings.device, steps=steps)


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
    arms: tuple[Arm, ...]
    flow: Array
    seconds: float

    def arm(self, batch_size: Batch, momentum: float = 0.0, jitter: float = 0.0) -> Arm:
        """Return one arm; raise KeyError naming it when it was not run."""
        wanted = (batch_size, momentum, jitter)
        for found in self.arms:
            if (found.batch_size, found.momentum, found.jitter) == wanted:
                return found
        raise KeyError(f"no arm of batch size, momentum, jitter {wanted} in this configuration")


def run(config: Continuum) -> ContinuumResult:
    """Descend from every start in every arm."""
    clock = time.perf_counter()
    seeds = replica_seeds(config.seed, config.replicas, config.device)
    start = config.spread * Streams(seeds, torch.float64).normal(Purpose.INIT, 0, (2,))
    arms = [arm for k in config.batch_sizes for arm in _descend(config, k, config.momentum, 0.0, start, seeds)]
    few = slice(config.jitter_replicas)
    for k in config.jittered:
        arms += _descend(config, k, (0.0,), config.jitter, start[few], seeds[few])
    flow = config.effective * flow_sharpness(start).cpu().numpy()
    return ContinuumResult(config, tuple(arms), flow, time.perf_counter() - clock)


def _descend(
    config: Continuum, batch_size: Batch, momentum: tuple[float, ...], jitter: float, start: Tensor, seeds: Tensor
) -> list[Arm]:
    """Return the arms of one batch size, one per momentum."""
    arms = heavy_ball(torch.from_numpy(matched_lr(config.effective, momentum)), list(momentum))
    hyper, streams = repeat(arms, len(start)).to(config.device), Streams(seeds.repeat(len(momentum)), start.dtype)
    problem = Hyperbola(batch_size=batch_size, jitter=jitter)
    end, fate = _follow(config, problem, hyper, start.repeat(len(momentum), 1), streams)
    if jitter:
        fate[(fate == MOVING) & (residual(end).abs() < config.near)] = CONVERGED
    hardness = config.effective * sharpness(end)
    fates, hardnesses = (part.view(len(momentum), -1).cpu().numpy() for part in (fate, hardness))
    return [Arm(batch_size, m, jitter, *found) for m, *found in zip(momentum, fates, hardnesses, strict=True)]


def _follow(
    config: Continuum, problem: Hyperbola, hyper: Hyper, start: Tensor, streams: Streams
) -> tuple[Tensor, Tensor]:
    """Return where every run ended (R, 2), and its fate (R,); most are over long before the last step."""
    end, fate = start.clone(), torch.full((len(start),), MOVING, device=start.device)
    rows, x, velocity = torch.arange(len(start), device=start.device), start, torch.zeros_like(start)
    for begin in range(0, config.steps, config.stride):
        done = train(
            problem,
            x,
            hyper.subset(rows),
            begin + config.stride,
            streams.subset(rows),
            velocity=velocity,
            begin=begin,
            check=10,
        )
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
    samples = [_blocks(_above(result.arm(k))) for k in (1, None)]
    return {"P2-X8.hyperbola": bootstrap(_excess, *samples, seed=result.config.seed)}


def _above(arm: Arm) -> Array:
    """Tell per run whether it converged, and whether to a minimiser beyond the edge, (N, 2)."""
    converged = arm.fate == CONVERGED
    return np.stack([converged, converged & (arm.hardness > EDGE)], axis=1).astype(np.float64)


def _blocks(runs: Array) -> Array:
    """Average runs (N, 2) in at most BLOCKS equal blocks, which the bootstrap resamples whole."""
    count = min(BLOCKS, len(runs))
    return np.asarray(runs[: len(runs) // count * count].reshape(count, -1, 2).mean(axis=1))


def _excess(runs: Array, full: Array) -> Array:
    """Return the difference of the shares beyond the edge among converged runs, (B, blocks, 2) twice → (B,)."""
    (kept, above), (full_kept, full_above) = runs.mean(axis=1).T, full.mean(axis=1).T
    return np.asarray(above / kept - full_above / full_kept)


def tables(result: ContinuumResult) -> dict[str, DataFrame]:
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
        "batch_size": batch_name(arm.batch_size),
        "momentum": arm.momentum,
        "jitter": arm.jitter,
        "lr": config.effective * matched,
        "mean_square": mean_square,
        "almost_sure": plain,
        "starts": len(arm.fate),
        "converged": counts[CONVERGED],
        "infinite": counts[INFINITE],
        "moving": counts[MOVING],
        "above_mean_square": float((arm.kept > mean_square).mean()),
        **_quantiles(arm.kept),
    }


def _quantiles(hardness: Array) -> dict[str, float]:
    """Return the share beyond the edge, and quantiles with the intervals of order statistics, NaN where too few."""
    beyond = proportion(int((hardness > EDGE).sum()), len(hardness))
    found = {"above_edge": beyond.value, "above_edge_low": beyond.low, "above_edge_high": beyond.high}
    for p in QUANTILES:
        value, name = float(np.quantile(hardness, p)), f"q{100 * p:.0f}"
        interval = quantile_test(hardness, q=value, p=p).confidence_interval()
        found |= {name: value, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
    return found | {"largest": float(hardness.max())}


HYPERBOLA = Experiment("hyperbola", ("P2-X8",), lambda settings: run(configure(Continuum, settings)), estimates, tables)

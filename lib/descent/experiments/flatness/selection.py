"""Which of 1024 minimisers descent on a Styblinski–Tang sum ends in, with controls for the noise and the weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params, every
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.wells import Batch, batch_name, release
from descent.problems.styblinski import FLAT, TOP, StyblinskiTang, share_flat
from descent.stats.estimate import Estimate
from descent.stats.intervals import paired_difference, proportion
from descent.theory.weights import Gamma, TwoPoint, WeightLaw

HEAD, HEAD_LR, BELOW_LR, JITTER = 4, 0.068, 0.060, 0.1  # what claims are stated at
WIDE, NARROW, EXPONENTIAL = TwoPoint(0.5), TwoPoint(0.3), Gamma(1.0)
LAWS = {WIDE: "1 ± 0.5", NARROW: "1 ± 0.3", EXPONENTIAL: "exponential"}


@dataclass(frozen=True)
class Grid:
    """Arms of one weight law and one jitter: every step with every batch size."""

    weights: WeightLaw
    jitter: float
    lr: tuple[float, ...]
    batch_sizes: tuple[Batch, ...]


@dataclass(frozen=True)
class Selection:
    """Starts uniform in a cube, descended in every arm on the same noise; the first grid is the main one."""

    grids: tuple[Grid, ...]
    replicas: int
    seed: int
    device: str
    dimension: int = 10
    half_width: float = 4.0  # of the cube of starts
    steps: int = 3000
    look: int = 20  # steps between two points of a drawn path: even, since full descent alternates; divides the steps
    window: int = 100  # last steps, over which a run must stay in the flattest basin
    radius: float = 0.1  # within which it must stay of the minimiser to count as settled

    @classmethod
    def cpu(cls, settings: Settings) -> Selection:
        """Take half the replicas."""
        return cls._of(settings, max(32, settings.replicas // 2), (BELOW_LR, 0.0635, 0.066, HEAD_LR))

    @classmethod
    def paper(cls, settings: Settings) -> Selection:
        """Take twenty times the replicas and steps between; paths of fewer points, which fit into memory."""
        steps = (0.057, 0.0585, BELOW_LR, 0.061, 0.062, 0.063, 0.0635, 0.064, 0.065, 0.066, 0.067, HEAD_LR)
        return replace(cls._of(settings, 20 * settings.replicas, steps), look=100)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, lr: tuple[float, ...]) -> Selection:
        small = (1, 2, HEAD, 8)
        grids = (
            Grid(WIDE, 0.0, lr, (*small, None)),
            Grid(WIDE, 0.001, (0.0635, HEAD_LR), small),
            Grid(WIDE, JITTER, (0.0635, HEAD_LR), small),
            Grid(NARROW, 0.0, (HEAD_LR, 0.072), small),
            Grid(EXPONENTIAL, 0.0, (HEAD_LR,), (1, HEAD, 16)),
        )
        return cls(grids, replicas, settings.seed, settings.device)


@dataclass(frozen=True, eq=False)
class Arm:
    """What became of N runs.

    flattest (N,): in the flattest basin over the whole window; settled (N,): close to its minimiser over the window;
    lost (N,): infinite. share, loss (T,): coordinates in the flat well and F along the way, means over finite runs.
    """

    weights: WeightLaw
    jitter: float
    batch_size: Batch
    lr: float
    flattest: NDArray[np.bool_]
    settled: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    share: Array
    loss: Array

    @property
    def chosen(self) -> Estimate:
        """Share of runs in the flattest minimiser."""
        return proportion(int(self.flattest.sum()), len(self.flattest))


@dataclass(frozen=True, eq=False)
class SelectionResult:
    """All arms, with paths over the steps (T,)."""

    config: Selection
    arms: tuple[Arm, ...]
    steps: NDArray[np.int64]
    seconds: float

    def arm(self, batch_size: Batch, lr: float = HEAD_LR, jitter: float = 0.0, weights: WeightLaw = WIDE) -> Arm:
        """Return one arm; raise KeyError naming it when it was not run."""
        wanted = (weights, jitter, batch_size, lr)
        for found in self.arms:
            if (found.weights, found.jitter, found.batch_size, found.lr) == wanted:
                return found
        raise KeyError(f"no arm of weights, jitter, batch size, lr {wanted}: add it to the grids of the configuration")


def run(config: Selection) -> SelectionResult:
    """Descend from every start in every arm."""
    clock = time.perf_counter()
    seeds = replica_seeds(config.seed, config.replicas, config.device)
    uniform = Streams(seeds, torch.float64).uniform(Purpose.INIT, 0, (config.dimension,))
    start = config.half_width * (2 * uniform - 1)
    arms = [arm for grid in config.grids for arm in _descend(config, grid, start, seeds)]
    steps = np.arange(len(arms[0].share)) * config.look
    return SelectionResult(config, tuple(arms), steps, time.perf_counter() - clock)


def _descend(config: Selection, grid: Grid, start: Tensor, seeds: Tensor) -> list[Arm]:
    """Return the arms of one grid."""
    problem = StyblinskiTang(grid.weights, grid.batch_sizes, grid.jitter)
    lr = np.tile(grid.lr, (len(grid.batch_sizes), 1))
    probes = {"share": every(config.look, share_flat), "loss": every(config.look, problem.loss)}
    done = release(problem, lr, start, seeds, config.steps, every(config.window, _extent), probes)
    lowest, farthest = done.tail[..., 0].min(axis=-1), done.tail[..., 1].max(axis=-1)
    flattest, settled = (lowest > TOP.x) & ~done.lost, (farthest < config.radius) & ~done.lost
    return [
        Arm(
            grid.weights,
            grid.jitter,
            k,
            rate,
            flattest[i, a],
            settled[i, a],
            done.lost[i, a],
            *(path[:, i, a, ~done.lost[i, a]].mean(axis=1) for path in done.records.values()),
        )
        for i, k in enumerate(grid.batch_sizes)
        for a, rate in enumerate(grid.lr)
    ]


def _extent(params: Params) -> Tensor:
    """Return the lowest coordinate and the largest distance of any to the flat minimiser, (R, 2)."""
    x = cast(Tensor, params)
    return torch.stack([x.amin(dim=1), (x - FLAT.x).abs().amax(dim=1)], dim=1)


def estimates(result: SelectionResult) -> Estimates:
    """Return what ten dimensions say about P2-C1 and P2-C15."""
    jittered = [result.arm(k, jitter=JITTER).chosen for k in (1, 2, HEAD)]
    runs, full = (result.arm(k).flattest.astype(np.float64) for k in (HEAD, None))
    return {
        "P2-C1.styblinski": paired_difference(runs, full),
        "P2-C15.window": result.arm(HEAD).chosen,
        "P2-C15.jitter": min(jittered, key=lambda share: share.value),
        "P2-C15.below": result.arm(HEAD, BELOW_LR).chosen,
    }


def tables(result: SelectionResult) -> dict[str, DataFrame]:
    """Return one row per arm, and the drawn paths of the main arms."""
    main = [arm for arm in result.arms if (arm.weights, arm.jitter, arm.lr) == (WIDE, 0.0, HEAD_LR)]
    paths = [
        DataFrame(
            {"batch_size": batch_name(arm.batch_size), "step": result.steps, "share_flat": arm.share, "loss": arm.loss}
        )
        for arm in main
    ]
    drawn = concat(paths, ignore_index=True)
    return {"selection": DataFrame([_row(arm) for arm in result.arms]), "selection_paths": drawn}


def _row(arm: Arm) -> dict[str, float | str]:
    problem, found = StyblinskiTang(arm.weights), arm.chosen
    edge, growth = problem.thresholds(arm.batch_size), problem.lyapunov(arm.lr, arm.batch_size)
    return {
        "weights": LAWS[arm.weights],
        "jitter": arm.jitter,
        "batch_size": batch_name(arm.batch_size),
        "lr": arm.lr,
        "of_sharp_threshold": arm.lr / edge.sharp,
        "of_flat_threshold": arm.lr / edge.flat,
        "lyapunov_sharp": growth.sharp,
        "lyapunov_flat": growth.flat,
        "flattest": found.value,
        "low": found.low,
        "high": found.high,
        "settled": float(arm.settled.mean()),
        "share_flat": float(arm.share[-1]),
        "loss": float(arm.loss[-1]),
        "infinite": float(arm.lost.mean()),
    }


SELECTION = Experiment(
    "selection", ("P2-C1", "P2-C15"), lambda settings: run(configure(Selection, settings)), estimates, tables
)

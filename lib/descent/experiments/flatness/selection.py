"""Which of 1024 minimisers descent on a Styblinski–Tang sum ends in, with controls for the noise and the weights.

One of them is flat in all ten coordinates, and it is the highest. Every arm starts from the same points of a cube.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import Purpose, every, sgd
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.flatness.wells import release
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.problems.styblinski import FLAT, TOP, StyblinskiTang, share_flat
from descent.stats import Estimate, paired_difference, proportion
from descent.theory.weights import Gamma, TwoPoint, WeightLaw

HEAD, HEAD_LR, BELOW_LR, JITTER = 4, 0.068, 0.060, 0.1  # what claims are stated at
WIDE, NARROW, EXPONENTIAL = TwoPoint(0.5), TwoPoint(0.3), Gamma(1.0)
LAWS = {WIDE: "1 ± 0.5", NARROW: "1 ± 0.3", EXPONENTIAL: "exponential"}
FEW = (1, 2, HEAD, 8)


@dataclass(frozen=True)
class Grid:
    """Arms of one weight law and one jitter: every step with every batch size."""

    weights: WeightLaw
    jitter: float
    lr: tuple[float, ...]
    batch_sizes: tuple[Batch, ...]


CONTROLS = (
    Grid(WIDE, 0.001, (0.0635, HEAD_LR), FEW),
    Grid(WIDE, JITTER, (0.0635, HEAD_LR), FEW),
    Grid(NARROW, 0.0, (HEAD_LR, 0.072), FEW),
    Grid(EXPONENTIAL, 0.0, (HEAD_LR,), (1, HEAD, 16)),
)
MORE = (0.057, 0.0585, BELOW_LR, 0.061, 0.062, 0.063, 0.0635, 0.064, 0.065, 0.066, 0.067, HEAD_LR)  # at paper scale


@dataclass(frozen=True)
class Selection:
    """Starts uniform in a cube, descended in every arm on the same noise; the first grid is the main one."""

    grids: tuple[Grid, ...] = (Grid(WIDE, 0.0, (BELOW_LR, 0.0635, 0.066, HEAD_LR), (*FEW, None)), *CONTROLS)
    replicas: Share = Share(over=2, least=32)
    dimension: int = 10
    half_width: float = 4.0  # of the cube of starts
    steps: int = 3000
    look: int = 20  # steps between two points of a drawn path: even, since full descent alternates; divides the steps
    window: int = 100  # last steps, over which a run must stay in the flattest basin
    radius: float = 0.1  # within which it must stay of the minimiser to count as settled


@dataclass(frozen=True, eq=False)
class Arm:
    """What became of N runs."""

    weights: WeightLaw
    jitter: float
    batch_size: Batch
    lr: float
    flattest: BoolArray  # (N,): in the flattest basin over the whole window
    settled: BoolArray  # (N,): close to its minimiser over the window
    lost: BoolArray  # (N,): infinite
    share: Array  # (T,): of coordinates in the flat well along the way, mean over finite runs
    loss: Array  # (T,): F along the way, alike

    @property
    def chosen(self) -> Estimate:
        """Share of runs in the flattest minimiser."""
        return proportion(int(self.flattest.sum()), len(self.flattest))


@dataclass(frozen=True, eq=False)
class SelectionResult(Result[Selection]):
    """All arms, with paths over the steps (T,)."""

    arms: tuple[Arm, ...]
    steps: NDArray[np.int64]

    def arm(self, batch_size: Batch, lr: float = HEAD_LR, jitter: float = 0.0, weights: WeightLaw = WIDE) -> Arm:
        """Return one arm; raise KeyError naming it when it was not run."""
        wanted = (weights, jitter, batch_size, lr)
        found = [arm for arm in self.arms if (arm.weights, arm.jitter, arm.batch_size, arm.lr) == wanted]
        if not found:
            raise KeyError(f"no arm of weights, jitter, batch size, lr {wanted}: add it to the grids configured")
        return found[0]

    def arms_at(self, weights: WeightLaw, jitter: float) -> list[Arm]:
        """Return the arms of one weight law and one jitter at the step that claims are stated at."""
        return [arm for arm in self.arms if (arm.weights, arm.jitter, arm.lr) == (weights, jitter, HEAD_LR)]


def run(config: Selection, lab: Lab) -> SelectionResult:
    """Descend from every start in every arm."""
    uniform = lab.streams(config.replicas, torch.float64).uniform(Purpose.INIT, 0, (config.dimension,))
    start = config.half_width * (2 * uniform - 1)
    found: list[Arm] = []

    def extent(x: Tensor) -> Tensor:  # the lowest coordinate, the largest distance to the flat minimiser, (R, 2)
        return torch.stack([x.amin(dim=1), (x - FLAT.x).abs().amax(dim=1)], dim=1)

    for grid in config.grids:
        problem = StyblinskiTang(grid.weights, grid.batch_sizes, grid.jitter)
        cells = [(k, lr) for k in grid.batch_sizes for lr in grid.lr]
        arms = lab.arms(sgd([lr for _, lr in cells]), config.replicas, torch.float64)
        watched = {"share": every(config.look, share_flat), "loss": every(config.look, problem.loss)}
        early, late = release(arms, problem, start, config.steps, every(config.window, extent), **watched)
        tail, lost = late["tail"], late.lost
        flattest = (tail[..., 0].min(axis=-1) > TOP.x) & ~lost
        settled = (tail[..., 1].max(axis=-1) < config.radius) & ~lost
        means = [[row[~gone].mean(axis=0) for row, gone in zip(early[name], lost, strict=True)] for name in watched]
        parts = zip(cells, flattest, settled, lost, *means, strict=True)
        found += [Arm(grid.weights, grid.jitter, *cell, *values) for cell, *values in parts]
    return SelectionResult(config, lab, tuple(found), np.arange(len(found[0].share)) * config.look)


def estimates(result: SelectionResult) -> Estimates:
    """Return what ten dimensions say about P2-C1 and P2-C15."""
    runs, full = (result.arm(k).flattest.astype(np.float64) for k in (HEAD, None))
    return {
        "P2-C1.styblinski": paired_difference(runs, full),
        "P2-C15.window": result.arm(HEAD).chosen,
        "P2-C15.jitter": [result.arm(k, jitter=JITTER).chosen for k in (1, 2, HEAD)],
        "P2-C15.below": result.arm(HEAD, BELOW_LR).chosen,
    }


def tables(result: SelectionResult) -> Tables:
    """Return one row per arm, and the drawn paths of the main arms."""
    main = result.arms_at(WIDE, 0.0)
    paths = tidy(
        {"batch_size": [batch_name(arm.batch_size) for arm in main], "step": result.steps},
        share_flat=[arm.share for arm in main], loss=[arm.loss for arm in main],
    )  # fmt: skip
    rows = []
    for arm in result.arms:
        problem, found = StyblinskiTang(arm.weights), arm.chosen
        edge, growth = problem.thresholds(arm.batch_size), problem.lyapunov(arm.lr, arm.batch_size)
        rows.append({
            "weights": LAWS[arm.weights], "jitter": arm.jitter, "batch_size": batch_name(arm.batch_size), "lr": arm.lr,
            "of_sharp_threshold": arm.lr / edge.sharp, "of_flat_threshold": arm.lr / edge.flat,
            "lyapunov_sharp": growth.sharp, "lyapunov_flat": growth.flat,
            "flattest": found.value, "low": found.low, "high": found.high, "settled": float(arm.settled.mean()),
            "share_flat": float(arm.share[-1]), "loss": float(arm.loss[-1]), "infinite": float(arm.lost.mean()),
        })  # fmt: skip
    return {"selection": DataFrame(rows), "selection_paths": paths}


SELECTION = Experiment(
    "selection", small=Selection(), run=run, estimates=estimates, tables=tables,
    large=Selection(
        grids=(Grid(WIDE, 0.0, MORE, (*FEW, None)), *CONTROLS),
        replicas=Share(times=20), look=100,  # paths of fewer points, which fit into memory
    ),
)  # fmt: skip

"""Both wells of a Styblinski–Tang sum in one dimension: leaving a minimiser is not leaving its basin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import ArmRun, Arms, Every, Probe, Purpose, column, every, sgd
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.problems.styblinski import FLAT, SHARP, TOP, StyblinskiTang, crisis, cycle
from descent.stats import Estimate, proportion
from descent.theory.weights import TwoPoint, WeightLaw

SETTLED_SHARP, SETTLED_FLAT, LEFT, RIGHT, INFINITE = range(5)
OUTCOMES = ("settled sharp", "settled flat", "unsettled, sharp basin", "unsettled, flat basin", "infinite")
BOTH = (SHARP, FLAT)  # where runs start
SAME = 1e-6  # how close two points are that count as one
CHECK = 20  # steps between two looks for runs that went to infinity
HEAD, ABOVE, INSIDE = 4, 1.25, 1.1  # the batch size and the multiples of its own threshold that claims are stated at


@dataclass(frozen=True)
class Wells:
    """Runs released close to either minimiser, the step at multiples of the sharp one's mean-square threshold."""

    weights: WeightLaw = TwoPoint(0.5)
    multiples: tuple[float, ...] = (0.8, 0.9, INSIDE, ABOVE, 1.4, 1.6)
    replicas: Share = Share(over=2, least=32)
    batch_sizes: tuple[Batch, ...] = (1, 2, HEAD, 16, None)
    near: float = 1e-3  # standard deviation of the starts around the minimiser
    steps: int = 4000
    window: int = 100  # last steps, over which a settled run stays within `radius` of a minimiser
    radius: float = 0.1

    @property
    def problem(self) -> StyblinskiTang:
        """The sum, seen through every batch size."""
        return StyblinskiTang(self.weights, self.batch_sizes)

    @property
    def lr(self) -> Array:
        """Steps (K, M)."""
        edges = [self.problem.thresholds(k).sharp for k in self.batch_sizes]
        return np.outer(edges, self.multiples)

    def cell(self, batch_size: Batch, multiple: float) -> tuple[int, int]:
        """Return the place of a batch size and a multiple."""
        return self.batch_sizes.index(batch_size), self.multiples.index(multiple)


@dataclass(frozen=True, eq=False)
class WellsResult(Result[Wells]):
    """K batch sizes, M multiples, two wells to start from (sharp, flat), N replicas."""

    outcome: NDArray[np.int64]  # (K, M, 2, N): index into OUTCOMES
    returns: Array  # (K, M, 2, N): largest distance between iterates two steps apart over the window
    band: Array  # (M, 2): lowest and highest point of full-batch runs from the sharp well over the window

    def share(self, batch_size: Batch, multiple: float, *outcomes: int) -> Estimate:
        """Return the share of runs from the sharp well that ended in one of the outcomes."""
        found = self.outcome[(*self.config.cell(batch_size, multiple), 0)]
        return proportion(int(np.isin(found, outcomes).sum()), len(found))

    def cycling(self, batch_size: Batch, multiple: float) -> Estimate:
        """Return the share of runs from the sharp well that come back to the same point every two steps."""
        found = self.returns[(*self.config.cell(batch_size, multiple), 0)]
        return proportion(int((found < SAME).sum()), len(found))


def release(
    arms: Arms, problem: StyblinskiTang, start: Tensor, steps: int, last: Every[Tensor], **probes: Probe[Tensor]
) -> tuple[ArmRun[Tensor], ArmRun[Tensor]]:
    """Descend under the probes up to the last `last.every` steps, then under the probe "tail" at every one of them."""
    early = arms.run(problem, start, steps - last.every, probes=probes, check=CHECK)
    return early, early.then(steps, probes={"tail": every(1, last.function)})


def classify(tail: Array, lost: BoolArray, radius: float) -> NDArray[np.int64]:
    """Return the outcome of runs of one coordinate from their last steps, (…, T) and (…) → (…)."""
    outcome = np.where(tail[..., -1] > TOP.x, RIGHT, LEFT)
    for well, settled in ((SHARP, SETTLED_SHARP), (FLAT, SETTLED_FLAT)):
        outcome = np.where((np.abs(tail - well.x) < radius).all(axis=-1), settled, outcome)
    return np.where(lost, INFINITE, outcome)


def run(config: Wells, lab: Lab) -> WellsResult:
    """Release runs at both wells for every batch size and step."""
    shape = (*config.lr.shape, len(BOTH))
    lr, wells = (np.broadcast_to(x, shape).ravel() for x in (config.lr[..., None], [well.x for well in BOTH]))
    arms = lab.arms(sgd(lr.tolist()), config.replicas, torch.float64)
    offset = config.near * arms.streams.normal(Purpose.INIT, 0, (1,))
    start = arms.spread(wells, torch.float64)[:, None] + offset
    _, late = release(arms, config.problem, start, config.steps, every(config.window, column(0)))
    tail, lost = (values.reshape(*shape, arms.replicas, *values.shape[2:]) for values in (late["tail"], late.lost))
    full = tail[config.batch_sizes.index(None), :, 0]
    with np.errstate(invalid="ignore"):  # infinite runs, set right below; all sizes at once take too much memory
        apart = np.stack([np.abs(last[..., 2:] - last[..., :-2]).max(axis=-1) for last in tail])
    outcome = np.stack([classify(last, gone, config.radius) for last, gone in zip(tail, lost, strict=True)])
    band = np.stack([full.min(axis=(1, 2)), full.max(axis=(1, 2))], axis=1)
    return WellsResult(config, lab, outcome, np.where(lost, math.inf, apart), band)


def estimates(result: WellsResult) -> Estimates:
    """Return what one coordinate says about P2-C13 and P2-X7."""
    return {
        "P2-C13.rejected": result.share(HEAD, ABOVE, SETTLED_SHARP),
        "P2-C13.sgd": result.share(HEAD, ABOVE, SETTLED_FLAT),
        "P2-C13.descent": result.share(None, INSIDE, SETTLED_FLAT),
        "P2-C13.descent_first": result.share(None, ABOVE, SETTLED_FLAT),
        "P2-X7.left_minimiser": result.share(None, ABOVE, SETTLED_FLAT, LEFT, RIGHT, INFINITE),
        "P2-X7.kept_basin": result.share(None, ABOVE, SETTLED_SHARP, LEFT),
        "P2-X7.cycle": result.cycling(None, INSIDE),
        "P2-X7.cycle_first": result.cycling(None, ABOVE),
    }


def tables(result: WellsResult) -> Tables:
    """Return the share of every outcome, one row per batch size, step and start, and the cycles of full descent."""
    config, problem, sizes = result.config, result.config.problem, result.config.batch_sizes
    lr, replicas = config.lr, result.outcome.shape[-1]
    growth = np.array([[problem.lyapunov(float(x), k) for x in rates] for k, rates in zip(sizes, lr, strict=True)])
    edges = [[problem.thresholds(k).flat] for k in sizes]
    beyond = np.array(config.multiples) > 1
    steps = lr[sizes.index(None), beyond]
    low, high, multiplier = np.array([cycle(float(rate)) for rate in steps]).T
    return {
        "styblinski_outcomes": tidy(
            {"batch_size": [batch_name(k) for k in sizes], "multiple": config.multiples, "start": ("sharp", "flat")},
            lr=lr[..., None], replicas=replicas, of_flat_threshold=(lr / edges)[..., None],
            lyapunov_sharp=growth[..., :1], lyapunov_flat=growth[..., 1:],
            **{name: (result.outcome == i).sum(axis=-1) / replicas for i, name in enumerate(OUTCOMES)},
        ),
        "styblinski_cycles": tidy(
            {"multiple": np.array(config.multiples)[beyond]}, lr=steps, of_crisis=steps / crisis(),
            cycle_low=low, cycle_high=high, multiplier=multiplier,
            band_low=result.band[beyond, 0], band_high=result.band[beyond, 1],
        ),
    }  # fmt: skip


WELLS = Experiment(
    "wells", small=Wells(), run=run, estimates=estimates, tables=tables,
    large=Wells(
        multiples=(0.8, 0.9, 1.0, 1.05, INSIDE, 1.15, 1.2, ABOVE, 1.3, 1.4, 1.5, 1.6), replicas=Share(times=20)
    ),
)  # fmt: skip

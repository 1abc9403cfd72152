"""The exact threshold between its bounds: random ensembles, and how all of them move with the batch size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat

from descent.arrays import Array
from descent.engine import Purpose
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.problems.quadratics import FOUR_ATOMS
from descent.stats import Estimate, exact, median, proportion
from descent.theory.moments import Finite, Gaussian, Moments, Weighted, bounds, cheap_bounds, step_range, threshold

LOWER, THRESHOLD, UPPER, TOP, MEAN = range(5)
NAMES = ("lower", "threshold", "upper", "cheap_top", "cheap_mean")

ROUNDING = 1e-9  # by which two equal thresholds may differ

STEEP = Gaussian((10.0, 1.0, 0.1))
ISOTROPIC = Gaussian((1.0,) * 10)


@dataclass(frozen=True)
class Sandwich:
    """Random ensembles, half with Hessians of rank one, half of rank two; sizes of examples differ by factors e."""

    ensembles: Share | int = Share(least=32)
    batch_sizes: tuple[int, ...] = (2, 4, 8, 32)  # of which each is bounded at one, beside one example
    dimensions: tuple[int, ...] = (2, 3, 4)
    least: int = 2  # examples, to `most` of them
    most: int = 8
    curve: tuple[int, ...] = tuple(int(k) for k in np.unique(np.geomspace(1, 1000, 31).round()))
    large: tuple[int, ...] = (10_000, 100_000, 1_000_000)  # at which the limit and its rate are read off


@dataclass(frozen=True, eq=False)
class SandwichResult(Result[Sandwich]):
    """Bounds and thresholds in the order of NAMES."""

    single: Array  # (N, 5): random ensembles at one example per step
    batched: Array  # (N, 5): at `batch_size`
    batch_size: NDArray[np.int64]  # (N,)
    limit: Array  # (N + 4,): the threshold at the largest batch over that of descent, named ensembles last
    atoms: Array  # (K, 5): against the batch size
    steep: Array  # (K, 5)
    steps: Array  # (K, 2): largest one-step ratio just below the lower bound and smallest just above the upper, atoms
    rate: float  # exponent in k of what the threshold still lacks

    @property
    def ratios(self) -> dict[str, Array]:
        """How far each bound is from the threshold at one example per step, as ratios ≥ 1, (N,) each."""
        low, star, high, top, mean = self.single.T
        return {"lower": star / low, "upper": high / star, "top": top / star, "mean": mean / star}

    def crossed(self, lower: int, upper: int) -> Estimate:
        """Return the share of random ensembles in which what should be lower is not, at either of their batch sizes."""
        over = [rows[:, lower] > rows[:, upper] * (1 + ROUNDING) for rows in (self.single, self.batched)]
        return proportion(int(np.logical_or(*over).sum()), len(self.single))


def run(config: Sandwich, lab: Lab) -> SandwichResult:
    """Bound the threshold of every ensemble; nothing here is simulated."""
    drawn, sizes = draw(config, lab)
    atoms, curve, large = Finite(FOUR_ATOMS), config.curve, config.large
    named: list[Moments] = [atoms, STEEP, ISOTROPIC, Weighted()]
    edges = [(k, *bounds(atoms, k)) for k in curve]
    lacking = [2 / atoms.curvatures.max() - threshold(atoms, k) for k in large]
    return SandwichResult(
        config, lab,
        single=np.array([row(problem, 1) for problem in drawn]),
        batched=np.array([row(problem, int(k)) for problem, k in zip(drawn, sizes, strict=True)]),
        batch_size=sizes,
        limit=np.array([threshold(p, large[-1]) * p.curvatures.max() / 2 for p in (*drawn, *named)]),
        atoms=np.array([row(atoms, k) for k in curve]),
        steep=np.array([row(STEEP, k) for k in curve]),
        steps=np.array([(step_range(atoms, 0.99 * a, k)[1], step_range(atoms, 1.01 * b, k)[0]) for k, a, b in edges]),
        rate=float(np.polyfit(np.log(large), np.log(lacking), 1)[0]),
    )  # fmt: skip


def row(problem: Moments, batch_size: int) -> tuple[float, ...]:
    """Return the bounds and the threshold in the order of NAMES."""
    low, high = bounds(problem, batch_size)
    return (low, threshold(problem, batch_size), high, *cheap_bounds(problem, batch_size))


def draw(config: Sandwich, lab: Lab) -> tuple[list[Moments], NDArray[np.int64]]:
    """Draw the ensembles, Hessians Σ_j f_j f_jᵀ of one or two vectors per example, and a batch size for each."""
    streams, d = lab.streams(config.ensembles, torch.float64), max(config.dimensions)
    shapes = (config.most, 2, d), (config.most,)
    ranges = len(config.dimensions), config.most - config.least + 1, 2, len(config.batch_sizes)
    roots, scales = (streams.normal(Purpose.DATA, i, shape).cpu().numpy() for i, shape in enumerate(shapes))
    *picked, sizes = (streams.integers(Purpose.DATA, 2 + i, high).cpu().numpy() for i, high in enumerate(ranges))
    drawn: list[Moments] = []
    for f, kind, more, second in zip(roots * np.exp(scales)[:, :, None, None], *picked, strict=True):
        some = f[: config.least + more, : 1 + second, : config.dimensions[kind]]
        drawn.append(Finite(some.swapaxes(1, 2) @ some if second else some[:, 0]))
    return drawn, np.array(config.batch_sizes)[sizes]


def estimates(result: SandwichResult) -> Estimates:
    """Return what the bounds say about P2-C4, P2-C5, P2-C7 and P2-X1."""
    both = np.concatenate([result.single, result.batched])
    star, cheap, seed = both[:, THRESHOLD], both[:, TOP:].min(axis=1), result.lab.seed
    named = result.limit[len(result.single) :]
    return {
        "P2-C4.bound": result.crossed(LOWER, THRESHOLD),
        "P2-C4.contracts": exact(result.steps[:, 0].max()),
        "P2-C5.bound": result.crossed(THRESHOLD, UPPER),
        "P2-C5.expands": exact(result.steps[:, 1].min()),
        "P2-C7.limit": exact(named[np.abs(named - 1).argmax()]),
        "P2-C7.rate": exact(result.rate),
        "P2-X1.loose": median(result.ratios["lower"], seed),
        "P2-X1.cheap": median(cheap / star, seed),
    }


def tables(result: SandwichResult) -> Tables:
    """Return the bounds of all random ensembles, and those of two named ones against the batch size."""
    random = (result.single, 1), (result.batched, result.batch_size)
    named = ("four atoms", result.atoms), ("Gaussian 10, 1, 0.1", result.steep)
    singles = [DataFrame(values, columns=NAMES).assign(batch_size=k) for values, k in random]
    curves = [DataFrame(curve, columns=NAMES).assign(ensemble=n, batch_size=result.config.curve) for n, curve in named]
    return {"bounds_random": concat(singles, ignore_index=True), "bounds_curves": concat(curves, ignore_index=True)}


SANDWICH = Experiment(
    "sandwich", small=Sandwich(), large=Sandwich(Share(times=30)), run=run, estimates=estimates, tables=tables
)

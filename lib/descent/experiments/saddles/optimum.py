"""Hovering at an optimum: stationary variance, memory and shape, and where momentum stops adding noise.

Streaming PCA starts at its optimum, so that no late escape gets in; the diffusion limit says how far it hovers. A
quadratic on a grid of lr × curvature and momentum shows where that limit ends and the sign of the effect turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from descent.arrays import Array
from descent.engine import column, every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import ByMomentum
from descent.problems.pca import StreamingPCA
from descent.problems.saddle import Quadratic
from descent.stats import Estimate, bootstrap, ks_distance, mean, paired_ratio, variance_ratio
from descent.theory.diffusion import diffusion_floor
from descent.theory.mode import stationary_variance

SLOWEST = 1  # the coordinate of the smallest curvature, λ_0 − λ_1
SHARP, EDGE = 1.9, 1.5  # lr × curvature at which momentum lowers the variance, and at which it leaves it


@dataclass(frozen=True)
class Optimum:
    """Streaming PCA started at its optimum, and a quadratic on a grid of lr × curvature and momentum."""

    problem: StreamingPCA = StreamingPCA()
    momentum: tuple[float, ...] = (0.0, 0.5)  # and the headline
    larger: float = 4.0  # times the lab's learning rate, where the linearisation breaks; left out where arms blow up
    tame: float = 0.03  # effective step above which they do
    replicas: Share = Share()
    sharpness: tuple[float, ...] = (0.2, 0.6, 1.0, EDGE, SHARP)  # lr × curvature on the grid
    grid_momentum: tuple[float, ...] = (0.5, 0.9)
    grid_replicas: Share = Share(times=2)
    relaxations: float = 5.0  # of plain descent, (1 − momentum)/(lr·gap), to burn in
    window: float = 20.0  # of them watched: then a ratio of plain descent's variance is known to half of five per cent

    def rates(self, lab: Lab) -> tuple[float, ...]:
        """Return the learning rates, the lab's first."""
        larger = self.larger * lab.lr
        return (lab.lr, larger) if larger <= self.tame * (1 - lab.momentum) else (lab.lr,)

    def relaxation(self, lr: float, momentum: float) -> float:
        """Return the relaxation time of the slowest coordinate in steps, (1 − momentum)/(lr·gap)."""
        return (1 - momentum) / (lr * self.problem.gap(SLOWEST))


@dataclass(frozen=True, eq=False)
class Hover:
    """Stationary paths of the surviving replicas at one learning rate, looked at every `frame` steps.

    error (A, N): time averages; paths (A, N, T, d − 1): the coordinates beside the optimum, on the unit sphere;
    diverged (A,): replicas that blew up.
    """

    lr: float
    frame: int
    error: Array
    paths: Array
    diverged: Array


@dataclass(frozen=True, eq=False)
class OptimumResult(ByMomentum):
    """Stationary behaviour of streaming PCA (one `Hover` per lr), and of a quadratic on a grid.

    floor (L, A): stationary error of the diffusion limit. grid (S, 1 + M, N, T): stationary values of the quadratic at
    each lr × curvature, plain first; grid_exact (S, M): variance over plain descent's.
    """

    config: Optimum
    lab: Lab
    hovers: tuple[Hover, ...]
    floor: Array
    grid: Array
    grid_exact: Array


def run(config: Optimum, lab: Lab) -> OptimumResult:
    """Hover at the optimum of streaming PCA and of quadratics."""
    momentum, rates = lab.momenta(config.momentum), config.rates(lab)
    sharpness, strong = np.array(config.sharpness)[:, None], np.array(config.grid_momentum)
    cells = lab.arms(heavy_ball(*zip(*product(config.sharpness, (0.0, *strong)), strict=True)), config.grid_replicas)
    begun = cells.run(Quadratic((1.0,)), torch.zeros(1, 1), 200)
    grid = begun.then(600, probes={"": every(4, column(0))})[""]
    return OptimumResult(
        config, lab,
        hovers=tuple(_hover(config, lab, lr, momentum) for lr in rates),
        floor=config.problem.floor(np.array(rates)[:, None], momentum),
        grid=grid.reshape(len(sharpness), -1, *grid.shape[1:]),
        grid_exact=stationary_variance(1.0, sharpness, strong) / stationary_variance(1.0, sharpness, 0.0),
    )  # fmt: skip


def _hover(config: Optimum, lab: Lab, lr: float, momentum: tuple[float, ...]) -> Hover:
    """Let every arm forget its start, then watch it, two looks to a relaxation time of the headline arm."""
    begin, end = (
        round(n * config.relaxation(lr, 0.0)) for n in (config.relaxations, config.relaxations + config.window)
    )
    frame = max(1, round(config.relaxation(lr, lab.momentum) / 2))
    arms = lab.arms(heavy_ball(lr, momentum), config.replicas)
    watched = arms.run(config.problem, config.problem.at(0), begin).then(end, probes={"": every(frame, _beside)})
    paths = watched[""][:, watched.alive]
    return Hover(lr, frame, (paths**2).sum(axis=-1).mean(axis=2), paths, watched.lost.sum(axis=1))


def _beside(v: Tensor) -> Tensor:
    """Return the coordinates beside the optimum, on the unit sphere."""
    return v[:, 1:] / v.square().sum(dim=1, keepdim=True).sqrt()


def estimates(result: OptimumResult) -> Estimates:
    """Return what hovering says about P3-C2, P3-C6 and P3-X3."""
    config, seed, headline = result.config, result.lab.seed, result.lab.momentum
    hover, head = result.hovers[0], result.arm(headline)
    slow = hover.paths[head, :, :, SLOWEST - 1]
    variance = diffusion_floor(config.problem.gap(), hover.lr, headline, config.problem.noise())
    sharp, edge = (config.sharpness.index(s) for s in (SHARP, EDGE))
    rescaled = result.grid[sharp, 1] / result.grid_exact[sharp, 0] ** 0.5
    bell = norm(scale=float(variance) ** 0.5)
    return {
        "P3-C2.noisier": paired_ratio(hover.error[head], hover.error[0], seed),
        "P3-C2.size": paired_ratio(hover.error[head], hover.error[0] / (1 - headline), seed),
        "P3-C6.variance": variance_ratio(slow, variance, seed),
        "P3-C6.memory": memory(result, hover, head),
        "P3-C6.gaussian": ks_distance(slow[:, -1], bell.cdf).estimate(),
        "P3-X3.lower": variance_ratio(result.grid[sharp, 1], result.grid[sharp, 0], seed),
        "P3-X3.size": variance_ratio(rescaled, result.grid[sharp, 0], seed),
        "P3-X3.boundary": variance_ratio(result.grid[edge, 1], result.grid[edge, 0], seed),
    }


def memory(result: OptimumResult, hover: Hover, arm: int) -> Estimate:
    """Return the autocorrelation of the slowest coordinate about one relaxation time on, minus e^{−lag/relaxation}."""
    x = hover.paths[arm, :, :, SLOWEST - 1]
    relaxation = result.config.relaxation(hover.lr, result.momentum[arm])
    lag = max(1, round(relaxation / hover.frame))
    expected = np.exp(-lag * hover.frame / relaxation)
    moments = np.stack([(x[:, lag:] * x[:, :-lag]).mean(axis=1), (x**2).mean(axis=1)], axis=1)

    def excess(drawn: Array) -> Array:
        average = drawn.mean(axis=1)
        return np.asarray(average[:, 0] / average[:, 1] - expected)

    return bootstrap(excess, moments, seed=result.lab.seed)


def tables(result: OptimumResult) -> Tables:
    """Return stationary errors and variances of streaming PCA, and the variance ratios of the quadratic."""
    config, seed, problem = result.config, result.lab.seed, result.config.problem
    lr, arms = np.array([hover.lr for hover in result.hovers]), result.momentum
    coordinates = range(1, len(problem.eigenvalues))
    laws = {i: diffusion_floor(problem.gap(i), lr[:, None], arms, problem.noise(i)) for i in coordinates}
    squares = {
        i: [[(path[:, :, i - 1] ** 2).mean() for path in hover.paths] for hover in result.hovers] for i in coordinates
    }
    hovers = tidy(
        {"lr": lr, "momentum": arms}, error=[each(mean, hover.error) for hover in result.hovers], floor=result.floor,
        value=[each(paired_ratio, hover.error, hover.error[:1], seed=seed) for hover in result.hovers],
        **{f"variance_{i}": squares[i] / laws[i] for i in coordinates},
        memory=[[memory(result, hover, arm).value for arm in range(len(arms))] for hover in result.hovers],
        diverged=[hover.diverged for hover in result.hovers],
    ).rename(columns={"value": "ratio"})  # fmt: skip
    pairs = [[variance_ratio(values, plain, seed) for values in more] for plain, *more in result.grid]
    grid = tidy(
        {"lr_curvature": config.sharpness, "momentum": config.grid_momentum}, value=pairs, exact=result.grid_exact
    )
    return {"optimum": hovers, "noise_ratio": grid.rename(columns={"value": "ratio"})}


LARGE = Optimum(replicas=Share(times=20), grid_replicas=Share(times=20))
OPTIMUM = Experiment("optimum", small=Optimum(), large=LARGE, run=run, estimates=estimates, tables=tables)

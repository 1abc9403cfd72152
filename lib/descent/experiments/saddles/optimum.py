"""Hovering at an optimum: stationary variance, memory and shape, and where momentum stops adding noise."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from scipy.stats import norm
from torch import Tensor

from descent.engine.probes import Params, every
from descent.experiments.arms import Arms, Array, column, configure, momenta, paired_ratio, settle, survivors
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.pca import StreamingPCA
from descent.problems.saddle import Quadratic
from descent.stats.estimate import Estimate
from descent.stats.intervals import KS, bootstrap, ks_distance, mean, variance_ratio
from descent.theory.diffusion import diffusion_floor
from descent.theory.mode import stationary_variance

SLOWEST = 1  # the coordinate of the smallest curvature, λ_0 − λ_1


@dataclass(frozen=True)
class Optimum:
    """Streaming PCA started at its optimum, and a quadratic on a grid of lr × curvature and momentum."""

    problem: StreamingPCA
    lr: tuple[float, ...]  # headline first; a larger one shows where the linearisation breaks
    momentum: tuple[float, ...]
    headline: float
    replicas: int
    seed: int
    device: str
    sharpness: tuple[float, ...] = (0.2, 0.6, 1.0, 1.5, 1.9)  # lr × curvature on the grid
    grid_momentum: tuple[float, ...] = (0.5, 0.9)
    grid_replicas: int = 2000
    relaxations: float = 5.0  # burn-in and window, each in relaxation times (1 − momentum)/(lr·gap) of plain descent

    @classmethod
    def cpu(cls, settings: Settings) -> Optimum:
        """Take three momenta at the headline lr and at four times it."""
        return cls._of(settings, settings.replicas, 2 * settings.replicas)

    @classmethod
    def paper(cls, settings: Settings) -> Optimum:
        """Take twenty times the replicas."""
        return cls._of(settings, 20 * settings.replicas, 20 * settings.replicas)

    @classmethod
    def _of(cls, settings: Settings, replicas: int, grid: int) -> Optimum:
        rates = [factor * settings.lr for factor in (1, 4)]
        tame = [lr for lr in rates if lr == settings.lr or lr <= 0.03 * (1 - settings.momentum)]
        return cls(
            StreamingPCA(),
            tuple(tame),
            momenta((0.0, 0.5), settings.momentum),
            settings.momentum,
            replicas,
            settings.seed,
            settings.device,
            grid_replicas=grid,
        )

    def relaxation(self, lr: float, momentum: float) -> float:
        """Return the relaxation time of the slowest coordinate in steps, (1 − momentum)/(lr·gap)."""
        return (1 - momentum) / (lr * self.problem.gap(SLOWEST))

    def frame(self, lr: float) -> int:
        """Return the steps between two looks, half a relaxation time of the headline arm."""
        return max(1, round(self.relaxation(lr, self.headline) / 2))

    def row(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


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
class OptimumResult:
    """Stationary behaviour of streaming PCA (one `Hover` per lr), and of a quadratic on a grid.

    floor (L, A): stationary error of the diffusion limit. grid (S, 1 + M, N, T): stationary values of the quadratic at
    each lr × curvature, plain first; grid_exact (S, M): variance over plain descent's.
    """

    config: Optimum
    hovers: tuple[Hover, ...]
    floor: Array
    grid: Array
    grid_exact: Array
    seconds: float


def run(config: Optimum) -> OptimumResult:
    """Hover at the optimum of streaming PCA and of quadratics."""
    clock = time.perf_counter()
    rates, arms = np.array(config.lr)[:, None], np.array(config.momentum)
    sharpness, strong = np.array(config.sharpness)[:, None], np.array(config.grid_momentum)
    exact = stationary_variance(1.0, sharpness, strong) / stationary_variance(1.0, sharpness, 0.0)
    hovers = tuple(_hover(config, lr) for lr in config.lr)
    floor = config.problem.floor(rates, arms)
    return OptimumResult(config, hovers, floor, _grid(config), exact, time.perf_counter() - clock)


def _hover(config: Optimum, lr: float) -> Hover:
    """Let every arm forget its start, then watch it."""
    arms = Arms((lr,) * len(config.momentum), config.momentum, config.replicas, config.seed, config.device)
    span, frame = round(config.relaxations * config.relaxation(lr, 0.0)), config.frame(lr)
    start = config.problem.at(0, arms.rows).to(config.device)
    end, series = settle(config.problem, start, arms, span, span, every(frame, _beside))
    paths = arms.split_series(series)[:, survivors(arms, end)]
    lost = (arms.split(end.diverged_at) >= 0).sum(axis=1)
    return Hover(lr, frame, (paths**2).sum(axis=-1).mean(axis=2), paths, lost)


def _beside(params: Params) -> Tensor:
    """Return the coordinates beside the optimum, on the unit sphere."""
    v = cast(Tensor, params)
    return v[:, 1:] / v.square().sum(dim=1, keepdim=True).sqrt()


def _grid(config: Optimum) -> Array:
    """Return stationary values of the unit quadratic, (S, 1 + M, N, T)."""
    momentum = (0.0, *config.grid_momentum)
    pairs = list(product(config.sharpness, momentum))
    rates, inertia = zip(*pairs, strict=True)
    arms = Arms(rates, inertia, config.grid_replicas, config.seed, config.device)
    start = torch.zeros(arms.rows, 1, device=config.device)
    _, series = settle(Quadratic((1.0,)), start, arms, 200, 400, every(4, column(0)))
    values = arms.split_series(series)
    return values.reshape(len(config.sharpness), len(momentum), *values.shape[1:])


def estimates(result: OptimumResult) -> Estimates:
    """Return what hovering says about P3-C2, P3-C6 and P3-X3."""
    config, seed = result.config, result.config.seed
    hover, head = result.hovers[0], config.row(config.headline)
    slow = hover.paths[head, :, :, SLOWEST - 1]
    variance = diffusion_floor(config.problem.gap(), hover.lr, config.headline, config.problem.noise())
    sharp, edge = (config.sharpness.index(s) for s in (1.9, 1.5))
    rescaled = result.grid[sharp, 1] / result.grid_exact[sharp, 0] ** 0.5
    return {
        "P3-C2.noisier": paired_ratio(hover.error[head], hover.error[0], seed),
        "P3-C2.size": paired_ratio(hover.error[head], hover.error[0] / (1 - config.headline), seed),
        "P3-C6.variance": variance_ratio(slow, variance, seed),
        "P3-C6.memory": memory(result, hover, head),
        "P3-C6.gaussian": gaussian(slow[:, -1], float(variance)).estimate(),
        "P3-X3.lower": grid_ratio(result, sharp, 0),
        "P3-X3.size": variance_ratio(rescaled, result.grid[sharp, 0], seed),
        "P3-X3.boundary": grid_ratio(result, edge, 0),
    }


def memory(result: OptimumResult, hover: Hover, arm: int) -> Estimate:
    """Return the autocorrelation of the slowest coordinate about one relaxation time on, minus e^{−lag/relaxation}."""
    config, x = result.config, hover.paths[arm, :, :, SLOWEST - 1]
    relaxation = config.relaxation(hover.lr, config.momentum[arm])
    lag = max(1, round(relaxation / hover.frame))
    expected = np.exp(-lag * hover.frame / relaxation)
    moments = np.stack([(x[:, lag:] * x[:, :-lag]).mean(axis=1), (x**2).mean(axis=1)], axis=1)

    def excess(drawn: Array) -> Array:
        average = drawn.mean(axis=1)
        return np.asarray(average[:, 0] / average[:, 1] - expected)

    return bootstrap(excess, moments, seed=config.seed)


def gaussian(slice_: Array, variance: float) -> KS:
    """Return the distance of one value per replica from the normal law of that variance."""
    return ks_distance(slice_, lambda x: norm.cdf(x, scale=variance**0.5))


def grid_ratio(result: OptimumResult, sharpness: int, momentum: int) -> Estimate:
    """Return the stationary variance with momentum over plain descent's at one point of the grid."""
    values = result.grid[sharpness]
    return variance_ratio(values[1 + momentum], values[0], result.config.seed)


def tables(result: OptimumResult) -> dict[str, DataFrame]:
    """Return stationary errors and variances of streaming PCA, and the variance ratios of the quadratic."""
    config = result.config
    hovers = [_hover_row(result, i, a) for i in range(len(result.hovers)) for a in range(len(config.momentum))]
    grid = [_grid_row(result, s, m) for s in range(len(config.sharpness)) for m in range(len(config.grid_momentum))]
    return {"optimum": DataFrame(hovers), "noise_ratio": DataFrame(grid)}


def _hover_row(result: OptimumResult, index: int, arm: int) -> dict[str, float]:
    config, hover = result.config, result.hovers[index]
    level, ratio = mean(hover.error[arm]), paired_ratio(hover.error[arm], hover.error[0], config.seed)
    row: dict[str, float] = {"lr": hover.lr, "momentum": config.momentum[arm]}
    row |= {"error": level.value, "error_low": level.low, "error_high": level.high}
    row |= {"floor": float(result.floor[index, arm]), "ratio": ratio.value, "low": ratio.low, "high": ratio.high}
    for i in range(1, len(config.problem.eigenvalues)):
        law = diffusion_floor(config.problem.gap(i), hover.lr, config.momentum[arm], config.problem.noise(i))
        row[f"variance_{i}"] = float((hover.paths[arm, :, :, i - 1] ** 2).mean() / law)
    return row | {"memory": memory(result, hover, arm).value, "diverged": int(hover.diverged[arm])}


def _grid_row(result: OptimumResult, sharpness: int, momentum: int) -> dict[str, float]:
    ratio = grid_ratio(result, sharpness, momentum)
    place = {"lr_curvature": result.config.sharpness[sharpness], "momentum": result.config.grid_momentum[momentum]}
    exact = float(result.grid_exact[sharpness, momentum])
    return place | {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "exact": exact}


OPTIMUM = Experiment(
    "optimum", ("P3-C2", "P3-C6", "P3-X3"), lambda settings: run(configure(Optimum, settings)), estimates, tables
)

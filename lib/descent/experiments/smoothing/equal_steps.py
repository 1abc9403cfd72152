"""Plain and averaged descent at equal learning rate and equal steps: the noise far apart, the accuracy the same."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.rules import ema, repeat, sgd, stack
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.tasks import Task, survivors, task
from descent.measure.noise import SearchNoise, full_gradient
from descent.nets.dense import MLP
from descent.stats.estimate import Estimate
from descent.stats.intervals import paired_difference, ratio_of_means

NAMES = ("plain", "averaged")
PLAIN, AVERAGED = range(2)


@dataclass(frozen=True)
class EqualSteps:
    """A two-layer net on digits for so many steps of independent batches, labels clean and partly redrawn.

    Both arms of a seed share initial weights and batches; they differ in momentum and, by far, in their noise.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    shares: tuple[float, ...] = (0.0, 0.2)  # of labels redrawn, clean first
    rates: tuple[float, ...] = (0.02, 0.05)
    batch_sizes: tuple[int, ...] = (16, 48)
    edge: tuple[float, int] = (0.3, 4)  # rate and batch size where plain descent hardly settles; clean labels
    steps: int = 800
    hidden: int = 32
    looks: int = 5  # at the noise along a run

    @classmethod
    def cpu(cls, settings: Settings) -> EqualSteps:
        """Train a few dozen nets per arm and cell."""
        return cls(max(32, settings.replicas // 30), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> EqualSteps:
        """Train some hundred nets for three times as long, over more learning rates and batch sizes.

        In so many steps plain descent is lost where the small configuration has its edge, and hardly settles with
        batches of four at rates of 0.2 or more; the grid keeps clear of that.
        """
        return cls(
            max(64, settings.replicas // 4),
            settings.seed,
            settings.device,
            settings.momentum,
            rates=(0.02, 0.05, 0.1, 0.2),
            batch_sizes=(8, 16, 64, 256),
            edge=(0.25, 4),
            steps=3000,
            looks=20,
        )

    @property
    def cells(self) -> list[tuple[float, int, float]]:
        """Share redrawn, batch size and learning rate of every cell, in the order of the results."""
        return list(product(self.shares, self.batch_sizes, self.rates))


@dataclass(frozen=True, eq=False)
class Cells:
    """Per cell and arm, (C, 2, N): final test accuracy in percent, and mean |ω|² along the run.

    A seed that diverged in one of the cells is dropped from all of them.
    """

    accuracy: Array
    power: Array
    seed: int

    @property
    def gains(self) -> list[Estimate]:
        """Accuracy of averaged minus plain descent in percentage points, per cell."""
        return [paired_difference(cell[AVERAGED], cell[PLAIN]) for cell in self.accuracy]

    @property
    def ratios(self) -> list[Estimate]:
        """Noise power of plain over that of averaged descent, per cell."""
        return [ratio_of_means(cell[PLAIN], cell[AVERAGED], self.seed) for cell in self.power]


@dataclass(frozen=True, eq=False)
class EqualStepsResult:
    """The cells of the grid, and the one at the edge of stability, on which no verdict rests."""

    config: EqualSteps
    grid: Cells
    edge: Cells
    seconds: float


def run(config: EqualSteps) -> EqualStepsResult:
    """Train both arms in every cell."""
    clock = time.perf_counter()
    tasks = [task("digits", share, config.device) for share in config.shares]
    grid = _cells(
        config, [_train(config, images, size, config.rates) for images in tasks for size in config.batch_sizes]
    )
    rate, size = config.edge
    edge = _cells(config, [_train(config, tasks[0], size, (rate,))])
    return EqualStepsResult(config, grid, edge, time.perf_counter() - clock)


def _cells(config: EqualSteps, runs: list[tuple[Array, Array, Array]]) -> Cells:
    """Join runs, each (H, 2, N), and keep the seeds that lived through all of them."""
    accuracy, power, lost = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    alive = survivors(lost > 0)
    return Cells(accuracy[..., alive], power[..., alive], config.seed)


def _train(config: EqualSteps, images: Task, size: int, rates: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Train every rate and arm at one batch size; return accuracy, mean power and who diverged, each (H, 2, N)."""
    model = MLP((images.inputs.shape[1], config.hidden, 10))
    problem = images.problem(model, size, "with_replacement")
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device).repeat(2 * len(rates)))
    rules = stack(*[rule for lr in rates for rule in (sgd(lr), ema(lr, config.momentum))])
    hyper = repeat(rules, config.replicas).to(config.device)
    noise = SearchNoise(problem, partial(full_gradient, problem), hyper, streams, config.steps // config.looks)
    done = train(problem, model.initial(streams), hyper, config.steps, streams, probes={"noise": noise})
    power = done.records["noise.power"].values[1:].mean(dim=0)  # without the start, where the buffer is empty
    found = (images.accuracy(model, done.params), power, done.diverged_at >= 0)
    accuracy, level, lost = (to_numpy(value).reshape(len(rates), 2, -1) for value in found)
    return accuracy, level, lost


def estimates(result: EqualStepsResult) -> Estimates:
    """Return what the grid says about P1-C16 and P1-C20."""
    if result.config.momentum == 0:
        return {}
    grid, clean = result.grid, [share == 0 for share, _, _ in result.config.cells]
    gains = grid.gains
    return {
        "P1-C16.far_apart": min(grid.ratios, key=lambda ratio: ratio.value),
        "P1-C16.accuracy": _size(max(gains, key=lambda gain: abs(gain.value))),
        "P1-C20.advantage": max(
            (g for g, is_clean in zip(gains, clean, strict=True) if is_clean), key=lambda gain: abs(gain.value)
        ),
    }


def _size(gain: Estimate) -> Estimate:
    """Return a difference with the sign that makes it positive."""
    return gain if gain.value >= 0 else replace(gain, value=-gain.value, low=-gain.high, high=-gain.low)


def tables(result: EqualStepsResult) -> dict[str, DataFrame]:
    """Return one row per cell, those of the grid and the edge."""
    rate, size = result.config.edge
    rows = _rows(result.grid, result.config.cells) + _rows(result.edge, [(result.config.shares[0], size, rate)])
    return {"equal_steps": DataFrame(rows)}


def _rows(cells: Cells, names: list[tuple[float, int, float]]) -> list[dict[str, float]]:
    return [
        {
            "redrawn": share,
            "batch_size": size,
            "lr": lr,
            "plain": float(accuracy[PLAIN].mean()),
            "averaged": float(accuracy[AVERAGED].mean()),
            "gain": gain.value,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "noise_ratio": ratio.value,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
        }
        for (share, size, lr), accuracy, gain, ratio in zip(
            names, cells.accuracy, cells.gains, cells.ratios, strict=True
        )
    ]


EQUAL_STEPS = Experiment(
    "equal_steps", ("P1-C16", "P1-C20"), lambda settings: run(configure(EqualSteps, settings)), estimates, tables
)

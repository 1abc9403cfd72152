"""Noise, accuracy and sharpness over a grid of batch sizes and rules, residual networks on CIFAR-10.

Stated for paper scale alone. Labels are clean, images neither cropped nor flipped, and there is no weight decay, so
that the full gradient is one function and an effective step is what it says. Noise and curvature are measured in
float32.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.data.images import channels_first, part
from descent.engine.precision import Precision
from descent.engine.probes import Leaves
from descent.engine.rules import Hyper, ema, heavy_ball, repeat, sgd, stack
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.headline import HEAVY, MATCHED, NAMES, PLAIN
from descent.experiments.smoothing.tasks import survivors
from descent.measure.curvature import hessian
from descent.measure.noise import SearchNoise, full_gradient, gradient_noise
from descent.measure.spectra import top_eigenpairs
from descent.nets.convolutional import ResNet
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, paired_difference, spearman

BATCH = 128
"""The batch size at which the heavy ball is compared with its control, or the nearest there is."""


@dataclass(frozen=True)
class Stage:
    """Batch sizes that share the learning rate and the length of a run, in epochs or, if not 0, in steps."""

    name: str
    lr: float
    batch_sizes: tuple[int, ...]
    replicas: int
    epochs: int
    steps: int = 0

    def length(self, batch_size: int, examples: int) -> int:
        """Return the steps of a run."""
        return self.steps or self.epochs * (examples // batch_size)


@dataclass(frozen=True)
class Grid:
    """SGD, NSHB, SHB and SGD at the matched step; one stack per batch size. The first stage carries the verdicts.

    Noise and curvature are those of the first `measured` seeds: full gradients from `gradients` images, C² from
    `squares`, the largest Hessian eigenvalue from `curved` by `products` products. The noise is looked at `looks` times
    over the last `window` steps. Losses are those of the first `watched` training images.
    """

    stages: tuple[Stage, ...]
    seed: int
    device: str
    momentum: float
    widths: tuple[int, ...] = (16, 32, 64)
    examples: int = 50_000
    test_examples: int = 10_000
    pool: int = 1  # pixels of a side that are averaged to one
    watched: int = 10_000
    measured: int = 8
    gradients: int = 10_000
    squares: int = 512
    curved: int = 2000
    products: int = 15
    window: int = 50
    looks: int = 2
    precision: Precision = "bf16"
    compiled: bool = False  # a program per batch size would take longer than it saves
    check: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Grid:
        """Return tiny nets on some hundred images at 16 × 16 pixels."""
        count = min(settings.replicas, 3)
        stages = (
            Stage("epochs", 0.02, (16, 64), count, 2),
            Stage("smaller rate", 0.005, (16, 64), 2, 1),
            Stage("steps", 0.02, (16, 64), 2, 0, steps=6),
        )
        return cls(
            stages,
            settings.seed,
            settings.device,
            settings.momentum,
            widths=(8, 8, 8),
            examples=320,
            test_examples=200,
            pool=2,
            watched=100,
            measured=2,
            gradients=160,
            squares=32,
            curved=48,
            products=4,
            window=4,
            looks=2,
            precision="float32",
            check=1,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Grid:
        """Return 20 epochs of ResNet-8, sixteen seeds at the batch sizes of the verdicts, four elsewhere."""
        many, few = min(settings.replicas, 16), min(settings.replicas, 4)
        stages = (
            Stage("epochs", 0.02, (32, 512, 2048, 128), many, 20),
            Stage("smaller rate", 0.005, (32, 512, 2048, 128), few, 20),
            Stage("steps", 0.02, (32, 512), few, 0, steps=3910),
            Stage("epochs, between", 0.02, (64, 256, 1024), few, 20),
        )
        return cls(stages, settings.seed, settings.device, settings.momentum)

    @property
    def trained_images(self) -> dict[str, float]:
        """How many training images all replicas go through, by the net's name."""
        return {
            "ResNet-8": float(
                sum(
                    len(NAMES) * stage.replicas * stage.length(size, self.examples) * size
                    for stage in self.stages
                    for size in stage.batch_sizes
                )
            )
        }

    def hyper(self, stage: Stage) -> Hyper:
        """Return the hyper-parameters of a stack, arm-major."""
        lr, beta = stage.lr, self.momentum
        rules = stack(sgd(lr), ema(lr, beta), heavy_ball(lr, beta), sgd(lr / (1 - beta)))
        return repeat(rules, stage.replicas).to(self.device)


@dataclass(frozen=True, eq=False)
class StageResult:
    """Per batch size and arm (S, A, N): test accuracy in percent, training loss, and who diverged.

    Of the first seeds, (S, A, M): degree, the measured degree of smoothing lr·√(mean |ω|²) near the end; variance C²
    and sharpness, the largest Hessian eigenvalue, at the end.
    """

    stage: Stage
    accuracy: Array
    loss: Array
    lost: NDArray[np.bool_]
    degree: Array
    variance: Array
    sharpness: Array


@dataclass(frozen=True, eq=False)
class GridResult:
    """All stages."""

    config: Grid
    title: str
    stages: tuple[StageResult, ...]
    seconds: float

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which seeds of the first stage lived through all of its runs; ValueError below two."""
        return survivors(self.stages[0].lost)


def run(config: Grid) -> GridResult:
    """Train every stack and measure its end.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    images, tests = (
        part("cifar10", split, count, config.pool)
        for split, count in (("train", config.examples), ("test", config.test_examples))
    )
    inputs, test_inputs = (
        channels_first(part.images, like=images.images).to(config.device) for part in (images, tests)
    )
    model = ResNet(widths=config.widths)
    problem = Supervised(
        model,
        CrossEntropy(),
        inputs,
        images.labels.to(config.device),
        1,
        "shuffled_epochs",
        precision=config.precision,
        compiled=config.compiled,
    )
    test = test_inputs, tests.labels.to(config.device)
    stages = tuple(_stage(config, stage, problem, test) for stage in config.stages)
    return GridResult(config, images.title, stages, time.perf_counter() - clock)


def _stage(config: Grid, stage: Stage, problem: Supervised, test: tuple[Tensor, Tensor]) -> StageResult:
    runs = [_stack(config, stage, replace(problem, batch_size=size), test) for size in stage.batch_sizes]
    found = {name: np.stack([each[name] for each in runs]) for name in runs[0]}
    return StageResult(stage, lost=found.pop("lost") > 0, **found)


def _stack(config: Grid, stage: Stage, problem: Supervised, test: tuple[Tensor, Tensor]) -> dict[str, Array]:
    """Train all arms at one batch size; return what the result holds, (A, N) or (A, M)."""
    size = int(cast(int, problem.batch_size))
    seeds = replica_seeds(config.seed, stage.replicas, config.device)
    streams, hyper = Streams(seeds.repeat(len(NAMES))), config.hyper(stage)
    steps, exact = stage.length(size, len(problem.inputs)), replace(problem, precision="float32", compiled=False)
    window = min(config.window, steps - 1)
    meter = _Meter(config, stage, exact, hyper, seeds)
    run, begin, powers, lost = None, 0, [], torch.zeros_like(hyper.sign, dtype=torch.bool)
    for look in range(config.looks + 1):
        stop = steps - window + window * look // config.looks
        run = train(
            problem,
            run.params if run else problem.model.initial(streams),
            hyper,
            stop,
            streams,
            velocity=run.velocity if run else None,
            begin=begin,
            check=config.check,
        )
        begin, lost = stop, lost | (run.diverged_at >= 0)
        if look:
            powers.append(meter.power(run))
    assert run is not None
    rows = slice(0, config.watched)
    found = {
        "accuracy": 100 * exact.accuracy(run.params, *test),
        "lost": lost,
        "loss": exact.value(run.params, problem.inputs[rows], problem.targets[rows]),
        **meter.end(run, powers),
    }
    return {name: to_numpy(value).reshape(len(NAMES), -1) for name, value in found.items()}


class _Meter:
    """Noise and curvature of the first seeds of a stack, in float32."""

    def __init__(self, config: Grid, stage: Stage, exact: Supervised, hyper: Hyper, seeds: Tensor) -> None:
        count = min(config.measured, stage.replicas)
        arms = torch.arange(len(NAMES), device=seeds.device).unsqueeze(1) * stage.replicas
        self.rows = (arms + torch.arange(count, device=seeds.device)).flatten()
        self.streams, self.hyper = Streams(seeds[:count].repeat(len(NAMES))), hyper.subset(self.rows)
        self.config, self.exact = config, exact
        full = partial(full_gradient, self._some(config.gradients))
        self.noise = SearchNoise(exact, full, self.hyper, self.streams, every=1)

    def power(self, run: Run) -> Tensor:
        """Return |ω|² of the step after `run`, with the full gradient as that of some images."""
        params, velocity = (self._first(part) for part in (run.params, run.velocity))
        return self.noise(run.steps, params, velocity)["power"]

    def end(self, run: Run, powers: list[Tensor]) -> Leaves:
        """Return what is known at the end; the powers without what the images left out have added to them."""
        params = self._first(run.params)
        variance = gradient_noise(self._some(self.config.squares), params)
        missed = variance * (1 / self.config.gradients - 1 / len(self.exact.inputs))
        power = (torch.stack(powers).mean(dim=0) - missed).clamp_min(0.0)
        operator = hessian(self._some(self.config.curved), params)
        top = top_eigenpairs(operator, 1, self.streams, steps=self.config.products, tolerance=1e-2)
        return {"degree": self.hyper.lr * power.sqrt(), "variance": variance, "sharpness": top.values[:, 0]}

    def _some(self, count: int) -> Supervised:
        return replace(
            self.exact,
            inputs=self.exact.inputs[:count],
            targets=self.exact.targets[:count],
            batch_size=None,
            sampling="full",
        )

    def _first(self, params: Tensor | Leaves) -> Leaves:
        return {name: leaf[self.rows] for name, leaf in cast(Leaves, params).items()}


def estimates(result: GridResult) -> Estimates:
    """Return what the first stage says about P1-C16, P1-C18, P1-C20 and P1-C21."""
    if result.config.momentum == 0:
        return {}
    first, sizes = result.stages[0], np.array(result.stages[0].stage.batch_sizes)
    accuracy = first.accuracy[..., result.alive]
    largest, middle = int(sizes.argmax()), int(np.abs(np.log(sizes / BATCH)).argmin())
    return {
        "P1-C16.resnet": _upwards(rank_correlation(result, first, "accuracy")),
        "P1-C18.resnet": paired_difference(accuracy[largest, HEAVY], accuracy[largest, PLAIN]),
        "P1-C20.resnet": paired_difference(accuracy[middle, HEAVY], accuracy[middle, MATCHED]),
        "P1-C21.resnet": rank_correlation(result, first, "sharpness"),
    }


def rank_correlation(result: GridResult, found: StageResult, name: str) -> Estimate:
    """Return the rank correlation of the degree of smoothing with a measurement over all cells of a stage."""
    count = found.degree.shape[-1]
    alive = survivors(found.lost[..., :count])
    degree, other = (
        (getattr(found, field)[..., :count][..., alive]).reshape(-1, alive.sum()).T for field in ("degree", name)
    )

    def correlation(a: Array, b: Array) -> Array:
        return spearman(a.mean(axis=1), b.mean(axis=1))

    return bootstrap(correlation, degree, other, seed=result.config.seed)


def _upwards(found: Estimate) -> Estimate:
    """Return the size of a correlation: turned round where it is negative."""
    if found.value >= 0:
        return found
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


def tables(result: GridResult) -> dict[str, DataFrame]:
    """Return one row per stage, batch size and arm; and per stage the rank correlations with the degree."""
    rows = [
        _row(found, s, a)
        for found in result.stages
        for s in range(len(found.stage.batch_sizes))
        for a in range(len(NAMES))
    ]
    ranks = [_ranks(result, found) for found in result.stages]
    return {"grid": DataFrame(rows).assign(data=result.title), "grid_ranks": DataFrame(ranks)}


def _row(found: StageResult, s: int, a: int) -> Mapping[str, float | str]:
    """Return the means of a cell over those of its seeds that did not diverge."""
    stage, alive = found.stage, ~found.lost[s, a]
    few = alive[: found.degree.shape[-1]]
    means = {name: getattr(found, name)[s, a][alive] for name in ("accuracy", "loss")}
    means |= {name: getattr(found, name)[s, a][few] for name in ("degree", "variance", "sharpness")}
    error = float(np.std(means["accuracy"], ddof=1) / np.sqrt(alive.sum())) if alive.sum() > 1 else np.nan
    numbers = {name: float(values.mean()) if len(values) else np.nan for name, values in means.items()}
    return {
        "stage": stage.name,
        "lr": stage.lr,
        "batch_size": stage.batch_sizes[s],
        "arm": NAMES[a],
        **numbers,
        "accuracy_error": error,
        "replicas": int(alive.sum()),
        "diverged": int((~alive).sum()),
    }


def _ranks(result: GridResult, found: StageResult) -> Mapping[str, float | str]:
    """Return the rank correlations of a stage; none where fewer than two of its seeds lived."""
    row: dict[str, float | str] = {"stage": found.stage.name, "lr": found.stage.lr}
    count = found.degree.shape[-1]
    if (~found.lost[..., :count].any(axis=(0, 1))).sum() < 2:
        return row
    for name in ("accuracy", "sharpness"):
        estimate = rank_correlation(result, found, name)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row


GRID = Experiment(
    "grid",
    ("P1-C16", "P1-C18", "P1-C20", "P1-C21"),
    lambda settings: run(configure(Grid, settings)),
    estimates,
    tables,
    scales=("gpu",),
)

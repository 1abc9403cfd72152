"""Noise, accuracy and sharpness over a grid of batch sizes and rules, residual networks on CIFAR-10.

Stated for paper scale alone. Labels are clean, images neither cropped nor flipped, and there is no weight decay, so
that the full gradient is one function and an effective step is what it says. Noise and curvature are measured in
float32. Every net has a draw of its own, half of the training images at random: two draws have half of theirs in
common, so that intervals over them are too narrow, by three tenths for a mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.data.images import Pictures, pictures
from descent.engine import ArmRun, Hyper, sgd, stack
from descent.engine.arms import survivors
from descent.engine.precision import Precision
from descent.engine.probes import Leaves
from descent.experiments.lab import Arrays, Estimates, Experiment, Found, Lab, Parts, Share, Tables, Unit, so_far, tidy
from descent.experiments.smoothing.arms import NAMES, Arm, rules
from descent.measure.curvature import hessian
from descent.measure.noise import SearchNoise, full_gradient, gradient_noise
from descent.measure.spectra import top_eigenpairs
from descent.nets import CrossEntropy, ResNet, Supervised
from descent.stats import Estimate, draw_difference, draw_statistic, magnitude, spearman

BATCH = 128
"""The batch size at which the heavy ball is compared with its control, or the nearest there is."""
MEASURES = ("accuracy", "loss", "degree", "variance", "sharpness")
MANY, FEW = Share(most=10), Share(most=4)


@dataclass(frozen=True)
class Stage:
    """Batch sizes that share the learning rate and the length of a run, in epochs or, if not 0, in steps."""

    name: str
    lr: float
    batch_sizes: tuple[int, ...]
    replicas: Share  # and as many draws of the training set
    epochs: int
    steps: int = 0

    def length(self, batch_size: int, examples: int) -> int:
        """Return the steps of a run."""
        return self.steps or self.epochs * (examples // batch_size)

    def rule(self, momentum: float) -> Hyper:
        """Return the arms: the paper's rules, and plain descent at the matched step."""
        return stack(rules(self.lr, momentum), sgd(self.lr / (1 - momentum)))


@dataclass(frozen=True)
class Grid:
    """20 epochs of ResNet-8; one stack per batch size. The first stage carries the verdicts."""

    stages: tuple[Stage, ...] = (
        Stage("epochs", 0.02, (32, 512, 2048, 128), MANY, 20),
        Stage("smaller rate", 0.005, (32, 512, 2048, 128), FEW, 20),
        Stage("steps", 0.02, (32, 512), FEW, 0, steps=3910),
        Stage("epochs, between", 0.02, (64, 256, 1024), FEW, 20),
    )
    widths: tuple[int, ...] = (16, 32, 64)
    pictures: int = 50_000  # training images there are …
    examples: int = 25_000  # … and how many of them are a draw
    test_examples: int = 10_000
    pool: int = 1  # pixels of a side that are averaged to one
    watched: int = 10_000  # training images of which the loss is taken
    gradients: int = 10_000  # images of full gradients
    squares: int = 512  # … of their C²
    curved: int = 2000  # … of their largest Hessian eigenvalue
    products: int = 15  # with the Hessian
    window: int = 50  # steps at the end over which the noise is looked at …
    looks: int = 2  # … so many times
    precision: Precision = "bf16"
    compiled: bool = False  # a program per batch size would take longer than it saves
    check: int = 50  # steps between two looks for divergence

    def trained_images(self, lab: Lab) -> dict[str, float]:
        """Return how many training images all replicas go through, by the net's name."""
        runs = [(stage, size) for stage in self.stages for size in stage.batch_sizes]
        seen = sum(lab.count(stage.replicas) * stage.length(size, self.examples) * size for stage, size in runs)
        return {"ResNet-8": float(len(NAMES) * seen)}


@dataclass(frozen=True, eq=False)
class StageResult:
    """Per batch size and arm (S, A, N), every net on its own draw of the training set: test accuracy in percent, loss.

    lost: who diverged; degree: the measured degree of smoothing lr·√(mean |ω|²) near the end; variance C² and
    sharpness, the largest Hessian eigenvalue, at the end.
    """

    stage: Stage
    accuracy: Array
    loss: Array
    lost: BoolArray
    degree: Array
    variance: Array
    sharpness: Array

    @property
    def alive(self) -> BoolArray:
        """Which nets lived through all runs of the stage, (N,); ValueError below two."""
        return survivors(self.lost)


@dataclass(frozen=True, eq=False)
class GridResult:
    """All stages."""

    config: Grid
    lab: Lab
    title: str
    stages: tuple[StageResult, ...]


def run(config: Grid, lab: Lab) -> GridResult:
    """Train every stack and measure its end; DataMissing without the images."""
    images, problem = _problem(config, lab)
    test, stages = (images.test_inputs, images.test_labels), []
    for stage in config.stages:
        sets = lab.draws(len(images.inputs), config.examples, lab.count(stage.replicas))
        drawn = [replace(problem, batch_size=size, rows=sets.rows) for size in stage.batch_sizes]
        runs = [_stack(config, lab, stage, one, test) for one in drawn]
        stages.append(StageResult(stage, **{name: np.stack([cell[name] for cell in runs]) for name in runs[0]}))
    return GridResult(config, lab, images.title, tuple(stages))


def _problem(config: Grid, lab: Lab) -> tuple[Pictures, Supervised]:
    """Return the images, and the loss over all of them."""
    images = pictures("cifar10", config.pictures, config.test_examples, config.pool, lab.device)
    return images, Supervised(
        ResNet(widths=config.widths), CrossEntropy(), images.inputs, images.labels, 1, "shuffled_epochs",
        precision=config.precision, compiled=config.compiled,
    )  # fmt: skip


def _stack(
    config: Grid, lab: Lab, stage: Stage, problem: Supervised, test: Sequence[Tensor], draw: int | None = None
) -> dict[str, Any]:
    """Train all arms at one batch size, or one net of each on one draw; return what the result holds, (A, N)."""
    steps = stage.length(int(cast(int, problem.batch_size)), len(problem.data))
    window, exact = min(config.window, steps - 1), replace(problem, precision="float32", compiled=False)
    count = stage.replicas if draw is None else 1
    arms = lab.arms(stage.rule(lab.momentum), count, skip=draw or 0)
    done, powers = arms.run(problem, problem.model.initial, steps - window, check=config.check), []
    full = partial(full_gradient, _some(exact, config.gradients))  # as that of some images
    for look in range(1, config.looks + 1):
        done = done.then(steps - window + window * look // config.looks)
        noise = SearchNoise(exact, full, arms.hyper, arms.streams, every=1)
        powers.append(noise(done.steps, done.params, done.whole.velocity)["power"])  # |ω|² of the step to come
    return {
        "accuracy": done.end(lambda params: 100 * exact.accuracy(params, *test)),
        "loss": done.end(_some(exact, config.watched).value),
        "lost": done.lost,
        **_end(config, exact, done, powers),
    }


def _end(config: Grid, exact: Supervised, done: ArmRun[Leaves], powers: list[Tensor]) -> dict[str, Array]:
    """Return what is measured at the end, (A, N); the powers freed of what the images left out add."""
    arms, params = done.arms, done.params
    variance = gradient_noise(_some(exact, config.squares), params)
    missed = variance * (1 / config.gradients - 1 / len(exact.data))
    degree = arms.hyper.lr * (torch.stack(powers).mean(dim=0) - missed).clamp_min(0.0).sqrt()
    operator = hessian(_some(exact, config.curved), params)
    top = top_eigenpairs(operator, 1, arms.streams, steps=config.products, tolerance=1e-2)
    found = {"degree": degree, "variance": variance, "sharpness": top.values[:, 0]}
    return {name: arms.split(values) for name, values in found.items()}


def _some(exact: Supervised, count: int) -> Supervised:
    """Return the loss of the first images of every draw, as one batch."""
    data = exact.data.among(slice(count))
    return replace(
        exact, inputs=data.inputs, targets=data.targets, rows=data.rows, batch_size=None, sampling="full"
    )  # fmt: skip


def estimates(result: GridResult) -> Estimates:
    """Return what the first stage says about P1-C16, P1-C18, P1-C20 and P1-C21."""
    first, seed, sizes = result.stages[0], result.lab.seed, np.array(result.stages[0].stage.batch_sizes)
    accuracy = first.accuracy[..., first.alive, None]  # (S, A, D, 1)
    largest, middle = int(sizes.argmax()), int(np.abs(np.log(sizes / BATCH)).argmin())
    return {
        "P1-C16.resnet": magnitude(rank_correlation(first, "accuracy", seed)),
        "P1-C18.resnet": draw_difference(accuracy[largest, Arm.HEAVY], accuracy[largest, Arm.PLAIN]),
        "P1-C20.resnet": draw_difference(accuracy[middle, Arm.HEAVY], accuracy[middle, Arm.MATCHED]),
        "P1-C21.resnet": rank_correlation(first, "sharpness", seed),
    }


def rank_correlation(found: StageResult, name: str, seed: int) -> Estimate:
    """Return the rank correlation of the degree of smoothing with a measurement over all cells of a stage."""
    both = np.stack([found.degree, getattr(found, name)])[..., found.alive]
    samples = both.reshape(-1, both.shape[-1], 1)  # per measurement and cell (D, 1)

    def rank(*means: Array) -> Array:
        degree, other = np.split(np.stack([mean[:, :, 0].mean(axis=1) for mean in means], axis=1), 2, axis=1)
        return spearman(degree, other)

    return draw_statistic(rank, *samples, seed=seed)


def tables(result: GridResult) -> Tables:
    """Return one row per stage, batch size and arm; and per stage the rank correlations with the degree."""
    rows, ranks = [], []
    for found in result.stages:
        rows += [_row(found, *cell) for cell in np.ndindex(found.lost.shape[:2])]
        enough = (~found.lost.any(axis=(0, 1))).sum() >= 2
        names = ("accuracy", "sharpness") if enough else ()
        measured = {name: rank_correlation(found, name, result.lab.seed) for name in names}
        ranks.append(tidy({"stage": [found.stage.name]}, lr=found.stage.lr, **measured))
    return {"grid": DataFrame(rows).assign(data=result.title), "grid_ranks": concat(ranks, ignore_index=True)}


def _row(found: StageResult, s: int, a: int) -> dict[str, float | str]:
    """Return the means of a cell over those of its seeds that did not diverge."""
    stage, alive = found.stage, ~found.lost[s, a]
    means = {name: getattr(found, name)[s, a][alive] for name in MEASURES}
    error = float(np.std(means["accuracy"], ddof=1) / np.sqrt(alive.sum())) if alive.sum() > 1 else np.nan
    return {
        "stage": stage.name, "lr": stage.lr, "batch_size": stage.batch_sizes[s], "arm": NAMES[a],
        **{name: float(values.mean()) if len(values) else np.nan for name, values in means.items()},
        "accuracy_error": error, "replicas": int(alive.sum()), "diverged": int((~alive).sum()),
    }  # fmt: skip


SMALL = Grid(
    (
        Stage("epochs", 0.02, (16, 64), Share(most=3), 2),
        Stage("smaller rate", 0.005, (16, 64), Share(most=2), 1),
        Stage("steps", 0.02, (16, 64), Share(most=2), 0, steps=6),
    ),
    widths=(8, 8, 8), pictures=400, examples=320, test_examples=200, pool=2, watched=100, gradients=160, squares=32,
    curved=48, products=4, window=4, precision="float32", check=1,
)  # fmt: skip
NIGHT = Grid(  # ten draws that share no image
    (Stage("epochs", 0.02, (32, 128, 512, 1024), MANY, 15),),
    examples=5000, pool=2, watched=2500, gradients=2500, squares=256, curved=1000, precision="float32",
)  # fmt: skip


def units(config: Grid, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit per batch size and draw of the only stage, on which all arms are trained from the same weights."""
    (stage,), made = config.stages, []
    for size in stage.batch_sizes:
        seen = len(NAMES) * (stage.length(size, config.examples) * size + 60_000)  # with what is measured at the end
        made += [_unit(size, draw, float(seen)) for draw in range(lab.count(stage.replicas))]
    return made


def _unit(size: int, draw: int, seen: float = 0.0) -> Unit:
    return Unit(f"batch{size}-draw{draw}", f"batches of {size}", seen, (size, draw))


def measure(config: Grid, lab: Lab, unit: Unit) -> Arrays:
    """Train all arms at one batch size on one draw; DataMissing without the images."""
    (stage,), (size, draw), (images, problem) = config.stages, unit.given, _problem(config, lab)
    sets = lab.draws(len(images.inputs), config.examples, lab.count(stage.replicas)).some([draw])
    test = (images.test_inputs, images.test_labels)
    found = _stack(config, lab, stage, replace(problem, batch_size=size, rows=sets.rows), test, draw)
    return {**found, "title": np.array(images.title)}


def merge(config: Grid, lab: Lab, found: Found) -> GridResult | None:
    """Return the stage on the draws that all batch sizes have, None for fewer than two."""
    (stage,) = config.stages
    names = {d: [_unit(size, d).name for size in stage.batch_sizes] for d in range(lab.count(stage.replicas))}
    whole = [several for several in names.values() if set(several) <= set(found)]
    if len(whole) < 2:
        return None
    cells = [[found[several[s]] for several in whole] for s in range(len(stage.batch_sizes))]
    arrays = {
        name: np.stack([np.concatenate([one[name] for one in row], axis=1) for row in cells])
        for name in (*MEASURES, "lost")
    }
    return GridResult(config, lab, str(cells[0][0]["title"]), (StageResult(stage, **arrays),))


def lacking(result: GridResult) -> dict[str, str]:
    """Return how many draws are there, where that is not all."""
    (found,) = result.stages
    short = so_far(found.lost.shape[-1], result.lab.count(found.stage.replicas))
    return dict.fromkeys(estimates(result), short) if short else {}


GRID = Experiment(
    "grid", SMALL, large=Grid(), run=run, estimates=estimates, tables=tables, scales=("gpu",), night=NIGHT,
    parts=Parts(units, measure, merge, lacking, {f"batches of {size}": 900.0 for size in (32, 128, 512, 1024)}),
)  # fmt: skip

"""Alignment along the training of networks on digits: square loss, logistic loss, one output and ten."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.data.images import centred, load, pair, signs
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, every, train
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.geometry.looks import look
from descent.measure.alignment import block_alignment
from descent.measure.gram import blocks, gram
from descent.nets.dense import MLP, LogisticError, Loss, SquaredError
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean


@dataclass(frozen=True)
class Training:
    """Three-layer ReLU nets told 3 from 8 by SGD, looked at along the way; ten-class nets at the start."""

    replicas: int
    seed: int
    device: str
    widths: tuple[int, ...] = (32, 128)
    examples: int = 200
    batch_size: int = 20
    lr: float = 0.05
    steps: int = 1500
    looks: int = 15
    directions: int = 40
    classes: int = 10
    many: int = 60  # examples of the ten-class net

    @classmethod
    def cpu(cls, settings: Settings) -> Training:
        """Train a few dozen nets per width."""
        return cls(max(32, min(settings.replicas // 30, 48)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Training:
        """Train wider nets for longer, on all threes and eights."""
        return cls(
            max(32, settings.replicas // 10),
            settings.seed,
            settings.device,
            widths=(32, 128, 512),
            examples=350,
            steps=3000,
            looks=50,
            many=200,
        )


@dataclass(frozen=True, eq=False)
class Course:
    """One width under one loss: steps (T,), and per look and net uncentred, centred, loss, noise, stable_rank (T, N).

    curvature, along (T, N, q): the leading curvatures, and the centred alignment along their eigenvectors.
    """

    steps: Array
    uncentred: Array
    centred: Array
    loss: Array
    noise: Array
    stable_rank: Array
    curvature: Array
    along: Array


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The course of every width under square loss, of the first under logistic loss, and ten outputs at the start."""

    config: Training
    square: tuple[Course, ...]
    logistic: Course
    outputs: Array  # (2, N) alignment of ten-class nets, with digits' labels and with one label for all
    seconds: float


def run(config: Training) -> TrainingResult:
    """Train and look."""
    clock = time.perf_counter()
    square = tuple(_course(config, width, SquaredError()) for width in config.widths)
    logistic = _course(config, config.widths[0], LogisticError())
    return TrainingResult(config, square, logistic, _ten(config), time.perf_counter() - clock)


def _course(config: Training, width: int, loss: Loss) -> Course:
    data = pair(load("digits"), "3", "8").take(config.examples)
    inputs, targets = centred(data.images).to(config.device), signs(data.labels).unsqueeze(1).to(config.device)
    problem = Supervised(MLP((64, width, width, 1)), loss, inputs, targets, config.batch_size)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    probe = every(config.steps // config.looks, look(problem, config.directions))
    hyper = repeat(sgd(config.lr), config.replicas).to(config.device)
    return course(train(problem, problem.model.initial(streams), hyper, config.steps, streams, probes={"": probe}))


def course(run: Run) -> Course:
    """Return the record of a run under the probe `look`."""
    found = {name.removeprefix("."): to_numpy(series.values) for name, series in run.records.items()}
    return Course(to_numpy(run.records[".loss"].steps), **found)


def _ten(config: Training) -> Array:
    """Return the alignment of ten-class nets under square loss before training, with two kinds of labels, (2, N)."""
    data = load("digits").take(config.many)
    inputs = centred(data.images).to(config.device)
    model = MLP((64, config.widths[0], config.widths[0], config.classes))
    params = model.initial(Streams(replica_seeds(config.seed, config.replicas, config.device)))
    wanted = [
        torch.nn.functional.one_hot(labels.to(inputs.device), config.classes)
        for labels in (data.labels, torch.zeros_like(data.labels))
    ]

    def measure(rows: slice) -> Tensor:
        some = {name: leaf[rows] for name, leaf in params.items()}
        kernel = blocks(gram(model, some, inputs), len(inputs)).double()
        outputs = model.forward(some, inputs.expand(len(kernel), *inputs.shape)).double()
        return torch.stack([block_alignment(kernel, outputs - target) for target in wanted], dim=-1)

    return to_numpy(in_parts(measure, config.replicas, 4 * 8 * (config.many * config.classes) ** 2)).T


def fitted_slopes(x: Array, y: Array) -> Array:
    """Return the least-squares slope of log y on log x along the first axis, (…)."""
    u, v = np.log(x), np.log(y)
    u, v = u - u.mean(axis=0), v - v.mean(axis=0)
    return np.asarray((u * v).sum(axis=0) / (u * u).sum(axis=0))


def furthest(courses: tuple[Course, ...]) -> Estimate:
    """Return the mean uncentred alignment that is furthest from one, as a factor, over looks and widths."""
    cells = [mean(row) for found in courses for row in found.uncentred]
    return max(cells, key=lambda cell: abs(np.log(cell.value)))


def estimates(result: TrainingResult) -> Estimates:
    """Return what training says about P5-C9, P5-C10, P5-W3 and P5-X5."""
    wide = result.square[-1]
    inside = np.concatenate([((c.along > 1 / 3) & (c.along < 3)).mean(axis=(0, 2))[None] for c in result.square])
    tracked = fitted_slopes(wide.curvature[-1].T, (wide.curvature[-1] * wide.along[-1].clip(1e-12)).T)
    early, late = result.logistic.uncentred[1], result.logistic.uncentred[-1]
    return {
        "P5-C9.digits": furthest(result.square),
        "P5-C10.within": mean(inside.mean(axis=0)),
        "P5-C10.slope": mean(tracked),
        "P5-W3.slope": mean(fitted_slopes(wide.loss[1:], wide.noise[1:])),
        "P5-X5.outputs": mean(result.outputs[0]),
        "P5-X5.skewed": mean(result.outputs[1]),
        "P5-X5.logistic": mean(late / early),
    }


def tables(result: TrainingResult) -> dict[str, DataFrame]:
    """Return means over the nets, one row per loss, width and look."""
    named = [("square", width, found) for width, found in zip(result.config.widths, result.square, strict=True)]
    named.append(("logistic", result.config.widths[0], result.logistic))
    return {
        "training": concat(
            [course_rows(found).assign(error=error, width=width) for error, width, found in named], ignore_index=True
        )
    }


def course_rows(found: Course) -> DataFrame:
    """Return means over the nets, one row per look."""
    columns = ("uncentred", "centred", "loss", "noise", "stable_rank")
    rows = {"step": found.steps.astype(int)} | {name: getattr(found, name).mean(axis=1) for name in columns}
    return DataFrame(rows | {"within": ((found.along > 1 / 3) & (found.along < 3)).mean(axis=(1, 2))})


TRAINING = Experiment(
    "training",
    ("P5-C9", "P5-C10", "P5-W3", "P5-X5"),
    lambda settings: run(configure(Training, settings)),
    estimates,
    tables,
)

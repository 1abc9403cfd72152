"""Alignment along the training of networks on digits: square loss, logistic loss, one output and ten.

Does noise stay aligned with curvature while the loss falls by decades? Three-layer ReLU nets tell 3 from 8 and are
looked at along the way. Two conditions of "of order one" are tried as well: another loss, and more outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array
from descent.data.images import centred, load, pair, signs
from descent.engine import sgd
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.geometry.looks import Course, fitted_slopes, follow, furthest
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.alignment import block_alignment
from descent.measure.gram import blocks, gram
from descent.nets import MLP, LogisticError, Loss, SquaredError, Supervised
from descent.stats import mean


@dataclass(frozen=True)
class Training:
    """Nets told 3 from 8 by SGD, looked at along the way; ten-class nets at the start."""

    replicas: Share = Share(over=30, least=32, most=48)
    widths: tuple[int, ...] = (32, 128)
    examples: int = 200
    batch_size: int = 20
    lr: float = 0.05
    steps: int = 1500
    looks: int = 15
    directions: int = 40  # leading eigenvectors along which the alignment is kept
    classes: int = 10
    many: int = 60  # examples of the ten-class net


@dataclass(frozen=True, eq=False)
class TrainingResult(Result[Training]):
    """The courses under square loss and under logistic loss, and ten outputs at the start."""

    square: tuple[Course, ...]  # of every width
    logistic: Course  # of the first
    outputs: Array  # (2, N): alignment of ten-class nets, with digits' labels and with one label for all


def run(config: Training, lab: Lab) -> TrainingResult:
    """Train and look."""
    square = tuple(_course(config, lab, width, SquaredError()) for width in config.widths)
    logistic = _course(config, lab, config.widths[0], LogisticError())
    return TrainingResult(config, lab, square, logistic, _ten(config, lab))


def _course(config: Training, lab: Lab, width: int, loss: Loss) -> Course:
    """Follow nets of one width under one loss."""
    data = pair(load("digits"), "3", "8").take(config.examples)
    inputs, targets = lab.bring(centred(data.images), signs(data.labels).unsqueeze(1))
    problem = Supervised(MLP((64, width, width, 1)), loss, inputs, targets, config.batch_size)
    arms = lab.arms(sgd(config.lr), config.replicas)
    return follow(problem, arms, config.steps, config.looks, config.directions)


def _ten(config: Training, lab: Lab) -> Array:
    """Return the alignment of ten-class nets under square loss before training, with two kinds of labels, (2, N)."""
    data = load("digits").take(config.many)
    inputs, labels = lab.bring(centred(data.images), data.labels)
    model = MLP((64, config.widths[0], config.widths[0], config.classes))
    params = model.initial(lab.streams(config.replicas))
    wanted = [torch.nn.functional.one_hot(kind, config.classes) for kind in (labels, torch.zeros_like(labels))]

    def measure(rows: slice) -> Tensor:
        some = {name: leaf[rows] for name, leaf in params.items()}
        kernel = blocks(gram(model, some, inputs), len(inputs)).double()
        outputs = model.forward(some, inputs.expand(len(kernel), *inputs.shape)).double()
        return torch.stack([block_alignment(kernel, outputs - target) for target in wanted], dim=-1)

    return to_numpy(in_parts(measure, lab.count(config.replicas), 4 * 8 * (config.many * config.classes) ** 2)).T


def estimates(result: TrainingResult) -> Estimates:
    """Return what training says about P5-C9, P5-C10, P5-W3 and P5-X5."""
    wide, logistic = result.square[-1], result.logistic.uncentred
    return {
        "P5-C9.digits": furthest(*result.square),
        "P5-C10.within": mean(np.mean([found.within.mean(axis=(0, 2)) for found in result.square], axis=0)),
        "P5-C10.slope": mean(wide.tracking),
        "P5-W3.slope": mean(fitted_slopes(wide.loss[1:], wide.noise[1:])),
        "P5-X5.outputs": mean(result.outputs[0]),
        "P5-X5.skewed": mean(result.outputs[1]),
        "P5-X5.logistic": mean(logistic[-1] / logistic[1]),
    }


def tables(result: TrainingResult) -> Tables:
    """Return means over the nets, one row per loss, width and look."""
    widths = result.config.widths
    parts = [found.table().assign(error="square", width=w) for w, found in zip(widths, result.square, strict=True)]
    parts.append(result.logistic.table().assign(error="logistic", width=widths[0]))
    return {"training": concat(parts, ignore_index=True)}


TRAINING = Experiment(
    "training", small=Training(), run=run, estimates=estimates, tables=tables,
    large=Training(Share(over=10, least=32), widths=(32, 128, 512), examples=350, steps=3000, looks=50, many=200),
)  # fmt: skip

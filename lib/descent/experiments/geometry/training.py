"""Alignment along the training of networks on digits: square loss, logistic loss, one output and ten.

Does noise stay aligned with curvature while the loss falls by decades? Three-layer ReLU nets tell 3 from 8 and are
looked at along the way. Two conditions of "of order one" are tried as well: another loss, and more outputs.

Nets are trained on draws of the images. There are 357 threes and eights among scikit-learn's digits, so that draws
overlap; intervals over them are too narrow by the factor √(1 − n/357).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pandas import concat
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
from descent.data.images import centred, load, pair, signs
from descent.engine import sgd
from descent.engine.arms import in_parts, to_numpy
from descent.experiments.geometry.looks import Course, fitted_slopes, follow, levels
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.alignment import block_alignment
from descent.measure.gram import blocks, gram
from descent.nets import MLP, LogisticError, Loss, SquaredError, Supervised
from descent.stats import Estimate, draw_mean


@dataclass(frozen=True)
class Training:
    """Nets told 3 from 8 by SGD, looked at along the way; ten-class nets at the start."""

    replicas: Share = Share(over=31, least=32, most=64)
    draws: int = 16  # of the data
    data: str = "digits"
    widths: tuple[int, ...] = (32, 128)
    examples: int = 100
    batch_size: int = 20
    lr: float = 0.05
    steps: int = 1500
    looks: int = 15
    directions: int = 40  # leading eigenvectors along which the alignment is kept
    classes: int = 10
    many: int = 60  # examples of the ten-class net
    starts: Share = Share(over=4, least=64, most=512)  # ten-class nets: untrained, so that many are cheap


@dataclass(frozen=True, eq=False)
class TrainingResult(Result[Training]):
    """The courses under square loss and under logistic loss, and ten outputs at the start."""

    square: tuple[Course, ...]  # of every width
    logistic: Course  # of the first
    outputs: Array  # (2, S): alignment of ten-class nets, with digits' labels and with one label for all
    spread: Array  # (2, S): the participation ratio of their residuals over the outputs
    sets: Draws  # what the nets of all courses are trained on, net i on draw i mod D
    many: Draws  # what the ten-class nets are measured on


def run(config: Training, lab: Lab) -> TrainingResult:
    """Train and look."""
    data = pair(load(config.data), "3", "8")
    sets = lab.draws(len(data), config.examples, config.draws)
    inputs, targets = lab.bring(centred(data.images), signs(data.labels).unsqueeze(1))

    def course(width: int, loss: Loss) -> Course:  # of nets of one width under one loss
        model = MLP((inputs.shape[1], width, width, 1))
        problem = Supervised(model, loss, inputs, targets, config.batch_size, rows=sets.rows)
        arms = lab.arms(sgd(config.lr), lab.per_draw(config.replicas, config.draws))
        return follow(problem, arms, config.steps, config.looks, config.directions)

    square = tuple(course(width, SquaredError()) for width in config.widths)
    many, (outputs, spread) = _ten(config, lab)
    return TrainingResult(config, lab, square, course(config.widths[0], LogisticError()), outputs, spread, sets, many)


def _ten(config: Training, lab: Lab) -> tuple[Draws, Array]:
    """Return alignment and spread of ten-class nets under square loss before training, with two kinds of labels.

    The draws of their data, and (2, 2, N): alignment and participation ratio, by kind of label.
    """
    data, count = load(config.data), lab.per_draw(config.starts, config.draws)
    sets = lab.draws(len(data), config.many, config.draws)
    inputs, labels = lab.bring(centred(data.images), data.labels)
    model = MLP((inputs.shape[1], config.widths[0], config.widths[0], config.classes))
    params = model.initial(lab.streams(count))
    problem = Supervised(model, SquaredError(), inputs, labels, sampling="full", rows=sets.rows)

    def measure(rows: slice) -> Tensor:
        some, own = {name: leaf[rows] for name, leaf in params.items()}, problem.subset(rows)
        images, kinds = own.data.seen(slice(0, rows.stop - rows.start))
        kernel = blocks(gram(model, some, inputs, rows=own.rows), config.many).double()
        found, wanted = model.forward(some, images).double(), torch.stack([kinds, torch.zeros_like(kinds)])
        residuals = found - torch.nn.functional.one_hot(wanted, config.classes)  # (2, r, n, C)
        aligned = torch.stack([block_alignment(kernel, kind) for kind in residuals])
        return torch.stack([aligned, participation(residuals)]).movedim(-1, 0)

    return sets, np.moveaxis(to_numpy(in_parts(measure, count, 4 * 8 * (config.many * config.classes) ** 2)), 0, -1)


def participation(residuals: Tensor) -> Tensor:
    """Return over how many outputs the power of residuals (…, n, C) is spread: (Σ_c p_c)²/Σ_c p_c², (…)."""
    power = residuals.square().sum(dim=-2)
    return power.sum(dim=-1).square() / power.square().sum(dim=-1)


def estimates(result: TrainingResult) -> Estimates:
    """Return what training says about P5-C9, P5-C10, P5-W3 and P5-X5."""
    wide, logistic = result.square[-1], result.logistic.uncentred

    def over(values: Array) -> Estimate:  # the draws of the courses
        return draw_mean(result.sets.by_draw(values))

    def ten(values: Array) -> Estimate:
        return draw_mean(result.many.by_draw(values))

    return {
        "P5-C9.digits": levels(result.sets, *result.square),
        "P5-C10.within": over(np.mean([found.within.mean(axis=(0, 2)) for found in result.square], axis=0)),
        "P5-C10.slope": [over(found.tracking) for found in result.square],
        "P5-W3.slope": over(fitted_slopes(wide.loss[1:], wide.noise[1:])),
        "P5-W3.slope_first": over(fitted_slopes(wide.loss, wide.noise)),
        "P5-X5.outputs": ten(result.outputs[0]),
        "P5-X5.skewed": ten(result.outputs[1]),
        "P5-X5.logistic": over(logistic[-1] / logistic[1]),
        "P5-X9.corrected_first": [ten(kind) for kind in result.outputs * result.spread],
    }


def tables(result: TrainingResult) -> Tables:
    """Return means over the nets, one row per loss, width and look."""
    widths = result.config.widths
    parts = [found.table().assign(error="square", width=w) for w, found in zip(widths, result.square, strict=True)]
    parts.append(result.logistic.table().assign(error="logistic", width=widths[0]))
    return {"training": concat(parts, ignore_index=True)}


TRAINING = Experiment(
    "training", small=Training(), run=run, estimates=estimates, tables=tables,
    large=Training(  # of MNIST there are 11 982 threes and eights: draws that do not overlap
        Share(over=10, least=60), draws=10, data="mnist", widths=(32, 128, 512), examples=1000, steps=3000, looks=50,
        many=200,
    ),
)  # fmt: skip

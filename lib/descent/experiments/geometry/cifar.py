"""Alignment along the training of small convolutional nets on two classes of CIFAR-10, as on digits in `training`."""

from __future__ import annotations

from dataclasses import dataclass

from descent.data.draws import Draws
from descent.data.images import channels_first, load, pair, pooled, signs
from descent.engine import sgd
from descent.experiments.geometry.looks import Course, follow, levels
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.nets import CNN, SquaredError, Supervised


@dataclass(frozen=True)
class Cifar:
    """Two convolutions and two dense layers, no normalisation, told airplanes from automobiles at 16 × 16 pixels."""

    replicas: Share = Share(over=31, least=32, most=64)
    draws: int = 16  # of so many examples, disjoint: there are ten thousand
    widths: tuple[int, ...] = (8, 16)
    dense: tuple[int, ...] = (32,)
    side: int = 2  # pixels averaged to one
    examples: int = 128
    batch_size: int = 16
    lr: float = 0.05
    steps: int = 600
    looks: int = 6
    directions: int = 40


@dataclass(frozen=True, eq=False)
class CifarResult(Result[Cifar]):
    """The course of the nets under square loss."""

    course: Course
    sets: Draws  # net i is trained on draw i mod D


def run(config: Cifar, lab: Lab) -> CifarResult:
    """Train and look."""
    data = pair(load("cifar10"), "airplane", "automobile")
    sets = lab.draws(len(data), config.examples, config.draws)
    images = channels_first((pooled(data, config.side) if config.side > 1 else data).images)
    inputs, targets = lab.bring(images, signs(data.labels).unsqueeze(1))
    model = CNN(widths=config.widths, dense=config.dense, size=images.shape[-1], classes=1)
    problem = Supervised(model, SquaredError(), inputs, targets, config.batch_size, rows=sets.rows)
    arms = lab.arms(sgd(config.lr), lab.per_draw(config.replicas, config.draws))
    return CifarResult(config, lab, follow(problem, arms, config.steps, config.looks, config.directions), sets)


def estimates(result: CifarResult) -> Estimates:
    """Return what the nets say about P5-C9."""
    return {"P5-C9.cifar": levels(result.sets, result.course)}


def tables(result: CifarResult) -> Tables:
    """Return means over the nets, one row per look."""
    return {"cifar": result.course.table()}


CIFAR = Experiment(
    "cifar", small=Cifar(), run=run, estimates=estimates, tables=tables,
    large=Cifar(
        Share(over=30, least=30), widths=(32, 64), dense=(128,), side=1, examples=1000, batch_size=32, steps=6000,
        looks=20, draws=10,
    ),
)  # fmt: skip

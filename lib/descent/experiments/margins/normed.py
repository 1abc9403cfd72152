"""The small-batch rows of the paper's table: ResNet-18 with batch norm and without, at a fixed number of epochs.

Stated for paper scale alone, and a check of directions: few seeds on one training set, no verdict. It adds what the
paper leaves out, plain descent at the learning rate that makes its effective step that of momentum. With batch norm a
step is worth what the length of the weights makes it, so that the two need not be matched there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import torch

from descent.arrays import Array, BoolArray
from descent.data.images import Pictures, pictures
from descent.engine import Params, every, heavy_ball
from descent.engine.precision import Precision
from descent.engine.probes import Leaves
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.nets import CrossEntropy, ResNet, Supervised
from descent.nets.convolutional import Norm

NAMES = ("plain", "momentum", "plain, matched step")


@dataclass(frozen=True)
class Normed:
    """Shuffled epochs at a constant rate, no crops, no flips, no decay; heavy ball.

    Losses are those of the first `watched` training images and, like accuracies, in float32, batch norms settled on
    these images.
    """

    replicas: Share = Share(most=2)
    norms: tuple[Norm, ...] = ("batch", "none")
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    lr: float = 0.02
    remembering: float = 0.9  # the momentum of the arm that has one
    batch_size: int = 128
    examples: int = 10_000
    tests: int = 5000
    watched: int = 2000
    pool: int = 1  # pixels of a side that are averaged to one
    epochs: int = 60
    look: int = 10  # epochs between two looks
    precision: Precision = "bf16"
    check: int = 50

    @property
    def arms(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Rates and momenta of the arms of NAMES."""
        return (self.lr, self.lr, self.lr / (1 - self.remembering)), (0.0, self.remembering, 0.0)

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.examples // self.batch_size

    def trained_images(self, lab: Lab) -> Mapping[str, float]:
        """Return how many training images all replicas go through, by the net's name."""
        images = self.epochs * self.epoch * self.batch_size
        return {"ResNet-18": float(len(self.norms) * len(NAMES) * lab.count(self.replicas) * images)}


@dataclass(frozen=True, eq=False)
class NormedResult:
    """Training loss and test accuracy in percent (norms, 3, N, T) at epochs (T,); lost (norms, 3, N): who diverged."""

    config: Normed
    title: str
    epochs: Array
    loss: Array
    accuracy: Array
    lost: BoolArray


def run(config: Normed, lab: Lab) -> NormedResult:
    """Train a stack per norm; DataMissing without the images."""
    data = pictures("cifar10", config.examples, config.tests, config.pool, lab.device)
    arms, examples, found = lab.arms(heavy_ball(*config.arms), config.replicas), (data.inputs, data.labels), []
    for norm in config.norms:
        model = ResNet(blocks=config.blocks, widths=config.widths, norm=norm)
        exact = Supervised(model, CrossEntropy(), *examples, config.batch_size, "shuffled_epochs")
        looks = {"": every(config.look * config.epoch, partial(_look, exact, config.watched, data))}
        problem, steps = replace(exact, precision=config.precision), config.epochs * config.epoch
        found.append(arms.run(problem, model.initial, steps, probes=looks, check=config.check))
    loss, accuracy = (np.stack([done[name] for done in found]) for name in (".loss", ".accuracy"))
    epochs, lost = found[0].at(".loss") / config.epoch, np.stack([done.lost for done in found])
    return NormedResult(config, data.title, epochs, loss, accuracy, lost)


def _look(exact: Supervised, watched: int, data: Pictures, params: Params) -> Leaves:
    """Return training loss and test accuracy (rows,)."""
    inputs, labels = exact.inputs[:watched], exact.targets[:watched]
    settled = cast(ResNet, exact.model).settled(leaves(params), inputs)
    with torch.no_grad():
        accuracy = 100 * exact.accuracy(settled, data.test_inputs, data.test_labels)
        return {"loss": exact.value(settled, inputs, labels), "accuracy": accuracy}


def estimates(result: NormedResult) -> Estimates:
    """Return nothing: too few seeds."""
    return {}


def tables(result: NormedResult) -> Tables:
    """Return one row per norm, arm and look; means over the seeds that did not diverge."""
    config, alive = result.config, ~result.lost
    lr, momentum = (np.array(values)[:, None] for values in config.arms)
    with np.errstate(invalid="ignore"):  # none alive: no mean
        loss, accuracy = (
            values.sum(axis=2, where=alive[..., None]) / alive.sum(axis=2)[..., None]
            for values in (result.loss, result.accuracy)
        )
    replicas, diverged = (who.sum(axis=2)[..., None] for who in (alive, result.lost))
    frame = tidy(
        {"norm": config.norms, "arm": NAMES, "epoch": result.epochs}, net="ResNet-18", lr=lr, momentum=momentum,
        loss=loss, accuracy=accuracy, replicas=replicas, diverged=diverged, data=result.title,
    )  # fmt: skip
    return {"normed": frame}


SMALL = Normed(  # on images of 8 × 8 pixels
    blocks=(1, 1), widths=(8, 8), batch_size=40, examples=160, tests=100, watched=80, pool=4, epochs=4, look=2,
    precision="float32", check=2,
)  # fmt: skip
NORMED = Experiment("normed", SMALL, large=Normed(), run=run, estimates=estimates, tables=tables, scales=("gpu",))

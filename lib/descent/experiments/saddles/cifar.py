"""Six arms on CIFAR-10: momentum, its two annealings, and plain descent with the matched step, annealed and not.

Does a net that cuts its step late owe what it reaches to the momentum it began with? If plain descent with the matched
step and the same cut ends as low, it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data import images
from descent.data.draws import Draws
from descent.engine import Params, every
from descent.engine.probes import Leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.saddles.arms import BEFORE, SIX, Arm, race, rule
from descent.nets import MLP, CrossEntropy, Supervised
from descent.stats import draw_difference, draw_mean


@dataclass(frozen=True)
class Cifar:
    """A two-layer tanh net on principal components of images that must be on the machine; annealed at `switch`."""

    components: int = 64  # of all training images together
    images: int = 5000
    draws: int = 10  # of so many images, none in two of them
    test_examples: int = 10_000
    hidden: int = 48
    batch_size: int = 32
    lr: float = 0.05
    early: int = 100  # step at which speed is compared
    switch: int = 3000
    steps: int = 4500
    every: int = 50
    watched: int = 1000  # images of each draw that the curve is drawn from
    replicas: Share = Share(most=30)  # nets of every arm, as many for each draw


@dataclass(frozen=True, eq=False)
class CifarResult:
    """Final training loss and test accuracy (6, N) of SIX; early (2, N) training loss of plain and momentum.

    curve (6, T): mean loss at steps (T,) on a fixed part of each draw's training images; `title` names the data in
    labels. A replica that diverged in any arm is not a number in all. sets: the images of every draw.
    """

    config: Cifar
    lab: Lab
    sets: Draws
    title: str
    loss: Array
    accuracy: Array
    early: Array
    curve: Array
    steps: IntArray


def run(config: Cifar, lab: Lab) -> CifarResult:
    """Train three arms to the switch and go on with six, on the same batches; DataMissing without the images."""
    data = images.project("cifar10", config.components, config.draws * config.images, config.test_examples)
    inputs, labels, *tests = lab.bring(data.inputs, data.labels, data.test_inputs, data.test_labels)
    sets, net = lab.draws(len(labels), config.images, config.draws), MLP((config.components, config.hidden, 10), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, config.batch_size, rows=sets.rows)
    probe = every(config.every, lambda net: problem.value(net, rows=sets.rows[:, : config.watched]))
    before = lab.arms(rule(BEFORE, config.lr, lab.momentum), lab.per_draw(config.replicas, config.draws))
    after, legs = rule(SIX, config.lr, lab.momentum, annealed=True), (config.early, config.switch, config.steps)
    done = race(problem, before, after, legs, {"loss": probe})
    return CifarResult(
        config, lab, sets, data.title,
        loss=done.end(problem.value), accuracy=done.end(lambda params: _accuracy(net, params, *tests)),
        early=done.early(problem.value), curve=np.nanmean(done.curve("loss"), axis=1), steps=done.at("loss"),
    )  # fmt: skip


def _accuracy(net: MLP, params: Params, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the share of test images (R,) each replica gets right, one replica at a time to save memory."""
    leaves, shares = cast(Leaves, params), []
    for r in range(len(leaves["0.weight"])):
        outputs = net.forward({name: leaf[r : r + 1] for name, leaf in leaves.items()}, inputs.unsqueeze(0))
        shares.append((outputs.argmax(-1) == labels).double().mean(1))
    return torch.cat(shares)


def estimates(result: CifarResult) -> Estimates:
    """Return what CIFAR-10 says about P3-C3, P3-C4, P3-C16 and P3-X1."""
    loss = dict(zip(SIX, result.sets.by_draw(result.loss), strict=True))
    return {
        "P3-C3.cifar": draw_difference(loss[Arm.HEAD], loss[Arm.STEP]),
        "P3-C4.cifar": draw_difference(loss[Arm.SWITCHED], loss[Arm.STEP]),
        "P3-C16.cifar": draw_difference(*result.sets.by_draw(result.early)),
        "P3-X1.cifar": draw_difference(loss[Arm.STEP], loss[Arm.ANNEALED]),
    }


def tables(result: CifarResult) -> Tables:
    """Return one row per arm, with intervals over the draws."""
    last = rule(SIX, result.config.lr, result.lab.momentum, annealed=True)
    loss, accuracy = (
        np.array([draw_mean(arm) for arm in result.sets.by_draw(values)], dtype=object)
        for values in (result.loss, result.accuracy)
    )
    return {
        "cifar": tidy(
            {"arm": SIX}, data=result.title, final_lr=last.lr.numpy(), final_momentum=last.momentum.numpy(),
            loss=loss, accuracy=accuracy, replicas=np.isfinite(result.loss).sum(axis=1),
        )
    }  # fmt: skip


LARGE = Cifar(256, hidden=256, switch=6000, steps=9000, watched=5000, replicas=Share(most=60))
CIFAR = Experiment("cifar", small=Cifar(), large=LARGE, run=run, estimates=estimates, tables=tables)

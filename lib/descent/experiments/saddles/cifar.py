"""Six arms on CIFAR-10: momentum, its two annealings, and plain descent with the matched step, annealed and not.

Does a net that cuts its step late owe what it reaches to the momentum it began with? If plain descent with the matched
step and the same cut ends as low, it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from scipy.stats import sem
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data import images
from descent.engine import Params, every
from descent.engine.probes import Leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.saddles.arms import BEFORE, SIX, Arm, race, rule
from descent.nets import MLP, CrossEntropy, Supervised
from descent.stats import paired_difference


@dataclass(frozen=True)
class Cifar:
    """A two-layer tanh net on principal components of images that must be on the machine; annealed at `switch`."""

    components: int = 64
    examples: int = 20_000
    test_examples: int = 10_000
    hidden: int = 48
    batch_size: int = 32
    lr: float = 0.05
    early: int = 100  # step at which speed is compared
    switch: int = 3000
    steps: int = 4500
    every: int = 50
    watched: int = 2000  # training examples the curve is drawn from
    replicas: Share = Share(most=32)


@dataclass(frozen=True, eq=False)
class CifarResult:
    """Final training loss and test accuracy (6, N) of SIX; early (2, N) training loss of plain and momentum.

    curve (6, T): mean loss at steps (T,) on a fixed part of the training images; `title` names the data in
    labels. A replica that diverged in any arm is dropped from all.
    """

    config: Cifar
    lab: Lab
    title: str
    loss: Array
    accuracy: Array
    early: Array
    curve: Array
    steps: IntArray


def run(config: Cifar, lab: Lab) -> CifarResult:
    """Train three arms to the switch and go on with six, on the same batches; DataMissing without the images."""
    data = images.project("cifar10", config.components, config.examples, config.test_examples)
    inputs, labels, *tests = lab.bring(data.inputs, data.labels, data.test_inputs, data.test_labels)
    net = MLP((config.components, config.hidden, 10), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, config.batch_size)
    rows = slice(0, config.watched)
    probe = every(config.every, lambda net: problem.value(net, inputs[rows], labels[rows]))
    before = lab.arms(rule(BEFORE, config.lr, lab.momentum), config.replicas)
    after, legs = rule(SIX, config.lr, lab.momentum, annealed=True), (config.early, config.switch, config.steps)
    done = race(problem, before, after, legs, {"loss": probe})
    return CifarResult(
        config, lab, data.title,
        loss=done.end(problem.value), accuracy=done.end(lambda params: _accuracy(net, params, *tests)),
        early=done.early(problem.value), curve=done.curve("loss").mean(1), steps=done.at("loss"),
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
    loss = dict(zip(SIX, result.loss, strict=True))
    return {
        "P3-C3.cifar": paired_difference(loss[Arm.HEAD], loss[Arm.STEP]),
        "P3-C4.cifar": paired_difference(loss[Arm.SWITCHED], loss[Arm.STEP]),
        "P3-C16.cifar": paired_difference(*result.early),
        "P3-X1.cifar": paired_difference(loss[Arm.STEP], loss[Arm.ANNEALED]),
    }


def tables(result: CifarResult) -> Tables:
    """Return one row per arm."""
    last = rule(SIX, result.config.lr, result.lab.momentum, annealed=True)
    return {
        "cifar": tidy(
            {"arm": SIX}, data=result.title, final_lr=last.lr.numpy(), final_momentum=last.momentum.numpy(),
            loss=result.loss.mean(1), loss_error=sem(result.loss, axis=1), accuracy=result.accuracy.mean(1),
            accuracy_error=sem(result.accuracy, axis=1), replicas=result.loss.shape[1],
        )
    }  # fmt: skip


LARGE = Cifar(256, 50_000, hidden=256, switch=60_000, steps=90_000, every=500, watched=10_000, replicas=Share(most=64))
CIFAR = Experiment("cifar", small=Cifar(), large=LARGE, run=run, estimates=estimates, tables=tables)

"""What the experiments of the chapter share: the paper's three rules with their control, and small image tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

from torch import Tensor

from descent.data.images import centred, load, pooled, redrawn
from descent.engine import Arms, Hyper, Params, ema, heavy_ball, sgd, stack
from descent.experiments.lab import Lab
from descent.measure.noise import SearchNoise, full_gradient
from descent.nets import MLP, CrossEntropy, Model, Supervised
from descent.nets.supervised import Sampling
from descent.theory.search_noise import Rule

EXAMPLES = {"digits": (1000, 797), "mnist": (1000, 3000)}
"""How many images train and test a network by default."""


class Arm(IntEnum):
    """The paper's rules; the last is plain descent at the effective learning rate lr/(1 − momentum) of heavy ball."""

    PLAIN = 0
    AVERAGED = 1
    HEAVY = 2
    MATCHED = 3


NAMES = ("plain", "averaged", "heavy ball", "plain, matched step")
RULES: tuple[Rule, ...] = ("sgd", "ema", "heavy_ball")


def rules(lr: float, momentum: float) -> Hyper:
    """Return the paper's three rules at one learning rate."""
    return stack(sgd(lr), ema(lr, momentum), heavy_ball(lr, momentum))


@dataclass(frozen=True, eq=False)
class Task:
    """A net of one hidden layer on all training images, whose labels may lie; test images with true labels."""

    title: str
    full: Supervised
    tests: tuple[Tensor, Tensor]

    @property
    def model(self) -> Model:
        """The net."""
        return self.full.model

    def batches(self, size: int, sampling: Sampling = "with_replacement") -> Supervised:
        """Return the same loss, in batches."""
        return replace(self.full, batch_size=size, sampling=sampling)

    def accuracy(self, params: Params) -> Tensor:
        """Return the share of test images that are classified right, in percent, (R,)."""
        return 100 * self.full.accuracy(params, *self.tests)


def task(lab: Lab, data: str, share: float, hidden: int, examples: int | None = None) -> Task:
    """Return "digits" or "mnist" (at 14 × 14 pixels), a `share` of the training labels redrawn."""
    count, tested = EXAMPLES[data]
    if data == "digits":
        train, test = load(data).take(examples or count), load(data).take(tested, skip=count)
    else:
        train, test = pooled(load(data).take(examples or count)), pooled(load(data, "test").take(tested))
    drawn = redrawn(train, share)
    inputs, test_inputs = lab.bring(*(centred(part.images, like=train.images) for part in (train, test)))
    labels, test_labels = lab.bring(drawn.labels, test.labels)
    full = Supervised(MLP((inputs.shape[1], hidden, 10)), CrossEntropy(), inputs, labels, None, "full")
    return Task(drawn.title, full, (test_inputs, test_labels))


def search_noise(problem: Supervised, arms: Arms, every: int, window: int = 0) -> SearchNoise:
    """Return the probe of ω in a run of these arms."""
    return SearchNoise(problem, partial(full_gradient, problem), arms.hyper, arms.streams, every, window)

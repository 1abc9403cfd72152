"""What the experiments of the chapter share: the paper's three rules with their control, and small image tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

import numpy as np
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.data.images import ImageSet, centred, load, pooled, redrawn
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
    train, test = _parts(data, examples or count, tested)
    drawn = redrawn(train, share)
    inputs, test_inputs = lab.bring(*(centred(part.images, like=train.images) for part in (train, test)))
    labels, test_labels = lab.bring(drawn.labels, test.labels)
    full = Supervised(MLP((inputs.shape[1], hidden, 10)), CrossEntropy(), inputs, labels, None, "full")
    return Task(drawn.title, full, (test_inputs, test_labels))


def _parts(data: str, count: int, tested: int) -> tuple[ImageSet, ImageSet]:
    """Return disjoint images to train and to test on."""
    if data == "digits":
        return load(data).take(count), load(data).take(tested, skip=EXAMPLES[data][0])
    return pooled(load(data).take(count)), pooled(load(data, "test").take(tested))


def search_noise(problem: Supervised, arms: Arms, every: int, window: int = 0) -> SearchNoise:
    """Return the probe of ω in a run of these arms."""
    return SearchNoise(problem, partial(full_gradient, problem), arms.hyper, arms.streams, every, window)


def survivors(lost: Array | BoolArray) -> BoolArray:
    """Return which replicas lived through all of several runs, of lost (…, N): pairs are kept or dropped whole.

    Raises: ValueError when fewer than two are left.
    """
    alive = np.asarray(~(lost > 0).reshape(-1, lost.shape[-1]).any(axis=0))
    if alive.sum() < 2:
        raise ValueError(f"all but {alive.sum()} of {len(alive)} networks diverged in some arm; choose smaller rates")
    return alive

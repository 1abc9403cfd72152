"""What the experiments of the chapter share: the paper's three rules with their control, and small tasks in draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.data.draws import Draws, fresh, redrawn_each
from descent.data.images import centred, load, pooled
from descent.engine import Arms, Hyper, Params, ema, heavy_ball, sgd, stack
from descent.engine.arms import survivors
from descent.experiments.lab import Lab
from descent.measure.noise import SearchNoise, full_gradient
from descent.nets import MLP, CrossEntropy, Model, Supervised
from descent.nets.supervised import Sampling
from descent.problems.glyphs import CLASSES, glyphs
from descent.stats import Estimate
from descent.theory.search_noise import Rule

EXAMPLES = {"digits": (1000, 797), "mnist": (1000, 3000), "glyphs": (1000, 4000)}
"""How many examples of a draw train a network by default, and how many others test it."""

ENDINGS = {"digits": "", "glyphs": "_glyphs"}
"""What the keys of the tests end on that ask one question of several kinds of data."""


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
    """A net of one hidden layer on draws of a training set, whose labels may lie; its test examples have true labels.

    full: the loss on all training examples, replica r on draw r mod D; labels: the true ones of all examples there are.
    """

    title: str
    full: Supervised
    sets: Draws
    labels: Tensor

    @property
    def model(self) -> Model:
        """The net."""
        return self.full.model

    def batches(self, size: int, sampling: Sampling = "with_replacement") -> Supervised:
        """Return the same loss, in batches."""
        return replace(self.full, batch_size=size, sampling=sampling)

    def accuracy(self, params: Params) -> Tensor:
        """Return the share of a replica's test examples that are classified right, in percent, (R,)."""
        return 100 * self.full.accuracy(params, targets=self.labels, rows=self.sets.test)


def task(lab: Lab, data: str, share: float, hidden: int, draws: int, examples: int | None = None) -> Task:
    """Return draws of "digits", "mnist" (at 14 × 14 pixels) or "glyphs", a `share` of the training labels redrawn.

    Draws of the same size and number are the same in every task of a lab, with other labels. Those of MNIST have no
    image in common, glyphs are made anew for every draw, and of digits there are too few: draws of a thousand have more
    than half of their images in common, and intervals over them are too narrow.
    """
    count, tested = EXAMPLES[data]
    title, inputs, labels, sets = (_fresh if data == "glyphs" else _drawn)(lab, data, examples or count, tested, draws)
    targets = redrawn_each(labels[sets.rows], share, CLASSES, lab.streams(draws))
    model = MLP((inputs.shape[1], hidden, CLASSES))
    full = Supervised(model, CrossEntropy(), inputs, targets, None, "full", rows=sets.rows)
    return Task(f"{title}, {share:.0%} of the labels redrawn", full, sets, labels)


def _drawn(lab: Lab, data: str, size: int, tested: int, draws: int) -> tuple[str, Tensor, Tensor, Draws]:
    """Return title, inputs and labels of all images, and draws of them."""
    images = load(data) if data == "digits" else pooled(load(data))
    inputs, labels = lab.bring(centred(images.images), images.labels)
    return images.title, inputs, labels, lab.draws(len(images), size, draws, tests=tested)


def _fresh(lab: Lab, data: str, size: int, tested: int, draws: int) -> tuple[str, Tensor, Tensor, Draws]:
    """Return title, inputs and labels of sets made anew, laid end to end, and the draws they are."""
    inputs, labels = glyphs(lab.streams(draws), size + tested)
    return data, inputs.flatten(0, 1), labels.flatten(0, 1), fresh(draws, size, tested).to(lab.device)


def search_noise(problem: Supervised, arms: Arms, every: int, window: int = 0) -> SearchNoise:
    """Return the probe of ω in a run of these arms."""
    return SearchNoise(problem, partial(full_gradient, problem), arms.hyper, arms.streams, every, window)


def whole(values: Array, lost: BoolArray | Array) -> Array:
    """Return values (…, N), not a number in replicas that diverged in any arm: pairs live or go together."""
    return np.where(survivors(lost), values, np.nan)


def over_draws(sets: Draws, statistic: Callable[..., Estimate]) -> Callable[..., Estimate]:
    """Return a statistic of samples (draws, replicas) as one of values (N,), replica r of draw r mod D."""

    def found(*values: Array, **options: Any) -> Estimate:
        return statistic(*map(sets.by_draw, values), **options)

    return found


def listed(found: Any) -> list[Estimate]:
    """Return an array of estimates, of any shape, as the list that a rule over every cell asks for."""
    return list(np.ravel(found))

"""Small image tasks for networks that generalise, or fail to: training images whose labels may lie, test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from descent.data.images import ImageSet, centred, load, pooled, redrawn
from descent.engine.probes import Params
from descent.nets.dense import CrossEntropy, Model
from descent.nets.supervised import Sampling, Supervised

EXAMPLES = {"digits": (1000, 797), "mnist": (1000, 3000)}
"""How many images train and test a network by default."""


@dataclass(frozen=True, eq=False)
class Task:
    """Centred inputs (n, D) and labels (n,) to train on, test inputs (m, D) and true labels (m,)."""

    title: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor

    def problem(self, model: Model, batch_size: int | list[int] | None, sampling: Sampling) -> Supervised:
        """Return the mean cross-entropy over the training images."""
        return Supervised(model, CrossEntropy(), self.inputs, self.labels, batch_size, sampling)

    def accuracy(self, model: Model, params: Params) -> Tensor:
        """Return the share of test images that are classified right, in percent, (R,)."""
        tested = self.problem(model, None, "full")
        return 100 * tested.accuracy(params, self.test_inputs, self.test_labels)


def task(data: str, share: float, device: str, examples: int | None = None) -> Task:
    """Return "digits" or "mnist" (at 14 × 14 pixels), a `share` of the training labels redrawn."""
    count, tested = EXAMPLES[data]
    train, test = _parts(data, examples or count, tested)
    drawn = redrawn(train, share)
    inputs, test_inputs = (centred(part.images, like=train.images).to(device) for part in (train, test))
    return Task(drawn.title, inputs, drawn.labels.to(device), test_inputs, test.labels.to(device))


def _parts(data: str, count: int, tested: int) -> tuple[ImageSet, ImageSet]:
    """Return disjoint images to train and to test on."""
    if data == "digits":
        return load(data).take(count), load(data).take(tested, skip=EXAMPLES[data][0])
    return pooled(load(data).take(count)), pooled(load(data, "test").take(tested))


def survivors(lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which replicas lived in every arm, of lost (…, N): pairs are kept or dropped whole."""
    alive = np.asarray(~lost.reshape(-1, lost.shape[-1]).any(axis=0))
    if alive.sum() < 2:
        raise ValueError(f"all but {alive.sum()} of {len(alive)} networks diverged in some arm; choose smaller rates")
    return alive

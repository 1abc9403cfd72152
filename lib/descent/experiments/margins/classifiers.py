"""What the experiments with ordinary networks on CIFAR-10 share: images, arms, and what they score at equal loss.

Descent at the edge of stability is uneven, and a first crossing of a loss target may fall on a spike: accuracy "at
equal loss" is the mean over some looks from the first one below the target on. Looks are plain functions of the
weights, so that a run that is killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.arrays import Array
from descent.data.images import channels_first, part
from descent.engine.probes import FirstPassage, Params, Probe, every
from descent.engine.rules import ema, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, train
from descent.experiments.arms import to_numpy
from descent.experiments.margins.phase import best_gap
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap

Tests = Sequence[tuple[Tensor, Tensor]]

CLASSES = 10
RATES = (0.1, 0.3, 0.9)
IMAGE = 74.1
"""MFLOP of a training image of ResNet-8 at 32 × 32 pixels, by which plans count (see `descent.runs.budget`)."""


@dataclass(frozen=True)
class Net:
    """A network, the EMA rates and momenta of its arms, seeds per arm, the steps allowed, MFLOP per training image."""

    name: str
    model: CNN | ResNet
    lrs: tuple[float, ...]
    momenta: tuple[float, ...]
    replicas: int
    steps: int
    mflop: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """How arms are run and compared at falling loss targets, by images of CIFAR-10.

    The weights are looked at every `look` steps; `looks` looks from the first one below a target on make the accuracy
    there. `pool`: pixels of a side that are averaged to one. `usual`: the share of the steps allowed that arms take on
    average, for the plan.
    """

    seed: int
    device: str
    momentum: float
    targets: tuple[float, ...]
    examples: int
    tests: int
    pool: int = 2
    look: int = 5
    looks: int = 5
    usual: float = 0.25

    def counted(self, net: Net, size: int | None, look: int, sets: int = 1) -> float:
        """Return how many images of ResNet-8 at 32 × 32 pixels an expected run of all arms is worth.

        A look goes forward through the training images and through `sets` test sets, at a third of the cost.
        """
        arms = len(net.lrs) * len(net.momenta)
        images = (size or self.examples) + (self.examples + sets * self.tests) / (3 * look)
        return net.replicas * arms * self.usual * net.steps * images * net.mflop / IMAGE


@dataclass(frozen=True, eq=False)
class Pictures:
    """Training and test images (n, C, H, W) on the device, with labels (n,)."""

    title: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor


@dataclass(frozen=True, eq=False)
class Stand:
    """Where the replicas of an arm stand at each loss target.

    step (L, S): the first look below it, −1 where it was not met or not for long enough to look. accuracy (K, L, S):
    percent right on each test set, not a number where the target was not met. lost (S,): who diverged.
    """

    step: Array
    accuracy: Array
    lost: NDArray[np.bool_]


def pictures(examples: int, tests: int, pool: int, device: str) -> Pictures:
    """Return the first images of both splits in their fixed shuffled order, every class fairly represented.

    pool: pixels of a side that are averaged to one.
    Raises: DataMissing without the images.
    """
    train, test = (part("cifar10", split, count, pool) for split, count in (("train", examples), ("test", tests)))
    inputs, others = (channels_first(each.images, like=train.images).to(device) for each in (train, test))
    return Pictures(train.title, inputs, train.labels.to(device), others, test.labels.to(device))


def objective(net: Net, inputs: Tensor, labels: Tensor, size: int | None = None) -> Supervised:
    """Return the mean loss over all images, or over batches of shuffled epochs; always in float32.

    Below a loss of a tenth a full gradient is what rounding leaves of a sum that cancels.
    """
    return Supervised(net.model, CrossEntropy(), inputs, labels, size, "full" if size is None else "shuffled_epochs")


def stand(course: Course, net: Net, problem: Supervised, arm: tuple[float, float], tests: Tests, look: int) -> Stand:
    """Train an arm (lr, momentum) until all replicas have met the last target, or for the net's steps; look there.

    Each arm is a stack of its own, done when its slowest replica is; replica i of every arm starts from the same
    weights and sees the same batches.
    """
    streams = Streams(replica_seeds(course.seed, net.replicas, course.device))
    hyper = repeat(ema(*arm), net.replicas).to(course.device)

    def seen(params: Params) -> dict[str, Tensor]:
        scores = [problem.accuracy(params, *each) for each in tests]
        return {"loss": problem.value(params), "accuracy": 100 * torch.stack(scores, dim=1)}

    looks: dict[str, Probe] = {"": every(look, seen)}
    window, last = look * (course.looks - 1), min(course.targets)
    stop = FirstPassage(lambda params: problem.value(params) < last, every=max(window, look), stop=True)
    first = train(
        problem,
        net.model.initial(streams),
        hyper,
        net.steps,
        streams,
        probes=looks | {"stop": stop},
        limit=1e4,
        check=look,
    )
    rest = train(
        problem,
        first.params,
        hyper,
        first.steps + window,
        streams,
        probes=looks,
        velocity=first.velocity,
        begin=first.steps,
        limit=1e4,
        check=look,
    )
    return _stand(course, first, rest)


def _stand(course: Course, first: Run, rest: Run) -> Stand:
    """Read off the records of both legs; the look at their seam is in both."""
    steps, loss, accuracy = (np.concatenate([a[:-1], b]) for a, b in zip(_read(first), _read(rest), strict=True))
    fell = np.where(to_numpy(first.diverged_at) >= 0, to_numpy(first.diverged_at), to_numpy(rest.diverged_at))
    after = (fell >= 0) & (steps[:, None] > fell)
    step, found = at_targets(steps, np.where(after, np.nan, loss), accuracy, course.targets, course.looks)
    return Stand(step, np.moveaxis(found, -1, 0), fell >= 0)


def _read(run: Run) -> tuple[Array, Array, Array]:
    """Return steps (T,), losses (T, S) and accuracies (T, S, K)."""
    loss, accuracy = run.records[".loss"], run.records[".accuracy"]
    return to_numpy(loss.steps), to_numpy(loss.values), to_numpy(accuracy.values)


def at_targets(steps: Array, loss: Array, accuracy: Array, targets: Sequence[float], looks: int) -> tuple[Array, Array]:
    """Return the step of the first look below each target (L, S), and the mean of the looks from it on (L, S, K).

    loss (T, S), not a number once a replica is lost; accuracy (T, S, K).
    """
    found = []
    for target in targets:
        below = loss < target
        begin = below.argmax(axis=0)
        rows = np.minimum(begin + np.arange(looks)[:, None], len(loss) - 1)
        whole = below.any(axis=0) & (begin + looks <= len(loss))
        whole &= np.isfinite(np.take_along_axis(loss, rows, axis=0)).all(axis=0)
        means = np.take_along_axis(accuracy, rows[..., None], axis=0).mean(axis=0)
        found.append((np.where(whole, steps[begin], -1.0), np.where(whole[:, None], means, np.nan)))
    step, mean = (np.stack(values) for values in zip(*found, strict=True))
    return step, mean


def errors(accuracy: Array) -> Array:
    """Return errors in percent; who diverged or did not meet the target has the error of chance.

    So a rate is worth what all its seeds got. To leave out those who failed would compare the lucky ones; to leave out
    the rate would leave no answer where one seed of many comes late.
    """
    return np.asarray(100 - np.where(np.isnan(accuracy), 100 / CLASSES, accuracy))


def gain(found: Array, pair: tuple[int, int], seed: int) -> Estimate:
    """Return the error of plain descent minus that with momentum, errors (E, M, S), each at its best of the same rates.

    pair: the two among the momenta. The best rates are chosen anew in every resample of the seeds.
    """
    return bootstrap(best_gap, np.moveaxis(found[:, list(pair)], -1, 0), seed=seed)


def row(step: Array, accuracy: Array, lost: NDArray[np.bool_]) -> dict[str, float]:
    """Return what a table says of the replicas (S,) of an arm at a target; means over those that met it."""
    met = step >= 0
    count = int(met.sum())
    return {
        "accuracy": float(accuracy[met].mean()) if count else np.nan,
        "accuracy_error": float(accuracy[met].std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan,
        "step": float(np.median(step[met])) if count else np.nan,
        "reached": count,
        "diverged": int(lost.sum()),
        "replicas": len(step),
    }

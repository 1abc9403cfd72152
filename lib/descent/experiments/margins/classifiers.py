"""What the experiments with ordinary networks on CIFAR-10 share: images, arms, and what they score at equal loss.

Descent at the edge of stability is uneven, and a first crossing of a loss target may fall on a spike: accuracy "at
equal loss" is the mean over some looks from the first one below the target on. Looks are plain functions of the
weights, so that a run that is killed goes on where it was.

Replicas are trained on draws of the training images that have none in common, replica r on draw r mod D; the draw is
what counts once in an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import ArmRun, FirstPassage, Params, ema, every
from descent.experiments.lab import Lab, Share, tidy
from descent.experiments.margins.arms import best_gap
from descent.nets import CNN, CrossEntropy, ResNet, Supervised
from descent.nets.supervised import Sampling
from descent.stats import Estimate, bootstrap

Examples = tuple[Tensor, Tensor]
Tests = Sequence[Examples]

CLASSES = 10
IMAGE = 74.1
"""MFLOP of a training image of ResNet-8 at 32 × 32 pixels, by which plans count (see `descent.runs.budget`)."""


@dataclass(frozen=True)
class Net:
    """A network and its arms, one per EMA rate and momentum."""

    name: str
    model: CNN | ResNet
    steps: int  # allowed
    mflop: float  # per training image
    replicas: Share
    lrs: tuple[float, ...] = (0.1, 0.3, 0.9)
    momenta: tuple[float, ...] = ()  # beside 0 and the headline

    def pair(self, lab: Lab, momentum: float) -> tuple[int, int]:
        """Return where plain descent and a momentum stand among the momenta."""
        arms = lab.momenta(self.momenta)
        return arms.index(0.0), arms.index(momentum)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How arms are run and compared at falling loss targets, by images of CIFAR-10."""

    targets: tuple[float, ...]
    examples: int  # of a draw
    tests: int
    draws: int = 10
    pool: int = 2  # pixels of a side that are averaged to one
    look: int = 5  # steps between two looks at the weights
    look_batches: int = 10  # the same of runs on small batches
    looks: int = 5  # that make the accuracy at a target, from the first one below it on
    usual: float = 0.25  # the share of the steps allowed that arms take on average, for the plan

    @property
    def images(self) -> int:
        """Return the number of training images of all draws."""
        return self.draws * self.examples

    def between(self, size: object) -> int:
        """Return the steps between two looks at a batch size, None for everything."""
        return self.look if size is None else self.look_batches

    def counted(self, lab: Lab, net: Net, size: int | None = None, sets: int = 1) -> float:
        """Return how many images of ResNet-8 at 32 × 32 pixels an expected run of all arms is worth.

        A look goes forward through the training images and through `sets` test sets, at a third of the cost.
        """
        arms = len(net.lrs) * len(lab.momenta(net.momenta))
        images = (size or self.examples) + (self.examples + sets * self.tests) / (3 * self.between(size))
        return lab.per_draw(net.replicas, self.draws) * arms * self.usual * net.steps * images * net.mflop / IMAGE


@dataclass(frozen=True, eq=False)
class Stand:
    """Where replicas stand at each loss target.

    step (…, L, S): the first look below it, −1 where it was not met or not for long enough to look. accuracy
    (K, …, L, S): percent right on each test set, not a number where the target was not met. lost (…, S): who diverged.
    """

    step: Array
    accuracy: Array
    lost: BoolArray


def objective(
    net: Net, inputs: Tensor, labels: Tensor, size: int | None = None, rows: Tensor | None = None
) -> Supervised:
    """Return the mean loss over all images of a draw, or over batches of shuffled epochs; always in float32.

    Below a loss of a tenth a full gradient is what rounding leaves of a sum that cancels.
    """
    sampling: Sampling = "full" if size is None else "shuffled_epochs"
    return Supervised(net.model, CrossEntropy(), inputs, labels, size, sampling, rows=rows)


def stands(course: Course, lab: Lab, net: Net, train: Examples, tests: Tests, size: int | None = None) -> Stand:
    """Return where all arms of a net stand, everything (E, M, …) over rates and momenta, accuracy (K, E, M, L, S).

    train: the images of all draws.
    """
    sets = lab.draws(course.images, course.examples, course.draws)
    problem = objective(net, *train, size, sets.rows)
    arms = [(lr, momentum) for lr in net.lrs for momentum in lab.momenta(net.momenta)]
    found = [stand(course, lab, net, problem, arm, tests) for arm in arms]
    step, accuracy, lost = (np.stack([getattr(each, name) for each in found]) for name in ("step", "accuracy", "lost"))
    step, accuracy, lost = (each.reshape(len(net.lrs), -1, *each.shape[1:]) for each in (step, accuracy, lost))
    return Stand(step, np.moveaxis(accuracy, 2, 0), lost)


def stand(
    course: Course, lab: Lab, net: Net, problem: Supervised, arm: tuple[float, float], tests: Tests, *, skip: int = 0
) -> Stand:
    """Train an arm (lr, momentum) until all replicas have met the last target, or for the net's steps; look there.

    Each arm is a stack of its own, done when its slowest replica is; replica i of every arm starts from the same
    weights and sees the same batches. skip: replicas, and so draws, that others train.
    """

    def seen(params: Params) -> dict[str, Tensor]:
        scores = [problem.accuracy(params, *each) for each in tests]
        return {"loss": problem.value(params), "accuracy": 100 * torch.stack(scores, dim=1)}

    look, last = course.between(problem.batch_size), min(course.targets)
    window = look * (course.looks - 1)
    stop = FirstPassage(lambda params: problem.value(params) < last, every=max(window, look), stop=True)
    looks = {"": every(look, seen)}
    first = lab.arms(ema(*arm), lab.per_draw(net.replicas, problem.data.period), skip=skip).run(
        problem, net.model.initial, net.steps, probes={**looks, "stop": stop}, limit=1e4, check=look
    )
    return read_off(course, first, first.then(first.steps + window, probes=looks))


def read_off(course: Course, first: ArmRun, rest: ArmRun) -> Stand:
    """Return where the replicas of one arm stand, by both legs of its run; the look at their seam is in both."""
    loss, accuracy = (
        np.concatenate([first[name][0, :, :-1], rest[name][0]], axis=1).swapaxes(0, 1)
        for name in (".loss", ".accuracy")
    )  # (T, S) and (T, S, K)
    steps, fell = np.concatenate([first.at(".loss")[:-1], rest.at(".loss")]), rest.diverged_at[0]
    after = (fell >= 0) & (steps[:, None] > fell)
    step, found = at_targets(steps, np.where(after, np.nan, loss), accuracy, course.targets, course.looks)
    return Stand(step, np.moveaxis(found, -1, 0), fell >= 0)


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


def gain(accuracy: Array, pair: tuple[int, int], seed: int, draws: int) -> Estimate:
    """Return the error of plain descent minus that with momentum, each at its best of the same rates.

    accuracy (E, M, S) in percent; pair: the two among the momenta. The best rates are chosen anew in every resample of
    the draws, each of which counts once.
    """
    wrong = errors(accuracy)[:, list(pair)]
    means = wrong.reshape(*wrong.shape[:-1], -1, draws).mean(axis=-2)
    found = bootstrap(best_gap, np.moveaxis(means, -1, 0), seed=seed)
    return replace(found, n=accuracy.shape[-1], draws=draws)


def scores(axes: Mapping[str, Sequence[object]], step: Array, accuracy: Array, lost: BoolArray) -> DataFrame:
    """Return a row per cell of a grid, arrays (…, S) broadcast to it; means are over the seeds that met the target."""

    def row(step: Array, accuracy: Array, lost: BoolArray) -> dict[str, float]:
        met = accuracy[step >= 0]
        count = len(met)
        return {
            "accuracy": float(met.mean()) if count else np.nan,
            "accuracy_error": float(met.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan,
            "step": float(np.median(step[step >= 0])) if count else np.nan,
            "reached": count,
            "diverged": int(lost.sum()),
            "replicas": len(step),
        }

    shape = (*map(len, axes.values()), step.shape[-1])
    cells = (np.broadcast_to(each, shape).reshape(-1, shape[-1]) for each in (step, accuracy, lost))
    return tidy(axes).join(DataFrame([row(*cell) for cell in zip(*cells, strict=True)]))

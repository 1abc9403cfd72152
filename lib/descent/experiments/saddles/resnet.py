"""The six arms of `cifar` with residual networks, crops and flips: the kind of network the paper trained.

Stated for paper scale alone. The verdicts rest on many seeds of a small net without batch norm and without weight
decay, where an effective step is what it says; a large net with both is a check of directions, in a table of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from scipy.stats import sem
from torch import Tensor

from descent.data.images import channels_first, part
from descent.engine.precision import Precision
from descent.engine.probes import Leaves, Params
from descent.engine.rules import Hyper
from descent.engine.train import Run, every
from descent.experiments.arms import Arms, Array, configure, survivors, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.saddles.cifar import HEAD, MATCHED_ANNEALED, NAMES, PLAIN, STEP, joined, legs
from descent.measure.noise import flat
from descent.measure.operators import unflatten
from descent.nets.augment import Augment
from descent.nets.convolutional import Norm, ResNet
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.stats.intervals import paired_difference, ratio_of_means


@dataclass(frozen=True)
class Net:
    """A residual network with its decay and its seeds."""

    name: str
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    norm: Norm
    weight_decay: float
    replicas: int

    @property
    def model(self) -> ResNet:
        """The network itself."""
        return ResNet(blocks=self.blocks, widths=self.widths, norm=self.norm)


@dataclass(frozen=True)
class Residual:
    """Shuffled epochs of CIFAR-10 with crops and flips at a constant rate, annealed at the beginning of epoch `switch`.

    `main` carries the verdicts, `second` is the check. The training loss is that of the first `watched` training
    images without crops and flips, in float32, batch norms settled on them.
    """

    main: Net
    second: Net
    seed: int
    device: str
    momentum: float
    lr: float = 0.02
    batch_size: int = 128
    examples: int = 50_000
    test_examples: int = 10_000
    pool: int = 1  # pixels of a side that are averaged to one
    shift: int = 4
    watched: int = 10_000
    epochs: int = 15
    switch: int = 10
    parts: int = 2  # looks per epoch at the weights
    tail: int = 4  # of which the last so many give the excess loss
    precision: Precision = "bf16"
    compiled: bool = True
    check: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Residual:
        """Return three epochs of three tiny nets on some hundred images at 16 × 16 pixels."""
        main = Net("ResNet-8", (1, 1, 1), (8, 8, 8), "group", 0.0, min(settings.replicas, 3))
        second = replace(main, name="ResNet-8, batch norm", norm="batch", weight_decay=5e-4)
        return cls(
            main,
            second,
            settings.seed,
            settings.device,
            settings.momentum,
            batch_size=32,
            examples=320,
            test_examples=200,
            pool=2,
            shift=2,
            watched=160,
            epochs=3,
            switch=2,
            parts=2,
            tail=2,
            precision="float32",
            compiled=False,
            check=5,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Residual:
        """Return 15 epochs of sixteen ResNet-8 and four ResNet-18 per arm."""
        main = Net("ResNet-8", (1, 1, 1), (16, 32, 64), "group", 0.0, min(settings.replicas, 16))
        second = Net("ResNet-18", (2, 2, 2, 2), (64, 128, 256, 512), "batch", 5e-4, min(settings.replicas, 4))
        return cls(main, second, settings.seed, settings.device, settings.momentum)

    @property
    def trained_images(self) -> dict[str, float]:
        """How many training images all replicas of a net go through, by the net's name."""
        epochs = 3 * self.switch + 6 * (self.epochs - self.switch)
        return {net.name: float(net.replicas * epochs * self.examples) for net in (self.main, self.second)}


@dataclass(frozen=True)
class Decayed(Arms):
    """Arms with weight decay."""

    weight_decay: float = 0.0

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the stack."""
        plain = super().hyper
        return replace(plain, weight_decay=torch.full_like(plain.weight_decay, self.weight_decay))


@dataclass(frozen=True)
class Course:
    """The six arms of one net, in steps."""

    config: Residual
    net: Net

    @property
    def before(self) -> Arms:
        """Plain, momentum, and plain with the matched step."""
        lr = self.config.lr
        return self._arms((lr, lr, lr / (1 - self.config.momentum)), (0.0, self.config.momentum, 0.0))

    @property
    def after(self) -> Arms:
        """The six arms of NAMES after the switch."""
        lr, momentum = self.config.lr, self.config.momentum
        rates = (lr, lr, lr * (1 - momentum), lr, lr / (1 - momentum), lr)
        return self._arms(rates, (0.0, momentum, momentum, 0.0, 0.0, 0.0))

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.config.examples // self.config.batch_size

    @property
    def early(self) -> int:
        """The end of the first epoch."""
        return self.epoch

    @property
    def switch(self) -> int:
        """The step of the annealing."""
        return self.config.switch * self.epoch

    @property
    def steps(self) -> int:
        """The end."""
        return self.config.epochs * self.epoch

    def _arms(self, lr: tuple[float, ...], momentum: tuple[float, ...]) -> Arms:
        config, net = self.config, self.net
        return Decayed(lr, momentum, net.replicas, config.seed, config.device, weight_decay=net.weight_decay)


@dataclass(frozen=True, eq=False)
class RaceResult:
    """Final training loss and test accuracy (6, N) by NAMES; early (2, N): training loss of plain and momentum.

    excess (2, N): by how much the losses of plain and momentum at the last looks exceed, on average, the loss at the
    mean of their weights; empty with batch norm. curve, norm (6, N, T): training loss and length of the weights at
    steps (T,). A seed that diverged in any arm is dropped from all.
    """

    loss: Array
    accuracy: Array
    early: Array
    excess: Array
    curve: Array
    norm: Array
    steps: Array


@dataclass(frozen=True, eq=False)
class ResidualResult:
    """Both races."""

    config: Residual
    title: str
    main: RaceResult
    second: RaceResult
    seconds: float


def run(config: Residual) -> ResidualResult:
    """Train both nets.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    train, test = (
        part("cifar10", split, count, config.pool)
        for split, count in (("train", config.examples), ("test", config.test_examples))
    )
    data = {
        "inputs": channels_first(train.images),
        "labels": train.labels,
        "test_inputs": channels_first(test.images, like=train.images),
        "test_labels": test.labels,
    }
    data = {name: tensor.to(config.device) for name, tensor in data.items()}
    main, second = (_race(Course(config, net), data) for net in (config.main, config.second))
    return ResidualResult(config, train.title, main, second, time.perf_counter() - clock)


def _race(course: Course, data: Leaves) -> RaceResult:
    """Train one net and look at what came of it."""
    config, before, after = course.config, course.before, course.after
    model, rows = course.net.model, slice(0, config.watched)
    problem = Supervised(
        model,
        CrossEntropy(),
        data["inputs"],
        data["labels"],
        config.batch_size,
        "shuffled_epochs",
        augment=Augment(config.shift),
        precision=config.precision,
        compiled=config.compiled,
    )
    inputs, labels = problem.inputs[rows], problem.targets[rows]
    exact = replace(problem, augment=None, precision="float32", compiled=False)

    def loss(params: Params) -> Tensor:
        return exact.value(model.settled(cast(Leaves, params), inputs), inputs, labels)

    def look(params: Params) -> dict[str, Tensor]:
        return {"loss": loss(params), "norm": flat(params).norm(dim=1)}

    weights = {"weights": every(max(1, course.epoch // config.parts), flat)} if course.net.norm != "batch" else {}
    start, first, last = legs(problem, course, {"": every(course.epoch, look)}, weights, config.check)
    tested = exact.accuracy(model.settled(cast(Leaves, last.params), inputs), data["test_inputs"], data["test_labels"])
    alive = survivors(before, start) & survivors(before, first) & survivors(after, last)
    curves = {name: joined(course, first.records[f".{name}"], last.records[f".{name}"]) for name in ("loss", "norm")}
    return RaceResult(
        loss=after.split(loss(last.params))[:, alive],
        accuracy=after.split(tested)[:, alive],
        early=before.split(loss(start.params))[[PLAIN, HEAD]][:, alive],
        excess=_excess(exact, last, course, inputs, labels)[:, alive],
        curve=curves["loss"][0][:, alive],
        norm=curves["norm"][0][:, alive],
        steps=curves["loss"][1],
    )


def _excess(exact: Supervised, last: Run, course: Course, inputs: Tensor, labels: Tensor) -> Array:
    """Return the mean loss at the last looks minus the loss at the mean weights, of plain and momentum, (2, N)."""
    if "weights" not in last.records:
        return np.empty((2, course.net.replicas))
    two = slice(0, 2 * course.net.replicas)  # plain and momentum come first
    weights = last.records["weights"].values[-course.config.tail :, two]
    like = {name: leaf[two] for name, leaf in cast(Leaves, last.params).items()}
    losses = torch.stack([exact.value(unflatten(each, like), inputs, labels) for each in weights])
    excess = losses.mean(dim=0) - exact.value(unflatten(weights.mean(dim=0), like), inputs, labels)
    return to_numpy(excess).reshape(2, -1)


def estimates(result: ResidualResult) -> Estimates:
    """Return what the main net says about P3-C2, P3-C3, P3-C16 and P3-X1."""
    main = result.main
    if result.config.momentum == 0:
        return {}
    return {
        "P3-C2.resnet": ratio_of_means(main.excess[1], main.excess[0], result.config.seed),
        "P3-C3.resnet": paired_difference(main.loss[HEAD], main.loss[STEP]),
        "P3-C16.resnet": paired_difference(*main.early),
        "P3-X1.resnet": paired_difference(main.loss[STEP], main.loss[MATCHED_ANNEALED]),
    }


def tables(result: ResidualResult) -> dict[str, DataFrame]:
    """Return one row per arm of the main net, of the second one, and the curves of both."""
    config = result.config
    races = ((config.main, result.main), (config.second, result.second))
    rows = [DataFrame(_rows(result, net, race)) for net, race in races]
    curves = [DataFrame(_curve(net, race)) for net, race in races]
    columns = {name: np.concatenate([frame[name] for frame in curves]) for name in curves[0]}
    return {"resnet": rows[0], "resnet_check": rows[1], "resnet_curve": DataFrame(columns)}


def _rows(result: ResidualResult, net: Net, race: RaceResult) -> dict[str, object]:
    arms = Course(result.config, net).after
    return {
        "data": result.title, "net": net.name, "arm": NAMES, "final_lr": arms.lr, "final_momentum": arms.momentum,
        "weight_decay": net.weight_decay, "loss": race.loss.mean(1), "loss_error": sem(race.loss, axis=1),
        "accuracy": race.accuracy.mean(1), "accuracy_error": sem(race.accuracy, axis=1),
        "norm": race.norm[:, :, -1].mean(1), "replicas": race.loss.shape[1],
    }  # fmt: skip


def _curve(net: Net, race: RaceResult) -> dict[str, object]:
    """Return loss and norm by arm and step, means over the seeds."""
    length = len(race.steps)
    return {
        "net": [net.name] * 6 * length,
        "arm": np.repeat(NAMES, length),
        "step": np.tile(race.steps, 6),
        "loss": race.curve.mean(1).ravel(),
        "norm": race.norm.mean(1).ravel(),
    }


RESNET = Experiment(
    "resnet",
    ("P3-C2", "P3-C3", "P3-C16", "P3-X1"),
    lambda settings: run(configure(Residual, settings)),
    estimates,
    tables,
    scales=("gpu",),
)

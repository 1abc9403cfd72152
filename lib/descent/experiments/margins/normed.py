"""The small-batch rows of the paper's table: ResNet-18 with batch norm and without, at a fixed number of epochs.

Stated for paper scale alone, and a check of directions: few seeds, no verdict. It adds what the paper leaves out, plain
descent at the learning rate that makes its effective step that of momentum. With batch norm a step is worth what the
length of the weights makes it, so that the two need not be matched there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.precision import Precision
from descent.engine.probes import Leaves, Params, every
from descent.engine.train import train
from descent.experiments.arms import Arms, configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.classifiers import Pictures, pictures
from descent.nets.convolutional import Norm, ResNet
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised

NAMES = ("plain", "momentum", "plain, matched step")


@dataclass(frozen=True)
class Normed:
    """Shuffled epochs at a constant rate, no crops, no flips, no decay; heavy ball.

    Losses are those of the first `watched` training images and, like accuracies, in float32, batch norms settled on
    these images.
    """

    replicas: int
    seed: int
    device: str
    norms: tuple[Norm, ...] = ("batch", "none")
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    lr: float = 0.02
    momentum: float = 0.9
    batch_size: int = 128
    examples: int = 10_000
    tests: int = 5000
    watched: int = 2000
    pool: int = 1  # pixels of a side that are averaged to one
    epochs: int = 60
    look: int = 10  # epochs between two looks
    precision: Precision = "bf16"
    check: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Normed:
        """Return four epochs of tiny nets on some hundred images of 8 × 8 pixels."""
        return cls(
            min(settings.replicas, 2),
            settings.seed,
            settings.device,
            blocks=(1, 1),
            widths=(8, 8),
            batch_size=40,
            examples=160,
            tests=100,
            watched=80,
            pool=4,
            epochs=4,
            look=2,
            precision="float32",
            check=2,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Normed:
        """Return sixty epochs of two seeds per arm on ten thousand images."""
        return cls(min(settings.replicas, 2), settings.seed, settings.device)

    @property
    def arms(self) -> Arms:
        """The three arms of NAMES."""
        rates = (self.lr, self.lr, self.lr / (1 - self.momentum))
        return Arms(rates, (0.0, self.momentum, 0.0), self.replicas, self.seed, self.device)

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.examples // self.batch_size

    @property
    def trained_images(self) -> dict[str, float]:
        """How many training images all replicas go through, by the net's name."""
        images = self.epochs * self.epoch * self.batch_size
        return {"ResNet-18": float(len(self.norms) * self.arms.rows * images)}


@dataclass(frozen=True, eq=False)
class NormedResult:
    """Training loss and test accuracy in percent (norms, 3, N, T) at epochs (T,); lost (norms, 3, N): who diverged."""

    config: Normed
    title: str
    epochs: Array
    loss: Array
    accuracy: Array
    lost: NDArray[np.bool_]
    seconds: float


def run(config: Normed) -> NormedResult:
    """Train a stack per norm.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    data = pictures(config.examples, config.tests, config.pool, config.device)
    found = [_stack(config, norm, data) for norm in config.norms]
    epochs, loss, accuracy, lost = (np.stack(values) for values in zip(*found, strict=True))
    return NormedResult(config, data.title, epochs[0], loss, accuracy, lost > 0, time.perf_counter() - clock)


def _stack(config: Normed, norm: Norm, data: Pictures) -> tuple[Array, Array, Array, Array]:
    """Return epochs (T,), loss and accuracy (3, N, T), and who diverged (3, N)."""
    model, arms = ResNet(blocks=config.blocks, widths=config.widths, norm=norm), config.arms
    problem = Supervised(
        model,
        CrossEntropy(),
        data.inputs,
        data.labels,
        config.batch_size,
        "shuffled_epochs",
        precision=config.precision,
    )
    exact = replace(problem, precision="float32")
    probe = every(config.look * config.epoch, partial(_look, exact, config.watched, data))
    streams = arms.streams()
    done = train(
        problem,
        model.initial(streams),
        arms.hyper,
        config.epochs * config.epoch,
        streams,
        probes={"": probe},
        check=config.check,
    )
    loss, accuracy = (arms.split_series(done.records[f".{name}"]) for name in ("loss", "accuracy"))
    return to_numpy(done.records[".loss"].steps) / config.epoch, loss, accuracy, arms.split(done.diverged_at >= 0)


def _look(exact: Supervised, watched: int, data: Pictures, params: Params) -> Leaves:
    """Return training loss and test accuracy (rows,)."""
    rows = slice(0, watched)
    inputs, labels = exact.inputs[rows], exact.targets[rows]
    settled = cast(ResNet, exact.model).settled(cast(Leaves, params), inputs)
    with torch.no_grad():
        accuracy = 100 * exact.accuracy(settled, data.test_inputs, data.test_labels)
        return {"loss": exact.value(settled, inputs, labels), "accuracy": accuracy}


def estimates(result: NormedResult) -> Estimates:
    """Return nothing: too few seeds."""
    return {}


def tables(result: NormedResult) -> dict[str, DataFrame]:
    """Return one row per norm, arm and look; means over the seeds that did not diverge."""
    return {"normed": DataFrame(list(_rows(result))).assign(data=result.title)}


def _rows(result: NormedResult) -> Iterator[Mapping[str, object]]:
    config, arms = result.config, result.config.arms
    for n, a, t in np.ndindex(len(config.norms), len(NAMES), len(result.epochs)):
        alive = ~result.lost[n, a]
        means = {
            name: float(values[n, a, alive, t].mean()) if alive.any() else np.nan
            for name, values in (("loss", result.loss), ("accuracy", result.accuracy))
        }
        yield {
            "net": "ResNet-18",
            "norm": config.norms[n],
            "arm": NAMES[a],
            "lr": arms.lr[a],
            "momentum": arms.momentum[a],
            "epoch": result.epochs[t],
            **means,
            "replicas": int(alive.sum()),
            "diverged": int((~alive).sum()),
        }


NORMED = Experiment("normed", (), lambda settings: run(configure(Normed, settings)), estimates, tables, scales=("gpu",))

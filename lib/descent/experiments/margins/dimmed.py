"""Small margins in an ordinary network: a tenth of the training images of CIFAR-10 dimmed, noise on every pixel.

Stated for paper scale alone. Full batch and float32; arms in EMA form, so that they have the same effective step at the
same rate, and the same rates. The dimmed images are a tenth of all, so a loss at which they too are fitted lies well
below ln(2)/10: arms are compared down to .15 · .1 · ln 2 ≈ .01.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure, momenta
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.classifiers import (
    RATES,
    Course,
    Net,
    Pictures,
    Stand,
    Tests,
    errors,
    gain,
    objective,
    pictures,
    row,
    stand,
)
from descent.nets.convolutional import CNN

GROUPS = ("as they are", "dimmed")


@dataclass(frozen=True, kw_only=True)
class Dimmed(Course):
    """A net on images of which `share` are dimmed to `contrast`, with noise of deviation `noise` on all of them.

    Contrast and noise are in units of the standard deviation of the pixels.
    """

    net: Net
    targets: tuple[float, ...] = (0.3, 0.1, 0.05, 0.02, 0.01)
    share: float = 0.1
    contrast: float = 0.15
    noise: float = 0.5

    @classmethod
    def cpu(cls, settings: Settings) -> Dimmed:
        """Return a tiny net on eighty images of 8 × 8 pixels."""
        net = Net(
            "CNN",
            CNN(widths=(8, 8), dense=(16,), size=8),
            (0.3, 0.9),
            momenta((), settings.momentum),
            min(settings.replicas, 3),
            200,
            0.2,
        )
        return cls(
            net=net,
            seed=settings.seed,
            device=settings.device,
            momentum=settings.momentum,
            targets=(1.5, 0.5),
            examples=80,
            tests=60,
            pool=4,
            look=4,
            looks=3,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Dimmed:
        """Return twelve seeds per arm on 4096 images of 16 × 16 pixels."""
        net = Net("CNN", CNN(size=16), RATES, momenta((), settings.momentum), min(settings.replicas, 12), 8000, 2.4)
        return cls(
            net=net, seed=settings.seed, device=settings.device, momentum=settings.momentum, examples=4096, tests=5000
        )

    @property
    def trained_images(self) -> dict[str, float]:
        """How many images of ResNet-8 at 32 × 32 pixels all runs are expected to be worth."""
        return {"ResNet-8": self.counted(self.net, None, self.look, len(GROUPS))}


@dataclass(frozen=True, eq=False)
class DimmedResult:
    """Steps to the targets (E, M, L, S) over rates and momenta, accuracy there in percent (K, E, M, L, S) on GROUPS.

    Where a target was not met these are −1 and not a number. lost (E, M, S): who diverged.
    """

    config: Dimmed
    title: str
    step: Array
    accuracy: Array
    lost: NDArray[np.bool_]
    seconds: float


def first_of_each(labels: Tensor, share: float) -> Tensor:
    """Return which images come first in their class, (n,) bool: round(share·n), as many of each class or one less."""
    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels.unsqueeze(1)).squeeze(1)
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    chosen[rank.argsort(stable=True)[: round(share * len(labels))]] = True
    return chosen


def prepared(config: Dimmed, data: Pictures) -> tuple[Tensor, Tests]:
    """Return the training images with the chosen ones dimmed, and the test images as they are and all dimmed.

    Noise comes last, so that dimming takes signal away and leaves the noise; both test sets have the same.
    """
    streams = Streams(replica_seeds(config.seed, 1, config.device))
    grain, other = (
        config.noise * streams.normal(Purpose.DATA, index, tuple(images.shape))[0]
        for index, images in enumerate((data.inputs, data.test_inputs))
    )
    chosen = first_of_each(data.labels, config.share).view(-1, 1, 1, 1)
    inputs = torch.where(chosen, config.contrast * data.inputs, data.inputs) + grain
    return inputs, [(factor * data.test_inputs + other, data.test_labels) for factor in (1.0, config.contrast)]


def run(config: Dimmed) -> DimmedResult:
    """Train every arm.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    data, net = pictures(config.examples, config.tests, config.pool, config.device), config.net
    inputs, tests = prepared(config, data)
    problem = objective(net, inputs, data.labels)
    stands = [
        [stand(config, net, problem, (lr, momentum), tests, config.look) for momentum in net.momenta] for lr in net.lrs
    ]
    accuracy = _grid(stands, "accuracy")
    return DimmedResult(
        config,
        data.title,
        _grid(stands, "step"),
        np.moveaxis(accuracy, 2, 0),
        _grid(stands, "lost") > 0,
        time.perf_counter() - clock,
    )


def _grid(stands: list[list[Stand]], name: str) -> Array:
    return np.array([[getattr(each, name) for each in line] for line in stands])


def estimates(result: DimmedResult) -> Estimates:
    """Return what the errors on dimmed images at the last target say about P4-C14."""
    config = result.config
    if config.momentum == 0:
        return {}
    pair = config.net.momenta.index(0.0), config.net.momenta.index(config.momentum)
    last = config.targets.index(min(config.targets))
    return {"P4-C14.dimmed": gain(errors(result.accuracy[1, ..., last, :]), pair, config.seed)}


def tables(result: DimmedResult) -> dict[str, DataFrame]:
    """Return one row per test set, arm and target."""
    return {"dimmed": DataFrame(list(_rows(result))).assign(data=result.title)}


def _rows(result: DimmedResult) -> Iterator[Mapping[str, object]]:
    config, net = result.config, result.config.net
    for k, e, m, t in np.ndindex(*result.accuracy.shape[:4]):
        about = {
            "tests": GROUPS[k],
            "net": net.name,
            "lr": net.lrs[e],
            "momentum": net.momenta[m],
            "loss": config.targets[t],
        }
        yield about | row(result.step[e, m, t], result.accuracy[k, e, m, t], result.lost[e, m])


DIMMED = Experiment(
    "dimmed", ("P4-C14",), lambda settings: run(configure(Dimmed, settings)), estimates, tables, scales=("gpu",)
)

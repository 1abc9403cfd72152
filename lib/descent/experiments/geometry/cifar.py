"""Alignment along the training of small convolutional nets on two classes of CIFAR-10."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pandas import DataFrame

from descent.data.images import channels_first, load, pair, pooled, signs
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.geometry.looks import look
from descent.experiments.geometry.training import Course, course, course_rows, furthest
from descent.nets.convolutional import CNN
from descent.nets.dense import SquaredError
from descent.nets.supervised import Supervised


@dataclass(frozen=True)
class Cifar:
    """Two convolutions and two dense layers, no normalisation, told airplanes from automobiles at 16 × 16 pixels."""

    replicas: int
    seed: int
    device: str
    widths: tuple[int, ...] = (8, 16)
    dense: tuple[int, ...] = (32,)
    side: int = 2  # pixels averaged to one
    examples: int = 128
    batch_size: int = 16
    lr: float = 0.05
    steps: int = 600
    looks: int = 6
    directions: int = 40

    @classmethod
    def cpu(cls, settings: Settings) -> Cifar:
        """Train a few dozen nets."""
        return cls(max(32, min(settings.replicas // 30, 48)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Cifar:
        """Train wider nets at full resolution on two thousand images."""
        return cls(
            max(32, settings.replicas // 30),
            settings.seed,
            settings.device,
            widths=(32, 64),
            dense=(128,),
            side=1,
            examples=2000,
            batch_size=32,
            steps=6000,
            looks=20,
        )


@dataclass(frozen=True, eq=False)
class CifarResult:
    """The course of the nets under square loss."""

    config: Cifar
    course: Course
    seconds: float


def run(config: Cifar) -> CifarResult:
    """Train and look."""
    clock = time.perf_counter()
    data = pair(load("cifar10"), "airplane", "automobile").take(config.examples)
    images = channels_first((pooled(data, config.side) if config.side > 1 else data).images).to(config.device)
    targets = signs(data.labels).unsqueeze(1).to(config.device)
    model = CNN(widths=config.widths, dense=config.dense, size=images.shape[-1], classes=1)
    problem = Supervised(model, SquaredError(), images, targets, config.batch_size)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    probe = every(config.steps // config.looks, look(problem, config.directions))
    hyper = repeat(sgd(config.lr), config.replicas).to(config.device)
    done = train(problem, model.initial(streams), hyper, config.steps, streams, probes={"": probe})
    return CifarResult(config, course(done), time.perf_counter() - clock)


def estimates(result: CifarResult) -> Estimates:
    """Return what the nets say about P5-C9."""
    return {"P5-C9.cifar": furthest((result.course,))}


def tables(result: CifarResult) -> dict[str, DataFrame]:
    """Return means over the nets, one row per look."""
    return {"cifar": course_rows(result.course)}


CIFAR = Experiment("cifar", ("P5-C9",), lambda settings: run(configure(Cifar, settings)), estimates, tables)

"""Accuracy against batch size at a fixed number of epochs, with the control that tells smoothing from step size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.rules import Hyper, ema, heavy_ball, repeat, sgd, stack
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Probe, every, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.tasks import Task, survivors, task
from descent.measure.noise import SearchNoise, full_gradient, smoothing_degree
from descent.nets.dense import MLP
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, mean, paired_difference

NAMES = ("plain", "averaged", "heavy ball", "plain, matched step")
PLAIN, AVERAGED, HEAVY, MATCHED = range(4)
"""The arms; the last is plain descent at the effective learning rate lr/(1 − momentum) of the heavy ball."""


@dataclass(frozen=True)
class Headline:
    """A two-layer net for so many epochs, shuffled, constant learning rate: a large batch means few steps.

    All arms and batch sizes of a seed share their initial weights, and arms of a batch size their batches. The plain,
    the averaged and the heavy-ball arm take the learning rate effective·(1 − momentum); the
    last one takes the effective one, which is what the heavy ball makes of it.
    """

    data: str
    replicas: int
    seed: int
    device: str
    momentum: float
    batch_sizes: tuple[int, ...] = (8, 32, 125, 250, 500)
    epochs: int = 24
    effective: float = 0.3
    hidden: int = 32
    redrawn: float = 0.2
    looks: int = 5  # at the noise and the accuracy along a run

    @classmethod
    def cpu(cls, settings: Settings) -> Headline:
        """Train a few dozen nets on digits per arm and batch size."""
        return cls("digits", max(32, settings.replicas // 30), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Headline:
        """Train some hundred nets on digits per arm and batch size."""
        return cls(
            "digits",
            max(64, settings.replicas // 4),
            settings.seed,
            settings.device,
            settings.momentum,
            batch_sizes=(8, 16, 32, 64, 125, 250, 500),
            looks=20,
        )

    @property
    def lr(self) -> float:
        """The learning rate of all arms but the last."""
        return self.effective * (1 - self.momentum)

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the stack, arm-major."""
        rules = (sgd(self.lr), ema(self.lr, self.momentum), heavy_ball(self.lr, self.momentum), sgd(self.effective))
        return repeat(stack(*rules), self.replicas).to(self.device)


class MnistHeadline(Headline):
    """The same race on MNIST at 14 × 14 pixels."""

    @classmethod
    def cpu(cls, settings: Settings) -> Headline:
        """Train 32 nets per arm at three batch sizes."""
        return Headline(
            "mnist",
            max(32, settings.replicas // 30),
            settings.seed,
            settings.device,
            settings.momentum,
            batch_sizes=(32, 125, 500),
            epochs=18,
            looks=3,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Headline:
        """Train some hundred nets per arm and batch size, for 40 epochs."""
        return Headline(
            "mnist",
            max(64, settings.replicas // 4),
            settings.seed,
            settings.device,
            settings.momentum,
            batch_sizes=(8, 16, 32, 64, 125, 250, 500),
            epochs=40,
            looks=20,
        )


@dataclass(frozen=True, eq=False)
class HeadlineResult:
    """Per batch size and arm, (S, A, N): test accuracy at the end and its best along the run, in percent.

    loss: at the end, over the training labels as they are; degree: the measured degree of smoothing lr·√(mean |ω|²).
    A seed that diverged anywhere is dropped everywhere.
    """

    config: Headline
    title: str
    accuracy: Array
    best: Array
    loss: Array
    degree: Array
    seconds: float


def run(config: Headline) -> HeadlineResult:
    """Train all arms at every batch size."""
    clock = time.perf_counter()
    images = task(config.data, config.redrawn, config.device)
    races = [_race(config, images, size) for size in config.batch_sizes]
    found = {name: np.stack([race[name] for race in races]) for name in races[0]}
    alive = survivors(found.pop("lost") > 0)
    found = {name: values[..., alive] for name, values in found.items()}
    return HeadlineResult(config, images.title, **found, seconds=time.perf_counter() - clock)


def _race(config: Headline, images: Task, size: int) -> dict[str, Array]:
    """Train the arms at one batch size; return what the result holds, each (A, N)."""
    model = MLP((images.inputs.shape[1], config.hidden, 10))
    problem = images.problem(model, size, "shuffled_epochs")
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device).repeat(len(NAMES)))
    steps = config.epochs * (len(images.inputs) // size)
    look = max(1, steps // config.looks)
    noise = SearchNoise(problem, partial(full_gradient, problem), config.hyper, streams, look)
    probes: dict[str, Probe] = {"noise": noise, "accuracy": every(look, partial(images.accuracy, model))}
    done = train(problem, model.initial(streams), config.hyper, steps, streams, probes=probes)
    accuracy = done.records["accuracy"].values
    degree = smoothing_degree(done.records["noise.power"], config.hyper.lr, since=look)  # the start is unlike the rest
    found = {
        "accuracy": accuracy[-1],
        "best": accuracy.amax(dim=0),
        "loss": problem.value(done.params),
        "degree": degree,
        "lost": done.diverged_at >= 0,
    }
    return {name: to_numpy(value).reshape(len(NAMES), -1) for name, value in found.items()}


def estimates(result: HeadlineResult) -> Estimates:
    """Return what digits say about P1-C17, P1-C18 and P1-X4."""
    found: Estimates = {"P1-C17.fixed_epochs": curvature(result)}
    if result.config.momentum == 0:
        return found
    sgd, nshb = (gain(result, HEAVY, arm)[-1] for arm in (PLAIN, AVERAGED))
    return {**found, "P1-C18.sgd": sgd, "P1-C18.nshb": nshb, "P1-X4.share": missing_share(result)}


def mnist_estimates(result: HeadlineResult) -> Estimates:
    """Return what MNIST says about P1-C18 and P1-X4."""
    if result.config.momentum == 0:
        return {}
    return {"P1-C18.mnist": gain(result, HEAVY, PLAIN)[-1], "P1-X4.mnist": missing_share(result)}


def gain(result: HeadlineResult, arm: int, other: int) -> list[Estimate]:
    """Return the accuracy of one arm minus that of another, in percentage points, at every batch size."""
    return [paired_difference(race[arm], race[other]) for race in result.accuracy]


def missing_share(result: HeadlineResult) -> Estimate:
    """Return the part of the heavy ball's gain over plain descent that the matched step lacks, at the largest batch."""
    last = result.accuracy[-1]

    def share(heavy: Array, matched: Array, plain: Array) -> Array:
        return np.asarray((heavy.mean(1) - matched.mean(1)) / (heavy.mean(1) - plain.mean(1)))

    return bootstrap(share, last[HEAVY], last[MATCHED], last[PLAIN], seed=result.config.seed)


def curvature(result: HeadlineResult) -> Estimate:
    """Return the coefficient of (log δ)² in the parabola through plain descent's accuracy, in points; δ as measured."""
    logs = np.log(result.degree[:, PLAIN].mean(axis=1))
    weights = np.linalg.pinv(np.vander(logs - logs.mean(), 3))[0]
    return mean(result.accuracy[:, PLAIN].T @ weights)


def tables(result: HeadlineResult) -> dict[str, DataFrame]:
    """Return one row per batch size and arm."""
    name = "headline" if result.config.data == "digits" else f"headline_{result.config.data}"
    return {name: DataFrame([_row(result, s, a) for s in range(len(result.accuracy)) for a in range(len(NAMES))])}


def _row(result: HeadlineResult, s: int, a: int) -> dict[str, float | str]:
    config, accuracy = result.config, mean(result.accuracy[s, a])
    return {
        "data": result.title,
        "batch_size": config.batch_sizes[s],
        "arm": NAMES[a],
        "lr": config.effective if a == MATCHED else config.lr,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "best": float(result.best[s, a].mean()),
        "loss": float(result.loss[s, a].mean()),
        "degree": float(result.degree[s, a].mean()),
    }


HEADLINE = Experiment(
    "headline", ("P1-C17", "P1-C18", "P1-X4"), lambda settings: run(configure(Headline, settings)), estimates, tables
)
MNIST = Experiment(
    "mnist", ("P1-C18", "P1-X4"), lambda settings: run(configure(MnistHeadline, settings)), mnist_estimates, tables
)

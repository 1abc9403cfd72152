"""Momentum against plain descent on CIFAR-10 at equal training loss, full batch and small batches, ordinary networks.

Stated for paper scale alone. Arms are in EMA form, so that they have the same effective step at the same rate, and both
have the same three rates, a factor of three apart. Images are neither cropped nor flipped, and there is no weight decay
and no batch norm, so that the full gradient is one function; it is computed in float32 throughout. The residual net
with group norm carries the verdicts; the small net without any norm is that of `networks`, a check of directions.

At 32 × 32 pixels the full batches of the residual net alone would take a large accelerator half an hour, so images are
averaged to 16 × 16.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.arms import configure, momenta
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.classifiers import (
    RATES,
    Course,
    Net,
    Pictures,
    Stand,
    errors,
    gain,
    objective,
    pictures,
    row,
    stand,
)
from descent.nets.convolutional import CNN, ResNet
from descent.stats.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Cifar(Course):
    """Nets, of which the first carries the verdicts, at batch sizes of which the first (None) is everything.

    look_batches: steps between two looks at runs on small batches. judged: the loss target of the verdicts.
    """

    nets: tuple[Net, ...]
    batch_sizes: tuple[int | None, ...] = (None, 512, 128)
    targets: tuple[float, ...] = (1.0, 0.3, 0.1, 0.05, 0.02)
    judged: float = 0.02
    look_batches: int = 10

    @classmethod
    def cpu(cls, settings: Settings) -> Cifar:
        """Return tiny nets on eighty images of 8 × 8 pixels."""
        arms, few = ((0.3, 0.9), momenta((), settings.momentum)), min(settings.replicas, 3)
        nets = (
            Net("ResNet-8", ResNet(blocks=(1, 1), widths=(8, 8)), *arms, few, 120, 0.4),
            Net("CNN", CNN(widths=(8, 8), dense=(16,), size=8), *arms, few, 60, 0.2),
        )
        return cls(
            nets=nets,
            seed=settings.seed,
            device=settings.device,
            momentum=settings.momentum,
            batch_sizes=(None, 40),
            targets=(1.5, 0.9),
            judged=0.9,
            examples=80,
            tests=60,
            pool=4,
            look=6,
            looks=2,
            look_batches=8,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Cifar:
        """Return twelve residual and eight small nets per arm on 4096 images of 16 × 16 pixels."""
        two, three = momenta((), settings.momentum), momenta((0.98,), settings.momentum)
        nets = (
            Net("ResNet-8", ResNet(), RATES, two, min(settings.replicas, 12), 2500, 18.5),
            Net("CNN", CNN(size=16), RATES, three, min(settings.replicas, 8), 6000, 2.4),
        )
        return cls(
            nets=nets, seed=settings.seed, device=settings.device, momentum=settings.momentum, examples=4096, tests=5000
        )

    @property
    def trained_images(self) -> dict[str, float]:
        """How many images of ResNet-8 at 32 × 32 pixels all runs are expected to be worth."""
        return {
            "ResNet-8": sum(
                self.counted(net, size, self.between(size)) for net in self.nets for size in self.batch_sizes
            )
        }

    def between(self, size: int | None) -> int:
        """Return the steps between two looks at a batch size."""
        return self.look if size is None else self.look_batches


@dataclass(frozen=True, eq=False)
class NetResult:
    """One net: steps to the targets and accuracy there in percent (B, E, M, L, S), over batch sizes, rates and momenta.

    Where a target was not met these are −1 and not a number. lost (B, E, M, S): who diverged.
    """

    net: Net
    step: Array
    accuracy: Array
    lost: NDArray[np.bool_]

    def pair(self, momentum: float) -> tuple[int, int]:
        """Return where plain descent and a momentum stand among the arms."""
        return self.net.momenta.index(0.0), self.net.momenta.index(momentum)


@dataclass(frozen=True, eq=False)
class CifarResult:
    """All nets."""

    config: Cifar
    title: str
    nets: tuple[NetResult, ...]
    seconds: float


def run(config: Cifar) -> CifarResult:
    """Train every arm of every net.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    data = pictures(config.examples, config.tests, config.pool, config.device)
    nets = tuple(_net(config, net, data) for net in config.nets)
    return CifarResult(config, data.title, nets, time.perf_counter() - clock)


def _net(config: Cifar, net: Net, data: Pictures) -> NetResult:
    stands = [
        _arm(config, net, data, size, lr, momentum)
        for size in config.batch_sizes
        for lr in net.lrs
        for momentum in net.momenta
    ]
    shape = len(config.batch_sizes), len(net.lrs), len(net.momenta)

    step, accuracy, lost = (np.array([getattr(each, name) for each in stands]) for name in ("step", "accuracy", "lost"))
    step, accuracy, lost = (part.reshape(*shape, *part.shape[1:]) for part in (step, accuracy[:, 0], lost))
    return NetResult(net, step, accuracy, lost)


def _arm(config: Cifar, net: Net, data: Pictures, size: int | None, lr: float, momentum: float) -> Stand:
    problem = objective(net, data.inputs, data.labels, size)
    return stand(config, net, problem, (lr, momentum), [(data.test_inputs, data.test_labels)], config.between(size))


def gains(result: CifarResult, found: NetResult, momentum: float, target: int) -> list[Estimate]:
    """Return per batch size what a momentum gains over plain descent in percentage points, best rate against best."""
    wrong, pair = errors(found.accuracy[..., target, :]), found.pair(momentum)
    return [gain(each, pair, result.config.seed) for each in wrong]


def estimates(result: CifarResult) -> Estimates:
    """Return what the first net says about P4-C1 and P4-C2."""
    config = result.config
    if config.momentum == 0:
        return {}
    found = gains(result, result.nets[0], config.momentum, config.targets.index(config.judged))
    return {
        "P4-C1.accuracy": found[config.batch_sizes.index(None)],
        "P4-C2.accuracy": min(found, key=lambda each: each.value),
    }


def tables(result: CifarResult) -> dict[str, DataFrame]:
    """Return one row per arm and target, and the gains of every momentum at every target."""
    arms = [each for found in result.nets for each in _rows(result.config, found)]
    best = [each for found in result.nets for each in _gains(result, found)]
    return {"cifar": DataFrame(arms).assign(data=result.title), "cifar_gains": DataFrame(best)}


def _rows(config: Cifar, found: NetResult) -> Iterator[Mapping[str, object]]:
    for b, e, m, t in np.ndindex(*found.step.shape[:4]):
        about = {
            "net": found.net.name,
            "batch_size": str(config.batch_sizes[b] or "full"),
            "lr": found.net.lrs[e],
            "momentum": found.net.momenta[m],
            "loss": config.targets[t],
        }
        yield about | row(found.step[b, e, m, t], found.accuracy[b, e, m, t], found.lost[b, e, m])


def _gains(result: CifarResult, found: NetResult) -> Iterator[Mapping[str, object]]:
    config = result.config
    for momentum in (each for each in found.net.momenta if each > 0):
        for t, target in enumerate(config.targets):
            for size, each in zip(config.batch_sizes, gains(result, found, momentum, t), strict=True):
                yield {
                    "net": found.net.name,
                    "batch_size": str(size or "full"),
                    "momentum": momentum,
                    "loss": target,
                    "gain": each.value,
                    "low": each.low,
                    "high": each.high,
                }


CIFAR = Experiment(
    "cifar", ("P4-C1", "P4-C2"), lambda settings: run(configure(Cifar, settings)), estimates, tables, scales=("gpu",)
)

"""Momentum against plain descent on CIFAR-10 at equal training loss, full batch and small batches, ordinary networks.

Stated for paper scale alone. Arms are in EMA form, so that they have the same effective step at the same rate, and both
have the same three rates, a factor of three apart. Images are neither cropped nor flipped, and there is no weight decay
and no batch norm, so that the full gradient is one function; it is computed in float32 throughout. The residual net
with group norm carries the verdicts; the small net without any norm is that of `networks`, a check of directions.

At 32 × 32 pixels the full batches of the residual net alone would take a large accelerator half an hour, so images are
averaged to 16 × 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pandas import DataFrame, concat

from descent.data.images import pictures
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.margins.classifiers import Course, Net, Stand, gain, scores, stands
from descent.experiments.margins.tuned import (
    Contest,
    Contests,
    Tuned,
    alone,
    arms_table,
    gains_table,
    parts,
    plain_cnn,
    pooled_pictures,
    tuning_table,
)
from descent.nets import CNN, ResNet
from descent.stats import Estimate


@dataclass(frozen=True, kw_only=True)
class Cifar(Course):
    """Nets, of which the first carries the verdicts, at batch sizes of which the first (None) is everything."""

    nets: tuple[Net, ...]
    batch_sizes: tuple[int | None, ...] = (None, 512, 128)
    targets: tuple[float, ...] = (1.0, 0.3, 0.1, 0.05, 0.02)
    judged: float = 0.02  # the loss target of the verdicts

    def trained_images(self, lab: Lab) -> Mapping[str, float]:
        """Return how many images of ResNet-8 at 32 × 32 pixels all runs are expected to be worth."""
        kinds = [(net, size) for net in self.nets for size in self.batch_sizes]
        return {"ResNet-8": sum(self.counted(lab, net, size) for net, size in kinds)}


@dataclass(frozen=True, eq=False)
class CifarResult:
    """Where nets stand over batch sizes, rates and momenta: steps, accuracy (B, E, M, L, S) and lost (B, E, M, S)."""

    config: Cifar
    lab: Lab
    title: str
    nets: tuple[Stand, ...]

    def gains(self, index: int, momentum: float) -> list[list[Estimate]]:
        """Return per target and batch size what a momentum gains over plain descent on a net, best rate against best.

        In percentage points.
        """
        accuracy, pair = self.nets[index].accuracy, self.config.nets[index].pair(self.lab, momentum)
        targets = range(len(self.config.targets))
        seed, draws = self.lab.seed, self.config.draws
        return [[gain(each[..., t, :], pair, seed, draws) for each in accuracy] for t in targets]


def run(config: Cifar, lab: Lab) -> CifarResult:
    """Train every arm of every net; DataMissing without the images."""
    data, nets = pictures("cifar10", config.images, config.tests, config.pool, lab.device), []
    train, tests = (data.inputs, data.labels), [(data.test_inputs, data.test_labels)]
    for net in config.nets:
        found = [stands(config, lab, net, train, tests, size) for size in config.batch_sizes]
        step, accuracy = np.stack([each.step for each in found]), np.stack([each.accuracy[0] for each in found])
        nets.append(Stand(step, accuracy, np.stack([each.lost for each in found])))
    return CifarResult(config, lab, data.title, tuple(nets))


def estimates(result: CifarResult | Tuned) -> Estimates:
    """Return what the first net says about P4-C1 and P4-C2."""
    if isinstance(result, Tuned):
        return _judged(result)
    config = result.config
    found = result.gains(0, result.lab.momentum)[config.targets.index(config.judged)]
    return {"P4-C1.accuracy": found[config.batch_sizes.index(None)], "P4-C2.accuracy": found}


def _judged(result: Tuned) -> Estimates:
    """Return the same of a night, over the contests whose draws are in; the full batch comes first."""
    target = result.config.targets.index(result.config.judged)
    gains = {place: result.stood[place].gain(target) for place in JUDGED if place in result.stood}
    found = {place: gain for place, gain in gains.items() if gain is not None}
    first = {"P4-C1.accuracy": found[JUDGED[0]]} if JUDGED[0] in found else {}
    return {**first, **({"P4-C2.accuracy": list(found.values())} if found else {})}


def tables(result: CifarResult | Tuned) -> Tables:
    """Return one row per arm and target, and the gains of every momentum at every target."""
    if isinstance(result, Tuned):
        return {"cifar": arms_table(result), "cifar_gains": gains_table(result), "cifar_rates": tuning_table(result)}
    config, arms, gains = result.config, [], []
    sizes = [str(size or "full") for size in config.batch_sizes]
    for index, (net, found) in enumerate(zip(config.nets, result.nets, strict=True)):
        momenta = result.lab.momenta(net.momenta)
        axes = {"net": [net.name], "batch_size": sizes, "lr": net.lrs, "momentum": momenta, "loss": config.targets}
        arms.append(scores(axes, found.step, found.accuracy, found.lost[..., None, :]))
        for momentum in momenta[1:]:
            axes = {"net": [net.name], "momentum": [momentum], "loss": config.targets, "batch_size": sizes}
            gains.append(tidy(axes, value=np.array(result.gains(index, momentum))).rename(columns={"value": "gain"}))
    table = concat(gains, ignore_index=True) if gains else DataFrame()
    return {"cifar": concat(arms, ignore_index=True).assign(data=result.title), "cifar_gains": table}


SMALL = Cifar(  # on images of 8 × 8 pixels
    nets=(
        Net("ResNet-8", ResNet(blocks=(1, 1), widths=(8, 8)), 120, 0.4, Share(most=3), (0.3, 0.9)),
        Net("CNN", CNN(widths=(8, 8), dense=(16,), size=8), 60, 0.2, Share(most=3), (0.3, 0.9)),
    ),
    batch_sizes=(None, 40), targets=(1.5, 0.9), judged=0.9, examples=80, tests=60, draws=3, pool=4, look=6, looks=2,
    look_batches=8,
)  # fmt: skip
NETS = (
    Net("ResNet-8", ResNet(), 2500, 18.5, Share(most=10)),
    Net("CNN", CNN(size=16), 6000, 2.4, Share(most=10), momenta=(0.98,)),
)
LARGE = Cifar(nets=NETS, examples=4096, tests=5000)
JUDGED = (0, 1, 2)
"""The contests of a night that carry the verdicts: the residual net on everything, on batches of 512 and of 128."""
NIGHT = Contests(
    contests=(
        Contest(alone(NETS[0], 2000)),
        Contest(alone(NETS[0], 2000), 512, draws=6),
        Contest(alone(NETS[0], 2000), 128, draws=6),
        Contest(plain_cnn(16, 6000)),
        Contest(plain_cnn(16, 6000), 512, draws=6),
        Contest(plain_cnn(16, 6000), 128, draws=6),
        Contest(plain_cnn(14, 4000, channels=1), data="mnist"),
    ),
    targets=LARGE.targets, judged=LARGE.judged, examples=2048, tests=10_000, look=20, look_batches=20,
)  # fmt: skip
KEYS = {"P4-C1.accuracy": JUDGED[:1], "P4-C2.accuracy": JUDGED}
PACES = {
    "ResNet-8, full batch": 1100.0, "ResNet-8, 512": 1200.0, "ResNet-8, 128": 1000.0,
    "CNN, full batch": 9000.0, "CNN, 512": 9000.0, "CNN, 128": 7500.0,
}  # fmt: skip
"""Training images a second of one core, in pilots."""
CIFAR: Experiment[Any, Any] = Experiment(
    "cifar", SMALL, LARGE, run=run, estimates=estimates, tables=tables, scales=("gpu",), night=NIGHT,
    parts=parts(pooled_pictures, KEYS, PACES),
)  # fmt: skip

"""Small margins in an ordinary network: a tenth of the training images of CIFAR-10 dimmed, noise on every pixel.

Stated for paper scale alone. Full batch and float32; arms in EMA form, so that they have the same effective step at the
same rate, and the same rates. The dimmed images are a tenth of all, so a loss at which they too are fitted lies well
below ln(2)/10: arms are compared down to .15 · .1 · ln 2 ≈ .01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.data.images import Pictures, pictures
from descent.engine import Purpose
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables
from descent.experiments.margins.classifiers import Course, Examples, Net, Stand, Tests, gain, scores, stands
from descent.experiments.margins.tuned import (
    Contest,
    Contests,
    Tuned,
    arms_table,
    gains_table,
    images,
    parts,
    plain_cnn,
    tuning_table,
)
from descent.nets import CNN

GROUPS = ("as they are", "dimmed")


@dataclass(frozen=True, kw_only=True)
class Dimmed(Course):
    """A net on images some of which are dimmed; contrast and noise in units of the standard deviation of the pixels."""

    net: Net
    targets: tuple[float, ...] = (0.3, 0.1, 0.05, 0.02, 0.01)
    share: float = 0.1  # of the images
    contrast: float = 0.15  # to which they are dimmed
    noise: float = 0.5  # on all images

    def trained_images(self, lab: Lab) -> Mapping[str, float]:
        """Return how many images of ResNet-8 at 32 × 32 pixels all runs are expected to be worth."""
        return {"ResNet-8": self.counted(lab, self.net, sets=len(GROUPS))}


@dataclass(frozen=True, kw_only=True)
class Night(Contests):
    """The same for a night."""

    share: float = 0.1
    contrast: float = 0.15
    noise: float = 0.5


@dataclass(frozen=True, eq=False)
class DimmedResult:
    """Steps to the targets (E, M, L, S) over rates and momenta, accuracy there (K, E, M, L, S) on GROUPS."""

    config: Dimmed
    lab: Lab
    title: str
    stand: Stand


def first_of_each(labels: Tensor, share: float) -> Tensor:
    """Return which images come first in their class, (n,) bool: round(share·n), as many of each class or one less."""
    rank = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels.unsqueeze(1)).squeeze(1)
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    chosen[rank.argsort(stable=True)[: round(share * len(labels))]] = True
    return chosen


def prepared(config: Dimmed | Night, lab: Lab, data: Pictures) -> tuple[Examples, Tests]:
    """Return the images of all draws with the chosen ones dimmed, and the test images as they are and all dimmed.

    Noise comes last, so that dimming takes signal away and leaves the noise; both test sets have the same.
    """
    grain, other = (
        config.noise * lab.streams(1).normal(Purpose.DATA, index, tuple(images.shape))[0]
        for index, images in enumerate((data.inputs, data.test_inputs))
    )
    chosen = first_of_each(data.labels, config.share).view(-1, 1, 1, 1)
    inputs = torch.where(chosen, config.contrast * data.inputs, data.inputs) + grain
    tests = [(factor * data.test_inputs + other, data.test_labels) for factor in (1.0, config.contrast)]
    return (inputs, data.labels), tests


def dimmed_pictures(config: Night, lab: Lab, contest: Contest) -> tuple[str, Examples, Tests]:
    """Return the same for a night; DataMissing without the images."""
    data = pictures(contest.data, images(config, contest), config.tests, contest.pool, lab.device)
    return data.title, *prepared(config, lab, data)


def run(config: Dimmed, lab: Lab) -> DimmedResult:
    """Train every arm; DataMissing without the images."""
    data = pictures("cifar10", config.images, config.tests, config.pool, lab.device)
    train, tests = prepared(config, lab, data)
    return DimmedResult(config, lab, data.title, stands(config, lab, config.net, train, tests))


def estimates(result: DimmedResult | Tuned) -> Estimates:
    """Return what the errors on dimmed images at the last target say about P4-C14."""
    if isinstance(result, Tuned):
        last = int(np.argmin(result.config.targets))
        found = result.stood[0].gain(last, GROUPS.index("dimmed"))
        return {} if found is None else {"P4-C14.dimmed": found}
    config, lab = result.config, result.lab
    dark = result.stand.accuracy[GROUPS.index("dimmed"), ..., int(np.argmin(config.targets)), :]
    return {"P4-C14.dimmed": gain(dark, config.net.pair(lab, lab.momentum), lab.seed, config.draws)}


def tables(result: DimmedResult | Tuned) -> Tables:
    """Return one row per test set, arm and target."""
    if isinstance(result, Tuned):
        rates = tuning_table(result)
        return {
            "dimmed": arms_table(result, GROUPS), "dimmed_gains": gains_table(result, GROUPS), "dimmed_rates": rates,
        }  # fmt: skip
    config, net, found = result.config, result.config.net, result.stand
    arms = {"lr": net.lrs, "momentum": result.lab.momenta(net.momenta), "loss": config.targets}
    rows = scores({"tests": GROUPS, **arms}, found.step, found.accuracy, found.lost[..., None, :])
    return {"dimmed": rows.assign(net=net.name, data=result.title)}


SMALL = Dimmed(  # on images of 8 × 8 pixels
    net=Net("CNN", CNN(widths=(8, 8), dense=(16,), size=8), 200, 0.2, Share(most=3), (0.3, 0.9)),
    targets=(1.5, 0.5), examples=80, tests=60, draws=3, pool=4, look=4, looks=3,
)  # fmt: skip
LARGE = Dimmed(net=Net("CNN", CNN(size=16), 8000, 2.4, Share(most=10)), examples=4096, tests=5000)
NIGHT = Night(
    contests=(Contest(plain_cnn(16, 6000)),), targets=LARGE.targets, judged=min(LARGE.targets), examples=2048,
    tests=10_000, look=20,
)  # fmt: skip
DIMMED: Experiment[Any, Any] = Experiment(
    "dimmed", SMALL, LARGE, run=run, estimates=estimates, tables=tables, scales=("gpu",), night=NIGHT,
    parts=parts(dimmed_pictures, {"P4-C14.dimmed": (0,)}, {"CNN, full batch": 8000.0}),
)  # fmt: skip

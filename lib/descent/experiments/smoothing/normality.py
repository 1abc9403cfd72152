"""Whether the noise of a network's batches is normal, and whether it points everywhere alike.

Batches are drawn at fixed parameters, before and after training; a few coordinates of every network are tested for
normality, and the covariance over all examples says in how many directions the noise lives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import Params, sgd
from descent.engine.arms import in_parts, to_numpy
from descent.engine.stack import leaves
from descent.engine.streams import Streams
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.smoothing.arms import over_draws, task
from descent.measure.noise import example_gradients, flat
from descent.measure.normality import noise_draws, normality
from descent.nets import Supervised
from descent.stats import draw_fraction

MOMENTS = ("initial", "trained")


@dataclass(frozen=True)
class Shape:
    """A two-layer net on digits, plain descent."""

    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)
    lr: float = 0.03
    batch_size: int = 16
    steps: int = 600
    examples: int = 250
    hidden: int = 32
    batches: int = 1000  # at fixed parameters
    coordinates: int = 64  # tested per network, at random
    level: float = 0.01  # false discovery rate


@dataclass(frozen=True, eq=False)
class ShapeResult:
    """Before and after training: rejected (2, N), kurtosis (2, N, K), spectrum (2, N, n), falling, as shares of C².

    Net i is of draw i mod D of the sets. sample (2, batches): the coordinate of the first network whose kurtosis is the
    median, standardised, rising. parameters: how many directions there are.
    """

    config: Shape
    lab: Lab
    title: str
    sets: Draws
    parameters: int
    rejected: Array
    kurtosis: Array
    spectrum: Array
    sample: Array

    @property
    def participation(self) -> Array:
        """How many directions share the noise, (tr C)²/tr C², (2, N)."""
        return np.asarray(1 / (self.spectrum**2).sum(axis=-1))

    @property
    def most(self) -> int:
        """How many directions the noise of so many examples can have: their mean takes one."""
        return min(self.parameters, int(self.spectrum.shape[-1]) - 1)


def run(config: Shape, lab: Lab) -> ShapeResult:
    """Look at the noise, train, look again."""
    images = task(lab, "digits", 0.0, config.hidden, config.draws, config.examples)
    problem, count = images.batches(config.batch_size), lab.per_draw(config.replicas, config.draws)
    arms, fresh = lab.arms(sgd(config.lr), count), lab.streams(count, apart=1)
    start = arms.stack(images.model.initial)
    end = arms.run(problem, start, config.steps)
    looks = [_look(config, problem, params, fresh) for params in (start, end.params)]
    found = (np.stack(parts) for parts in zip(*looks, strict=True))
    return ShapeResult(config, lab, images.title, images.sets, flat(start).shape[1], *found)


def _look(config: Shape, problem: Supervised, params: Params, fresh: Streams) -> tuple[Array, Array, Array, Array]:
    """Return rejected, kurtosis, spectrum and sample at fixed parameters, from batches never trained on."""
    shown: list[Array] = []

    def test(rows: slice) -> Tensor:
        some = {name: leaf[rows] for name, leaf in leaves(params).items()}
        samples = noise_draws(problem.subset(rows), some, fresh.subset(rows), config.batches, config.coordinates)
        tested = normality(samples)
        if not shown:  # the coordinate in the middle; a kurtosis of NaN, without noise, sorts last
            order, finite = np.argsort(tested.kurtosis[0]), np.isfinite(tested.kurtosis[0]).sum()
            typical = np.sort(to_numpy(samples[0][:, int(order[finite // 2])]))
            shown.append((typical - typical.mean()) / typical.std())
        return torch.from_numpy(np.column_stack([tested.rejected(config.level), tested.kurtosis]))

    found = to_numpy(in_parts(test, fresh.replicas, 8 * 8 * config.batches * config.coordinates))
    return found[:, 0], found[:, 1:], spectrum(problem, params), shown[0]


def spectrum(problem: Supervised, params: Params) -> Array:
    """Return the eigenvalues of the covariance of the examples' gradients over their sum, falling, (N, n)."""
    named, found = leaves(params), []
    for replica in range(len(next(iter(named.values())))):
        one = {name: leaf[replica : replica + 1] for name, leaf in named.items()}
        gradients = example_gradients(problem.subset(slice(replica, replica + 1)), one)[0].double()
        centred = gradients - gradients.mean(dim=0)
        values = torch.linalg.eigvalsh(centred @ centred.T).flip(0).clamp_min(0.0)
        found.append(to_numpy(values / values.sum()))
    return np.stack(found)


def estimates(result: ShapeResult) -> Estimates:
    """Return what the trained nets say about P1-C19."""
    return {
        "P1-C19.normal": over_draws(result.sets, draw_fraction)(result.rejected[1]),
        "P1-C19.isotropic": over_draws(result.sets, draw_fraction)(result.participation[1] / result.most),
    }


def tables(result: ShapeResult) -> Tables:
    """Return one row before and one after training."""
    return {
        "normality": tidy(
            {"moment": MOMENTS}, rejected=result.rejected.mean(axis=-1),
            kurtosis=np.nanmedian(result.kurtosis, axis=(1, 2)), participation=result.participation.mean(axis=-1),
            largest=result.spectrum[..., 0].mean(axis=-1), parameters=result.parameters,
        )
    }  # fmt: skip


LARGE = Shape(
    draws=32, replicas=Share(over=8, least=64), steps=2000, examples=1000, batches=4000, coordinates=200
)  # fmt: skip
NORMALITY = Experiment("normality", small=Shape(), large=LARGE, run=run, estimates=estimates, tables=tables)

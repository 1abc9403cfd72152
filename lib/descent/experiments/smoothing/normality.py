"""Whether the noise of a network's batches is normal, and whether it points everywhere alike."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import repeat, sgd
from descent.engine.stack import leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, in_parts, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.tasks import task
from descent.measure.noise import example_gradients, flat
from descent.measure.normality import noise_draws, normality
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised
from descent.stats.intervals import mean

MOMENTS = ("initial", "trained")


@dataclass(frozen=True)
class Shape:
    """A two-layer net on digits, plain descent; the noise of `draws` batches at fixed parameters, before and after.

    `coordinates` random ones are tested per network; the spectrum is that of the covariance over all examples.
    """

    replicas: int
    seed: int
    device: str
    lr: float = 0.03
    batch_size: int = 16
    steps: int = 600
    examples: int = 250
    hidden: int = 32
    draws: int = 1000
    coordinates: int = 64
    level: float = 0.01  # false discovery rate

    @classmethod
    def cpu(cls, settings: Settings) -> Shape:
        """Train a few dozen nets."""
        return cls(max(32, settings.replicas // 30), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Shape:
        """Train some hundred nets on a thousand digits; draw four thousand batches in 200 coordinates."""
        return cls(
            max(64, settings.replicas // 8),
            settings.seed,
            settings.device,
            steps=2000,
            examples=1000,
            draws=4000,
            coordinates=200,
        )


@dataclass(frozen=True, eq=False)
class ShapeResult:
    """Before and after training: rejected (2, N), kurtosis (2, N, K), spectrum (2, N, n), falling, as shares of C².

    sample (2, draws): the coordinate of the first network whose kurtosis is the median, standardised, rising.
    parameters: how many directions there are.
    """

    config: Shape
    title: str
    rejected: Array
    kurtosis: Array
    spectrum: Array
    sample: Array
    parameters: int
    seconds: float

    @property
    def participation(self) -> Array:
        """How many directions share the noise, (tr C)²/tr C², (2, N)."""
        return np.asarray(1 / (self.spectrum**2).sum(axis=-1))


def run(config: Shape) -> ShapeResult:
    """Look at the noise, train, look again."""
    clock = time.perf_counter()
    images = task("digits", 0.0, config.device, config.examples)
    model = MLP((images.inputs.shape[1], config.hidden, 10))
    problem = images.problem(model, config.batch_size, "with_replacement")
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    start = model.initial(streams)
    end = train(problem, start, repeat(sgd(config.lr), config.replicas).to(config.device), config.steps, streams)
    looks = [_look(config, problem, params) for params in (start, end.params)]
    found = {name: np.stack([look[name] for look in looks]) for name in looks[0]}
    return ShapeResult(
        config, images.title, **found, parameters=flat(start).shape[1], seconds=time.perf_counter() - clock
    )


def _look(config: Shape, problem: Supervised, params: Params) -> dict[str, Array]:
    """Test the coordinates and take the spectrum at fixed parameters; from batches never trained on."""
    fresh = Streams(replica_seeds(config.seed + 1, config.replicas, config.device))
    shown: list[Array] = []

    def test(rows: slice) -> Tensor:
        some = {name: leaf[rows] for name, leaf in leaves(params).items()}
        samples = noise_draws(problem, some, fresh.subset(rows), config.draws, config.coordinates)
        tested = normality(samples)
        if not shown:
            shown.append(_typical(samples[0], tested.kurtosis[0]))
        return torch.from_numpy(np.column_stack([tested.rejected(config.level), tested.kurtosis]))

    found = to_numpy(in_parts(test, config.replicas, 8 * 8 * config.draws * config.coordinates))
    return {
        "rejected": found[:, 0],
        "kurtosis": found[:, 1:],
        "spectrum": _spectrum(problem, params),
        "sample": shown[0],
    }


def _typical(samples: Tensor, kurtosis: Array) -> Array:
    """Return the coordinate of samples (draws, K) whose kurtosis is the median, standardised, rising."""
    typical = int(np.argsort(kurtosis)[np.isfinite(kurtosis).sum() // 2])  # NaN, a coordinate without noise, sorts last
    chosen = np.sort(to_numpy(samples[:, typical]))
    return np.asarray((chosen - chosen.mean()) / chosen.std())


def _spectrum(problem: Supervised, params: Params) -> Array:
    """Return the eigenvalues of the covariance of the examples' gradients over their sum, falling, (N, n)."""
    named, found = leaves(params), []
    for replica in range(len(next(iter(named.values())))):
        one = {name: leaf[replica : replica + 1] for name, leaf in named.items()}
        gradients = example_gradients(problem, one)[0].double()
        centred = gradients - gradients.mean(dim=0)
        values = torch.linalg.eigvalsh(centred @ centred.T).flip(0).clamp_min(0.0)
        found.append(to_numpy(values / values.sum()))
    return np.stack(found)


def estimates(result: ShapeResult) -> Estimates:
    """Return what the trained nets say about P1-C19."""
    return {
        "P1-C19.normal": mean(result.rejected[1]),
        "P1-C19.isotropic": mean(result.participation[1] / result.parameters),
    }


def tables(result: ShapeResult) -> dict[str, DataFrame]:
    """Return one row before and one after training."""
    kurtosis = np.nanmedian(result.kurtosis, axis=(1, 2))
    rows = [
        {
            "moment": moment,
            "rejected": result.rejected[i].mean(),
            "kurtosis": kurtosis[i],
            "participation": result.participation[i].mean(),
            "largest": result.spectrum[i, :, 0].mean(),
            "parameters": result.parameters,
        }
        for i, moment in enumerate(MOMENTS)
    ]
    return {"normality": DataFrame(rows)}


NORMALITY = Experiment("normality", ("P1-C19",), lambda settings: run(configure(Shape, settings)), estimates, tables)

"""Where SGD stays: the minima that trained networks end at, against the bound on ‖G‖_F and the exact edge."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.data.images import centred, load
from descent.engine.probes import Leaves
from descent.engine.rules import Factors, Schedule, repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.gram import gram
from descent.measure.stability import threshold
from descent.nets.dense import MLP, SquaredError
from descent.nets.supervised import Supervised
from descent.stats.intervals import exact, mean


@dataclass(frozen=True)
class Kept:
    """Tanh nets from sharp initial weights on odd and even digits; the rate rises over `warm` steps.

    arms: (lr, batch size). Who has a loss above `fitted` at the end has found no minimum and says nothing.
    """

    replicas: int
    seed: int
    device: str
    sizes: tuple[int, ...] = (64, 32, 1)
    images: int = 64
    arms: tuple[tuple[float, int], ...] = ((0.05, 1), (0.1, 4), (0.2, 4), (0.2, 16), (0.4, 16))
    spread: float = 1.5  # initial weights, as a multiple of the usual ones
    warm: int = 500
    steps: int = 4000
    fitted: float = 1e-4

    @classmethod
    def cpu(cls, settings: Settings) -> Kept:
        """Train a few dozen nets per arm."""
        return cls(max(32, min(settings.replicas // 30, 48)), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Kept:
        """Train wider nets on more digits for longer."""
        return cls(
            max(64, settings.replicas // 10),
            settings.seed,
            settings.device,
            sizes=(64, 64, 1),
            images=256,
            steps=40_000,
        )


@dataclass(frozen=True, eq=False)
class KeptResult:
    """Per arm and net (A, N): lr·‖G‖_F·√p, lr over its exact edge, lr·λ₁/2; not a number where no minimum was found."""

    config: Kept
    frobenius: Array
    edge: Array
    descent: Array
    seconds: float


def run(config: Kept) -> KeptResult:
    """Train every arm and measure where it ends."""
    clock = time.perf_counter()
    parts = [_arm(config, lr, batch_size) for lr, batch_size in config.arms]
    frobenius, edge, descent = (np.array(values) for values in zip(*parts, strict=True))
    return KeptResult(config, frobenius, edge, descent, time.perf_counter() - clock)


def _arm(config: Kept, lr: float, batch_size: int) -> tuple[Array, Array, Array]:
    data = load("digits").take(config.images)
    inputs = centred(data.images).to(config.device)
    targets = (2.0 * (data.labels % 2) - 1).unsqueeze(1).to(config.device)
    problem = Supervised(MLP(config.sizes, "tanh"), SquaredError(), inputs, targets, batch_size)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    start = {name: config.spread * leaf for name, leaf in problem.model.initial(streams).items()}
    hyper = repeat(sgd(lr), config.replicas).to(config.device)
    done = train(problem, start, hyper, config.steps, streams, schedule=warmed(config.warm), limit=1e3)
    params = cast(Leaves, done.params)
    fitted = (problem.value(params) < config.fitted) & (done.diverged_at < 0)
    kernel = gram(problem.model, params, inputs).double()
    kernel = torch.where(fitted[:, None, None], kernel, torch.eye(len(inputs)).to(kernel))
    size, largest = kernel.square().mean((-2, -1)).sqrt(), torch.linalg.eigvalsh(kernel)[:, -1] / len(inputs)
    values = lr * size / batch_size**0.5, lr / threshold(kernel, batch_size), lr * largest / 2
    return cast(tuple[Array, Array, Array], tuple(to_numpy(v.masked_fill(~fitted, torch.nan)) for v in values))


def warmed(steps: int) -> Schedule:
    """Return the schedule that rises in ten equal stages: the engine prepares a rate once and keeps it."""
    stages = [Factors(lr=(stage + 1) / 10) for stage in range(10)]
    return lambda step: stages[min(9, 10 * step // steps)]


def estimates(result: KeptResult) -> Estimates:
    """Return what the minima say about P5-W1."""
    edge, descent = result.edge[-1], result.descent[result.config.arms.index((0.2, 4))]
    return {
        "P5-W1.networks": exact(float(np.nanmax(result.frobenius))),
        "P5-X6.edge": mean(edge[np.isfinite(edge)]),
        "P5-X6.descent": mean(descent[np.isfinite(descent)]),
    }


def tables(result: KeptResult) -> dict[str, DataFrame]:
    """Return largest and mean values, one row per arm."""
    rows = [
        {
            "lr": lr,
            "batch_size": b,
            "minima": int(np.isfinite(f).sum()),
            "of": len(f),
            "frobenius": np.nanmean(f),
            "largest": np.nanmax(f),
            "edge": np.nanmean(e),
            "largest_edge": np.nanmax(e),
            "descent": np.nanmean(d),
        }
        for (lr, b), f, e, d in zip(result.config.arms, result.frobenius, result.edge, result.descent, strict=True)
        if np.isfinite(f).any()
    ]
    return {"kept": DataFrame(rows)}


KEPT = Experiment("kept", ("P5-W1", "P5-X6"), lambda settings: run(configure(Kept, settings)), estimates, tables)

"""Is it the noise? Batches of every size, isotropic noise in momentum's place, and the batch size at one λ."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.streams import Streams
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Task, arms_hyper, compete
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import Patches
from descent.stats.intervals import paired_difference


@dataclass(frozen=True)
class Noise:
    """Arms of every batch size with and without momentum; plain descent with isotropic noise; then arms of fixed λ.

    half: the λ at which momentum's benefit is half; gentle: the momentum of those arms; sample: the batch whose
    search-direction noise is replaced, and that of the arms around `half`.
    """

    task: Task
    momentum: float
    lr: float = 1.0
    batch_sizes: tuple[int | None, ...] = (5, 10, 20, 50, None)
    sample: int = 10
    watch: int = 200  # steps over which the noise of the search direction is averaged
    half: float = 3.2
    gentle: float = 0.8
    steps: int = 800
    patience: float = 900.0  # steps allowed times learning rate

    @classmethod
    def cpu(cls, settings: Settings) -> Noise:
        """Take a few dozen seeds."""
        return cls(Task.cpu(settings, 32), settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Noise:
        """Take the large task, batches ten times as large."""
        return cls(
            Task.paper(settings),
            settings.momentum,
            batch_sizes=(50, 100, 200, 500, None),
            sample=100,
            steps=4000,
            patience=4000.0,
        )

    @property
    def around(self) -> tuple[tuple[float, int | None], ...]:
        """Learning rate and batch size of the arms around the half-value: a third of it, itself twice, three times."""
        lr = self.half * (1 - self.gentle)
        return (lr / 3, self.sample), (lr, self.sample), (lr, None), (3 * lr, self.sample)


@dataclass(frozen=True, eq=False)
class NoiseResult:
    """Small-margin errors at equal loss.

    by_batch (2, B, S): plain and momentum; replaced (2, S): without and with isotropic noise of deviation `size` per
    coordinate; around (4, S).
    """

    config: Noise
    by_batch: Array
    replaced: Array
    size: float
    around: Array
    seconds: float


def run(config: Noise) -> NoiseResult:
    """Race all arms."""
    clock = time.perf_counter()
    task, count = config.task, len(config.batch_sizes)
    data = task.data()
    momenta = [0.0] * count + [config.momentum] * count
    problem = Patches(data, 2 * count, batch_sizes=config.batch_sizes * 2)
    (stand,), _ = compete(task, problem, arms_hyper([config.lr] * 2 * count, momenta, task), config.steps, (EQUAL,))
    size = _search_noise(config)
    noisy = Patches(data, 2, isotropic=(0.0, size))
    (replaced,), _ = compete(task, noisy, arms_hyper([config.lr] * 2, [0.0] * 2, task), config.steps, (EQUAL,))
    slow, *others = config.around  # the slowest arm runs alone: none waits for it
    around = np.concatenate([_around(config, arms) for arms in ((slow,), tuple(others))])
    return NoiseResult(
        config, stand.err2.reshape(2, count, -1), replaced.err2, size, around, time.perf_counter() - clock
    )


def _around(config: Noise, arms: tuple[tuple[float, int | None], ...]) -> Array:
    """Return the small-margin errors of arms (learning rate, batch size) of the gentle momentum, (A, S)."""
    lrs, batches = zip(*arms, strict=True)
    problem = Patches(config.task.data(), len(lrs), batch_sizes=batches)
    hyper = arms_hyper(lrs, [config.gentle] * len(lrs), config.task)
    (found,), _ = compete(config.task, problem, hyper, int(config.patience / min(lrs)), (EQUAL,))
    return found.err2


def _search_noise(config: Noise) -> float:
    """Return the root mean square of m − ∇L per coordinate along momentum's run with small batches."""
    task = config.task
    problem, whole = Patches(task.data(), 1, batch_sizes=(config.sample,)), Patches(task.data(), 1)
    streams = Streams(task.streams.seeds)
    done = train(
        problem,
        task.start(1),
        arms_hyper([config.lr], [config.momentum], task),
        config.watch,
        streams,
        probes={"power": _Search(problem, whole, streams, config.momentum)},
        limit=1e4,
    )
    coordinates = task.neurons * task.dimension
    return float(np.sqrt(np.mean(to_numpy(done.records["power"].values)) / coordinates))


@dataclass(frozen=True, eq=False)
class _Search:
    """The probe of ‖m − ∇L‖², m the direction about to be taken, (rows,)."""

    problem: Patches
    whole: Patches
    streams: Streams
    momentum: float
    every: int = 5

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        """Return the squared distance."""
        fresh, exact = self.problem.gradient(params, self.streams, step), self.whole.gradient_of(params)
        total: Tensor = torch.zeros(())
        for name, leaf in exact.items():
            ahead = self.momentum * velocity[name] + (1 - self.momentum) * fresh[name]  # type: ignore[index]
            total = total + (ahead - leaf).flatten(1).square().sum(1)
        return total


def estimates(result: NoiseResult) -> Estimates:
    """Return what noise does, for P4-C3, N1 and N2."""
    plain, momentum = result.by_batch
    gaps = [paired_difference(p, m) for p, m in zip(plain, momentum, strict=True)]
    changes = [paired_difference(p, plain[-1]) for p in plain[:-1]]
    third, same, full, thrice = result.around
    return {
        "P4-C3.gap": min(gaps, key=lambda gap: gap.value),
        "P4-C3.noise": max(changes, key=lambda change: abs(change.value)),
        "P4-N1.gain": paired_difference(result.replaced[0], result.replaced[1]),
        "P4-N2.batch": paired_difference(same, full),
        "P4-N2.lambda": paired_difference(third, thrice),
    }


def tables(result: NoiseResult) -> dict[str, DataFrame]:
    """Return mean errors of all arms."""
    config = result.config
    names = [str(size or "full") for size in config.batch_sizes]
    batches = DataFrame(
        {"batch_size": names, "plain": result.by_batch[0].mean(axis=1), "momentum": result.by_batch[1].mean(axis=1)}
    )
    rows = [
        {"arm": "plain", "err2": result.replaced[0].mean()},
        {"arm": "plain, isotropic noise", "err2": result.replaced[1].mean()},
    ]
    rows += [
        {"arm": f"lr {lr:.3g}, momentum {config.gentle:g}, batch {b or 'full'}", "err2": found.mean()}
        for (lr, b), found in zip(config.around, result.around, strict=True)
    ]
    return {"noise": batches, "noise_arms": concat([DataFrame(rows)], ignore_index=True)}


NOISE = Experiment(
    "noise", ("P4-C3", "P4-N1", "P4-N2"), lambda settings: run(configure(Noise, settings)), estimates, tables
)

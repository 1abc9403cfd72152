"""Which combination of learning rate and batch size decides how sharp a minimum is: arms along which one stays put."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import Hyper, ema, repeat, sgd
from descent.engine.stack import leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.tasks import Task, survivors, task
from descent.measure.traces import gauss_newton_trace
from descent.nets.dense import MLP
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, paired_difference

BASE, TEMPERATURE, DEGREE, AVERAGED = range(4)
"""The first arms: (η, B); (4η, 4B) of equal η/B; (4η, 16B) of equal η/√B; (η, B) averaged. Then equal η, rising B."""


@dataclass(frozen=True)
class Iso:
    """Nets on digits, labels partly redrawn, independent batches, all for one learning rate × steps, `flow`."""

    replicas: int
    seed: int
    device: str
    momentum: float
    lr: float = 0.04
    batch_size: int = 4
    flow: float = 50.0
    factor: int = 4
    larger: tuple[int, ...] = (4, 8, 16)  # times the batch size, at the learning rate of the base
    looks: tuple[float, ...] = (0.9, 0.95, 1.0)  # parts of the run at which the sharpness is taken
    hidden: int = 32
    redrawn: float = 0.2

    @classmethod
    def cpu(cls, settings: Settings) -> Iso:
        """Train some fifty nets per arm."""
        return cls(max(32, settings.replicas // 20), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Iso:
        """Train some hundred nets per arm, batches up to 256."""
        return cls(
            max(64, settings.replicas // 4),
            settings.seed,
            settings.device,
            settings.momentum,
            larger=(2, 4, 8, 16, 64),
            looks=(0.9, 0.925, 0.95, 0.975, 1.0),
        )

    @property
    def arms(self) -> tuple[tuple[str, float, int], ...]:
        """Name, learning rate and batch size of every arm."""
        f, lr, size = self.factor, self.lr, self.batch_size
        first = (
            ("base", lr, size),
            ("equal lr / batch size", f * lr, f * size),
            ("equal lr / √(batch size)", f * lr, f * f * size),
            ("averaged", lr, size),
        )
        return first + tuple(("equal lr", lr, size * times) for times in self.larger)


@dataclass(frozen=True, eq=False)
class IsoResult:
    """Per arm, (A, N): log trace of the Gauss–Newton matrix, test accuracy in percent, loss on the labels as they are.

    The log trace is the mean of a few looks near the end, between which it fluctuates. A seed that diverged in some
    arm is dropped from all.
    """

    config: Iso
    sharpness: Array
    accuracy: Array
    loss: Array
    seconds: float

    @property
    def shifts(self) -> list[Estimate]:
        """Log trace of every arm but the base, minus that of the base."""
        return [paired_difference(arm, self.sharpness[BASE]) for arm in self.sharpness[1:]]


def run(config: Iso) -> IsoResult:
    """Train every arm."""
    clock = time.perf_counter()
    images = task("digits", config.redrawn, config.device)
    runs = []
    for arm, (_, lr, size) in enumerate(config.arms):
        rule = ema(lr, config.momentum) if arm == AVERAGED else sgd(lr)
        runs.append(_train(config, images, repeat(rule, config.replicas).to(config.device), size))
    sharpness, accuracy, loss, lost = np.stack(runs, axis=1)
    alive = survivors(lost > 0)
    return IsoResult(config, sharpness[:, alive], accuracy[:, alive], loss[:, alive], time.perf_counter() - clock)


def _train(config: Iso, images: Task, hyper: Hyper, size: int) -> Array:
    """Return log trace, accuracy, loss and who diverged, (4, N), of one arm."""
    model = MLP((images.inputs.shape[1], config.hidden, 10))
    problem = images.problem(model, size, "with_replacement")
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    steps = [round(config.flow / float(hyper.lr[0]) * part) for part in config.looks]
    params: Params = model.initial(streams)
    velocity, lost, traces = None, torch.zeros(config.replicas, dtype=torch.bool, device=config.device), []
    for begin, end in pairwise([0, *steps]):
        done = train(problem, params, hyper, end, streams, velocity=velocity, begin=begin)
        params, velocity, lost = done.params, done.velocity, lost | (done.diverged_at >= 0)
        traces.append(gauss_newton_trace(problem, leaves(params)).log())
    found = (torch.stack(traces).mean(dim=0), images.accuracy(model, params), problem.value(params), lost)
    return np.stack([to_numpy(value) for value in found])


def estimates(result: IsoResult) -> Estimates:
    """Return what the arms say about P1-C17, P1-C21 and P1-X6."""
    shifts = result.shifts
    found = {
        "P1-C17.matched": middle_gain(result),
        "P1-C21.iso_delta": shifts[DEGREE - 1],
        "P1-X6.iso_temperature": shifts[TEMPERATURE - 1],
        "P1-X6.batch": shifts[-1],
    }
    return found if result.config.momentum == 0 else {**found, "P1-X6.nshb": shifts[AVERAGED - 1]}


def middle_gain(result: IsoResult) -> Estimate:
    """Return the accuracy of the best batch size between the ends minus the better end, equal learning rate × steps."""
    rising = np.stack([result.accuracy[BASE], *result.accuracy[AVERAGED + 1 :]])
    means = rising.mean(axis=1)
    end = max((0, -1), key=lambda index: float(means[index]))
    return paired_difference(rising[1 + int(means[1:-1].argmax())], rising[end])


def tables(result: IsoResult) -> dict[str, DataFrame]:
    """Return one row per arm; shifts and gains are over the base."""
    base, rows = result.accuracy[BASE], []
    for arm, (name, lr, size) in enumerate(result.config.arms):
        shift, gain = (paired_difference(x[arm], x[BASE]) for x in (result.sharpness, result.accuracy))
        rows.append(
            {
                "arm": name,
                "lr": lr,
                "batch_size": size,
                "log_trace": mean(result.sharpness[arm]).value,
                "shift": shift.value,
                "shift_low": shift.low,
                "shift_high": shift.high,
                "accuracy": float(base.mean()) + gain.value,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "loss": float(result.loss[arm].mean()),
            }
        )
    return {"iso": DataFrame(rows)}


ISO = Experiment(
    "iso", ("P1-C17", "P1-C21", "P1-X6"), lambda settings: run(configure(Iso, settings)), estimates, tables
)

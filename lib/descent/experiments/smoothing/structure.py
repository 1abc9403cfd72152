"""Level or structure: descent with the noise of its batches, with shapeless noise of equal power, and without noise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.rules import repeat, sgd
from descent.engine.stack import leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Objective, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.isotropic import Isotropic
from descent.experiments.smoothing.tasks import Task, survivors, task
from descent.measure.traces import gauss_newton_trace
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised
from descent.stats.intervals import mean, paired_difference

NAMES = ("batch noise", "isotropic noise", "no noise")
BATCH, ISOTROPIC, NONE = range(3)


@dataclass(frozen=True)
class Structure:
    """A two-layer net on digits, labels partly redrawn: equal learning rate, steps and noise power."""

    replicas: int
    seed: int
    device: str
    examples: int = 500
    lr: float = 0.1
    batch_size: int = 8
    steps: int = 500
    hidden: int = 32
    redrawn: float = 0.2

    @classmethod
    def cpu(cls, settings: Settings) -> Structure:
        """Train a few dozen nets per arm on half of the images."""
        return cls(max(32, settings.replicas // 30), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Structure:
        """Train some hundred nets per arm on all images, for longer."""
        return cls(max(64, settings.replicas // 4), settings.seed, settings.device, examples=1000, steps=1500)


@dataclass(frozen=True, eq=False)
class StructureResult:
    """Per arm, (3, N): log trace of the Gauss–Newton matrix, test accuracy in percent, loss on the labels as they are.

    A seed that diverged in some arm is dropped from all.
    """

    config: Structure
    sharpness: Array
    accuracy: Array
    loss: Array
    seconds: float


def run(config: Structure) -> StructureResult:
    """Train the three arms on the same initial weights."""
    clock = time.perf_counter()
    images = task("digits", config.redrawn, config.device, config.examples)
    model = MLP((images.inputs.shape[1], config.hidden, 10))
    full = images.problem(model, None, "full")
    batches = images.problem(model, config.batch_size, "with_replacement")
    arms: tuple[Objective, ...] = (batches, Isotropic(full, config.batch_size), full)
    runs = [_train(config, images, full, model, arm) for arm in arms]
    sharpness, accuracy, loss, lost = np.stack(runs, axis=1)
    alive = survivors(lost > 0)
    return StructureResult(config, sharpness[:, alive], accuracy[:, alive], loss[:, alive], time.perf_counter() - clock)


def _train(config: Structure, images: Task, full: Supervised, model: MLP, objective: Objective) -> Array:
    """Return log trace, accuracy, loss and who diverged, (4, N), of one arm."""
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    hyper = repeat(sgd(config.lr), config.replicas).to(config.device)
    done = train(objective, model.initial(streams), hyper, config.steps, streams)
    trace = gauss_newton_trace(full, leaves(done.params))
    found = (trace.log(), images.accuracy(model, done.params), full.value(done.params), done.diverged_at >= 0)
    return np.stack([to_numpy(value) for value in found])


def estimates(result: StructureResult) -> Estimates:
    """Return what the arms say about P1-X5."""
    return {"P1-X5.sharpness": paired_difference(result.sharpness[BATCH], result.sharpness[ISOTROPIC])}


def tables(result: StructureResult) -> dict[str, DataFrame]:
    """Return one row per arm; shifts are over the arm without noise."""
    rows: list[dict[str, float | str]] = []
    for arm, name in enumerate(NAMES):
        shift, gain = (paired_difference(x[arm], x[NONE]) for x in (result.sharpness, result.accuracy))
        rows.append(
            {
                "arm": name,
                "log_trace": mean(result.sharpness[arm]).value,
                "shift": shift.value,
                "shift_low": shift.low,
                "shift_high": shift.high,
                "accuracy": float(result.accuracy[arm].mean()),
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "loss": float(result.loss[arm].mean()),
            }
        )
    return {"structure": DataFrame(rows)}


STRUCTURE = Experiment("structure", ("P1-X5",), lambda settings: run(configure(Structure, settings)), estimates, tables)

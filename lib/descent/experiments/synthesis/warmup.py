"""The first steps of an average of gradients: its lag, and what correcting the bias of the empty buffer gives back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pandas import DataFrame

from descent.arrays import Array
from descent.engine.probes import every
from descent.engine.rules import Factors, Schedule, constant, ema, per_arm, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, rows_of, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.synthesis.task import Task
from descent.stats.estimate import Estimate
from descent.stats.intervals import paired_difference

ARMS = ("plain", "average", "corrected", "strong average", "strong corrected")


@dataclass(frozen=True)
class Warmup:
    """Digits, plain SGD against averages at the same effective step, with and without bias correction."""

    replicas: int
    seed: int
    device: str
    lr: float = 0.1
    batch: int = 128
    momenta: tuple[float, float] = (0.9, 0.99)
    budgets: tuple[int, ...] = (20, 40, 80, 160)

    @classmethod
    def cpu(cls, settings: Settings) -> Warmup:
        """Take some 160 nets."""
        return cls(max(32, settings.replicas // 6), settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Warmup:
        """Take six times the nets."""
        return cls(settings.replicas, settings.seed, settings.device, budgets=(10, 20, 40, 80, 160, 320, 640))


@dataclass(frozen=True, eq=False)
class WarmupResult:
    """Test accuracy in per cent by budget, arm and net, (T, A, N)."""

    config: Warmup
    accuracy: Array
    seconds: float

    def gain(self, arm: str, budget: int) -> Estimate:
        """Return the accuracy of an arm less plain SGD's after some steps."""
        row = self.accuracy[self.config.budgets.index(budget)]
        return paired_difference(row[ARMS.index(arm)], row[0])


def corrected(momentum: float) -> Schedule:
    """Return the schedule of Adam's bias correction: the buffer over 1 − momentum^t."""
    return lambda step: Factors(lr=1 / (1 - momentum ** (step + 1)))


def run(config: Warmup) -> WarmupResult:
    """Train all arms on the same batches, and look at every budget."""
    clock = time.perf_counter()
    task = Task.of(config.seed, 0, config.device, flips=0.1)
    one, two = config.momenta
    momenta = (0.0, one, one, two, two)
    n = config.replicas
    streams = Streams(replica_seeds(config.seed, n, config.device).repeat(len(momenta)))
    hyper = repeat(ema(config.lr, list(momenta)), n).to(config.device)
    schedule = per_arm(constant(), constant(), corrected(one), constant(), corrected(two), replicas=n)
    looks = every(min(config.budgets), task.accuracy)
    done = train(
        task.objective(config.batch),
        task.start(streams),
        hyper,
        max(config.budgets),
        streams,
        schedule=schedule,
        probes={"accuracy": looks},
    )
    series = done.records["accuracy"]
    places = [series.steps.tolist().index(budget) for budget in config.budgets]
    accuracy = to_numpy(series.values)[places].reshape(len(places), len(momenta), n)
    return WarmupResult(config, accuracy, time.perf_counter() - clock)


def estimates(result: WarmupResult) -> Estimates:
    """Return what short budgets say about S-17."""
    return {
        "S-17.deficit": result.gain("average", 20),
        "S-17.strong_deficit": result.gain("strong average", 20),
        "S-17.corrected": result.gain("corrected", 20),
        "S-17.strong_corrected": result.gain("strong corrected", 20),
    }


def tables(result: WarmupResult) -> dict[str, DataFrame]:
    """Return the accuracy gained over plain SGD by arm and budget."""
    pairs = [(arm, budget) for arm in ARMS[1:] for budget in result.config.budgets]
    columns = rows_of([result.gain(arm, budget) for arm, budget in pairs])
    return {"warmup": DataFrame(pairs, columns=["arm", "steps"]).assign(**columns)}


WARMUP = Experiment("warmup", ("S-17",), lambda settings: run(configure(Warmup, settings)), estimates, tables)

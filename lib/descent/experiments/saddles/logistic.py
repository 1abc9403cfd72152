"""A noise floor on real data: logistic regression started at its exact minimum, with no free parameter left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from scipy.stats import sem

from descent.data import images
from descent.engine.train import every, train
from descent.experiments.arms import Arms, Array, configure, survivors, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.problems.networks import Logistic, Minimum
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, ratio_of_means

PLAIN, HALF, HEAD, MATCHED = range(4)


@dataclass(frozen=True)
class LogisticFloor:
    """Four arms around one minimum; losses after `discard` steps count, looked at every `every` steps."""

    data: str
    examples: int | None  # of the data set; None takes all
    decay: float
    batch_size: int
    lr: float
    momentum: float
    steps: int
    discard: int
    every: int
    replicas: int
    seed: int
    device: str

    @classmethod
    def cpu(cls, settings: Settings) -> LogisticFloor:
        """Return all digits; the slowest mode of the slowest arm forgets its start in a thousand steps."""
        return cls(
            "digits",
            None,
            0.1,
            32,
            0.005,
            settings.momentum,
            7000,
            3000,
            25,
            min(settings.replicas, 32),
            settings.seed,
            settings.device,
        )

    @classmethod
    def paper(cls, settings: Settings) -> LogisticFloor:
        """Return MNIST at full resolution and ten times the steps; a smaller rate for its larger inputs."""
        return cls(
            "mnist",
            20_000,
            0.1,
            32,
            0.0005,
            settings.momentum,
            70_000,
            30_000,
            250,
            min(settings.replicas, 64),
            settings.seed,
            settings.device,
        )

    @property
    def arms(self) -> Arms:
        """Plain, momentum one half, the headline momentum, and plain with the matched step; shared batches."""
        lr = (self.lr, self.lr, self.lr, self.lr / (1 - self.momentum))
        return Arms(lr, (0.0, 0.5, self.momentum, 0.0), self.replicas, self.seed, self.device)


@dataclass(frozen=True, eq=False)
class LogisticResult:
    """Stationary excess losses (A, N), their prediction (A,), and the mean over replicas (A, T) at steps (T,).

    A replica that diverged in any arm is dropped from all.
    """

    config: LogisticFloor
    excess: Array
    predicted: Array
    path: Array
    steps: Array
    minimum: Minimum
    seconds: float


def run(config: LogisticFloor) -> LogisticResult:
    """Release every arm at the minimum and watch the loss rise to its floor."""
    inputs, labels = images.examples(config.data, config.examples, config.device)
    problem = Logistic(inputs, labels, 10, config.decay, config.batch_size)
    minimum, arms = problem.minimum, config.arms
    start = minimum.params.to(inputs).repeat(arms.rows, 1, 1)
    probe = every(config.every, lambda weights: problem.loss(weights) - minimum.loss)
    done = train(problem, start, arms.hyper, config.steps, arms.streams(), probes={"excess": probe})
    series = arms.split_series(done.records["excess"])[:, survivors(arms, done)]
    steps = to_numpy(done.records["excess"].steps)
    return LogisticResult(
        config=config,
        excess=series[:, :, steps >= config.discard].mean(2),
        predicted=minimum.excess_loss(np.array(arms.lr), np.array(arms.momentum), config.batch_size),
        path=series.mean(1),
        steps=steps,
        minimum=minimum,
        seconds=done.seconds,
    )


def estimates(result: LogisticResult) -> Estimates:
    """Return what logistic regression says about P3-C2 and P3-C11."""
    excess = result.excess
    found: dict[str, Estimate | list[Estimate]] = {"P3-C11.logistic": floors(result)[HEAD]}
    if result.config.momentum > 0:
        found["P3-C2.logistic"] = ratio_of_means(excess[HEAD], excess[PLAIN], result.config.seed)
    return found


def floors(result: LogisticResult) -> list[Estimate]:
    """Return each arm's stationary excess loss over its prediction."""
    return [mean(ratio) for ratio in result.excess / result.predicted[:, None]]


def tables(result: LogisticResult) -> dict[str, DataFrame]:
    """Return one row per arm."""
    arms = result.config.arms
    ratios = floors(result)
    frame = DataFrame(
        {
            "lr": arms.lr,
            "momentum": arms.momentum,
            "excess_loss": result.excess.mean(1),
            "standard_error": sem(result.excess, axis=1),
            "replicas": result.excess.shape[1],
            "predicted": result.predicted,
            "ratio": [e.value for e in ratios],
            "low": [e.low for e in ratios],
            "high": [e.high for e in ratios],
            "over_plain": result.excess.mean(1) / result.excess[PLAIN].mean(),
        }
    )
    return {"logistic": frame}


LOGISTIC = Experiment(
    "logistic", ("P3-C2", "P3-C11"), lambda settings: run(configure(LogisticFloor, settings)), estimates, tables
)

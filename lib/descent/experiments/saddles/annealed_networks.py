"""Late fluctuation of a trained net's loss: with fresh label noise, where noise lasts, and with clean labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from pandas import DataFrame

from descent.data import images
from descent.engine.rules import Schedule, constant, drop, per_arm
from descent.engine.train import Run, every, train
from descent.experiments.arms import Arms, Array, configure, survivors, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.nets.dense import MLP, CrossEntropy
from descent.problems.networks import FreshLabelNoise
from descent.stats.estimate import Estimate
from descent.stats.intervals import ratio_of_means

NAMES = ("plain", "momentum", "plain, matched step", "step annealed")
PLAIN, HEAD, MATCHED, ANNEALED = range(4)
CLEAN, NOISY = range(2)


@dataclass(frozen=True)
class LateLoss:
    """A net on labels of which a fresh share is replaced at every step; the last `tail` steps count."""

    data: str
    examples: int | None
    hidden: int
    batch_size: int
    shares: tuple[float, float]  # of labels replaced: clean, noisy
    lr: float
    momentum: float
    steps: int
    switch: int  # where the annealed arm's step is cut
    tail: int
    every: int
    replicas: int
    seed: int
    device: str

    @classmethod
    def cpu(cls, settings: Settings) -> LateLoss:
        """Return the digits, 16 hidden units, some 70 epochs."""
        return cls(
            "digits",
            None,
            16,
            32,
            (0.0, 0.2),
            0.05,
            settings.momentum,
            4000,
            2000,
            1000,
            25,
            min(settings.replicas, 32),
            settings.seed,
            settings.device,
        )

    @classmethod
    def paper(cls, settings: Settings) -> LateLoss:
        """Return MNIST at full resolution, 256 hidden units."""
        return cls(
            "mnist",
            20_000,
            256,
            32,
            (0.0, 0.2),
            0.005,
            settings.momentum,
            80_000,
            40_000,
            20_000,
            400,
            min(settings.replicas, 64),
            settings.seed,
            settings.device,
        )

    @property
    def arms(self) -> Arms:
        """The arms of NAMES, on the same weights, batches and label noise."""
        lr = (self.lr, self.lr, self.lr / (1 - self.momentum), self.lr)
        momentum = (0.0, self.momentum, 0.0, self.momentum)
        return Arms(lr, momentum, self.replicas, self.seed, self.device)

    @property
    def schedule(self) -> Schedule:
        """Cut the step of the annealed arm by 1 − momentum at the switch."""
        cut = drop(self.switch, lr=1 - self.momentum)
        return per_arm(constant(), constant(), constant(), cut, replicas=self.replicas)


@dataclass(frozen=True, eq=False)
class LateLossResult:
    """Axis 0 is clean, noisy labels; losses (2, A, N, T) at steps (T,) are over all examples with clean labels.

    Over the tail: their mean `final`, standard deviation `raw`, and `fluctuation` about a quadratic trend,
    each (2, A, N). A replica that diverged in any arm is dropped from all.
    """

    config: LateLoss
    losses: Array
    steps: Array
    raw: Array
    fluctuation: Array
    final: Array
    seconds: float


def run(config: LateLoss) -> LateLossResult:
    """Train every arm once on clean and once on noisy labels."""
    runs = [_train(config, share) for share in config.shares]
    steps = to_numpy(runs[0].records["loss"].steps)
    arms = config.arms
    alive = np.logical_and.reduce([survivors(arms, run) for run in runs])
    losses = np.stack([arms.split_series(run.records["loss"])[:, alive] for run in runs])
    late = losses[..., steps >= config.steps - config.tail]
    return LateLossResult(
        config=config,
        losses=losses,
        steps=steps,
        raw=late.std(-1, ddof=1),
        fluctuation=fluctuation(late),
        final=late.mean(-1),
        seconds=sum(run.seconds for run in runs),
    )


def _train(config: LateLoss, share: float) -> Run:
    inputs, labels = images.examples(config.data, config.examples, config.device)
    net = MLP((inputs.shape[1], config.hidden, 10), "tanh")
    problem = FreshLabelNoise(net, CrossEntropy(), inputs, labels, config.batch_size, share=share)
    arms = config.arms
    streams = arms.streams()
    probe = {"loss": every(config.every, problem.value)}
    start = net.initial(streams)
    return train(problem, start, arms.hyper, config.steps, streams, probes=probe, schedule=config.schedule)


def fluctuation(values: Array, degree: int = 2) -> Array:
    """Return the standard deviation along the last axis about a polynomial trend.

    The trend is the descent still going on. A straight line is not enough: it misses the decay of a slow arm
    by more than the noise.
    """
    count = values.shape[-1]
    basis, _ = np.linalg.qr(legendre.legvander(np.linspace(-1, 1, count), degree))
    rest = values - values @ basis @ basis.T
    return np.asarray(np.sqrt((rest**2).sum(-1) / (count - degree - 1)))


def estimates(result: LateLossResult) -> Estimates:
    """Return what the late losses say about P3-X4."""
    if result.config.momentum == 0:
        return {}
    return {"P3-X4.clean": ratios(result, CLEAN)[HEAD], "P3-X4.noisy": ratios(result, NOISY)[HEAD]}


def ratios(result: LateLossResult, labels: int) -> list[Estimate]:
    """Return each arm's fluctuation over plain descent's."""
    arms = result.fluctuation[labels]
    return [ratio_of_means(arm, arms[PLAIN], result.config.seed) for arm in arms]


def tables(result: LateLossResult) -> dict[str, DataFrame]:
    """Return one row per label set and arm."""
    return {"late_loss": DataFrame([row for labels in (CLEAN, NOISY) for row in _rows(result, labels)])}


def _rows(result: LateLossResult, labels: int) -> list[dict[str, float | str]]:
    arms, found = result.config.arms, ratios(result, labels)
    return [
        {
            "labels": ("clean", "noisy")[labels],
            "arm": name,
            "lr": arms.lr[a],
            "momentum": arms.momentum[a],
            "loss": float(result.final[labels, a].mean()),
            "fluctuation": float(result.fluctuation[labels, a].mean()),
            "fluctuation_raw": float(result.raw[labels, a].mean()),
            "over_plain": found[a].value,
            "low": found[a].low,
            "high": found[a].high,
        }
        for a, name in enumerate(NAMES)
    ]


ANNEALED_NETWORKS = Experiment(
    "annealed_networks", ("P3-X4",), lambda settings: run(configure(LateLoss, settings)), estimates, tables
)
